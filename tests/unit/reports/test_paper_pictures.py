"""Figures 5 and 6 on synthetic runs: which samples and runs are shown, and files that are the same again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from disbench.core.errors import InputError
from disbench.reports.paper.figures import make_pictures_figure
from tests.toy_methods import Discs
from tests.unit.picture_tools import photos, write_photo_run
from tests.unit.run_tools import write_run


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
    with pytest.raises(InputError, match=r"nobody.*--store all"):
        draw("figure5", tmp_path / "runs", tmp_path / "out", ["nobody"])


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
    with pytest.raises(InputError, match="no sample that all runs have"):
        draw("figure6", tmp_path / "runs", tmp_path / "out")
    write_run(tmp_path / "masks" / "none")
    for figure, store in (("figure5", "all"), ("figure6", "kept")):
        with pytest.raises(InputError, match=f"none of 1 run stored .* --store {store}"):
            draw(figure, tmp_path / "masks", tmp_path / "out")
    assert not (tmp_path / "out").exists()
