"""Imports point one way, folder by folder, without cycles between files; definition folders hold no code."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import disbench
from disbench.io import definitions

PACKAGE = Path(disbench.__file__ or "").parent
FOLDERS = ("core", "io", "workers", "datasets", "shards", "sampling", "baselines", "harness", "reports")
FOLDERS += ("disnet", "demo", "cli")
"""Lowest first: each may import those before it. CONTRIBUTING.md draws the same order."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; of a package, its `__init__.py`."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


@cache
def imported(name: str) -> set[str]:
    """The package's modules that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module in modules()} - {name}


def folder(name: str) -> str:
    return name.split(".")[1]


def test_only_three_files_at_the_top_level() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(FOLDERS)


def test_imports_point_down() -> None:
    for name in (name for name in sorted(modules()) if folder(f"{name}.") in FOLDERS):
        for module in imported(name) - {"disbench"}:
            assert FOLDERS.index(folder(module)) <= FOLDERS.index(folder(name)), f"{name} imports {module}"


def test_no_cycles_between_files() -> None:
    graph = {name: imported(name) for name in modules() if modules()[name].name != "__init__.py"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other: {' -> '.join(error.args[1])}")


@pytest.mark.skipif(not (PACKAGE.parent / "CONTRIBUTING.md").is_file(), reason="only in a checkout")
def test_contributing_draws_the_same_order() -> None:
    drawn = re.search(r"```text\n(.*?)```", (PACKAGE.parent / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert drawn
    assert tuple(re.findall(r"^(\w+) ", drawn.group(1), re.MULTILINE)) == FOLDERS[::-1]


@pytest.mark.parametrize("kind", ["sampling", "datasets", "baselines", "reports"])
def test_definition_folders_hold_no_code(kind: definitions.Kind) -> None:
    place = definitions.folder(kind)
    assert (place / "README.md").is_file()
    assert not list(place.rglob("*.py"))
