"""Images and label maps of any bytes: a picture, or one sentence; bombs cost no memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from disbench.core.limits import MAX_PIXELS
from tests.fuzz.tools import Reader, damaged, examples, pytestmark_linux, written

pytestmark = pytestmark_linux
MIB = 2**20
SMALL = 96 * MIB
"""What the reading of a small image may take: libraries' tables and buffers, and half-claimed sizes."""
PICTURE = np.random.default_rng(0).integers(0, 256, (13, 17, 4)).astype(np.uint8)
READERS = ("rgb", "label", "colours", "map", "rules")


def saved(mode: str, kind: str, size: tuple[int, int] = (17, 13), **options: Any) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(PICTURE, "RGBA").resize(size, Image.Resampling.NEAREST)
    if mode in ("I;16", "I"):
        values = np.asarray(picture)[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 200
        Image.fromarray(values).save(out, kind, **options)
    else:
        picture.convert("RGB").convert(mode).save(out, kind, **options)
    return out.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(PICTURE[..., :3], k, axis=1)) for k in range(3)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int = 8, colour: int = 2, pixels: bytes = b"", extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + data + chunk(b"IEND", b"")


WHOLE = {
    **{f"png {mode}": saved(mode, "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")},
    **{f"jpeg {mode}": saved(mode, "JPEG") for mode in ("L", "RGB", "CMYK")},
    "progressive jpeg": saved("RGB", "JPEG", progressive=True),
    **{f"tiff {how}": saved("RGB", "TIFF", compression=how) for how in ("raw", "tiff_lzw", "tiff_deflate", "jpeg")},
    "tiff of 16 bits": saved("I;16", "TIFF"),
    "tiff of 32 bits": saved("I", "TIFF"),
    "cmyk tiff": saved("CMYK", "TIFF"),
    "gif": saved("P", "GIF"),
    "bmp": saved("RGB", "BMP"),
    "ppm": saved("RGB", "PPM"),
    "webp": saved("RGB", "WEBP"),
    **{f"animated {kind}": animated(kind) for kind in ("GIF", "PNG", "WEBP", "MPO", "TIFF")},
}


@given(data=damaged(list(WHOLE.values())), name=st.sampled_from(READERS))
@examples(80)
def test_damaged_images(read: Reader, tmp_path: Path, data: bytes, name: str) -> None:
    read(name, written(tmp_path / "a.png", data), allowed=SMALL + 24 * 64 * MIB)


@given(data=st.binary(max_size=300), name=st.sampled_from(READERS))
@examples(30)
def test_any_bytes(read: Reader, tmp_path: Path, data: bytes, name: str) -> None:
    read(name, written(tmp_path / "a.jpg", data), allowed=SMALL)


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_images_of_every_kind_are_read(read: Reader, tmp_path: Path, kind: str) -> None:
    assert read("rgb", written(tmp_path / "a.png", WHOLE[kind]), allowed=SMALL) is None


BOMBS = {
    "png": png(100_000, 100_000),
    "png as wide as numbers go": png(2**31 - 1, 2**31 - 1),
    "png of one row": png(2**31 - 1, 1),
    "png just too large": png(MAX_PIXELS // 2 + 1, 2),
    "png without a pixel": png(0, 5),
    "png text": png(3, 3, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * MIB), 9))),
    "png profile": png(3, 3, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * MIB), 9))),
    "bmp": WHOLE["bmp"][:18] + struct.pack("<ii", 100_000, 100_000) + WHOLE["bmp"][26:],
    "bmp upside down": WHOLE["bmp"][:18] + struct.pack("<ii", 40_000, -40_000) + WHOLE["bmp"][26:],
    "gif": WHOLE["gif"][:6] + b"\xff\xff\xff\xff" + WHOLE["gif"][10:],
    "ppm": b"P6\n100000 100000\n255\nabc",
    "ppm of digits": b"P6\n" + b"9" * 100_000 + b" 5\n255\nabc",
    "jpeg": WHOLE["jpeg RGB"].replace(b"\x00\x0d\x00\x11", b"\xff\xff\xff\xff"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n/x 1 def\nshowpage\n",
    "pcx": b"\x0a\x05\x01\x08" + struct.pack("<HHHH", 0, 0, 65535, 65535) + bytes(120),
}

HARMLESS = ("png text", "png profile")
"""What is beside the pixels is left aside, or refused."""


@pytest.mark.parametrize("kind", BOMBS)
def test_images_that_claim_the_absurd(read: Reader, tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.png", BOMBS[kind])
    for name in READERS:
        message = read(name, path, allowed=32 * MIB)
        assert message or kind in HARMLESS


@pytest.mark.parametrize(
    "kind", ["png RGBA", "png P", "png I;16", "jpeg CMYK", "webp", "animated GIF", "tiff tiff_lzw"]
)
def test_memory_is_24_bytes_a_pixel(read: Reader, tmp_path: Path, kind: str) -> None:
    side = 2048
    animation = kind.startswith("animated")
    mode, form = {"png": (kind[4:], "PNG"), "jpe": ("CMYK", "JPEG"), "web": ("RGB", "WEBP")}.get(
        kind[:3], ("P", "GIF") if animation else ("RGB", "TIFF")
    )
    path = written(tmp_path / "a.png", saved(mode, form, (side, side)))
    for name in ("rgb", "map", "label"):
        read(name, path, allowed=24 * side**2 + 24 * MIB + 2 * path.stat().st_size)
