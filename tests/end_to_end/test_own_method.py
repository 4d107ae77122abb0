"""The page for newcomers, as it stands there: the file, the commands, the Python."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.commands import disbench
from tests.end_to_end.test_readme import ROOT, blocks, needs_checkout

PAGE = ROOT / "docs" / "own-method.md"


@needs_checkout
def test_the_page_for_newcomers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, with fewer clicks and one process to save time."""
    method, *more = blocks(PAGE, "python")
    (tmp_path / "colour.py").write_text(method)
    commands = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        _, name, *arguments = shlex.split(command)
        fewer = ("--max-clicks", "6", "--workers", "1") if name == "run" else ()
        result = disbench(name, *arguments, *fewer, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    page = (tmp_path / "report" / "report.md").read_text()
    for words in ("NearestColour", "softness=5", "disk"):
        assert words in page
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec("from colour import NearestColour\n" + "\n".join(more), {})


@needs_checkout
def test_the_method_of_the_page_is_short() -> None:
    code = [line for line in blocks(PAGE, "python")[0].splitlines() if line.strip()]
    assert len(code) <= 22
