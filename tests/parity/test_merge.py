"""Merging COCO and LVIS against the literal rule."""

import numpy as np
import numpy.typing as npt
import pytest
import restatement
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.masks import Rle, areas, boxes, decode, encode
from disbench.core.scenes import Kind, Scene, SceneObject
from disbench.sampling.hierarchy import build_hierarchy
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sampled_scene import (
    choose_objects,
    coco_repeated_in_lvis,
    interval_box_ious,
    lvis_repeated_later,
    uncovered_stuff,
)

Mask = npt.NDArray[np.bool_]
Masks = npt.NDArray[np.bool_]


def rectangle(rows: tuple[int, int], columns: tuple[int, int], side: int = 40) -> Mask:
    """Rows and columns from the first to the one before the last, in a square image."""
    mask = np.zeros((side, side), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def stack(masks: list[Mask], side: int = 40) -> Masks:
    return np.stack(masks) if masks else np.zeros((0, side, side), dtype=bool)


def encode_all(masks: Masks) -> list[Rle]:
    return [encode(mask) for mask in masks]


def of_area(rles: list[Rle], smallest: int = 80) -> list[int]:
    return np.flatnonzero(areas(rles) >= smallest).tolist()


def kept_by_the_package(coco: list[Rle], lvis: list[Rle]) -> tuple[list[int], list[int]]:
    large_coco, large_lvis = of_area(coco), of_area(lvis)
    lvis_rles = [lvis[index] for index in large_lvis]
    in_lvis = coco_repeated_in_lvis([coco[index] for index in large_coco], lvis_rles)
    again = lvis_repeated_later(lvis_rles)
    return (
        [index for index, repeated in zip(large_coco, in_lvis, strict=True) if not repeated],
        [index for index, repeated in zip(large_lvis, again, strict=True) if not repeated],
    )


def scene_object(rle: Rle, source: str, kind: Kind = "thing") -> SceneObject:
    x, y, width, height = boxes([rle])[0].tolist()
    return SceneObject(
        rle=rle, area=int(areas([rle])[0]), box=(x, y, width, height), category="", source=source, kind=kind
    )


def chosen_objects(objects: list[SceneObject]) -> tuple[SceneObject, ...]:
    height, width = objects[0].rle["size"]
    scene = Scene(
        image_id="1", file_name="1.jpg", height=height, width=width, source="coco+lvis", objects=tuple(objects)
    )
    return choose_objects(scene, load_recipe("coco-lvis-hierarchy")).objects


@pytest.mark.real_data
def test_images_that_coco_and_lvis_both_annotate(coco_and_lvis_images: dict[int, tuple[list[Rle], list[Rle]]]) -> None:
    dropped = 0
    for coco, lvis in coco_and_lvis_images.values():
        coco_masks, lvis_masks = (np.stack([decode(rle) for rle in rles]) for rles in (coco, lvis))
        kept_coco, kept_lvis = restatement.merge_kept(coco_masks, lvis_masks)
        assert kept_by_the_package(coco, lvis) == (kept_coco, kept_lvis)
        dropped += len(coco) - len(kept_coco)

        merged = [coco[index] for index in kept_coco] + [lvis[index] for index in kept_lvis]
        objects = [scene_object(rle, "lvis") for rle in lvis] + [scene_object(rle, "coco") for rle in coco]
        assert [item.rle for item in chosen_objects(objects)] == merged

        expected = restatement.forest(np.concatenate([coco_masks[kept_coco], lvis_masks[kept_lvis]]))
        graph = build_hierarchy(merged)
        assert [list(graph.successors(node)) for node in graph] == expected.children
        assert [graph.nodes[node]["level"] for node in graph] == expected.levels
    assert dropped


@given(data=st.data())
def test_related_masks(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    split = data.draw(st.integers(0, len(masks)))
    coco, lvis = masks[:split], masks[split:]
    assert kept_by_the_package(encode_all(coco), encode_all(lvis)) == restatement.merge_kept(coco, lvis)


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=8
    ),
    holes=st.integers(0, 12),
    split=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_rectangles_that_are_almost_the_same(
    moves: list[tuple[int, int, int, int]], holes: int, split: int, seed: int
) -> None:
    """Boxes that differ by a few rows and columns, masks that differ by a few pixels more."""
    noise = np.random.default_rng(seed)
    masks = stack([rectangle((top, 11 + low), (left, 17 + right)) for top, left, low, right in moves])
    for mask in masks:
        mask.flat[noise.choice(np.flatnonzero(mask), holes, replace=False)] = False
    coco, lvis = masks[:split], masks[split:]
    assert kept_by_the_package(encode_all(coco), encode_all(lvis)) == restatement.merge_kept(coco, lvis)


@given(data=st.data())
def test_box_iou_pair_by_pair(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    expected = [[restatement.box_iou(one, other) for other in masks] for one in masks]
    box = boxes(encode_all(masks))
    assert interval_box_ious(box, box).tolist() == expected


def test_box_iou_is_not_the_usual_ratio_of_areas() -> None:
    one, other = rectangle((0, 10), (0, 10)), rectangle((5, 15), (5, 15))
    box = boxes([encode(one), encode(other)])
    assert interval_box_ious(box[:1], box[1:])[0, 0] == pytest.approx((5 / 15) ** 2)
    assert restatement.box_iou(one, rectangle((20, 30), (0, 10))) == 0


@pytest.mark.parametrize(
    ("columns", "holes", "coco_is_dropped", "lvis_is_dropped"),
    [
        (14, 0, False, False),  # box IoU exactly 0.70
        (15, 0, True, False),  # box IoU 0.75, mask IoU 0.75
        (17, 0, True, False),  # box IoU exactly 0.85, mask IoU exactly 0.85
        (18, 0, True, True),  # box IoU 0.90, mask IoU 0.90
        (20, 60, False, False),  # box IoU 1, mask IoU exactly 0.70
        (20, 59, True, False),  # box IoU 1, mask IoU 0.705
        (20, 30, True, False),  # box IoU 1, mask IoU exactly 0.85
        (20, 29, True, True),  # box IoU 1, mask IoU 0.855
    ],
)
def test_exactly_at_the_thresholds(columns: int, holes: int, coco_is_dropped: bool, lvis_is_dropped: bool) -> None:
    """A mask of 10 x 20 pixels beside one with fewer columns or with holes (never in the border)."""
    one, other = rectangle((0, 10), (0, 20)), rectangle((0, 10), (0, columns))
    inside = np.flatnonzero(rectangle((1, 9), (1, columns - 1)))
    other.flat[inside[:holes]] = False
    for first, second in ((one, other), (other, one)):
        assert (restatement.merge_kept(stack([first]), stack([second]))[0] == []) is coco_is_dropped
        assert coco_repeated_in_lvis([encode(first)], [encode(second)])[0] == coco_is_dropped
        assert (restatement.merge_kept(stack([]), stack([first, second]))[1] == [1]) is lvis_is_dropped
        assert lvis_repeated_later([encode(first), encode(second)]).tolist() == [lvis_is_dropped, False]


@pytest.mark.parametrize(
    ("covered", "columns", "dropped"), [(14, 20, False), (9, 13, False), (15, 21, True), (12, 17, True)]
)
def test_one_pixel_far_away_makes_the_boxes_differ(covered: int, columns: int, dropped: bool) -> None:
    """Box IoU exactly 0.70, 0.69, 0.71 and 0.71; the masks differ by that pixel alone."""
    one = rectangle((0, 10), (0, covered))
    other = one.copy()
    other[0, columns - 1] = True
    for first, second in ((one, other), (other, one)):
        assert (restatement.merge_kept(stack([first]), stack([second]))[0] == []) is dropped
        assert coco_repeated_in_lvis([encode(first)], [encode(second)]).tolist() == [dropped]
        assert lvis_repeated_later([encode(first), encode(second)]).tolist() == [dropped, False]


def test_of_lvis_twins_the_last_stays() -> None:
    twin = rectangle((0, 10), (0, 10))
    lvis = stack([twin, rectangle((20, 30), (20, 30)), twin, twin])
    assert restatement.merge_kept(stack([]), lvis)[1] == [1, 3]
    assert kept_by_the_package([], encode_all(lvis)) == ([], [1, 3])


def test_an_lvis_mask_that_is_dropped_still_drops_the_one_before_it() -> None:
    """20, 18 and 16 columns: neighbours in the chain are alike (0.90 and 0.89), its ends are not (0.80)."""
    lvis = stack([rectangle((0, 10), (0, columns)) for columns in (20, 18, 16)])
    assert restatement.merge_kept(stack([]), lvis)[1] == [2]
    assert kept_by_the_package([], encode_all(lvis)) == ([], [2])


def test_an_lvis_mask_that_is_dropped_still_drops_a_coco_mask() -> None:
    """The COCO mask is like the first LVIS mask (0.76), not like the second (0.68)."""
    coco = stack([rectangle((0, 10), (0, 13))])
    lvis = stack([rectangle((0, 10), (0, 17)), rectangle((0, 10), (0, 19))])
    assert restatement.merge_kept(coco, lvis) == ([], [1])
    assert restatement.merge_kept(coco, lvis[1:]) == ([0], [0])
    assert kept_by_the_package(encode_all(coco), encode_all(lvis)) == ([], [1])
    assert kept_by_the_package(encode_all(coco), encode_all(lvis[1:])) == ([0], [0])


def test_coco_drops_neither_coco_nor_lvis() -> None:
    twin = rectangle((0, 10), (0, 10))
    coco, lvis = stack([twin, twin]), stack([rectangle((20, 30), (20, 30))])
    assert kept_by_the_package(encode_all(coco), encode_all(lvis)) == ([0, 1], [0])
    assert kept_by_the_package(encode_all(coco), []) == ([0, 1], [])
    assert kept_by_the_package([], []) == ([], [])


def test_a_mask_below_80_pixels_takes_no_part() -> None:
    """The LVIS mask of 79 pixels is gone before it could drop its COCO twin of 80."""
    coco = rectangle((0, 8), (0, 10))
    lvis = coco.copy()
    lvis[0, 0] = False
    large = rectangle((20, 30), (20, 30))
    assert restatement.merge_kept(stack([coco]), stack([lvis, large])) == ([0], [1])
    objects = [scene_object(encode(lvis), "lvis"), scene_object(encode(large), "lvis")]
    chosen = chosen_objects([*objects, scene_object(encode(coco), "coco")])
    assert [item.rle for item in chosen] == [encode(coco), encode(large)]


def test_kept_coco_masks_come_first_then_lvis_then_stuff() -> None:
    crowd = rectangle((0, 12), (0, 12))
    repeated = rectangle((14, 26), (0, 12))
    thing = rectangle((28, 40), (0, 12))
    lvis = [rectangle((28, 40), (28, 40)), repeated]
    stuff = rectangle((0, 40), (0, 20))
    objects = [
        scene_object(encode(stuff), "coco", "stuff"),
        scene_object(encode(lvis[0]), "lvis"),
        scene_object(encode(crowd), "coco", "crowd"),
        scene_object(encode(repeated), "coco"),
        scene_object(encode(lvis[1]), "lvis"),
        scene_object(encode(thing), "coco"),
    ]
    instances = stack([crowd, thing, *lvis])
    assert restatement.stuff_left(stack([stuff]), instances) == []
    assert [decode(item.rle).tolist() for item in chosen_objects(objects)] == instances.tolist()

    wide_stuff = rectangle((0, 40), (0, 32))
    ((_, left),) = restatement.stuff_left(stack([wide_stuff]), instances)
    objects[0] = scene_object(encode(wide_stuff), "coco", "stuff")
    chosen = chosen_objects(objects)
    assert [decode(item.rle).tolist() for item in chosen] == [*instances.tolist(), left.tolist()]
    assert [item.kind for item in chosen] == ["crowd", "thing", "thing", "thing", "stuff"]
    assert chosen[-1].area == left.sum()


def test_stuff_needs_more_than_500_pixels_beside_the_instances() -> None:
    stuff, instance = rectangle((0, 25), (0, 30)), rectangle((0, 40), (20, 30))
    assert restatement.stuff_left(stack([stuff]), stack([instance])) == []
    assert uncovered_stuff([encode(stuff)], [encode(instance)]) == [None]
    stuff[30, 0] = True
    ((_, left),) = restatement.stuff_left(stack([stuff]), stack([instance]))
    assert left.sum() == 501
    assert uncovered_stuff([encode(stuff)], [encode(instance)]) == [encode(left)]


@given(data=st.data())
def test_stuff_of_related_masks(related_masks: st.SearchStrategy[Masks], data: st.DataObject) -> None:
    masks = data.draw(related_masks)
    split = data.draw(st.integers(0, len(masks)))
    stuff, instances = ~masks[:split], masks[split:]
    expected: list[Rle | None] = [None] * split
    for index, region in restatement.stuff_left(stuff, instances):
        expected[index] = encode(region)
    assert uncovered_stuff(encode_all(stuff), encode_all(instances)) == expected
