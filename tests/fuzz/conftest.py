"""The process that reads for the fuzz tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.dataset_files import write_all
from tests.fuzz.tools import Reader


@pytest.fixture(scope="module")
def read() -> Iterator[Reader]:
    """Reads in another process, and sees that the promise of docs/security.md holds."""
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that every reader accepts."""
    return write_all(tmp_path)
