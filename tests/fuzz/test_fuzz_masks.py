"""Run lengths and polygons of any kind: a mask of the image's size or a sentence; the C code below never dies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from disbench.core.masks import decode, encode, from_foreign_rle
from tests.fuzz.tools import Reader, damaged, examples, pytestmark_linux, written

pytestmark = pytestmark_linux
HEIGHT, WIDTH = 11, 13
ALLOWED = 96 * 2**20
WHOLE = [
    bytes(encode(np.random.default_rng(k).random((HEIGHT, WIDTH)) < share)["counts"])
    for k, share in enumerate((0.0, 0.1, 0.5, 0.9, 1.0))
]


def restated(counts: bytes) -> list[int] | None:
    """The runs by COCO's rule, one byte at a time; None where there are none of an image's."""
    runs: list[int] = []
    place = 0
    while place < len(counts):
        value = shift = 0
        while True:
            if place == len(counts) or not 48 <= counts[place] < 112:
                return None
            group, place = counts[place] - 48, place + 1
            value |= (group & 31) << shift
            shift += 5
            if not group & 32:
                break
        value -= 1 << shift if group & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs if min(runs, default=0) >= 0 and sum(runs) == HEIGHT * WIDTH else None


@given(
    counts=st.one_of(
        damaged(WHOLE), st.binary(max_size=20), st.binary(max_size=9).map(lambda b: bytes(48 + x % 64 for x in b))
    )
)
@example(counts=b"o" * 30 + b"0")
@example(counts=b"_" * 7)
@examples(80)
def test_compressed_runs_are_as_the_rule_says(counts: bytes) -> None:
    runs = restated(counts)
    try:
        rle = from_foreign_rle({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH)
    except ValueError:
        assert runs is None or len(counts) > 7
        return
    assert runs is not None
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    assert np.array_equal(decode(rle), flat.reshape(HEIGHT, WIDTH, order="F"))


NUMBERS = st.one_of(
    st.integers(-2, 15),
    st.floats(-1.5, 14.5),
    st.sampled_from(
        (float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324, 2**31, 2**63, -(2**63), 10**400)
    ),
    st.sampled_from((True, None, "1", "x" * 999, [], {}, [1.0, 2.0])),
)
RINGS = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=14), st.lists(st.floats(-1, 11), min_size=6, max_size=40))
RUNS = st.one_of(
    st.text(max_size=12), st.lists(st.one_of(NUMBERS, st.sampled_from((2**40, -1, 2**32))), max_size=12), NUMBERS
)


@given(
    segmentation=st.one_of(
        st.lists(RINGS, max_size=5),
        st.fixed_dictionaries(
            {"size": st.sampled_from(([HEIGHT, WIDTH], [WIDTH, HEIGHT], [], None, [2**40, 1])), "counts": RUNS}
        ),
        NUMBERS,
    ),
    raster=st.sampled_from(("pycocotools", "fillpoly")),
)
@examples(40)
def test_any_segmentation(read: Reader, tmp_path: Path, segmentation: Any, raster: str) -> None:
    said = {"segmentation": segmentation, "height": HEIGHT, "width": WIDTH, "raster": raster}
    read("segmentation", written(tmp_path / "a.json", json.dumps(said).encode()), allowed=ALLOWED)
