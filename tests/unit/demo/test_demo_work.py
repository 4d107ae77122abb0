"""A photo being worked on: what the method hears, what undoing does, what is saved, and what photos are let in."""

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
from disbench.demo.work import MOST_CLICKS, MethodFailedError, Pictures, Work, save_into, saved
from disbench.harness.predict import predict
from disbench.io.recorded_clicks import Sequenced, read_sequences
from tests.refusals import refuses
from tests.toy_methods import Answers, Discs, Misbehaves

IMAGE = np.full((60, 80, 3), 90, np.uint8)
CLICKS = [Click(20, 30, True), Click(28, 30, False), Click(50, 40, True)]


def test_the_method_hears_what_predict_tells_it() -> None:
    method = Answers(candidates=3)
    work = Work(method, IMAGE, 0.5)
    work.click(CLICKS[0])
    assert (work.kept, work.choosing) == (0, True)
    work.choose(1)
    work.choose(2)
    for click in CLICKS[1:]:
        work.click(click)
    heard, method.told = method.told, []
    answer = predict(method, IMAGE, CLICKS, threshold=0.5, keep=2)
    assert heard == method.told[: len(heard)]  # of the last answer nobody has to be told
    assert np.array_equal(work.mask, answer.mask)
    method.told = []
    work.undo()
    assert method.told == ["open", 1, "keep 2", 2]
    assert np.array_equal(work.mask, predict(Discs(candidates=3), IMAGE, CLICKS[:2], threshold=0.5, keep=2).mask)
    work.undo()
    assert (work.clicks, work.kept, work.chosen) == (CLICKS[:1], 2, 2)
    work.undo()
    work.undo()
    assert (work.clicks, work.found, work.chosen, work.mask.any()) == ([], None, None, False)


def test_what_is_refused() -> None:
    work = Work(Discs(candidates=2), IMAGE, 0.5)
    for click, words in ((Click(80, 0, True), "outside the photo of 80 x 60"), (Click(3, 3, False), "on the object")):
        refuses(words, work.click, click)
    refuses("after the first click", work.choose, 0)
    work.click(CLICKS[0])
    refuses("no candidate 3", work.choose, 2)
    work.click(CLICKS[1])
    refuses("undo later clicks", work.choose, 0)
    work.clicks = [CLICKS[0]] * MOST_CLICKS
    refuses("200 clicks already", work.click, CLICKS[0])


@pytest.mark.parametrize(("fault", "words"), [(2, "ValueError: a bad day"), (3, "NaN"), (4, "masks of shape")])
def test_a_method_that_fails_keeps_what_there_was(fault: int, words: str) -> None:
    image = np.full((60, 80, 3), fault, np.uint8)
    work = Work(Misbehaves(), image, 0.5)
    work.click(CLICKS[0])
    work.click(CLICKS[1])
    before = work.mask.copy()
    for _ in range(2):
        with pytest.raises(MethodFailedError, match=words):
            work.click(CLICKS[2])
        assert work.clicks == CLICKS[:2]
        assert np.array_equal(work.mask, before)
    work.undo()
    assert work.clicks == CLICKS[:1]
    with pytest.raises(MethodFailedError, match="open raised RuntimeError: cannot open this one"):
        Work(Misbehaves(), np.full((9, 9, 3), 1, np.uint8), 0.5).click(Click(1, 1, True))


def test_what_is_saved(tmp_path: Path) -> None:
    photo = tmp_path / "a b;é.png"
    Image.fromarray(IMAGE).save(photo)
    picture = Pictures([photo]).all()[0]
    work = Work(Discs(candidates=3), IMAGE, 0.5)
    refuses("nothing to save yet", saved, "mask.png", work, "s", "ann")
    work.click(CLICKS[0])
    work.click(CLICKS[1])
    mask = np.asarray(Image.open(io.BytesIO(saved("mask.png", work, "s", "ann"))))
    assert np.array_equal(mask, work.mask * np.uint8(255))
    rle = json.loads(saved("mask.json", work, "s", "ann"))
    assert np.array_equal(coco_mask.decode(rle), work.mask)
    for kind, sample, user in (("clicks.parquet", " ", "ann"), ("clicks.parquet", "s", "a,b"), ("mask.exe", "s", "a")):
        with pytest.raises(InputError):
            saved(kind, work, sample, user)
    out = tmp_path / "out"
    assert save_into(out, picture, work, "../../s", "ann") == ["a_b_-1.png", "a_b_-1.json", "recorded-clicks.parquet"]
    assert save_into(out, picture, work, "t", "ann")[0] == "a_b_-2.png"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [photo.name, *(f"a_b_-{n}.{end}" for n in (1, 2) for end in ("png", "json")), "recorded-clicks.parquet"]
    )
    made = tuple(CLICKS[:2])
    assert read_sequences(out / "recorded-clicks.parquet") == [
        Sequenced("../../s", "ann", made),
        Sequenced("t", "ann", made),
    ]


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_uploads() -> None:
    pictures = Pictures()
    assert len(pictures.all()) == 8
    assert ("astronaut/1") in dict(pictures.all()[0].samples)
    for name, content, words in (
        ("x.png", b"no image", "not a whole image"),
        ("x.png", png(64, 64)[:45], "not a whole image"),
        ("big.png", png(20_000, 10_000), "more than|where 1 to"),
        ("large.png", png(8_000, 8_000), "8000 x 8000 pixels"),
        *((name, png(4, 4), "not a file name") for name in ("../../etc/passwd", "a\\b.png", "a\0.png", "")),
        ("heavy.png", b"0" * (2**25 + 1), "more than 32 MiB"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            pictures.add_upload(name, content)
        assert "\n" not in str(raised.value)
    for number in range(10):
        added = pictures.add_upload(f"{number}.png", png(30 + number, 20))
    assert (added.name, added.stem, added.width, added.height) == ("9.png", "upload-17", 39, 20)
    assert [picture.name for picture in pictures.all()[8:]] == [f"{number}.png" for number in range(2, 10)]
    assert pictures.pixels(added.number).shape == (20, 39, 3)
    refuses("no longer available", pictures.pixels, 8)


def test_a_photo_is_shown_turned_if_wanted(tmp_path: Path) -> None:
    """The same pixels are shown and segmented, so that clicks hit what is seen; files and uploads alike."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE[:, :-3]).save(tmp_path / "t.png", exif=exif)
    pictures = Pictures([tmp_path / "t.png"], "apply")
    added = pictures.add_upload("u.png", (tmp_path / "t.png").read_bytes())
    for picture in (pictures.all()[0], added):
        pixels = pictures.pixels(picture.number)
        assert np.array_equal(pixels, np.rot90(IMAGE[:, :-3], -1))
        assert (picture.height, picture.width) == pixels.shape[:2]


def test_a_photo_is_shown_as_its_pixels_are_stored(tmp_path: Path) -> None:
    turned = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "t.png", exif=exif)
    pictures = Pictures([tmp_path / "t.png"])
    shown = Image.open(io.BytesIO(painting.png(pictures.pixels(0), compression=1)))
    assert (shown.size, dict(shown.getexif())) == ((6, 4), {})
    assert np.array_equal(np.asarray(shown)[..., 0], np.asarray(turned))
    Image.fromarray(IMAGE).save(tmp_path / "t.png")
    with pytest.raises(InputError, match="the file has changed"):
        Pictures.pixels(pictures, 0) if not pictures._pixels.cache_clear() else None
