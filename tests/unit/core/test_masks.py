"""Masks on run lengths against NumPy, SciPy, OpenCV and pycocotools."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from disbench.core.masks import (
    POLYGON_MARGIN,
    Raster,
    Rle,
    areas,
    as_integer,
    boxes,
    check_mask_bytes,
    contained_shares,
    decode,
    difference,
    dilate,
    empty,
    encode,
    from_foreign_rle,
    from_grey_png,
    from_label_map,
    from_polygons,
    from_segmentations,
    intersection,
    ious,
    pixel,
    union,
)

Mask = npt.NDArray[np.bool_]
Masks = npt.NDArray[np.bool_]

SIDES = st.tuples(st.integers(1, 24), st.integers(1, 24))


@st.composite
def masks(draw: st.DrawFn, least: int = 1, most: int = 4) -> Masks:
    """Masks of one size, noisy or a rectangle, the empty and the full one among them."""
    height, width = draw(SIDES)
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(least, most))
    drawn = np.zeros((count, height, width), dtype=bool)
    for mask in drawn:
        top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
        bottom, right = draw(st.integers(0, height)), draw(st.integers(0, width))
        mask[top:bottom, left:right] = True
        mask[noise.random((height, width)) < draw(st.sampled_from((0, 0.05, 0.5)))] ^= True
        if draw(st.booleans()):
            mask[:] = ~mask
    return drawn


def encode_all(arrays: Masks) -> list[Rle]:
    return [encode(array) for array in arrays]


def runs_of(mask: Mask) -> list[int]:
    """Lengths of the runs down the columns, background first."""
    pixels = mask.ravel(order="F")
    borders = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *borders, pixels.size]).tolist()
    return [0, *runs] if pixels[0] else runs


def compressed(runs: Sequence[int]) -> bytes:
    """COCO's string: from the third on a run less the run two before it, in groups of five bits."""
    text = bytearray()
    for place, run in enumerate(runs):
        rest, more = run - runs[place - 2] if place > 2 else run, True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != -1 if bits & 16 else rest != 0
            text.append(48 + bits + 32 * more)
    return bytes(text)


@given(array=masks())
def test_encode_is_pycocotools_and_decode_its_inverse(array: Masks) -> None:
    for mask in array:
        rle = encode(mask)
        assert rle == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle == {"size": list(mask.shape), "counts": compressed(runs_of(mask))}
        rows, columns = decode(rle, "C"), decode(rle)
        assert rows.dtype == columns.dtype == bool
        assert rows.flags.c_contiguous and columns.flags.f_contiguous and rows.flags.writeable
        assert np.array_equal(rows, mask) and np.array_equal(columns, mask)


@given(array=masks(least=0))
def test_areas_and_inclusive_boxes(array: Masks) -> None:
    found, corners = areas(encode_all(array)), boxes(encode_all(array))
    assert found.dtype == corners.dtype == np.int64
    assert found.tolist() == array.sum(axis=(1, 2)).tolist()
    assert corners.shape == (len(array), 4)
    for box, mask in zip(corners.tolist(), array, strict=True):
        rows, columns = np.nonzero(mask)
        if rows.size:
            x, y = columns.min(), rows.min()
            assert box == [x, y, columns.max() - x + 1, rows.max() - y + 1]
        else:
            assert box == [0, 0, 0, 0]


@given(array=masks(least=2))
def test_contained_shares_and_ious(array: Masks) -> None:
    rles = encode_all(array)
    mask, others = array[0], array[1:]
    common, either = (mask & others).sum(axis=(1, 2)), (mask | others).sum(axis=(1, 2))
    found = ious(rles[0], rles[1:])
    assert found.dtype == np.float64
    assert found.tolist() == [c / e if e else 0 for c, e in zip(common, either, strict=True)]
    if mask.any():
        shares = contained_shares(rles[0], rles[1:])
        assert shares.dtype == np.float64
        assert shares.tolist() == (common / mask.sum()).tolist()


@given(array=masks())
def test_union_intersection_difference(array: Masks) -> None:
    rles = encode_all(array)
    assert union(rles) == encode(array.any(axis=0))
    assert intersection(rles) == encode(array.all(axis=0))
    assert difference(rles[0], rles[1:]) == encode(array[0] & ~array[1:].any(axis=0))


@given(array=masks(most=1), iterations=st.integers(1, 4))
def test_dilation_is_scipys_and_stops_at_the_border(array: Masks, iterations: int) -> None:
    expected = ndimage.binary_dilation(array[0], np.ones((3, 3)), iterations=iterations)
    assert dilate(encode(array[0]), iterations) == encode(expected)
    assert dilate(encode(array[0]), 0) == encode(array[0])


@given(sides=SIDES)
def test_nothing(sides: tuple[int, int]) -> None:
    """The empty mask, and a mask beside no others."""
    nothing = np.zeros(sides, dtype=bool)
    assert empty(*sides) == encode(nothing)
    assert contained_shares(encode(~nothing), []).shape == ious(encode(~nothing), []).shape == (0,)
    with pytest.raises(ValueError, match="two axes"):
        encode(nothing[..., None])


@st.composite
def polygons(draw: st.DrawFn) -> tuple[list[list[float]], int, int]:
    """Rings of halves, tenths and whole pixels, up to the margin outside their image."""
    height, width = draw(SIDES)
    step = draw(st.sampled_from((1, 2, 10)))
    low = -POLYGON_MARGIN
    ring = st.lists(
        st.tuples(
            st.integers(int(low * step), int((width - low) * step)),
            st.integers(int(low * step), int((height - low) * step)),
        ),
        min_size=3,
        max_size=8,
    ).map(lambda points: [value / step for point in points for value in point])
    return draw(st.lists(ring, min_size=1, max_size=3)), height, width


@given(drawn=polygons())
def test_polygons_are_pycocotools(drawn: tuple[list[list[float]], int, int]) -> None:
    rings, height, width = drawn
    expected = decode(coco_mask.merge(coco_mask.frPyObjects(rings, height, width)))
    assert from_polygons(rings, height, width) == encode(expected)


@given(drawn=polygons())
def test_fillpoly_rounds_the_points(drawn: tuple[list[list[float]], int, int]) -> None:
    rings, height, width = drawn
    expected = np.zeros((height, width), dtype=np.uint8)
    for ring in rings:
        points = [[round(x), round(y)] for x, y in zip(ring[::2], ring[1::2], strict=True)]
        cv2.fillPoly(expected, [np.array(points, dtype=np.int32)], 1)
    assert from_polygons(rings, height, width, "fillpoly") == encode(expected == 1)


TRIANGLE = [1.0, 1.0, 7.0, 1.0, 7.0, 5.0]


@pytest.mark.parametrize("raster", ["pycocotools", "fillpoly"])
@pytest.mark.parametrize("ring", [tuple(TRIANGLE), np.array(TRIANGLE), [1, 1, 7, 1, 7, 5]])
def test_a_ring_is_any_sequence_of_numbers(ring: Sequence[float], raster: Raster) -> None:
    assert from_polygons([ring], 8, 9, raster) == from_polygons([TRIANGLE], 8, 9, raster)


@pytest.mark.parametrize(
    "rings",
    [
        *([[*TRIANGLE, 3.0]], TRIANGLE, [TRIANGLE, [TRIANGLE]], [[[1.0, 1.0], [7.0], [7.0, 5.0, 2.0]]]),
        *([[1.0, value, 7.0, 1.0, 7.0, 5.0]] for value in (float("nan"), float("-inf"), 10**400, 5.0j, None, "one")),
        *("1 1 7 1 7 5", ["1 1 7 1 7 5"], [None], [{"x": 1.0}], [[True, 1, 7, 1, 7, 5]]),
        *([[1.0, 1.0, 7.0, 1.0, 7.0, 2.0**29]], [[0.0, 0.0, 2.0**24, 0.0, 0.0, 1.0]]),
    ],
)
@pytest.mark.parametrize("raster", ["pycocotools", "fillpoly"])
def test_what_is_no_polygon_is_refused(rings: Any, raster: Raster) -> None:
    with pytest.raises(ValueError, match="polygon"):
        from_polygons(rings, 8, 9, raster)


@pytest.mark.parametrize("raster", ["pycocotools", "fillpoly"])
def test_rings_without_three_points_are_left_out(raster: Raster) -> None:
    whole = from_polygons([TRIANGLE], 8, 9, raster)
    for short in ([], [3.0], [1.0, 1.0], [1.0, 1.0, 5.0], [1.0, 1.0, 2.0, 2.0], TRIANGLE[:5]):
        changes: Counter[str] = Counter()
        assert from_polygons([short, TRIANGLE], 8, 9, raster, changes) == whole
        assert (+changes).total() == 1
        assert from_polygons([short], 8, 9, raster) == empty(8, 9)
    assert from_polygons([], 8, 9, raster) == empty(8, 9)


@pytest.mark.parametrize("raster", ["pycocotools", "fillpoly"])
@pytest.mark.parametrize(
    ("at_the_margin", "beyond"),
    [
        ((-1, 2), (-1.01, 2)),
        ((10, 2), (10.01, 2)),
        ((2, -1), (2, -1.01)),
        ((2, 9), (2, 9.01)),
        ((-1, -1), (-1, -2)),
        ((10, 9), (10, 10)),
    ],
)
def test_a_polygon_that_leaves_its_image_beyond_the_margin_is_counted(
    at_the_margin: tuple[float, float], beyond: tuple[float, float], raster: Raster
) -> None:
    """The image has 8 rows and 9 columns, the margin is one pixel."""
    for corner, counted in ((at_the_margin, 0), (beyond, 1)):
        changes: Counter[str] = Counter()
        from_polygons([[*corner, 1.0, 1.0, 7.0, 3.0]], 8, 9, raster, changes)
        assert changes.total() == counted


@given(
    points=st.lists(st.floats(-2e5, 2e5) | st.floats(-20, 20), min_size=6, max_size=12).filter(
        lambda p: len(p) % 2 == 0
    )
)
@example(points=[2.0**28, 2.0**28, 2.0**28, 2.0**28 - 9, 2.0**28 - 9, 2.0**28])
def test_a_polygon_is_cut_off_as_pycocotools_does(points: list[float]) -> None:
    expected = coco_mask.frPyObjects([points], 8, 9)[0]
    assert decode(from_polygons([points], 8, 9)).sum() == coco_mask.area(expected)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3), (3.0, 3), ("3", 3), ("3.00", 3), (-3.0, -3), ("0", 0), (2**70, 2**70)),
        *((value, None) for value in (True, 3.5, "3.5", "03", " 3", "", "x", 1e300, float("nan"), None, [3], "9" * 99)),
    ],
)
def test_whole_numbers_as_tools_write_them(value: object, number: int | None) -> None:
    assert as_integer(value) == number


@given(array=masks(most=1))
def test_a_foreign_rle_compressed_or_not(array: Masks) -> None:
    mask = array[0]
    size, runs = list(mask.shape), runs_of(mask)
    text = compressed(runs).decode("ascii")
    counts: list[Any] = [
        runs,
        list(map(float, runs)),
        list(map(str, runs)),
        compressed(runs),
        text,
        str(compressed(runs)),
    ]
    for foreign in counts:
        assert from_foreign_rle({"size": size, "counts": foreign}, *size) == encode(mask)
        assert from_foreign_rle({"size": list(map(str, size)), "counts": foreign}, *size) == encode(mask)


@given(array=masks(), spoiled=st.none() | st.sampled_from(["", "P00", "ä", "Q", "0"]))
def test_texts_of_several_masks_are_read_together_as_one_by_one(array: Masks, spoiled: str | None) -> None:
    size = [*array[0].shape]
    found: list[object] = [{"size": size, "counts": encode(mask)["counts"].decode()} for mask in array]
    if spoiled is not None:
        found.append({"size": size, "counts": spoiled})
    try:
        expected = [from_foreign_rle(rle, *size) for rle in found]
    except ValueError:
        with pytest.raises(ValueError, match="RLE"):
            from_segmentations(found, *size)
        return
    assert from_segmentations(found, *size) == expected


@given(
    values=np_st.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    least=st.integers(1, 255),
    level=st.sampled_from((0, 1, 9)),
)
def test_grey_pngs(values: npt.NDArray[np.uint8], least: int, level: int) -> None:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=level)
    data = file.getvalue()
    assert from_grey_png(data, least) == encode(values >= least)
    for damaged in (b"", data[:50], data[:20] + b"\xff" + data[21:], data[:-20]):
        with pytest.raises(ValueError, match="PNG"):
            from_grey_png(damaged, least)


@given(data=st.data(), array=masks(most=1))
def test_runs_of_length_zero_change_nothing(data: st.DataObject, array: Masks) -> None:
    """Equal masks have equal run lengths, however their file wrote them."""
    mask = array[0]
    size, runs = list(mask.shape), runs_of(mask)
    for place in data.draw(st.lists(st.integers(0, len(runs)), min_size=1, max_size=3)):
        split = data.draw(st.integers(0, runs[place])) if place < len(runs) else 0
        runs[place : place + 1] = [split, 0, runs[place] - split] if place < len(runs) else [0]
    counts: list[Any] = [runs, compressed(runs)]
    for foreign in counts:
        assert from_foreign_rle({"size": size, "counts": foreign}, *size) == encode(mask)


@given(size=st.lists(st.integers(-1, 7), max_size=3).filter(lambda size: size != [3, 5]))
def test_a_foreign_rle_of_another_size_is_refused(size: list[int]) -> None:
    for counts in ([15], b"?"):
        with pytest.raises(ValueError, match=r"size .* is not its image's \[3, 5\]"):
            from_foreign_rle({"size": size, "counts": counts}, 3, 5)


@given(runs=st.lists(st.integers(-3, 18), max_size=6))
@example(runs=[2**32, 15])
@example(runs=[5, 2**32 + 10])
@example(runs=[5 - 2**32, 10])
@example(runs=[2**64 + 5, 10])
@example(runs=[15, 2**70])
def test_only_runs_that_add_up_are_a_mask(runs: list[int]) -> None:
    counts: list[Any] = [runs, compressed(runs), compressed(runs).decode("ascii")]
    for foreign in counts:
        rle = {"size": [3, 5], "counts": foreign}
        if sum(runs) == 15 and min(runs) >= 0:
            pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
            assert from_foreign_rle(rle, 3, 5) == encode(pixels.reshape((3, 5), order="F"))
        else:
            with pytest.raises(ValueError, match="RLE"):
                from_foreign_rle(rle, 3, 5)


NO_COUNTS: tuple[object, ...] = (
    *([5, 10.5], [float("nan")], ["5", "1e1"], [None, 15], [True] * 15, [[5], [10]], None, (5, 10), {"5": 10}),
    b"?h",  # a run of 15, then one that does not end
    *(b"?\xff", b"\x00", b"oooooooooooooooo", " ", "é", "\ud800"),
)
SIZES = (None, "35", [[3, 5]], [3, None], ["3", "5 "])


@pytest.mark.parametrize(
    "rle",
    [
        *({"size": [3, 5], "counts": counts} for counts in NO_COUNTS),
        *({"size": size, "counts": [15]} for size in SIZES),
        *({}, {"counts": [15]}, None, "RLE"),
    ],
    ids=repr,
)
def test_what_is_no_rle_is_refused(rle: object) -> None:
    with pytest.raises(ValueError, match=r"RLE|size"):
        from_foreign_rle(rle, 3, 5)


@given(counts=st.one_of(st.binary(max_size=12), st.text(max_size=8)))
def test_garbage_is_a_mask_of_the_size_or_a_value_error(counts: bytes | str) -> None:
    try:
        rle = from_foreign_rle({"size": [3, 5], "counts": counts}, 3, 5)
    except ValueError as error:
        assert "RLE" in str(error)
    else:
        assert rle == encode(decode(rle))
        assert rle["size"] == [3, 5]


@given(
    labels=np_st.arrays(
        st.sampled_from((np.uint8, np.int32, np.int64)), SIDES, elements=st.sampled_from((0, 1, 2, 7, 100))
    ),
    ignored=st.sampled_from(((0,), (), (0, 7), (255,))),
)
def test_label_maps(labels: npt.NDArray[np.integer], ignored: tuple[int, ...]) -> None:
    found = from_label_map(labels, ignored)
    assert list(found) == sorted(set(labels.ravel().tolist()) - set(ignored))
    for value, rle in found.items():
        assert rle == encode(labels == value)


def test_a_label_map_has_no_mask_for_0() -> None:
    labels = np.array([[0, 300, 300], [-1, 0, 300]])
    found = from_label_map(labels)
    assert list(found) == [-1, 300]
    assert decode(found[300]).tolist() == [[False, True, True], [False, False, True]]


def test_more_masks_than_eight_bits_count() -> None:
    """LVIS has images with hundreds of masks."""
    array = np.zeros((600, 7, 9), dtype=bool)
    for number, mask in enumerate(array):
        mask[: 1 + number % 7, : 1 + number % 9] = True
    rles = [encode(mask) for mask in array]
    assert areas(rles).tolist() == array.sum(axis=(1, 2)).tolist()
    assert boxes(rles)[:, 2].tolist() == [1 + number % 9 for number in range(600)]
    assert len(ious(rles[0], rles)) == len(contained_shares(rles[0], rles)) == 600
    assert decode(union(rles)).all()


@given(masks(most=1))
def test_pixels_are_counted_down_the_columns(drawn: Masks) -> None:
    rle = encode(drawn[0])
    expected = [(x, y) for x in range(drawn.shape[2]) for y in range(drawn.shape[1]) if drawn[0, y, x]]
    assert [pixel(rle, number) for number in range(len(expected))] == expected
    for number in (-1, len(expected)):
        with pytest.raises(IndexError, match="pixel"):
            pixel(rle, number)


def test_the_masks_of_a_scene_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    segmentations: list[object] = [[[0, 0, 8, 0, 8, 8]], *([[0, 0, 8, 0, 8, number]] for number in range(1, 9))]
    size = sum(len(rle["counts"]) for rle in from_segmentations(segmentations, 9, 9))
    check_mask_bytes(size)
    monkeypatch.setattr("disbench.core.masks.MAX_MASK_BYTES", size)
    check_mask_bytes(size)
    from_segmentations(segmentations, 9, 9)
    for call in (
        lambda: check_mask_bytes(size + 1),
        lambda: from_segmentations([*segmentations, segmentations[0]], 9, 9),
    ):
        with pytest.raises(ValueError, match="more than"):
            call()
