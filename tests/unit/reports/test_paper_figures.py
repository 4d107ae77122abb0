"""Figures 4 to 6: nothing is left out without a word, and files are the same again."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from disbench.io import definitions
from disbench.reports.paper.definitions import PaperCurves, read_definition
from disbench.reports.paper.figures import make_curves_figure, make_pictures_figure, shown_runs
from tests.refusals import refuses
from tests.toy_methods import Discs
from tests.unit.paper_runs_pool import dataset, method, read_pool
from tests.unit.run_tools import draw_ious, photos, write_photo_run, write_run

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
        refuses(r"own\.toml", read_definition, PaperCurves, str(own))


def texts(svg: Path) -> list[str]:
    """What is written in a figure: matplotlib leaves each text as a comment above its outlines."""
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg.read_text(), flags=re.DOTALL)]


def draw(name: str, runs: Path, out: Path, samples: Sequence[str] = ()) -> tuple[Path, ...]:
    return make_pictures_figure(name, [runs], out, samples=samples).paths


def test_figure5(tmp_path: Path) -> None:
    write_photo_run(tmp_path / "runs" / "a", "all", max_clicks=3)
    write_photo_run(tmp_path / "runs" / "b", "kept", name="unseen", max_clicks=1)
    paths = draw("figure5", tmp_path / "runs", tmp_path / "out")
    assert [path.name for path in paths] == ["figure5.png", "figure5.svg", "figure5.pdf"]
    written = texts(paths[1])
    assert any("3 samples of 3, drawn with seed 0" in text for text in written)
    assert written.count("candidate 1") + written.count("candidate 1, kept") == 3
    assert sum(text.endswith(", kept") for text in written) == 3
    for number in (2, 3):
        assert sum(text.startswith(f"click {number}: IoU") for text in written) == 3
    assert not any("unseen" in text for text in written)
    again = draw("figure5", tmp_path / "runs", tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_figure5_of_named_samples_and_several_runs(tmp_path: Path) -> None:
    write_photo_run(tmp_path / "runs" / "a", "all", max_clicks=1, method=Discs(20.0, candidates=9))
    write_photo_run(tmp_path / "runs" / "b", "all", max_clicks=1, fails={60: 1}, name="other")
    name = photos().ids[60]
    paths = draw("figure5", tmp_path / "runs", tmp_path / "out", [name])
    assert [path.name for path in paths[::3]] == ["figure5-1.png", "figure5-2.png"]
    many, failed = texts(paths[1]), texts(paths[4])
    assert name in many and photos().ids[3] not in many
    assert sum(bool(re.match(r"candidate \d", text)) for text in many) == 4
    assert sum(text.endswith(", kept") for text in many) == 1
    assert "the method failed" in failed
    refuses(r"nobody.*--store all", draw, "figure5", tmp_path / "runs", tmp_path / "out", ["nobody"])


def test_figure6(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_photo_run(runs / "a", "all", max_clicks=1)
    write_photo_run(runs / "b", "kept", name="small", method=Discs(8.0), max_clicks=1, protocol={"selection": "score"})
    write_photo_run(runs / "c", "none", name="unseen", max_clicks=1)
    paths = draw("figure6", runs, tmp_path / "out")
    assert [path.name for path in paths] == ["figure6.png", "figure6.svg", "figure6.pdf"]
    written = texts(paths[1])
    assert written.count("discs, kept") == 3
    assert written.count("small") == 3
    assert written.count("target") == 3
    assert sum(bool(re.match(r"candidate \d", text)) for text in written) == 6
    words = " ".join(written)
    assert "Without stored masks, and so not shown: unseen" in words
    assert "selection score instead of oracle-first" in words


def test_figure6_needs_common_samples_and_masks(tmp_path: Path) -> None:
    write_photo_run(tmp_path / "runs" / "a", "kept", max_clicks=1, numbers=(3,))
    write_photo_run(tmp_path / "runs" / "b", "kept", max_clicks=1, numbers=(60,))
    refuses("no sample in common", draw, "figure6", tmp_path / "runs", tmp_path / "out")
    write_run(tmp_path / "masks" / "none")
    for figure, store in (("figure5", "all"), ("figure6", "kept")):
        refuses(f"none of 1 run stored .* --store {store}", draw, figure, tmp_path / "masks", tmp_path / "out")
    assert not (tmp_path / "out").exists()
