"""LVIS, COCO and panoptic JSON of any bytes: scenes and samples, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from disbench.core.limits import MAX_ARRAYS, MAX_RECORD_BYTES
from disbench.core.masks import encode
from tests.annotations import CATEGORIES, HEIGHT, WIDTH, annotation, image
from tests.fuzz.tools import Reader, damaged, examples, pytestmark_linux, written
from tests.synthetic import lvis_content

pytestmark = pytestmark_linux
MIB = 2**20


def bound(size: int) -> int:
    """Bytes: a constant for the chunks, an index of 32 a byte, and 64 a byte of a record."""
    return 128 * MIB + 32 * size + 64 * min(size, MAX_RECORD_BYTES)


BLOB = encode(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5)
COUNTS = BLOB["counts"].decode()
CROWD = {"size": [HEIGHT, WIDTH], "counts": COUNTS}
LISTED = {"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]}
CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [image(1), image(2, coco_url="http://images.cocodataset.org/val2017/000000000002.jpg")],
    "annotations": [
        annotation(1),
        annotation(2, 2, segmentation=CROWD, iscrowd=1, area=50),
        annotation(3, area=99.5),
        annotation(4, segmentation=LISTED, area=1),
    ],
    "categories": list(CATEGORIES),
}
SEGMENTS = [{"id": 7, "category_id": 1, "iscrowd": 0}, {"id": 300, "category_id": 2}]
PANOPTIC = {
    **CONTENT,
    "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": SEGMENTS} for n in (1, 2)],
    "categories": [{"id": 1, "name": "cup", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
}
READERS = ("lvis", "lvis, dropped", "coco", "annotated")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the images and the panoptic PNGs that the files name."""
    (tmp_path / "a").mkdir()
    colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    colours[2:9, 3:20], colours[20:, 5:] = (7, 0, 0), (44, 1, 0)
    for number in (1, 2):
        Image.fromarray(colours).save(tmp_path / "a" / f"{number}.png")
        Image.fromarray(colours).save(tmp_path / f"{number:012d}.jpg")
    return tmp_path


def check(read: Reader, name: str, root: Path, data: bytes) -> str | None:
    return read(name, written(root / "a.json", data), root=root, allowed=bound(len(data)) + 16 * MIB)


@given(
    data=damaged([json.dumps(CONTENT).encode(), json.dumps(lvis_content(2, 3)).encode()]),
    name=st.sampled_from(READERS),
)
@examples(50)
def test_damaged_files(read: Reader, root: Path, data: bytes, name: str) -> None:
    check(read, name, root, data)


@given(
    data=damaged([json.dumps(PANOPTIC).encode()]),
    png=st.one_of(st.none(), st.integers(0, 400)),
    bit=st.integers(0, 7),
)
@examples(40)
def test_damaged_panoptic_files(read: Reader, root: Path, data: bytes, png: int | None, bit: int) -> None:
    whole = (root / "a" / "1.png").read_bytes()
    if png is not None:
        place = png % len(whole)
        (root / "a" / "1.png").write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        data = json.dumps(PANOPTIC).encode()
    check(read, "panoptic", root, data)
    (root / "a" / "1.png").write_bytes(whole)


def nest(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


RAW = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"0.0",
        b"1e-999",
        b"9" * 30,
        b"9" * 5000,
        b"-1",
        b"0",
    ),
    *(
        b"2147483647",
        b"4294967296",
        b"9223372036854775808",
        b"1000000000",
        b"134217728",
        b"1099511627776",
        b"1.5",
    ),
    *(
        b"true",
        b"null",
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b"[]",
        b"{}",
        b'"1"',
    ),
    *(
        b'"../../etc/passwd"',
        b'"/etc/passwd"',
        b'"..\\\\..\\\\a"',
        b'"C:\\\\a"',
        b'"a\\u0000b"',
        b'"\\u001b[2J"',
    ),
    *(
        nest(3),
        nest(300),
        nest(900),
        nest(1010),
        nest(5000),
        b'"' + b"x" * 5000 + b'"',
        b'"' + b"a/" * 900 + b'"',
    ),
    *(b"[[NaN,1,2,3,4,5]]", b"[[1e999,1,2,3,4,5]]", b"[[1,2,3,4,5]]", b"[[1e308,1e308,1e308,1e308,5,6]]"),
    *(b'[["' + b"x" * 20000 + b'"' + b',""' * 20001 + b"]]", b"[[" + b"0,0,59,39," * 9000 + b"5,6]]"),
    *(b"[[9223372036854775807,1,2,3,4,5]]", b"[[true,1,2,3,4,5]]", b"[{}]", b"[null]", b'["1 2 3 4 5 6"]'),
    b'{"a":1,"a":2}',
)


def rle(counts: bytes, size: bytes = b"[40,60]") -> bytes:
    return b'{"size":' + size + b',"counts":' + counts + b"}"


RLES = (
    *(
        rle(b"[2400,1]"),
        rle(b"[-1,2401]"),
        rle(b"[1099511627776]"),
        rle(b"[2400.0]"),
        rle(b"[NaN]"),
        rle(b"[true]"),
    ),
    *(rle(b"[4294967296,0,2400]"), rle(b"[" + b"0," * 99999 + b"2400]"), rle(b'"ooooooooooooooooooooo0"')),
    *(
        rle(b'"\\u00e9"'),
        rle(b'"`o"'),
        rle(b'"o"'),
        rle(b'""'),
        rle(b"null"),
        rle(b"[]"),
        rle(b'"' + b"1" * 9999 + b'"'),
    ),
    *(
        rle(b'"0"', b"[1000000000,1000000000]"),
        rle(b'"0"', b"[-40,-60]"),
        rle(b'"0"', b"[true,60]"),
        rle(b'"0"', nest(900)),
    ),
)
PLACES = [
    *(("images", key) for key in (*image(1), "coco_url")),
    *(("annotations", key) for key in (*annotation(1), "iscrowd", "area", "new")),
    *(("categories", key) for key in (*CATEGORIES[0], "isthing")),
    ("top", "info"),
    *(("top", key) for key in ("images", "annotations", "categories")),
]
ENCODED = st.recursive(
    st.sampled_from(RAW),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: b"[" + b",".join(parts) + b"]"),
    max_leaves=5,
)


@given(
    place=st.sampled_from(PLACES),
    value=st.one_of(ENCODED, st.sampled_from(RLES)),
    name=st.sampled_from(READERS),
)
@example(place=("annotations", "id"), value=nest(900), name="coco")
@example(place=("annotations", "segmentation"), value=nest(300), name="annotated")
@example(place=("images", "file_name"), value=b'"../a.jpg"', name="annotated")
@examples(100)
def test_any_value_in_any_place(read: Reader, root: Path, place: tuple[str, str], value: bytes, name: str) -> None:
    array, key = place
    content = json.loads(json.dumps(CONTENT))
    (content if array == "top" else content[array][0])[key] = "@@"
    if key == "segmentation":
        content["annotations"][0]["area"] = 99
    check(read, name, root, json.dumps(content).encode().replace(b'"@@"', value, 1))


@given(place=st.sampled_from(PLACES), value=ENCODED)
@examples(30)
def test_keys_that_stand_twice(read: Reader, root: Path, place: tuple[str, str], value: bytes) -> None:
    array, key = place
    text = json.dumps(CONTENT).encode()
    begin = 1 if array == "top" else text.index(b"{", text.index(array.encode())) + 1
    check(read, "coco", root, text[:begin] + f'"{key}":'.encode() + value + b"," + text[begin:])


SIZES = (
    (10**9, 10**9),
    (2**31 - 1, 1),
    (1, 2**31 - 1),
    (0, 5),
    (-1, 5),
    (True, 5),
    (40.0, 60),
    (2**63, 2**63),
    ("40", 60),
)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_absurd_sizes_are_refused(read: Reader, root: Path, height: Any, width: Any) -> None:
    content = {**CONTENT, "images": [image(1, height=height, width=width), image(2)]}
    assert check(read, "coco", root, json.dumps(content).encode()) is not None


@pytest.mark.parametrize("raster", ["lvis", "lvis, dropped"])
@pytest.mark.parametrize("sides", [(2**13, 2**13), (1, 2**26), (2**26, 1)])
def test_outlines_that_fill_memory(read: Reader, root: Path, sides: tuple[int, int], raster: str) -> None:
    """Zigzags across a large image: with as many corners they took gigabytes, or the process."""
    height, width = sides
    ring = [0, 0, width, height] * 20000
    content = {**CONTENT, "images": [image(1, height=height, width=width), image(2)]}
    content["annotations"] = [annotation(k, segmentation=[ring]) for k in range(3)]
    data = json.dumps(content).encode()
    message = check(read, raster, root, data)
    assert message is None if "dropped" in raster else "outline" in str(message)


MANY = MIB
LARGE = {
    "brackets": b"[" * 100_000,
    "pairs of brackets": nest(100_000),
    "brackets in an array": b'{"images":' + nest(100_000) + b"}",
    "brackets in a record": b'{"images":[{"id":' + nest(100_000) + b"}]}",
    "objects in objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nothing but brackets": b"[" * 9 * MIB,
    "nothing but quotes": b'"' * 9 * MIB,
    "nothing but backslashes": b'{"a":"' + b"\\" * 9 * MIB,
    "records of nothing": b'{"images":[' + b"{}," * MANY + b'{}],"annotations":[],"categories":[]}',
    "categories of an id": b'{"images":[],"annotations":[],"categories":['
    + b",".join(b'{"id":%d}' % k for k in range(200_000))
    + b"]}",
    "a record of lists": b'{"images":[{"a":[' + b"[]," * MANY + b"1]}]}",
    "a record of lists and NaN": b'{"images":[{"a":[NaN,' + b"[]," * MANY + b"1]}]}",
    "a top of lists": b'{"a":{"a":[' + b"[]," * MANY + b"1]}}",
    "arrays": b"{" + b",".join(b'"%x":[{},{}]' % k for k in range(50_000)) + b"}",
    "a record too large": b'{"images":[{"a":"' + b"x" * MAX_RECORD_BYTES + b'"}],"annotations":[],"categories":[]}',
}


@pytest.mark.parametrize("kind", LARGE)
def test_memory_is_bounded_by_the_size(read: Reader, root: Path, kind: str) -> None:
    message = check(read, "lvis", root, LARGE[kind])
    assert message is not None or kind == "categories of an id"


def test_the_limits_are_named(read: Reader, root: Path) -> None:
    assert f"more than {MAX_ARRAYS} arrays" in str(check(read, "lvis", root, LARGE["arrays"]))
    assert f"more than {MAX_RECORD_BYTES}" in str(check(read, "lvis", root, LARGE["a record too large"]))
