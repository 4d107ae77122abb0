"""Diverse sets against the literal rules."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import restatement
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.masks import Rle, areas, decode, encode
from disbench.core.scenes import SetOfObjects, click_region, set_masks
from disbench.sampling.diverse_sets import containment_sets, hierarchy_sets, proximity_sets, random_merge_sets
from disbench.sampling.hierarchy import build_forest, containment_matrix
from disbench.sampling.proximity import proximity_graph

Masks = npt.NDArray[np.bool_]


def encode_all(masks: Masks) -> list[Rle]:
    return [encode(mask) for mask in masks]


def blocks(*columns: tuple[int, int]) -> Masks:
    """One block of ten rows for each pair of first and last column."""
    masks = np.zeros((len(columns), 12, 40), dtype=bool)
    for mask, (first, last) in zip(masks, columns, strict=True):
        mask[1:11, first : last + 1] = True
    return masks


def assert_same_masks(rles: Sequence[Rle], expected: Sequence[npt.NDArray[np.bool_]]) -> None:
    assert len(rles) == len(expected)
    assert all(np.array_equal(decode(rle), mask) for rle, mask in zip(rles, expected, strict=True))


def assert_hierarchy_sets(masks: Masks, rles: list[Rle]) -> None:
    expected = restatement.forest(masks)
    regions = [restatement.click_region(masks, node, row) for node, row in enumerate(expected.children)]
    centers = [node for node, region in enumerate(regions) if region.any()]
    forest = build_forest(containment_matrix(rles), areas(rles))
    for nest in ("annotated", "union"):
        sets = hierarchy_sets(rles, forest, nest)
        assert [chosen.center for chosen in sets] == centers
        for chosen in sets:
            path, members = restatement.hierarchy_members(masks, expected.parents, chosen.center, nest == "union")
            assert set(chosen.members[-1]) == (set(path) if nest == "union" else {path[-1]})
            assert_same_masks(set_masks(rles, chosen), members)
            assert_same_masks([click_region(rles, chosen)], [regions[chosen.center]])
            assert len(chosen.members) == expected.levels[chosen.center] + 1 == len(path)
            assert (chosen.left_out, chosen.repeated) == (0, 0)


def assert_proximity_sets(masks: Masks, rles: list[Rle], cap: int) -> None:
    pairs = restatement.neighbours(masks)
    sets = proximity_sets(rles, proximity_graph(rles), range(len(rles)), cap)
    assert [chosen.center for chosen in sets] == list(range(len(rles)))
    for chosen in sets:
        neighbours = [sum(pair) - chosen.center for pair in pairs if chosen.center in pair]
        expected = restatement.proximity_members(masks, chosen.center, neighbours, cap)
        assert list(chosen.members) == expected.combinations
        assert_same_masks(set_masks(rles, chosen), expected.masks)
        assert_same_masks([click_region(rles, chosen)], [masks[chosen.center]])
        assert_tally(chosen, expected, 2 ** len(neighbours))


def assert_tally(chosen: SetOfObjects, expected: restatement.ProximityMembers, combinations: int) -> None:
    """Every combination is kept, repeated or left out.

    The package does not unite what comes after the cap, so there it may call a repetition left out, never
    the other way round.
    """
    assert len(chosen.members) + chosen.repeated + chosen.left_out == combinations
    assert chosen.left_out >= expected.left_out
    if not chosen.left_out:
        assert chosen.repeated == expected.repeated


def assert_containment_sets(masks: Masks, rles: list[Rle]) -> None:
    sets = containment_sets(containment_matrix(rles), areas(rles))
    assert [chosen.center for chosen in sets] == list(range(len(rles)))
    for chosen in sets:
        members = restatement.containment_members(masks, chosen.center)
        assert chosen.members == tuple((index,) for index in members)
        assert_same_masks([click_region(rles, chosen)], [masks[chosen.center]])


@pytest.mark.real_data
def test_hierarchy_sets_of_every_lvis_image(lvis_images: dict[int, list[Rle]]) -> None:
    for rles in lvis_images.values():
        assert_hierarchy_sets(np.stack([decode(rle) for rle in rles]), rles)


@pytest.mark.real_data
def test_containment_sets_of_every_lvis_image(lvis_images: dict[int, list[Rle]]) -> None:
    for rles in lvis_images.values():
        assert_containment_sets(np.stack([decode(rle) for rle in rles]), rles)


@pytest.mark.real_data
def test_proximity_sets_of_lvis_images_with_at_most_7_neighbours(lvis_images: dict[int, list[Rle]]) -> None:
    tried = 0
    for rles in lvis_images.values():
        if max(degree for _, degree in proximity_graph(rles).degree) <= 7:
            assert_proximity_sets(np.stack([decode(rle) for rle in rles]), rles, cap=16)
            tried += 1
    assert tried >= 80


@given(data=st.data())
def test_hierarchy_sets_of_related_masks(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    assert_hierarchy_sets(masks, encode_all(masks))


@given(data=st.data())
def test_containment_sets_of_related_masks(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    assert_containment_sets(masks, encode_all(masks))


@given(data=st.data(), cap=st.sampled_from((1, 2, 5, 16, 200)))
def test_proximity_sets_of_related_masks(
    related_masks: st.SearchStrategy[Masks], data: st.DataObject, cap: int
) -> None:
    masks = data.draw(related_masks)
    assert_proximity_sets(masks, encode_all(masks), cap)


@given(data=st.data(), cap=st.sampled_from((1, 4, 16)), seed=st.integers(0, 2**32 - 1))
def test_random_merges_have_the_center_and_one_to_three_others(
    related_masks: st.SearchStrategy[Masks], data: st.DataObject, cap: int, seed: int
) -> None:
    rles = encode_all(data.draw(related_masks))
    centers = range(len(rles))
    models = proximity_sets(rles, proximity_graph(rles), centers, cap)
    sets, again = (random_merge_sets(rles, models, centers, 3, np.random.default_rng(seed)) for _ in range(2))
    assert sets == again
    for chosen, model in zip(sets, models, strict=True):
        assert chosen.center == model.center
        assert chosen.members[0] == (chosen.center,)
        assert len(chosen.members) + chosen.left_out == len(model.members)
        assert all(member[0] == chosen.center for member in chosen.members)
        assert all(2 <= len(set(member)) == len(member) <= 4 for member in chosen.members[1:])
        assert len({rle["counts"] for rle in set_masks(rles, chosen)}) == len(chosen.members)
        assert_same_masks([click_region(rles, chosen)], [decode(rles[chosen.center])])


def test_hierarchy_masks_go_from_inner_to_outer() -> None:
    masks = blocks((0, 30), (5, 20), (8, 12))
    rles = encode_all(masks)
    forest = build_forest(containment_matrix(rles), areas(rles))
    sets = {chosen.center: chosen for chosen in hierarchy_sets(rles, forest)}
    assert sets[2].members == ((2,), (1,), (0,))
    assert sets[0].members == ((0,),)
    assert sets[0].click_excludes == (1,)


def test_nesting_adds_the_inner_masks_to_the_outer() -> None:
    masks = blocks((0, 20), (10, 22))  # 11 of the inner one's 13 columns lie in the outer one
    rles = encode_all(masks)
    forest = build_forest(containment_matrix(rles), areas(rles))
    assert forest.parents == (-1, 0)
    inner, outer = set_masks(rles, hierarchy_sets(rles, forest, "union")[1])
    assert inner == rles[1]
    assert np.array_equal(decode(outer), masks.any(axis=0))
    assert set_masks(rles, hierarchy_sets(rles, forest)[1]) == [rles[1], rles[0]]


def test_an_object_covered_by_its_children_is_no_center() -> None:
    rles = encode_all(blocks((0, 19), (0, 9), (10, 19)))
    forest = build_forest(containment_matrix(rles), areas(rles))
    assert [chosen.center for chosen in hierarchy_sets(rles, forest)] == [1, 2]
    rles = encode_all(blocks((0, 19), (0, 9), (10, 18)))
    forest = build_forest(containment_matrix(rles), areas(rles))
    assert [chosen.center for chosen in hierarchy_sets(rles, forest)] == [0, 1, 2]


def test_equal_areas_come_by_the_neighbours_numbers() -> None:
    rles = encode_all(blocks((15, 17), (10, 14), (7, 9)))
    graph = proximity_graph(rles)
    assert proximity_sets(rles, graph, range(3))[1].members == ((1,), (1, 0), (1, 2), (1, 0, 2))


def test_the_smaller_union_comes_first() -> None:
    rles = encode_all(blocks((15, 19), (10, 14), (7, 9)))
    graph = proximity_graph(rles)
    assert proximity_sets(rles, graph, range(3))[1].members == ((1,), (1, 2), (1, 0), (1, 0, 2))


def test_a_nested_neighbour_repeats_the_center() -> None:
    rles = encode_all(blocks((10, 19), (12, 14)))
    graph = proximity_graph(rles)
    outer, inner = proximity_sets(rles, graph, range(2))
    assert (outer.members, outer.repeated, outer.left_out) == (((0,),), 1, 0)
    assert (inner.members, inner.repeated, inner.left_out) == (((1,), (1, 0)), 0, 0)


def test_the_cap_keeps_the_smallest_combinations_and_counts_the_rest() -> None:
    rles = encode_all(blocks((10, 19), (5, 9), (20, 26), (12, 34)))
    chosen = proximity_sets(rles, proximity_graph(rles), range(4), cap=3)[0]
    assert (chosen.members, chosen.repeated, chosen.left_out) == (((0,), (0, 1), (0, 2)), 0, 5)


def test_only_centers_are_neighbours() -> None:
    rles = encode_all(blocks((10, 14), (15, 19), (7, 9)))
    sets = proximity_sets(rles, proximity_graph(rles), [0, 2])
    assert [chosen.members for chosen in sets] == [((0,), (0, 2)), ((2,), (2, 0))]
