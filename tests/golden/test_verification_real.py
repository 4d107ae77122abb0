"""A run on real images holds, and one with a mask of another click does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from disbench.core import masks
from disbench.core.click_policies import ClickPolicy
from disbench.core.clicks import Click
from disbench.datasets.cards import open_dataset
from disbench.harness import evaluate, verify_run
from disbench.harness.checks import judge_click
from tests.parity.click_restatement import Array, next_click
from tests.toy_methods import Discs
from tests.unit.run_tools import forged, toy_run

pytestmark = pytest.mark.real_data


def test_a_run_on_grabcut(data_root: Path, tmp_path: Path) -> None:
    source = open_dataset("grabcut", data_root)
    run = toy_run(tmp_path / "run", source, Discs(radius=40.0, candidates=2), every=17)
    found = verify_run(run.folder, data_root)
    assert (found.problems, found.unchecked, found.moved) == ((), (), 0)
    assert found.clicks == found.measured == 15
    other = forged(run, tmp_path / "other", lambda rows: rows[7].update(mask=rows[8]["mask"]))
    assert not verify_run(other.folder, data_root).holds


def test_clicks_of_another_transform_are_moved_and_those_of_a_coarser_one_wrong(
    data_root: Path, tmp_path: Path
) -> None:
    """Intel's transform, where OpenCV has it, differs in the last bits; mask size 5 is another measure."""
    source = open_dataset("grabcut", data_root)
    judged = {"as set up": Counter[str](), "mask size 5": Counter[str]()}
    for index in range(0, 50, 7):
        sample = source.read(index)
        rows = evaluate(Discs(radius=40.0), [sample], max_clicks=6, store="kept").rows
        kept, before = np.zeros(sample.target.shape, dtype=bool), list[Click]()
        for row in rows:
            others = {
                "as set up": next_click(sample.target, kept, before, as_set_up=True),
                "mask size 5": coarse_click(sample.target, kept, before),
            }
            for name, other in others.items():
                judged[name][judge_click(ClickPolicy(), sample.target, kept, before, Click(*other))] += 1
            before.append(Click(row.x, row.y, row.positive))
            assert row.mask is not None
            kept = masks.decode({"size": list(kept.shape), "counts": row.mask})
    assert judged["as set up"]["wrong"] == 0
    assert judged["as set up"]["same"] > 40
    assert judged["mask size 5"]["wrong"] > 5


def coarse_click(target: Array, prediction: Array, before: list[Click]) -> Click:
    """The protocol's click, but with OpenCV's approximate distances."""
    maps = {}
    for positive, errors in ((True, (target == 1) & ~prediction), (False, (target == 0) & prediction)):
        padded = np.pad(errors, 1).astype(np.uint8)
        maps[positive] = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1].copy()
        for x, y, _ in before:
            maps[positive][y, x] = 0
    positive = bool(maps[True].max() > maps[False].max())
    y, x = np.unravel_index(maps[positive].argmax(), target.shape)
    return Click(int(x), int(y), positive)
