"""Images: found wherever datasets put them, read as the stored pixels, refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.core.errors import InputError
from disbench.datasets.images import SUBFOLDERS, find_image, read_rgb


def put(path: Path, size: tuple[int, int] = (4, 3), mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.mark.parametrize("folder", ["", *SUBFOLDERS])
def test_found_by_its_name_in_the_folder_and_in_the_usual_subfolders(tmp_path: Path, folder: str) -> None:
    path = put(tmp_path / folder / "a.jpg")
    assert find_image(tmp_path, "a.jpg") == path
    assert find_image(tmp_path, "somewhere/else/a.jpg") == path
    assert find_image(tmp_path, "b.jpg") is None


@pytest.mark.parametrize("folder", ["", "images", "val2014"])
def test_the_old_names_of_coco_find_the_new_ones(tmp_path: Path, folder: str) -> None:
    path = put(tmp_path / folder / "000000266409.jpg")
    assert find_image(tmp_path, "COCO_val2014_000000266409.jpg") == path
    assert find_image(tmp_path, "val2014/COCO_val2014_000000266409.jpg") == path
    assert find_image(tmp_path, "OTHER_val2014_000000266409.jpg") is None


def test_the_name_as_given_comes_before_all_others(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    exact = put(tmp_path / "deep" / "a.jpg")
    assert find_image(tmp_path, "deep/a.jpg") == exact


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    assert find_image(tmp_path, "a.jpg") is None
    assert find_image(tmp_path, "") is None
    assert find_image(tmp_path / "nowhere", "a.jpg") is None


def test_pixels_are_rgb_row_major(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_rgb(tmp_path / "a.png")
    assert read.dtype == np.uint8
    assert np.array_equal(read, pixels)
    read[0, 0] = 1  # a caller may paint on it


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = put(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode=mode)
    assert read_rgb(path).shape == (3, 4, 3)


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to view"
    path = put(tmp_path / "a.jpg", size=(4, 3), exif=exif)
    assert read_rgb(path).shape == (3, 4, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_is_not_an_image_is_an_input_error_on_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>404</html>"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"a{suffix}: ") as caught:
            read_rgb(path)
        assert "\n" not in str(caught.value)
    path.unlink()
    for missing in (path, tmp_path):
        with pytest.raises(InputError, match=str(missing)):
            read_rgb(missing)
