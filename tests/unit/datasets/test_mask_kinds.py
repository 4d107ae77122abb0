"""Masks as programs write them: read as OpenCV or Pillow do, or refused with the values found; rules by the pixel."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from disbench.datasets.cards import open_dataset
from disbench.datasets.label_maps import read_label_map, read_palette
from disbench.datasets.targets import RULES, detect_rule, gray_of_index, instance_numbers, mask_kind
from tests.refusals import refuses

Pixels = npt.NDArray[np.uint8]
Write = Callable[[Path], object]


def any_value(path: Path) -> npt.NDArray[np.int8]:
    """A mask by the rule that is recognised for it."""
    return RULES[detect_rule([mask_kind(path)])[0]](path, 0)


ELLIPSE: Pixels = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 30), (20, 12), 20, 0, 360, 1, -1)
WHITE = ELLIPSE * np.uint8(255)
SOFT = cv2.GaussianBlur(WHITE, (7, 7), 0)
RIM = cv2.dilate(ELLIPSE, np.ones((5, 5))) != ELLIPSE
LABELS = ELLIPSE.copy()
LABELS[2:12, 5:20], LABELS[45:58, 60:75] = 2, 3
HUGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


def array(pixels: npt.NDArray[np.generic], **options: object) -> Write:
    return lambda path: Image.fromarray(pixels).save(path, **options)


def palette(indices: Pixels, *colours: tuple[int, int, int], **options: object) -> Write:
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return lambda path: image.save(path, **options)


def rgb(pixels: Pixels) -> Pixels:
    return np.dstack([pixels] * 3)


def rgba(colours: Pixels, alpha: Pixels) -> Pixels:
    return np.dstack([colours, alpha]).astype(np.uint8)


def compressed(pixels: Pixels, quality: int, kind: str = "JPEG") -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=quality)
    return cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)


def colour_map(name: str, labels: Pixels) -> Write:
    import matplotlib.image as images

    return lambda path: images.imsave(path, labels, cmap=name)


BLACK, GREY, ALL_WHITE = (0, 0, 0), (90, 90, 90), (255, 255, 255)
VOC = [BLACK, (128, 0, 0), (0, 128, 0), (128, 128, 0)]
UNTIL_VOID = [*VOC, *[BLACK] * 251, (224, 224, 192)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("zero_one.png", array(ELLIPSE)),
        ("bits.png", array(ELLIPSE > 0)),
        ("16 bits of 1.png", array(ELLIPSE.astype(np.uint16))),
        ("floats.tif", array(ELLIPSE.astype(np.float32))),
        ("voc.png", palette(ELLIPSE, *VOC)),
        ("no palette.png", palette(ELLIPSE, BLACK, BLACK)),
        ("imsave.png", colour_map("gray", ELLIPSE)),
        ("cut out.png", array(rgba(rgb(WHITE), WHITE))),
        ("red.png", array(np.dstack([WHITE, WHITE * 0, WHITE * 0]))),
        ("grey and alpha.png", lambda path: Image.fromarray(WHITE).convert("LA").save(path)),
    ],
)
def test_numbers_are_read_as_before(tmp_path: Path, name: str, write: Write) -> None:
    """Every number but 0, under the rule whose name is in the content hashes."""
    write(tmp_path / name)
    assert detect_rule([mask_kind(tmp_path / name)])[0] == "any-value"
    assert np.array_equal(any_value(tmp_path / name), ELLIPSE)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("white first.png", palette(1 - ELLIPSE, ALL_WHITE, BLACK)),
        ("colours.gif", array(rgb(WHITE))),
        ("soft and quantized.png", lambda path: Image.fromarray(SOFT).quantize(64).save(path)),
        ("white ink.png", array(rgba(rgb(WHITE * 0 + np.uint8(255)), WHITE))),
        ("black ink.png", array(rgba(rgb(WHITE * 0), WHITE))),
        ("soft ink.png", array(rgba(rgb(SOFT * 0), SOFT))),
        ("white paper.gif", palette(1 - ELLIPSE, ALL_WHITE, BLACK, transparency=1)),
        ("blurred.png", array(SOFT)),
        ("blurred floats.tif", array(SOFT.astype(np.float32) / 255)),
        *((f"{quality}.jpg", array(WHITE, quality=quality)) for quality in (20, 50, 75, 95, 100)),
        *((f"from {quality}.png", array(compressed(WHITE, quality))) for quality in (20, 50, 75, 95, 100)),
        *((f"webp {quality}.png", array(compressed(rgb(WHITE), quality, "WEBP"))) for quality in (50, 80, 100)),
    ],
)
def test_brightness_above_half_where_numbers_mislead(tmp_path: Path, name: str, write: Write) -> None:
    """What shows on black is the object, nearly the ellipse that was drawn; in grey files exactly OpenCV's values."""
    write(tmp_path / name)
    rule, said = detect_rule([mask_kind(tmp_path / name)])
    assert (rule, "above 127" in said) == ("above-half", True)
    target = any_value(tmp_path / name)
    assert (target != ELLIPSE).sum() <= 0.05 * ELLIPSE.sum()
    if name.endswith((".jpg", "75.png", "blurred.png")):
        assert np.array_equal(target, cv2.imread(str(tmp_path / name), cv2.IMREAD_GRAYSCALE) > 127)


@pytest.mark.parametrize(
    ("labels", "colours"),
    [(LABELS, VOC), (LABELS, [BLACK, (250, 50, 83), (60, 20, 20), (0, 0, 142)])],
    ids=["PascalVOC", "dark and light"],
)
def test_objects_of_several_numbers(tmp_path: Path, labels: Pixels, colours: list[tuple[int, int, int]]) -> None:
    written = {
        "colours.png": array(np.array(colours, np.uint8)[labels]),
        "palette.png": palette(labels, *colours),
        "numbers.png": array(labels),
        "16 bits.png": array(labels.astype(np.uint16) * 11000),
        "steps.png": array(labels * np.uint8(85)),
    }
    for name, write in written.items():
        write(tmp_path / name)
        assert np.array_equal(any_value(tmp_path / name), labels > 0), name


@pytest.mark.parametrize(
    ("name", "write", "found"),
    [
        ("trimap.png", array(np.where(RIM, 128, WHITE).astype(np.uint8)), "values 0, 128, 255: .*mode=trimap"),
        (
            "void.png",
            palette(np.where(RIM, 255, ELLIPSE).astype(np.uint8), *UNTIL_VOID),
            "values 0, 1, 255: .*void_255",
        ),
        ("colour void.png", array(np.array(UNTIL_VOID, np.uint8)[np.where(RIM, 255, ELLIPSE)]), "void_255"),
        ("no black.png", palette(LABELS, (31, 119, 180), (255, 127, 14), (44, 160, 44), (9, 9, 99)), "0, 1, 2, 3: "),
        ("white paper.png", palette(LABELS, ALL_WHITE, *VOC[1:]), "mask=nonzero"),
        ("viridis.png", colour_map("viridis", ELLIPSE), "values 84, 253: "),
        ("colours and opacity differ.png", array(rgba(rgb(255 - WHITE), WHITE)), "alpha"),
        ("photo.jpg", array(HUGE), "mask=nonzero"),
        ("numbers.jpg", array(ELLIPSE), "values 0, 1"),
        ("negative.tif", array(ELLIPSE.astype(np.int32) - 1), "values from -1 to 0"),
        ("pages.tif", array(WHITE, save_all=True, append_images=[Image.fromarray(WHITE)]), "several pages"),
        ("white is 0.tif", array(WHITE, tiffinfo={262: 0}), "0 as white"),
    ],
)
def test_no_one_meaning(tmp_path: Path, name: str, write: Write, found: str) -> None:
    write(tmp_path / name)
    refuses(rf"{name}: .*{found}", any_value, tmp_path / name)


def folder(root: Path, **masks: Write) -> str:
    for part in ("images", "masks"):
        (root / part).mkdir()
    for name, write in masks.items():
        Image.fromarray(rgb(WHITE)).save(root / "images" / f"{name}.jpg")
        write(root / "masks" / f"{name}.png")
    return str(root)


def test_one_rule_reads_all_masks_of_a_folder(tmp_path: Path) -> None:
    source = open_dataset(
        folder(tmp_path, a=array(WHITE), b=array(SOFT), c=palette(1 - ELLIPSE, ALL_WHITE, BLACK)), None
    )
    share = (ELLIPSE.sum() * 2 + (SOFT > 127).sum()) / ELLIPSE.size / 3
    assert source.facts()["rule"] == "above-half"
    assert source.facts()["notes"] == [
        f"values 0 to 255 ({len(np.unique(SOFT))} different) in 3 masks: object above 127, {share:.1%} of the pixels"
    ]
    assert [int(source.read(index).target.sum()) for index in range(3)] == [
        ELLIPSE.sum(),
        (SOFT > 127).sum(),
        ELLIPSE.sum(),
    ]


def test_a_damaged_mask_costs_its_own_sample(tmp_path: Path) -> None:
    source = open_dataset(folder(tmp_path, a=lambda path: path.write_bytes(b"no mask"), b=array(SOFT)), None)
    refuses(r"a\.png: ", source.read, 0)
    assert np.array_equal(source.read(1).target, SOFT > 127)


def test_masks_that_need_different_rules_are_refused(tmp_path: Path) -> None:
    dataset = folder(tmp_path, a=array(ELLIPSE), b=array(SOFT))
    refuses(r"a\.png: values 0, 1 .*b\.png has values 0 to 255", open_dataset, dataset, None)
    assert open_dataset(dataset, None, ["mask=nonzero"]).facts()["rule"] == "any-value"


@pytest.mark.parametrize(
    ("word", "pixels", "expected"),
    [
        ("nonzero", SOFT, SOFT > 0),
        ("half", SOFT, SOFT > 127),
        ("dark", 255 - WHITE, ELLIPSE > 0),
        ("alpha", rgba(HUGE, WHITE), ELLIPSE > 0),
        ("auto", 255 - WHITE, ELLIPSE == 0),
    ],
)
def test_the_option_decides(tmp_path: Path, word: str, pixels: Pixels, expected: npt.NDArray[np.bool_]) -> None:
    source = open_dataset(folder(tmp_path, a=array(pixels)), None, [f"mask={word}"])
    assert np.array_equal(source.read(0).target == 1, expected)
    assert ("mask=dark" in str(source.facts().get("notes"))) == (word == "auto")


@pytest.mark.parametrize("options", [["mode=trimap"], ["mode=instances"], ["void_255=true"]])
def test_it_is_for_binary_masks(tmp_path: Path, options: list[str]) -> None:
    refuses("mask=half", lambda: open_dataset(folder(tmp_path, a=array(WHITE)), None, ["mask=half", *options]))


@pytest.mark.parametrize(
    ("write", "options", "found"),
    [
        (array(SOFT), ["mode=instances"], "soft edges"),
        (array(compressed(LABELS * np.uint8(85), 90)), ["mode=instances"], "soft edges"),
        (palette(1 - ELLIPSE, ALL_WHITE, BLACK), ["mode=instances"], "palette"),
        (array(HUGE), ["mode=instances"], "different"),
        (array(np.where(RIM, 127, WHITE).astype(np.uint8)), ["mode=trimap"], "values 0, 127, 255"),
    ],
)
def test_maps_and_trimaps_of_other_pixels(tmp_path: Path, write: Write, options: list[str], found: str) -> None:
    refuses(rf"a\.png: .*{found}", lambda: open_dataset(folder(tmp_path, a=write), None, options))


def test_pascal_voc_colours_are_numbers(tmp_path: Path) -> None:
    """CVAT and Datumaro paint the palette's colours in place of its indices."""
    array(np.array(UNTIL_VOID, np.uint8)[np.where(RIM, 255, LABELS)])(tmp_path / "a.png")
    assert instance_numbers(tmp_path / "a.png", "one-value-void-255") == [1, 2, 3]
    assert instance_numbers(tmp_path / "a.png", "voc-palette") == [1, 2, 3]
    assert np.array_equal(RULES["voc-palette"](tmp_path / "a.png", 2) == 1, (LABELS == 2) & ~RIM)
    assert np.array_equal(RULES["any-value-void-255"](tmp_path / "a.png", 0), np.where(RIM, -1, LABELS > 0))


def test_jpeg_masks_are_taken_where_they_can_be(tmp_path: Path) -> None:
    dataset = folder(tmp_path, a=lambda path: Image.fromarray(WHITE).save(path.with_suffix(".jpg")))
    source = open_dataset(dataset, None)
    assert np.array_equal(source.read(0).target, ELLIPSE)
    refuses("masks: ", open_dataset, dataset, None, ["mode=instances"])


VALUES: Pixels = np.array([[0, 1, 127, 128], [129, 197, 243, 255]], dtype=np.uint8)
Colours = list[tuple[int, int, int]]


def voc_colours() -> Colours:
    """PascalVOC's colours: the bits of an index, lowest first, spread over red, green and blue from the top."""
    colours = np.zeros((256, 3), dtype=int)
    for bit in range(8):
        colours[:, bit % 3] |= (np.arange(256) >> bit & 1) << (7 - bit // 3)
    return list(map(tuple, colours.tolist()))


def palette_png(path: Path, labels: Pixels, colours: Colours | None = None) -> Path:
    palette(labels, *(colours or voc_colours()))(path)
    return path


def png(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    array(pixels)(path)
    return path


def test_trimap_and_bright(tmp_path: Path) -> None:
    for name, pixels in (("grey.png", VALUES), ("rgb.png", np.stack([VALUES] * 3, axis=2)), ("a.bmp", VALUES)):
        target = RULES["trimap"](png(tmp_path / name, pixels), 0)
        assert (target.dtype, target.tolist()) == (np.int8, [[0, 0, 0, -1], [1, 1, 1, 1]])
    assert RULES["bright"](tmp_path / "grey.png", 0).tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_rules_of_grey_take_16_bits(tmp_path: Path) -> None:
    """Numbers up to 255 as they are, larger ones by their upper byte; none becomes 0."""
    for values in ([0, 1, 128, 255], [0, 1, 128 * 257, 65535]):
        path = png(tmp_path / "a.png", np.array([values], dtype=np.uint16))
        assert RULES["any-channel"](path, 0).tolist() == [[0, 1, 1, 1]]
        assert RULES["trimap"](path, 0).tolist() == [[0, 0, -1, 1]]


def test_any_channel_merges_all_objects_of_a_palette_which_may_be_short(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [3, 0, 255]], dtype=np.uint8)
    path = palette_png(tmp_path / "a.png", labels)
    assert RULES["any-channel"](path, 0).tolist() == [[0, 1, 1], [1, 0, 1]]
    black = palette_png(tmp_path / "b.png", labels, [(0, 0, 0), (0, 0, 0), (9, 0, 0)])
    assert RULES["any-channel"](black, 0).tolist() == [[0, 0, 1], [0, 0, 0]]  # an index is not a colour
    path = palette_png(tmp_path / "a.png", np.zeros((2, 2), dtype=np.uint8), [(1, 2, 3), (4, 5, 6)])
    assert read_palette(path)[:3].tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]


def test_voc_by_palette_and_by_grey(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 16, 3], [18, 255, 1, 0]], dtype=np.uint8)
    path = palette_png(tmp_path / "a.png", labels)
    assert RULES["voc-palette"](path, 1).tolist() == [[0, 1, 0, 0], [0, -1, 1, 0]]
    assert RULES["voc-palette"](path, 16).tolist() == [[0, 0, 1, 0], [0, -1, 0, 0]]
    grey = int(gray_of_index(path)[1])
    assert RULES["voc-gray"](path, grey).tolist() == [[0, 1, 1, 0], [0, -1, 1, 0]]


def test_the_greys_of_the_voc_palette(tmp_path: Path) -> None:
    """Against OpenCV, and against the pairs of indices that are known to share one."""
    path = palette_png(tmp_path / "a.png", np.zeros((2, 2), dtype=np.uint8))
    greys = gray_of_index(path)
    assert (greys[0], greys[255]) == (0, 220)
    for pair in ([1, 16], [3, 18], [6, 21], [9, 24]):
        assert [index for index in range(25) if greys[index] == greys[pair[0]]] == pair
    colours = np.array(voc_colours(), dtype=np.uint8)[None]
    assert np.array_equal(cv2.cvtColor(colours[..., ::-1].copy(), cv2.COLOR_BGR2GRAY)[0], greys)


def test_void_of_folders(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", np.array([[0, 1, 2, 255]], dtype=np.uint8))
    assert RULES["any-value"](path, 0).tolist() == [[0, 1, 1, 1]]
    assert RULES["any-value-void-255"](path, 0).tolist() == [[0, 1, 1, -1]]
    assert RULES["one-value"](path, 255).tolist() == [[0, 0, 0, 1]]
    assert RULES["one-value-void-255"](path, 2).tolist() == [[0, 0, 1, -1]]
    assert instance_numbers(path, "one-value") == [1, 2, 255]
    assert instance_numbers(path, "one-value-void-255") == [1, 2]
    assert instance_numbers(png(path, np.full((2, 2, 3), 7, np.uint8)), "one-value") == [7]  # a colour that is grey


@pytest.mark.parametrize(
    ("pixels", "read"),
    [
        (np.eye(3, dtype=np.uint8), lambda path: RULES["voc-gray"](path, 1)),
        (np.arange(12, dtype=np.uint8).reshape(2, 2, 3), lambda path: instance_numbers(path, "one-value")),
        (np.full((2, 2), 0.5, dtype=np.float32), read_label_map),
    ],
    ids=["no palette", "colours", "fractions"],
)
def test_other_kinds_of_pixels(tmp_path: Path, pixels: npt.NDArray[np.generic], read: Callable[[Path], object]) -> None:
    refuses(r"a\.tif: ", lambda: read(png(tmp_path / "a.tif", pixels)))


maps = st.sampled_from([np.uint8, np.uint16, np.int32]).flatmap(
    lambda kind: st.lists(
        st.lists(
            st.sampled_from([0, 0, 1, 2, 7, 254, 255, *([256, 65535] if kind != np.uint8 else [])]),
            min_size=6,
            max_size=6,
        ),
        min_size=1,
        max_size=5,
    ).map(lambda rows: np.array(rows, dtype=kind))
)


@given(labels=maps, void=st.booleans())
def test_an_instance_map_falls_apart_into_its_objects(
    tmp_path_factory: pytest.TempPathFactory, labels: npt.NDArray[np.generic], void: bool
) -> None:
    """Targets of one map: none empty, none overlapping another, together all that is neither 0 nor void."""
    path = tmp_path_factory.getbasetemp() / "map.tif"
    Image.fromarray(labels).save(path)
    rule = "one-value-void-255" if void else "one-value"
    targets = [RULES[rule](path, number) for number in instance_numbers(path, rule)]
    ignored = (labels == 255) & void
    covered = np.zeros(labels.shape, dtype=np.int64)
    for target in targets:
        assert (target == 1).any()
        assert np.array_equal(target == -1, ignored)
        covered += target == 1
    assert np.array_equal(covered, ((labels != 0) & ~ignored).astype(np.int64))
