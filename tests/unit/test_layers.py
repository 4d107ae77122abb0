"""Imports point one way, and the definition folders hold no code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import disbench

PACKAGE = Path(disbench.__file__ or "").parent
LAYERS = {
    "errors": 0,
    "files": 0,
    "limits": 0,
    "parquet": 1,
    "parquet_footer": 0,
    "plain_data": 0,
    "threads": 0,
    "processes": 0,
    "storage": 1,
    "mirror": 1,
    "opencv": 1,
    "depths": 1,
    "engines": 1,
    "options": 1,
    "settings": 1,
    "masks": 1,
    "clicks": 1,
    "budgets": 1,
    "metrics": 2,
    "click_policies": 2,
    "recorded_clicks": 3,
    "definitions": 1,
    "ablation_plans": 2,
    "scenes": 2,
    "samples": 2,
    "painting": 1,
    "prediction": 2,
    "ambiguity": 3,
    "datasets": 3,
    "sampling": 4,
    "baselines": 4,
    "disnet": 5,
    "harness": 6,
    "reports": 7,
    "demo": 7,
    "ablation": 8,
    "quickstart": 8,
    "cli_ablate": 9,
    "cli_ambiguity": 9,
    "cli_options": 9,
    "cli_archive": 9,
    "cli_benchmark": 9,
    "cli_compare": 9,
    "cli_demo": 9,
    "cli_paper": 9,
    "cli_train": 9,
    "cli": 10,
}


def layer_of(module: str) -> int:
    return LAYERS[module.split(".")[1]]


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("disbench."):
            found.append(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "disbench":
            found += [f"disbench.{name.name}" for name in node.names if name.name in LAYERS]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.startswith("disbench.")]
    return found


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or p.stem in LAYERS],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_imports_point_down(path: Path) -> None:
    own = layer_of("disbench." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))
    for module in imported(path):
        assert layer_of(module) <= own, f"{path.name} imports {module}"


@pytest.mark.parametrize("kind", ["sampling", "datasets", "baselines", "reports"])
def test_definition_folders_hold_no_code(kind: str) -> None:
    from disbench import definitions

    folder = definitions.folder(kind)  # type: ignore[arg-type]
    assert (folder / "README.md").is_file()
    assert not list(folder.rglob("*.py"))
