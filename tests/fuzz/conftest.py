"""The process that reads for the fuzz tests of a file."""

from collections.abc import Iterator

import pytest

from tests.fuzz.tools import Reader, reader_of_a_module


@pytest.fixture(scope="module")
def read() -> Iterator[Reader]:
    """Reads in another process, and sees that the promise of docs/security.md holds."""
    yield from reader_of_a_module()
