"""Images: found wherever datasets put them, read as the stored pixels, refused in one sentence."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage.util import img_as_ubyte

from disbench.datasets.images import SUBFOLDERS, ImageFinder, exif_note, read_rgb, size_hint
from tests.refusals import refuses


def put(path: Path, size: tuple[int, int] = (4, 3), mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


def found(root: Path, name: str, *others: str) -> str | None:
    """Where an image is found below a folder, if the others are in the same annotations."""
    path = ImageFinder([root], lambda: enumerate([name, *others]), "a.json")(name)
    return path and path.relative_to(root).as_posix()


@pytest.mark.parametrize("folder", ["", *(f"{name}/" for name in SUBFOLDERS)])
def test_found_by_its_name_in_the_folder_and_in_the_usual_subfolders(tmp_path: Path, folder: str) -> None:
    put(tmp_path / folder / "a.jpg")
    assert found(tmp_path, "a.jpg") == f"{folder}a.jpg"
    assert found(tmp_path, "somewhere/else/a.jpg") == f"{folder}a.jpg"
    assert found(tmp_path, "b.jpg") is None


@pytest.mark.parametrize("folder", ["", "images/", "val2014/"])
def test_the_old_names_of_coco_find_the_new_ones(tmp_path: Path, folder: str) -> None:
    put(tmp_path / folder / "000000266409.jpg")
    assert found(tmp_path, "COCO_val2014_000000266409.jpg") == f"{folder}000000266409.jpg"
    assert found(tmp_path, "val2014/COCO_val2014_000000266409.jpg") == f"{folder}000000266409.jpg"
    assert found(tmp_path, "OTHER_val2014_000000266409.jpg") is None
    refuses(r"a\.json: image 0 ", found, tmp_path, "COCO_val2014_000000266409.jpg", "COCO_train2014_000000266409.jpg")


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [
        ("deep/a.jpg", ["a.jpg", "deep/a.jpg"], "deep/a.jpg"),
        ("deep/a.jpg", ["a.jpg", "images/deep/a.jpg"], "images/deep/a.jpg"),
        ("./deep//a.jpg", ["deep/a.jpg"], "deep/a.jpg"),
        ("a.jpg", ["a.JPG"], "a.JPG"),
        ("a.jpg", ["a.JPG", "a.jpg"], "a.jpg"),
        ("a.jpg", ["A.jpg", "a.jpeg"], None),
        ("my%20photo.jpg", ["my photo.jpg"], "my photo.jpg"),
        ("my%20photo.jpg", ["my photo.jpg", "my%20photo.jpg"], "my%20photo.jpg"),
        ("deep%2Fa.jpg", ["deep/a.jpg"], "deep/a.jpg"),
        ("e\u0301.JPG", ["\u00e9.jpg"], "\u00e9.jpg"),
        (" a.jpg", ["a.jpg"], None),
        ("../a.jpg", ["a.jpg"], "a.jpg"),
    ],
)
def test_longest_path_and_spelling(tmp_path: Path, name: str, there: list[str], expected: str | None) -> None:
    for file in there:
        (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / file).touch()
    put(tmp_path / "a.jpg")
    assert found(tmp_path / "root", name) == expected


@pytest.mark.parametrize(
    ("first", "second", "there", "expected"),
    [
        ("v1/1.jpg", "v2/1.jpg", ["1.jpg"], None),
        ("1.jpg", "images/1.jpg", ["images/1.jpg"], None),
        ("1.jpg", "1.JPG", ["1.JPG"], None),
        ("a%20b.jpg", "a b.jpg", ["a b.jpg"], None),
        ("a/v1/1.jpg", "a/v2/1.jpg", ["v1/1.jpg"], "v1/1.jpg"),
        ("v1/1.jpg", "v2/1.jpg", ["v1/1.jpg", "1.jpg"], "v1/1.jpg"),
        ("1.jpg", "1.JPG", ["1.jpg"], "1.jpg"),
        ("v1/1.jpg", "v2/2.jpg", ["1.jpg", "2.jpg"], "1.jpg"),
    ],
)
def test_no_file_of_two_images(tmp_path: Path, first: str, second: str, there: list[str], expected: str | None) -> None:
    for file in there:
        put(tmp_path / file)
    if expected:
        assert found(tmp_path, first, second) == expected
    else:
        refuses(r"a\.json: image 0 .*image 1 ", found, tmp_path, first, second)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    read = read_rgb(put(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode=mode))
    assert read.shape == (3, 4, 3) and read.flags.writeable, "a caller may paint on it"


def exif_of(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


PHOTO = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("number", range(1, 9))
def test_exif_orientation_is_ignored_or_applied(tmp_path: Path, ending: str, number: int) -> None:
    """Applied as OpenCV does; named with the file; part of a message about the size."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(PHOTO).save(path, exif=exif_of(number), lossless=True)
    stored, applied = (
        cv2.imread(str(path), cv2.IMREAD_COLOR | flag)[..., ::-1] for flag in (cv2.IMREAD_IGNORE_ORIENTATION, 0)
    )
    # JPEG decoders differ a little.
    assert np.allclose(read_rgb(path), stored.astype(int), atol=3)
    assert np.allclose(read_rgb(path, "apply"), applied.astype(int), atol=3)
    assert (f"a.{ending}: {number}" in exif_note([path])) == (number > 1)
    assert ("stored 9 x 6, in viewers 6 x 9" in size_hint(path)) == (number > 4)


def test_tiffs_own_orientation_and_damaged_metadata(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), np.rot90(PHOTO, -1))
    assert np.array_equal(read_rgb(tmp_path / "a.tif", "apply"), np.rot90(PHOTO, -1))
    assert exif_note([tmp_path / "a.tif", tmp_path / "missing.jpg"]) == ""
    Image.fromarray(PHOTO).save(tmp_path / "a.png", exif=b"Exif\0\0MM rubbish")
    Image.fromarray(PHOTO).save(tmp_path / "b.png", exif=exif_of(9))
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        assert np.array_equal(read_rgb(path, "apply"), PHOTO)
        assert exif_note([path]) == ""


RAMP = np.linspace(0, 65535, 54).astype(np.uint16).reshape(6, 9)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "rgb.png", "rgba.png"])
def test_16_bits_lose_the_lower_byte_as_in_opencv(tmp_path: Path, name: str) -> None:
    pixels = {"rgb": np.dstack([RAMP, RAMP[::-1], RAMP // 2]), "rgba": np.dstack([RAMP] * 4)}.get(name[:-4], RAMP)
    cv2.imwrite(str(tmp_path / name), pixels)
    read = read_rgb(tmp_path / name)
    assert read.dtype == np.uint8
    assert np.array_equal(read, cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR)[..., ::-1])
    assert np.array_equal(read[..., 2], img_as_ubyte(RAMP))


def test_fractions_and_small_numbers(tmp_path: Path) -> None:
    fractions = (RAMP / 65535).astype(np.float32)
    for name, values, expected in (
        ("fractions.tif", fractions, img_as_ubyte(fractions)),
        ("bytes.tif", (RAMP >> 8).astype(np.int32), (RAMP >> 8).astype(np.uint8)),
    ):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(read_rgb(tmp_path / name)[..., 1], expected)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (RAMP.astype(np.int32), "from 0 to 65535"),
        (RAMP.astype(np.int32) - 1000, "from -1000 to"),
        ((RAMP / 30000).astype(np.float32), "from 0 to 2.18"),
        (np.full((2, 2), np.nan, np.float32), "nan"),
    ],
)
def test_other_ranges_are_refused(tmp_path: Path, values: npt.NDArray[np.generic], found: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    refuses(rf"a\.tif: .*{found}", read_rgb, tmp_path / "a.tif")


@pytest.mark.parametrize("tags", [{262: 0}, {}])
def test_tiffs_that_pillow_misreads_are_refused(tmp_path: Path, tags: dict[int, int]) -> None:
    """16 bits with 0 as white, and 16 bits in separate planes (by scikit-image's tifffile)."""
    if tags:
        Image.fromarray(RAMP).save(tmp_path / "a.tif", tiffinfo=tags)
    else:
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(tmp_path / "a.tif", np.stack([RAMP] * 3), photometric="rgb", planarconfig="separate")
    refuses(r"a\.tif: ", read_rgb, tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_is_not_an_image_is_an_input_error_on_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>404</html>"):
        path.write_bytes(content)
        refuses(f"a{suffix}: ", read_rgb, path)
    path.unlink()
    for missing in (path, tmp_path):
        refuses(str(missing), read_rgb, missing)
