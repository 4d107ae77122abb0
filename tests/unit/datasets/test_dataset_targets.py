"""What mask files mean, restated pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from disbench.core.errors import InputError
from disbench.datasets.label_maps import read_label_map, read_palette
from disbench.datasets.targets import RULES, gray_of_index, instance_numbers

Pixels = npt.NDArray[np.uint8]
VALUES: Pixels = np.array([[0, 1, 127, 128], [129, 197, 243, 255]], dtype=np.uint8)


def voc_palette() -> list[int]:
    """PascalVOC's colours: the bits of an index, lowest first, spread over red, green and blue from the top."""
    colours = []
    for index in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours += channels
    return colours


def palette_png(path: Path, labels: Pixels, palette: list[int] | None = None) -> Path:
    image = Image.fromarray(labels, mode="L").convert("L")
    image.putpalette(palette or voc_palette())
    image.save(path)
    return path


def png(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    Image.fromarray(pixels).save(path)
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
    black = palette_png(tmp_path / "b.png", labels, [0, 0, 0, 0, 0, 0, 9, 0, 0])
    assert RULES["any-channel"](black, 0).tolist() == [[0, 0, 1], [0, 0, 0]]  # an index is not a colour
    path = palette_png(tmp_path / "a.png", np.zeros((2, 2), dtype=np.uint8), [1, 2, 3, 4, 5, 6])
    assert read_palette(path)[:3].tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]


def test_voc_by_palette_and_by_grey(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 16, 3], [18, 255, 1, 0]], dtype=np.uint8)
    path = palette_png(tmp_path / "a.png", labels)
    assert RULES["voc-palette"](path, 1).tolist() == [[0, 1, 0, 0], [0, -1, 1, 0]]
    assert RULES["voc-palette"](path, 16).tolist() == [[0, 0, 1, 0], [0, -1, 0, 0]]
    grey = int(gray_of_index(path)[1])
    assert RULES["voc-gray"](path, grey).tolist() == [[0, 1, 1, 0], [0, -1, 1, 0]]


def test_the_greys_of_the_voc_palette(tmp_path: Path) -> None:
    """Against OpenCV, where it can be loaded, and against the pairs of indices that are known to share one."""
    path = palette_png(tmp_path / "a.png", np.zeros((2, 2), dtype=np.uint8))
    greys = gray_of_index(path)
    assert (greys[0], greys[255]) == (0, 220)
    for pair in ([1, 16], [3, 18], [6, 21], [9, 24]):
        assert [index for index in range(25) if greys[index] == greys[pair[0]]] == pair
    import cv2

    colours = np.array(voc_palette(), dtype=np.uint8).reshape(1, 256, 3)
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
def test_other_kinds_of_pixels_are_refused(
    tmp_path: Path, pixels: npt.NDArray[np.generic], read: Callable[[Path], object]
) -> None:
    with pytest.raises(InputError, match=r"a\.tif: "):
        read(png(tmp_path / "a.tif", pixels))


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
