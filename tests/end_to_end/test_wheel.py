"""The built wheel: all files of the checkout, the command, and nothing that is imported from elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import disbench
from disbench.io import definitions

if "DISBENCH_EXPECTED_SITE" not in os.environ:
    pytest.skip("only for the wheel: DISBENCH_EXPECTED_SITE is not set", allow_module_level=True)
SITE, CHECKOUT = (Path(os.environ[name]) for name in ("DISBENCH_EXPECTED_SITE", "DISBENCH_CHECKOUT"))
PACKED = {
    "disbench": "disbench",
    **{kind: f"disbench/_definitions/{kind}" for kind in ("sampling", "datasets", "baselines", "reports")},
}


def files(folder: Path) -> dict[str, bytes]:
    """Path below the folder and content of each file that is no trace of a run."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_nothing_is_imported_from_the_checkout() -> None:
    assert disbench.__file__ is not None
    assert Path(disbench.__file__).is_relative_to(SITE)
    assert definitions.folder("sampling").is_relative_to(SITE)


RESULTS = ("leaderboard/", "ablations/", "ambiguity/")
"""No definitions."""


@pytest.mark.parametrize("folder", PACKED)
def test_every_file_of_the_checkout_is_there(folder: str) -> None:
    there = files(SITE / PACKED[folder])
    expected = {
        path: content
        for path, content in files(CHECKOUT / folder).items()
        if not (folder == "reports" and path.startswith(RESULTS))
    }
    assert len(expected) > 2
    assert {path for path in there if not path.startswith("_definitions/")} == set(expected)
    assert all(there[path] == content for path, content in expected.items())


def test_the_command_is_installed(tmp_path: Path) -> None:
    script = next((SITE / "bin").glob("disbench*"))
    done = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"disbench {disbench.__version__}\n"
