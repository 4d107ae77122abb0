"""Figure 4: a panel a dataset, at most seven methods, and nothing is left out without a word."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from disbench.core.errors import InputError
from disbench.io import definitions
from disbench.reports.paper.definitions import PaperCurves, read_definition
from disbench.reports.paper.figures import make_curves_figure, shown_runs
from tests.unit.paper_runs_pool import dataset, method, read_pool
from tests.unit.run_tools import draw_ious, write_run

METHODS = ("geodesic", "ritm", "disnet", "simpleclick", "graph-cut", "mobilesam", "piclick", "disk", "focalclick")


def write_methods(folder: Path, count: int = len(METHODS)) -> None:
    for number, name in enumerate(METHODS[:count]):
        for place in ("grabcut", "davis"):
            run = folder / place / f"{number}-{name}"
            write_run(run, draw_ious(5, seed=number), method=method(name), dataset=dataset(place))


def svg_texts(path: Path) -> list[str]:
    """The texts of an SVG: matplotlib draws letters as paths and notes each text as a comment."""
    return [line.strip()[5:-4] for line in path.read_text().splitlines() if line.strip().startswith("<!-- ")]


def test_a_figure_of_runs(tmp_path: Path) -> None:
    write_methods(tmp_path / "runs", 3)
    made = make_curves_figure("figure4", [tmp_path / "runs"], tmp_path / "out")
    assert [path.name for path in made.paths] == ["figure4.png", "figure4.svg", "figure4.pdf", "figure4.csv"]
    with Image.open(made.paths[0]) as image:
        assert image.width == round(2 * 4.4 * 150)
    texts = svg_texts(made.paths[1])
    datasets = ["GrabCut", "Berkeley", "SBD", "DAVIS"]
    assert [text for text in texts if text in datasets] == datasets
    assert texts.count("not run") == 2
    assert sum(text.startswith("disnet") for text in texts) == 2
    assert made.paths[2].read_bytes().startswith(b"%PDF-")
    rows = list(csv.DictReader(io.StringIO(made.paths[3].read_text())))
    assert len(rows) == 3 * 2 * 20
    assert "not run: Berkeley, SBD" in made.lines
    assert any("caption speaks of 3 datasets" in line for line in made.lines)
    write_methods(tmp_path / "elsewhere", 3)
    again = make_curves_figure("figure4", [tmp_path / "elsewhere"], tmp_path / "again")
    assert [path.read_bytes() for path in again.paths] == [path.read_bytes() for path in made.paths]


def test_at_most_seven_methods_the_papers_first(tmp_path: Path) -> None:
    write_methods(tmp_path)
    shown, remarks = shown_runs(read_definition(PaperCurves, "figure4"), read_pool(tmp_path))
    assert [members[0].method for members in shown] == [
        *("disnet", "piclick", "simpleclick", "focalclick", "ritm"),
        *("geodesic", "graph-cut"),
    ]
    assert all(len(members) == 2 for members in shown)
    assert remarks == [
        "Not shown, since the figure has at most 7 methods: "
        "4 runs (mobilesam on davis, grabcut; disk on davis, grabcut)."
    ]


def test_what_is_not_drawn_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", dataset=dataset("photos"))
    write_run(tmp_path / "b", [[0.5, 0.9]], protocol={"stop_at": 0.9})
    made = make_curves_figure("figure4", [tmp_path], tmp_path / "out", formats=["csv", "svg"])
    assert [path.name for path in made.paths] == ["figure4.svg"], "there are no curves to write down"
    assert svg_texts(made.paths[0]).count("not run") == 4
    text = "\n".join(made.lines)
    assert "no panel for their datasets: 1 run (toy on photos)." in text
    assert "since their samples end early: 1 run (toy on grabcut)." in text


def test_no_runs_at_all_and_bad_definitions(tmp_path: Path) -> None:
    made = make_curves_figure("figure4", [], tmp_path / "out")
    assert "not run: GrabCut, Berkeley, SBD, DAVIS" in made.lines
    own, good = tmp_path / "own.toml", definitions.find("reports", "figure4").read_text()
    for content in ('title = "x"', good.replace('"sbd"', '"sdb"')):
        own.write_text(content)
        with pytest.raises(InputError, match=r"own\.toml"):
            read_definition(PaperCurves, str(own))
