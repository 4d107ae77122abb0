"""Damaged and hostile files of datasets: data, or one sentence; never code, never more memory than stated."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat

from disbench.core.limits import MAX_ARRAYS, MAX_MATLAB_BYTES, MAX_PIXELS, MAX_RECORD_BYTES
from disbench.datasets.label_maps import read_instances
from tests.annotations import annotation, image
from tests.fuzz import dataset_files as files
from tests.fuzz.tools import Reader, damaged, examples, nest, pytestmark_linux, written
from tests.part_files import COW, SOFA, UIDS, anno_file
from tests.synthetic import lvis_content

pytestmark = pytestmark_linux
JSON_READERS = ("lvis", "lvis, dropped", "coco", "annotated")
IMAGE_READERS = ("rgb", "turned", "kind", "label", "colours", "map", "rules")
FEW = 96 * files.MIB
"""Bytes of memory for a small file: libraries' tables and buffers."""


def few(size: int) -> int:
    return FEW


def pixels(size: int) -> int:
    """Bytes of memory for an image whose damaged head claims millions of pixels."""
    return FEW + 24 * 64 * files.MIB


def texts(*contents: Any) -> list[bytes]:
    return [json.dumps(content).encode() for content in contents]


def pickles(content: Any) -> list[bytes]:
    return [pickle.dumps(content, protocol) for protocol in files.PROTOCOLS]


def both(reader: str) -> list[str]:
    """A reader, also with what is malformed left out."""
    return [reader, f"{reader}, dropped"]


@dataclass(frozen=True)
class Format:
    """A format with valid files to damage; `file` is damaged and `opened` (by default the same) is read."""

    readers: Sequence[str]
    whole: Sequence[bytes]
    file: str
    opened: str | None = None
    allowed: Callable[[int], int] = few


MATS = [anno_file([COW, SOFA], do_compression=False), anno_file([COW, SOFA])]
TIFFS = [
    files.PICTURES["tiff of 32 bits"],
    *(files.saved(UIDS, "TIFF", compression=how) for how in ("tiff_lzw", "raw")),
]
PNGS = [files.ade_png(2), files.ade_png(2, bits=4), files.ade_png(2, compress_level=0)]
MAPS = [files.class_png((40, 0, 24, 39, 40)), files.PICTURES["png P"], files.class_png((40, 41, 24, 255, 40))]
PIN_MAP = "pin/annotations/train/n01440764_1.png"
FORMATS = {
    "json": Format(JSON_READERS, texts(files.COCO, lvis_content(2, 3)), "a.json", None, files.json_bound),
    "panoptic json": Format(["panoptic"], texts(files.PANOPTIC), "a.json", None, files.json_bound),
    "matlab": Format(["matlab"], [files.mat(compressed=False), files.mat()], "a.mat"),
    "parts of Pascal-Part": Format(both("pascal-part"), MATS, "Annotations_Part/a.mat", "."),
    "tiff of Panoptic Parts": Format(both("panoptic-parts"), TIFFS, "training/a.tif", ".", pixels),
    "image": Format(IMAGE_READERS, list(files.PICTURES.values()), "a.png", None, pixels),
    "hierarchies": Format(["hannotation"], pickles(files.TREE), "hannotation.pickle", "."),
    "masks": Format(["hannotation"], pickles(files.PACKED), "masks/9.pickle", "."),
    "json of ADE20K": Format(both("ade20k"), texts(files.ADE_JSON), f"{files.ADE}.json", "ade", files.json_bound),
    "png of ADE20K": Format(both("ade20k"), PNGS, f"{files.ADE}/2.png", "ade", pixels),
    "json of SA-1B": Format(both("sa1b"), texts(files.SA_JSON), f"{files.SA}.json", "sa", files.json_bound),
    "maps of parts": Format(both("partimagenet"), MAPS, PIN_MAP, "pin", pixels),
    "polygons of parts": Format(both("partimagenet"), texts(files.COCO), "ood/train.json", "ood", files.json_bound),
    **{
        f"SPIN's {level}": Format(both("spin"), texts(files.SPIN_JSON), f"spin/{file}", "spin", files.json_bound)
        for level, file in files.SPIN_FILES.items()
    },
    "list": Format(["list", "sbd", "sbd samples"], [b"a\na\n"], "train.txt"),
    "images of a folder": Format(
        ["pairs", "folder"], [b"P5\n4 2\n255\n\0\1\1\xff\2\2\0\0"], "images/a.ppm", ".", pixels
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@given(choices=st.data())
@examples(30)
def test_damaged_files(read: Reader, root: Path, name: str, choices: st.DataObject) -> None:
    form = FORMATS[name]
    reader = choices.draw(st.sampled_from(form.readers))
    data = choices.draw(st.one_of(damaged(form.whole), damaged(form.whole), st.binary(max_size=60)))
    path = written(root / form.file, data)
    opened = root if reader.startswith("sbd") else path if form.opened is None else root / form.opened
    read(reader, opened, root=root, allowed=form.allowed(len(data)))


@given(
    kind=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    count=st.integers(1, 9),
    compressed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@examples(25)
def test_whole_matlab_files_are_as_scipy_reads_them(
    tmp_path: Path, kind: Any, sides: tuple[int, int], count: int, compressed: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, count + 1, sides).astype(kind)
    numbers = random.integers(1, 21, (count, 1)).astype(kind)
    path = written(tmp_path / "a.mat", files.mat(labels, numbers, compressed=compressed, z=labels))
    found, categories = read_instances(path)
    theirs = loadmat(path)["GTinst"][0, 0]
    assert found.dtype == np.int64
    assert np.array_equal(found, theirs["Segmentation"])
    assert categories == theirs["Categories"].ravel().tolist()


MANY = files.MIB
HOSTILE_JSON = {
    "brackets": b"[" * 100_000,
    "brackets in a record": b'{"images":[{"id":' + nest(100_000) + b"}]}",
    "nothing but brackets": b"[" * 9 * files.MIB,
    "nothing but backslashes": b'{"a":"' + b"\\" * 9 * files.MIB,
    "records of nothing": b'{"images":[' + b"{}," * MANY + b'{}],"annotations":[],"categories":[]}',
    "a record of lists": b'{"images":[{"a":[' + b"[]," * MANY + b"1]}]}",
    "arrays": b"{" + b",".join(b'"%x":[{},{}]' % k for k in range(50_000)) + b"}",
    "a record too large": b'{"images":[{"a":"' + b"x" * MAX_RECORD_BYTES + b'"}],"annotations":[],"categories":[]}',
    **{
        f"an image of {height} x {width}": json.dumps(
            {**files.COCO, "images": [image(1, height=height, width=width), image(2)]}
        ).encode()
        for height, width in (
            *((10**9, 10**9), (2**31 - 1, 1), (1, 2**31 - 1), (0, 5), (-1, 5)),
            *((True, 5), (40.5, 60), (2**63, 2**63), ("40x", 60), ("9" * 999, 60)),
        )
    },
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_refused(read: Reader, root: Path, name: str) -> None:
    data = HOSTILE_JSON[name]
    message = read("lvis", written(root / "a.json", data), root=root, allowed=files.json_bound(len(data)))
    bounds = {"arrays": MAX_ARRAYS, "a record too large": MAX_RECORD_BYTES}
    assert message is not None and str(bounds.get(name, "")) in message


@pytest.mark.parametrize("raster", ["lvis", "lvis, dropped"])
@pytest.mark.parametrize("sides", [(2**13, 2**13), (1, 2**26), (2**26, 1)])
def test_outlines_that_fill_memory(read: Reader, root: Path, sides: tuple[int, int], raster: str) -> None:
    """Zigzags across a large image: with as many corners they took gigabytes, or the process."""
    height, width = sides
    content = {**files.COCO, "images": [image(1, height=height, width=width), image(2)]}
    content["annotations"] = [annotation(k, segmentation=[[0, 0, width, height] * 20000]) for k in range(3)]
    data = json.dumps(content).encode()
    message = read(raster, written(root / "a.json", data), root=root, allowed=files.json_bound(len(data)))
    assert message is None if "dropped" in raster else "outline" in str(message)


def nested_cells(depth: int) -> bytes:
    inner = files.matrix(6, (0, 0), files.element(9, b""), b"")
    head = (
        files.element(6, struct.pack("<II", 1, 0)) + files.element(5, struct.pack("<ii", 1, 1)) + files.element(1, b"")
    )
    sizes = [len(inner) + k * (8 + len(head)) for k in range(depth)]
    return b"".join(struct.pack("<II", 14, len(head) + size) + head for size in reversed(sizes)) + inner


LABELS = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7) % 4
HOSTILE_MATLAB = {
    "a cell array of gigabytes": files.MAT_HEAD + files.matrix(1, (2**30, 1)),
    "a million fields": files.MAT_HEAD
    + files.matrix(2, (1, 1), files.element(5, b"\1\0\0\0") + files.element(1, b"a" * files.MIB)),
    "cells in cells": files.MAT_HEAD + nested_cells(100_000),
    "a matrix of gigabytes": files.MAT_HEAD + files.matrix(9, (2**31 - 1, 2**31 - 1), files.element(2, b"abc")),
    "many sides": files.MAT_HEAD + files.matrix(9, (1,) * 1000, files.element(2, b"a")),
    "an element of gigabytes": files.MAT_HEAD + struct.pack("<II", 14, 2**32 - 1) + bytes(40),
    "version 4": struct.pack("<iiiii", 0, 2**30, 2**30, 0, 7) + b"GTinst\0" + bytes(200),
    "a fraction": files.mat(LABELS / 2),
    "complex": files.mat(LABELS * 1j),
}


@pytest.mark.parametrize("name", HOSTILE_MATLAB)
def test_hostile_matlab_files_are_refused(read: Reader, tmp_path: Path, name: str) -> None:
    data = HOSTILE_MATLAB[name]
    assert read("matlab", written(tmp_path / "a.mat", data), allowed=16 * files.MIB + 4 * len(data))


def test_a_mask_of_pascal_part_takes_12_bytes_per_pixel(read: Reader, root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (2048, 2048), dtype=np.uint8)
    written(root / "Annotations_Part" / "a.mat", anno_file([("sofa", noise, [])]))
    assert read("pascal-part", root, root=root, allowed=12 * noise.size + 16 * files.MIB) is None


def test_a_matlab_file_that_unfolds_to_gigabytes(read: Reader, tmp_path: Path) -> None:
    packer = zlib.compressobj(1)
    data = b"".join([*(packer.compress(bytes(8 * files.MIB)) for _ in range(34)), packer.flush()])
    path = written(tmp_path / "a.mat", files.MAT_HEAD + struct.pack("<II", 15, len(data)) + data)
    assert read("matlab", path, allowed=2 * MAX_MATLAB_BYTES + 64 * files.MIB)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(b"", 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


HOSTILE_IMAGES = {
    "png": png(100_000, 100_000),
    "png just too large": png(MAX_PIXELS // 2 + 1, 2),
    "png text": png(3, 3, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * files.MIB), 9))),
    "bmp": files.PICTURES["bmp"][:18] + struct.pack("<ii", 100_000, 100_000) + files.PICTURES["bmp"][26:],
    "gif": files.PICTURES["gif"][:6] + b"\xff\xff\xff\xff" + files.PICTURES["gif"][10:],
    "ppm": b"P6\n100000 100000\n255\nabc",
    "jpeg": files.PICTURES["jpeg RGB"].replace(b"\x00\x0d\x00\x11", b"\xff\xff\xff\xff"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n/x 1 def\nshowpage\n",
    "pcx": b"\x0a\x05\x01\x08" + struct.pack("<HHHH", 0, 0, 65535, 65535) + bytes(120),
}


@pytest.mark.parametrize("kind", HOSTILE_IMAGES)
def test_hostile_images_are_refused(read: Reader, tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.png", HOSTILE_IMAGES[kind])
    for name in IMAGE_READERS:
        message = read(name, path, allowed=32 * files.MIB)
        assert message or kind == "png text"  # what is beside the pixels may be skipped


@pytest.mark.parametrize("kind", ["PNG RGBA", "PNG P", "PNG I;16", "JPEG CMYK", "WEBP RGB", "GIF P", "TIFF RGB"])
def test_an_image_takes_24_bytes_per_pixel(read: Reader, tmp_path: Path, kind: str) -> None:
    side = 2048
    form, mode = kind.split()
    path = written(tmp_path / "a.png", files.picture(mode, form, (side, side)))
    for name in ("rgb", "turned", "map", "label", "kind"):
        read(name, path, allowed=24 * side**2 + 24 * files.MIB + 2 * path.stat().st_size)


PIECES = (
    *(b"]", b"}", b"(", b"]\x94", b"}\x94", b")\x94", b"N\x94", b"\x85", b"]q\x00", b"M\xff\xff", b"\x8c\x01a"),
    *(b"\x8c\x02\xc3\xbf", b"G" + bytes(8), b"\x96" + bytes(8), b"C\x01a\x94", b"h\x00h\x01R"),
)


@pytest.mark.parametrize("piece", PIECES)
def test_a_pickle_of_one_opcode_many_times(read: Reader, tmp_path: Path, piece: bytes) -> None:
    head = b"\x80\x05\x8c\x05numpy\x8c\x05dtype\x93q\x00\x8c\x02u1\x85q\x01"
    data = head + piece * (files.MIB // 4 // len(piece)) + b"."
    read("pickle", written(tmp_path / "a.pickle", data), allowed=files.pickle_bound(len(data)))
