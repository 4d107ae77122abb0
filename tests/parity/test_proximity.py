"""The proximity graph against full-frame dilation."""

from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
import restatement
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.masks import Rle, decode, encode
from disbench.sampling.proximity import Dilated, proximity_graph

Masks = npt.NDArray[np.bool_]


def edges(graph: nx.Graph) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in graph.edges}


def rows_of_blocks(*columns: tuple[int, int]) -> Masks:
    """One block three rows high for each pair of first and last column."""
    masks = np.zeros((len(columns), 12, 30), dtype=bool)
    for mask, (first, last) in zip(masks, columns, strict=True):
        mask[4:7, first : last + 1] = True
    return masks


def touch(masks: Masks, **options: Any) -> bool:
    return bool(proximity_graph([encode(mask) for mask in masks], **options).edges)


@pytest.mark.real_data
def test_lvis_images_with_at_most_50_masks(lvis_images: dict[int, list[Rle]]) -> None:
    found = 0
    for rles in (rles for rles in lvis_images.values() if len(rles) <= 50):
        graph = proximity_graph(rles)
        assert list(graph) == list(range(len(rles)))
        assert edges(graph) == restatement.neighbours(np.stack([decode(rle) for rle in rles]))
        found += graph.number_of_edges()
    assert found > 100


@pytest.mark.real_data
@pytest.mark.parametrize(("dilated", "iterations", "min_overlap"), [("both", 2, 1), ("one", 3, 20)])
def test_options_on_lvis_images(
    lvis_images: dict[int, list[Rle]], dilated: Dilated, iterations: int, min_overlap: int
) -> None:
    for rles in (rles for rles in lvis_images.values() if 2 <= len(rles) <= 12):
        masks = np.stack([decode(rle) for rle in rles])
        graph = proximity_graph(rles, dilated=dilated, iterations=iterations, min_overlap=min_overlap)
        assert edges(graph) == restatement.neighbours(masks, dilated == "both", iterations, min_overlap)


@given(data=st.data())
def test_related_masks(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    assert edges(proximity_graph([encode(mask) for mask in masks])) == restatement.neighbours(masks)


@given(
    corners=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), min_size=2, max_size=7),
    seed=st.integers(0, 2**32 - 1),
    dilated=st.sampled_from(("one", "both")),
    iterations=st.integers(1, 4),
    min_overlap=st.integers(1, 9),
)
def test_options_on_scattered_blobs(
    corners: list[tuple[int, int]], seed: int, dilated: Dilated, iterations: int, min_overlap: int
) -> None:
    noise = np.random.default_rng(seed)
    masks = np.zeros((len(corners), 32, 32), dtype=bool)
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[top : top + 6, left : left + 6] = noise.random((6, 6))[: 32 - top, : 32 - left] < 0.6
        mask[top, left] = True
    rles = [encode(mask) for mask in masks]
    graph = proximity_graph(rles, dilated=dilated, iterations=iterations, min_overlap=min_overlap)
    assert edges(graph) == restatement.neighbours(masks, dilated == "both", iterations, min_overlap)


@pytest.mark.parametrize(
    ("gap", "dilated", "iterations", "expected"),
    [
        (0, "one", 1, True),
        (1, "one", 1, False),
        (1, "both", 1, True),
        (2, "both", 1, False),
        (1, "one", 2, True),
        (2, "one", 2, False),
        (3, "both", 2, True),
        (4, "both", 2, False),
    ],
)
def test_pixels_between_two_blocks(gap: int, dilated: Dilated, iterations: int, expected: bool) -> None:
    masks = rows_of_blocks((2, 5), (6 + gap, 9 + gap))
    for pair in (masks, masks[::-1], masks.transpose(0, 2, 1)):
        assert touch(pair, dilated=dilated, iterations=iterations) is expected
        assert bool(restatement.neighbours(pair, dilated == "both", iterations)) is expected


def test_masks_that_touch_at_a_corner_are_neighbours() -> None:
    masks = np.zeros((2, 12, 14), dtype=bool)
    masks[0, :4, :4] = masks[1, 4:, 4:] = True
    assert touch(masks)


def test_masks_that_overlap_or_nest_are_neighbours() -> None:
    assert touch(rows_of_blocks((2, 9), (4, 6)))
    assert touch(rows_of_blocks((2, 9), (6, 12)))


def test_the_overlap_counts_in_the_better_direction() -> None:
    """The tip of a thin mask reaches 3 pixels of the block when dilated; the block reaches 1 of the tip."""
    masks = np.zeros((2, 12, 14), dtype=bool)
    masks[0, :, :5] = True
    masks[1, 6, 5:] = True
    for pair in (masks, masks[::-1]):
        assert touch(pair, min_overlap=3)
        assert not touch(pair, min_overlap=4)


@pytest.mark.parametrize("options", [{"iterations": 0}, {"min_overlap": 0}, {"dilated": "none"}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        touch(rows_of_blocks((2, 5), (6, 9)), **options)


def test_empty_masks_and_masks_of_two_sizes_are_refused() -> None:
    masks = rows_of_blocks((2, 5), (6, 9))
    with pytest.raises(ValueError, match="different sizes"):
        proximity_graph([encode(masks[0]), encode(masks[1, :-1])])
    masks[1] = False
    with pytest.raises(ValueError, match="mask 1 is empty"):
        touch(masks)
