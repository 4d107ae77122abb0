"""Simulated clicks on real masks: the literal restatement's, click for click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from disbench.core.clicks import Click, next_click
from tests.parity import click_restatement as literal

Array = npt.NDArray[Any]
pytestmark = pytest.mark.real_data


def targets(data_root: Path, dataset: str) -> Iterator[Array]:
    """Every mask of GrabCut, every third of Berkeley, every twelfth of DAVIS, as targets."""
    if dataset == "DAVIS":
        for path in sorted((data_root / "DAVIS" / "gt").iterdir())[::12]:
            yield (np.asarray(Image.open(path).convert("RGB")).max(axis=2) > 0).astype(np.int8)
        return
    folder, every = {"GrabCut": ("boundary_GT", 1), "Berkeley": ("masks", 3)}[dataset]
    for path in sorted((data_root / dataset / folder).iterdir())[::every]:
        first = np.asarray(Image.open(path))
        first = first if first.ndim == 2 else first[..., 0]
        yield np.where(first == 128, -1, first > 128).astype(np.int8)


def corrected(target: Array, number: int, noise: np.random.Generator) -> Array:
    """A ragged prediction with a missing part or a false one, the better the later the click."""
    height, width = target.shape
    coarse = noise.standard_normal((height // 25 + 2, width // 25 + 2)).astype(np.float32)
    fine = noise.standard_normal((height // 5 + 2, width // 5 + 2)).astype(np.float32)
    wave = 8 / number * cv2.resize(coarse, (width, height)) + 1.5 * cv2.resize(fine, (width, height))
    mask = (target == 1).astype(np.uint8)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    top, left = noise.integers(height), noise.integers(width)
    predicted = depth + wave > 0
    predicted[top : top + height // (2 * number), left : left + width // 4] ^= True
    return predicted


@pytest.mark.parametrize("dataset", ["GrabCut", "Berkeley", "DAVIS"])
def test_sequences_of_clicks(data_root: Path, dataset: str) -> None:
    noise = np.random.default_rng(0)
    positive = made = 0
    before, threads = cv2.ipp.useIPP(), cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        for target in targets(data_root, dataset):
            prediction, clicks = np.zeros(target.shape, dtype=bool), list[Click]()
            for number in (1, 2, 4, 8, 16):
                click = next_click(target, prediction, clicks)
                # As OpenCV is set up by default where there are two cores: frames of this size are its own work.
                assert tuple(click) == literal.next_click(target, prediction, clicks, as_set_up=True)
                clicks.append(click)
                positive, made = positive + click.positive, made + 1
                prediction = corrected(target, number, noise)
    finally:
        cv2.setNumThreads(threads)
    assert cv2.ipp.useIPP() == before
    assert made >= 140 and made // 5 < positive < made


def test_whole_runs_of_a_method_that_learns_nothing(data_root: Path) -> None:
    """Twenty clicks on one bad prediction: each goes to another pixel."""
    for number, target in enumerate(targets(data_root, "GrabCut")):
        if number % 10:
            continue
        prediction = np.roll(target == 1, (9, 14), axis=(0, 1))
        clicks: list[Click] = []
        for _ in range(20):
            click = next_click(target, prediction, clicks)
            assert tuple(click) == literal.next_click(target, prediction, clicks)
            clicks.append(click)
        assert len(set(clicks)) == 20
