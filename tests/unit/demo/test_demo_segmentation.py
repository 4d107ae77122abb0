"""Segmenting a photo by clicks: calls of the method, undo, saved files, and accepted photos."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from disbench.core import painting
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.demo.segmentation import MAX_CLICKS, MethodFailedError, Photos, Segmentation, encode_file, save_files
from disbench.harness.predict import predict
from disbench.io.recorded_clicks import ClickSequence, read_sequences
from tests.refusals import refuses
from tests.toy_methods import Answers, Discs, Misbehaves

IMAGE = np.full((60, 80, 3), 90, np.uint8)
CLICKS = [Click(20, 30, True), Click(28, 30, False), Click(50, 40, True)]


def test_the_method_hears_what_predict_tells_it() -> None:
    method = Answers(candidates=3)
    segmentation = Segmentation(method, IMAGE, 0.5)
    segmentation.click(CLICKS[0])
    assert (segmentation.kept, segmentation.can_choose) == (0, True)
    segmentation.choose(1)
    segmentation.choose(2)
    for click in CLICKS[1:]:
        segmentation.click(click)
    heard, method.told = method.told, []
    answer = predict(method, IMAGE, CLICKS, threshold=0.5, keep=2)
    assert heard == method.told[: len(heard)]  # of the last answer nobody has to be told
    assert np.array_equal(segmentation.mask, answer.mask)
    method.told = []
    segmentation.undo()
    assert method.told == ["open", 1, "keep 2", 2]
    assert np.array_equal(
        segmentation.mask, predict(Discs(candidates=3), IMAGE, CLICKS[:2], threshold=0.5, keep=2).mask
    )
    segmentation.undo()
    assert (segmentation.clicks, segmentation.kept, segmentation.chosen) == (CLICKS[:1], 2, 2)
    segmentation.undo()
    segmentation.undo()
    assert (segmentation.clicks, segmentation.candidates, segmentation.chosen, segmentation.mask.any()) == (
        [],
        None,
        None,
        False,
    )


def test_what_is_refused() -> None:
    segmentation = Segmentation(Discs(candidates=2), IMAGE, 0.5)
    for click, words in ((Click(80, 0, True), "outside the photo of 80 x 60"), (Click(3, 3, False), "on the object")):
        refuses(words, segmentation.click, click)
    refuses("after the first click", segmentation.choose, 0)
    segmentation.click(CLICKS[0])
    refuses("no candidate 3", segmentation.choose, 2)
    segmentation.click(CLICKS[1])
    refuses("undo later clicks", segmentation.choose, 0)
    segmentation.clicks = [CLICKS[0]] * MAX_CLICKS
    refuses("200 clicks already", segmentation.click, CLICKS[0])


@pytest.mark.parametrize(("fault", "words"), [(2, "ValueError: a bad day"), (3, "NaN"), (4, "masks of shape")])
def test_a_method_that_fails_keeps_what_there_was(fault: int, words: str) -> None:
    image = np.full((60, 80, 3), fault, np.uint8)
    segmentation = Segmentation(Misbehaves(), image, 0.5)
    segmentation.click(CLICKS[0])
    segmentation.click(CLICKS[1])
    before = segmentation.mask.copy()
    for _ in range(2):
        with pytest.raises(MethodFailedError, match=words):
            segmentation.click(CLICKS[2])
        assert segmentation.clicks == CLICKS[:2]
        assert np.array_equal(segmentation.mask, before)
    segmentation.undo()
    assert segmentation.clicks == CLICKS[:1]
    with pytest.raises(MethodFailedError, match="open raised RuntimeError: cannot open this one"):
        Segmentation(Misbehaves(), np.full((9, 9, 3), 1, np.uint8), 0.5).click(Click(1, 1, True))


def test_what_is_saved(tmp_path: Path) -> None:
    photo = tmp_path / "a b;é.png"
    Image.fromarray(IMAGE).save(photo)
    photo = Photos([photo]).all()[0]
    segmentation = Segmentation(Discs(candidates=3), IMAGE, 0.5)
    refuses("nothing to save yet", encode_file, "mask.png", segmentation, "s", "ann")
    segmentation.click(CLICKS[0])
    segmentation.click(CLICKS[1])
    mask = np.asarray(Image.open(io.BytesIO(encode_file("mask.png", segmentation, "s", "ann"))))
    assert np.array_equal(mask, segmentation.mask * np.uint8(255))
    rle = json.loads(encode_file("mask.json", segmentation, "s", "ann"))
    assert np.array_equal(coco_mask.decode(rle), segmentation.mask)
    for kind, sample, user in (("clicks.parquet", " ", "ann"), ("clicks.parquet", "s", "a,b"), ("mask.exe", "s", "a")):
        with pytest.raises(InputError):
            encode_file(kind, segmentation, sample, user)
    out = tmp_path / "out"
    assert save_files(out, photo, segmentation, "../../s", "ann") == [
        "a_b_-1.png",
        "a_b_-1.json",
        "recorded-clicks.parquet",
    ]
    assert save_files(out, photo, segmentation, "t", "ann")[0] == "a_b_-2.png"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [photo.name, *(f"a_b_-{n}.{end}" for n in (1, 2) for end in ("png", "json")), "recorded-clicks.parquet"]
    )
    made = tuple(CLICKS[:2])
    assert read_sequences(out / "recorded-clicks.parquet") == [
        ClickSequence("../../s", "ann", made),
        ClickSequence("t", "ann", made),
    ]


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_uploads() -> None:
    photos = Photos()
    assert len(photos.all()) == 8
    assert ("astronaut/1") in dict(photos.all()[0].samples)
    for name, content, words in (
        ("x.png", b"no image", "not a whole image"),
        ("x.png", png(64, 64)[:45], "not a whole image"),
        ("big.png", png(20_000, 10_000), "more than|where 1 to"),
        ("large.png", png(8_000, 8_000), "8000 x 8000 pixels"),
        *((name, png(4, 4), "not a file name") for name in ("../../etc/passwd", "a\\b.png", "a\0.png", "")),
        ("heavy.png", b"0" * (2**25 + 1), "more than 32 MiB"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            photos.add_upload(name, content)
        assert "\n" not in str(raised.value)
    for number in range(10):
        added = photos.add_upload(f"{number}.png", png(30 + number, 20))
    assert (added.name, added.stem, added.width, added.height) == ("9.png", "upload-17", 39, 20)
    assert [photo.name for photo in photos.all()[8:]] == [f"{number}.png" for number in range(2, 10)]
    assert photos.pixels(added.number).shape == (20, 39, 3)
    refuses("no longer available", photos.pixels, 8)


def test_a_photo_is_shown_turned_if_wanted(tmp_path: Path) -> None:
    """The same pixels are shown and segmented, so that clicks hit what is seen; files and uploads alike."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE[:, :-3]).save(tmp_path / "t.png", exif=exif)
    photos = Photos([tmp_path / "t.png"], "apply")
    added = photos.add_upload("u.png", (tmp_path / "t.png").read_bytes())
    for photo in (photos.all()[0], added):
        pixels = photos.pixels(photo.number)
        assert np.array_equal(pixels, np.rot90(IMAGE[:, :-3], -1))
        assert (photo.height, photo.width) == pixels.shape[:2]


def test_a_photo_is_shown_as_its_pixels_are_stored(tmp_path: Path) -> None:
    turned = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "t.png", exif=exif)
    photos = Photos([tmp_path / "t.png"])
    shown = Image.open(io.BytesIO(painting.encode_png(photos.pixels(0), compression=1)))
    assert (shown.size, dict(shown.getexif())) == ((6, 4), {})
    assert np.array_equal(np.asarray(shown)[..., 0], np.asarray(turned))
    Image.fromarray(IMAGE).save(tmp_path / "t.png")
    with pytest.raises(InputError, match="the file has changed"):
        Photos.pixels(photos, 0) if not photos._pixels.cache_clear() else None
