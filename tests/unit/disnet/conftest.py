"""The tiny networks of these tests."""

import pytest

from disbench.disnet.network import Disnet
from tests.unit.disnet_tools import tiny_network


@pytest.fixture(scope="module")
def network() -> Disnet:
    return tiny_network()


@pytest.fixture(scope="module")
def one_stage() -> Disnet:
    return tiny_network(first_click=False)
