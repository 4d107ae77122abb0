"""The hierarchy against the literal rule."""

from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
import restatement
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.masks import Rle, areas, decode, encode
from disbench.sampling.diverse_sets import hierarchy_sets
from disbench.sampling.hierarchy import build_forest, build_hierarchy, containment_matrix

Masks = npt.NDArray[np.bool_]


def rectangle(rows: tuple[int, int], columns: tuple[int, int], side: int = 40) -> npt.NDArray[np.bool_]:
    """Rows and columns from the first to the one before the last, in a square image."""
    mask = np.zeros((side, side), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def children_in_order(graph: nx.DiGraph) -> list[list[int]]:
    return [list(graph.successors(node)) for node in graph]


def assert_follows_the_rule(masks: Masks, rles: list[Rle]) -> None:
    expected = restatement.forest(masks)
    graph = build_hierarchy(rles)
    assert list(graph) == list(range(len(masks)))
    assert children_in_order(graph) == expected.children
    assert [graph.nodes[node]["level"] for node in graph] == expected.levels
    assert [next(graph.predecessors(node), None) for node in graph] == expected.parents

    forest = build_forest(containment_matrix(rles), areas(rles))
    assert [None if parent < 0 else parent for parent in forest.parents] == expected.parents
    assert list(forest.levels) == expected.levels
    assert [list(row) for row in forest.children] == expected.children
    for chosen in hierarchy_sets(rles, forest):
        path = [number for (number,) in chosen.members]
        assert path == restatement.hierarchy_members(masks, expected.parents, chosen.center)[0]


@pytest.mark.real_data
def test_every_lvis_image(lvis_images: dict[int, list[Rle]]) -> None:
    assert sum(map(len, lvis_images.values())) == 977
    deepest = 0
    for rles in lvis_images.values():
        assert_follows_the_rule(np.stack([decode(rle) for rle in rles]), rles)
        deepest = max(deepest, *(level for _, level in build_hierarchy(rles).nodes(data="level")))
    assert deepest >= 2


@pytest.mark.real_data
def test_every_coco_image_with_its_crowds(coco_images: dict[int, list[Rle]]) -> None:
    assert sum(map(len, coco_images.values())) == 1560
    for rles in coco_images.values():
        assert_follows_the_rule(np.stack([decode(rle) for rle in rles]), rles)


@given(data=st.data())
def test_related_masks(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    assert_follows_the_rule(masks, [encode(mask) for mask in masks])


@given(data=st.data())
def test_contains_pair_by_pair(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    expected = [
        [i != j and restatement.contains(outer, inner) for j, inner in enumerate(masks)]
        for i, outer in enumerate(masks)
    ]
    assert containment_matrix([encode(mask) for mask in masks]).tolist() == expected


@given(
    insets=st.lists(st.integers(0, 2), min_size=3, max_size=10),
    shift=st.integers(-2, 2),
    density=st.sampled_from((0.75, 0.85, 0.95, 1.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_deep_nesting(insets: list[int], shift: int, density: float, seed: int) -> None:
    noise = np.random.default_rng(seed)
    margins = np.cumsum(insets)
    masks = np.stack(
        [
            rectangle((int(margin), 40 - int(margin)), (max(0, int(margin) + shift), 40 - int(margin)))
            & (noise.random((40, 40)) < density)
            for margin in margins[margins < 18]
        ]
    )
    masks = masks[noise.permutation(len(masks))]
    assert_follows_the_rule(masks, [encode(mask) for mask in masks])


def test_concentric_rectangles_nest_one_level_each() -> None:
    masks = np.stack([rectangle((margin, 40 - margin), (margin, 40 - margin)) for margin in range(0, 20, 2)])
    graph = build_hierarchy([encode(mask) for mask in masks])
    assert [level for _, level in graph.nodes(data="level")] == list(range(10))


@given(
    height=st.integers(1, 8),
    covered_columns=st.integers(6, 8),
    beyond=st.integers(1, 16),
    seed=st.integers(0, 2**32 - 1),
)
def test_around_the_thresholds(height: int, covered_columns: int, beyond: int, seed: int) -> None:
    """An inner box of ten columns, of which the outer one covers 6, 7 or 8, and about 80% of the mask."""
    beyond = min(beyond, height * (10 - covered_columns))
    inner = rectangle((0, height), (0, covered_columns))
    places = np.argwhere(rectangle((0, height), (covered_columns, 10)))
    inner[height - 1, 9] = True
    for row, column in np.random.default_rng(seed).permutation(places)[: beyond - 1]:
        inner[row, column] = True
    outer = rectangle((0, 40), (0, covered_columns))
    rles = [encode(outer), encode(inner)]
    assert containment_matrix(rles)[0, 1] == restatement.contains(outer, inner)
    assert_follows_the_rule(np.stack([outer, inner]), rles)


@pytest.mark.parametrize(
    ("covered_columns", "beyond", "contained"),
    [
        (7, 1, True),  # box share exactly 0.70, mask share 28/29
        (7, 6, True),  # box share exactly 0.70, mask share 28/34
        (7, 7, False),  # box share exactly 0.70, mask share exactly 0.80
        (8, 7, True),  # box share exactly 0.80, mask share 32/39
        (8, 8, False),  # box share exactly 0.80, mask share exactly 0.80
        (6, 1, False),  # box share 0.60, mask share 24/25
    ],
)
def test_exactly_at_the_thresholds(covered_columns: int, beyond: int, contained: bool) -> None:
    outer, inner = rectangle((0, 40), (0, covered_columns)), rectangle((0, 4), (0, covered_columns))
    for place in range(beyond):
        inner[place % 4, 9 - place // 4] = True
    assert restatement.contains(outer, inner) is contained
    assert containment_matrix([encode(outer), encode(inner)])[0, 1] == contained


@pytest.mark.parametrize(("covered", "columns", "contained"), [(9, 13, False), (16, 23, False), (12, 17, True)])
def test_close_to_the_box_threshold(covered: int, columns: int, contained: bool) -> None:
    """One pixel in the last column takes the inner box 4 or more columns out of the outer one."""
    outer, inner = rectangle((0, 40), (0, covered)), rectangle((0, 4), (0, covered))
    inner[0, columns - 1] = True
    assert restatement.contains(outer, inner) is contained
    assert containment_matrix([encode(outer), encode(inner)])[0, 1] == contained


def test_of_equal_masks_the_later_holds_the_earlier() -> None:
    mask = encode(rectangle((3, 9), (4, 12)))
    assert list(build_hierarchy([mask, mask, mask]).edges) == [(1, 0), (2, 1)]


def test_a_grandparent_need_not_contain_the_grandchild() -> None:
    holder = rectangle((0, 20), (0, 20))
    child = rectangle((0, 10), (3, 23))  # 17 of its 20 columns lie in the holder
    grandchild = rectangle((0, 10), (15, 23))  # 5 of 8
    graph = build_hierarchy([encode(mask) for mask in (grandchild, child, holder)])
    assert not restatement.contains(holder, grandchild)
    assert list(graph.edges) == [(1, 0), (2, 1)]


def test_a_child_is_searched_below_a_node_that_does_not_contain_it() -> None:
    root = rectangle((0, 30), (0, 30))
    middle = rectangle((0, 20), (0, 10))
    holder = rectangle((0, 10), (2, 11))  # 8 of its 9 columns lie in the middle one
    inner = rectangle((0, 10), (8, 11))  # 2 of 3
    masks = np.stack([root, middle, holder, inner])
    assert not restatement.contains(middle, inner)
    assert restatement.forest(masks).parents == [None, 0, 1, 2]
    assert_follows_the_rule(masks, [encode(mask) for mask in masks])


def test_the_child_attached_first_is_the_answer() -> None:
    root = rectangle((0, 30), (0, 30))
    first = rectangle((0, 20), (0, 14))
    second = rectangle((0, 20), (8, 21))
    both_hold = rectangle((0, 5), (9, 13))
    masks = np.stack([both_hold, second, first, root])
    assert restatement.forest(masks).parents == [2, 3, 3, None]
    assert_follows_the_rule(masks, [encode(mask) for mask in masks])


def test_children_follow_the_order_of_attachment_not_of_area() -> None:
    root = rectangle((0, 30), (0, 30))
    holder = rectangle((0, 10), (20, 32))  # 10 of its 12 columns lie in the root
    larger = rectangle((0, 10), (26, 32))  # 4 of 6: only the holder adopts it, after the root's round
    smaller = rectangle((0, 4), (20, 24))
    masks = np.stack([root, holder, larger, smaller])
    assert restatement.forest(masks).children == [[1], [3, 2], [], []]
    assert_follows_the_rule(masks, [encode(mask) for mask in masks])


def test_an_image_without_masks_has_an_empty_hierarchy() -> None:
    assert not build_hierarchy([])


def test_empty_masks_and_masks_of_two_sizes_are_refused() -> None:
    mask = encode(rectangle((0, 2), (0, 2)))
    with pytest.raises(ValueError, match="mask 1 is empty"):
        build_hierarchy([mask, encode(np.zeros((40, 40), dtype=bool))])
    with pytest.raises(ValueError, match="different sizes"):
        build_hierarchy([mask, encode(rectangle((0, 2), (0, 2), side=41))])


@pytest.mark.parametrize("mask", [{"size": [2, 2], "counts": [4]}, {"size": [2, 2]}, {}, 1, None])
def test_what_is_no_compressed_rle_is_refused(mask: Any) -> None:
    with pytest.raises(ValueError, match="mask 0 is not a COCO compressed RLE"):
        build_hierarchy([mask])
