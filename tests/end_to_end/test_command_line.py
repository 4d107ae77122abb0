"""The commands that a user types: help, lightness, the main jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

from disbench.cli.main import app
from disbench.harness.protocol import Protocol
from disbench.io import definitions
from tests.commands import disbench, disbench_anew, in_this_process, printed

HEAVY = ("torch", "cv2", "matplotlib", "pandas", "numpy", "scipy", "pyarrow", "networkx", "skimage")


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        yield f"{path}{name}", command


def test_every_command_and_option_has_help() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert set(found) >= {
        *("sample", "inspect", "export", "run", "report", "predict", "quickstart"),
        *("data list", "data verify", "data fetch", "methods list", "methods show", "methods fetch"),
        *("split make", "split check"),
    }
    for name, command in found.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


@pytest.mark.parametrize("module", ["disbench", "disbench.cli.main", "disbench.sampling", "disbench.harness"])
def test_importing_stays_light(module: str) -> None:
    code = f"import sys; import {module}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_loads_nothing_heavy_and_answers_fast() -> None:
    code = (
        "import atexit, sys, time\n"
        "from disbench.cli.main import main\n"
        "sys.argv = ['disbench', '--help']\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], time.process_time()))\n"
        "main()"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert "sample" in runs[0].stdout
    last = [run.stdout.splitlines()[-1].split() for run in runs]
    assert last[0][0] == "[]"
    # Process CPU time, not wall time; the best of three, so that a busy machine does not decide.
    assert min(float(seconds) for _, seconds in last) < 0.3


@pytest.mark.parametrize(
    ("numpy", "error", "options", "sentence"),
    [
        ("1.26.4", "ImportError('NumPy 2')", [], "error: numpy 1.26.4 is installed, but disbench needs numpy>=2"),
        ("1.26.4", "ImportError('NumPy 2')", ["--debug"], "Traceback "),
        ("2.1.0", "ImportError('a library\\nis missing')", [], "error: a library is missing; the installed packages "),
        ("2.1.0", "ValueError('a fault of disbench')", [], "Traceback "),
    ],
)
def test_packages_that_do_not_fit_are_one_line(
    tmp_path: Path, numpy: str, error: str, options: list[str], sentence: str
) -> None:
    dependencies = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    required = "".join(f"Requires-Dist: {one}\n" for one in dependencies)
    for name, version, more in (("numpy", numpy, ""), ("disbench", "0", required)):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
    (tmp_path / "pyarrow.py").write_text(f"raise {error}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "disbench", "sample", "lvis-hierarchy", "--photos", "--out", str(tmp_path / "o")]
    result = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert result.stderr.startswith(sentence)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) or sentence == "Traceback "
    assert not (tmp_path / "o").exists()


def test_version_and_list() -> None:
    assert re.fullmatch(r"disbench \d+\.\d+\.\d+\n", disbench_anew("--version").stdout)
    listed = disbench("sample", "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == definitions.names("sampling")


@pytest.mark.slow
def test_quickstart_makes_shards_statistics_and_contact_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it with fewer objects, clicks, pictures and processes; then a part of it again, in the same folder."""
    monkeypatch.setattr("disbench.cli.quickstart.EVERY", 86)
    monkeypatch.setattr("disbench.cli.quickstart.PICTURED_FAILURES", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("disbench.cli.quickstart.Protocol", partial(Protocol, max_clicks=5))
    code, said, _ = in_this_process("quickstart", "--out", tmp_path / "q")
    assert code == 0
    *sheets, page, curves, leaderboard = (
        Path(line.split(": ", 1)[1]) for line in said.splitlines() if line.startswith("look at")
    )
    assert len(sheets) == 2
    for method in ("disk", "geodesic", "grabcut"):
        assert method in page.read_text()
        assert method in leaderboard.read_text()
    for picture in (*sheets, curves):
        assert np.asarray(Image.open(picture).convert("L")).std() > 10
    assert all((sheet.parent / "manifest.json").is_file() for sheet in sheets)
    monkeypatch.setattr("disbench.cli.quickstart.RECIPES", ("lvis-hierarchy",))
    monkeypatch.setattr("disbench.cli.quickstart.METHODS", ("disk",))
    code, again, _ = in_this_process("quickstart", "--out", tmp_path / "q")
    assert code == 0 and again.splitlines()[:3] == said.splitlines()[:3]


def test_sample_inspect_export(tmp_path: Path) -> None:
    shards = tmp_path / "shards"

    sampling = ("lvis-hierarchy", "--photos", "--out", shards, "--workers", "2")
    assert "8 scenes, 282 objects, 257 sets" in printed("sample", *sampling)
    assert json.loads(printed("inspect", shards, "--json", "--rows", "3"))
    assert (shards / "contact-sheet.png").is_file()
    assert "257" in printed("inspect", shards, "--rows", "0")
    printed("export", shards, "--format", "ritm", "--out", tmp_path / "ritm")
    assert len(list((tmp_path / "ritm" / "masks").glob("*.pickle"))) == 8
    printed("export", shards, "--format", "coco", "--out", tmp_path / "coco.json")
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 282
