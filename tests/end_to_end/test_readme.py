"""What the README and the documentation tell to type works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands import printed

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
needs_checkout = pytest.mark.skipif(not README.is_file(), reason="the README is in the checkout, not in the wheel")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@needs_checkout
def test_the_commands_and_the_code_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on the embedded photos are run; those that need a download, or what one gave, are parsed (see below)."""
    commands = [
        line
        for block in blocks(README, "sh")
        for line in block.splitlines()
        if "shards/photos" in line and not re.search("mobilesam|disbench ambiguity", line)
    ]
    assert len(commands) == 2
    for command in commands:
        printed(*shlex.split(command, comments=True)[1:], cwd=tmp_path)
    code = "\n".join([*blocks(README, "python"), *blocks(ROOT / "docs" / "datasets.md", "python")])
    code += "\nassert len(frame) == 8 and item.masks.any() and diverse_set.masks"
    monkeypatch.chdir(tmp_path)
    exec(code, {})


@needs_checkout
def test_every_command_in_the_documents_is_one_of_ours() -> None:
    """Options that a document names exist, also where the command itself needs a download."""
    documents = [README, *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text().replace("\\\n", " ") for path in documents)
    commands = re.findall(r"^disbench (.*)$", text, flags=re.MULTILINE)
    assert len(commands) >= 8
    helps: dict[str, str] = {}
    for command in commands:
        for part in command.split("&& disbench "):
            name, *rest = shlex.split(part, comments=True)
            if name in ("data", "methods", "split", "leaderboard", "import", "clicks"):
                name, rest = f"{name} {rest[0]}", rest[1:]
            if name not in helps:
                helps[name] = printed(*name.split(), "--help")
            for option in (word for word in rest if word.startswith("--")):
                assert re.search(rf"{option}\b", helps[name]), f"disbench {name} has no {option}"


@needs_checkout
def test_links_between_the_documents_lead_somewhere() -> None:
    for path in [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


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
        printed(name, *arguments, *fewer, cwd=tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    for words in ("NearestColour", "softness=5", "disk"):
        assert words in page
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec("from colour import NearestColour\n" + "\n".join(more), {})
