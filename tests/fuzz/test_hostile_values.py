"""Any value in any place of an annotation file or a pickle: scenes and samples, or one sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.annotations import CATEGORIES, annotation, image
from tests.fuzz.dataset_files import COCO, MIB, PACKED, TREE, json_bound, layer, pickle_bound
from tests.fuzz.tools import Reader, examples, nest, pytestmark_linux, written

pytestmark = pytestmark_linux
JSON_READERS = ("lvis", "lvis, dropped", "sampled", "coco", "annotated")


def check(read: Reader, name: str, root: Path, data: bytes) -> None:
    read(name, written(root / "a.json", data), root=root, allowed=json_bound(len(data)))


def rle(counts: bytes, size: bytes = b"[40,60]") -> bytes:
    return b'{"size":' + size + b',"counts":' + counts + b"}"


RAW = (
    *b"NaN Infinity -Infinity 1e999 -0 0.0 1e-999 -1 0 2147483647 4294967296 9223372036854775808 1000000000".split(),
    *b'134217728 1099511627776 1.5 true null "" "\\ud800" "\\u0000" "\xff\xfe" "\xed\xa0\x80" [] {} "1"'.split(),
    *b'"../../etc/passwd" "/etc/passwd" "..\\\\..\\\\a" "C:\\\\a" "a\\u0000b" "\\u001b[2J" {"a":1,"a":2}'.split(),
    *b"[[NaN,1,2,3,4,5]] [[1e999,1,2,3,4,5]] [[1,2,3,4,5]] [[1e308,1e308,1e308,1e308,5,6]] [{}] [null]".split(),
    *b"[[9223372036854775807,1,2,3,4,5]] [[true,1,2,3,4,5]]".split(),
    *(b"9" * 30, b"9" * 5000, b'"' + b"x" * 5000 + b'"', b'"' + b"a/" * 900 + b'"', b'["1 2 3 4 5 6"]'),
    *map(nest, (3, 300, 900, 1010, 5000)),
    *(b'[["' + b"x" * 20000 + b'"' + b',""' * 20001 + b"]]", b"[[" + b"0,0,59,39," * 9000 + b"5,6]]"),
)
RLES = (
    *map(rle, b"[2400,1] [-1,2401] [1099511627776] [2400.0] [NaN] [true] [4294967296,0,2400] null []".split()),
    *map(rle, b'"ooooooooooooooooooooo0" "\\u00e9" "`o" "o" ""'.split()),
    *(rle(b"[" + b"0," * 99999 + b"2400]"), rle(b'"' + b"1" * 9999 + b'"')),
    *(rle(b'"0"', size) for size in (b"[1000000000,1000000000]", b"[-40,-60]", b"[true,60]", nest(900))),
)
PLACES = [
    *(("images", key) for key in (*image(1), "coco_url")),
    *(("annotations", key) for key in (*annotation(1), "iscrowd", "area", "new")),
    *(("categories", key) for key in (*CATEGORIES[0], "isthing")),
    *(("top", key) for key in ("info", "images", "annotations", "categories")),
]
ENCODED = st.recursive(
    st.sampled_from(RAW),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: b"[" + b",".join(parts) + b"]"),
    max_leaves=5,
)


@given(
    place=st.sampled_from(PLACES), value=st.one_of(ENCODED, st.sampled_from(RLES)), name=st.sampled_from(JSON_READERS)
)
@example(place=("annotations", "id"), value=nest(900), name="coco")
@example(place=("annotations", "segmentation"), value=nest(300), name="annotated")
@example(place=("images", "file_name"), value=b'"../a.jpg"', name="annotated")
@example(place=("images", "file_name"), value=b'"\\ud800"', name="sampled")
@example(place=("annotations", "id"), value=b"9223372036854775808", name="sampled")
@example(place=("annotations", "segmentation"), value=b'{"size":5,"counts":""}', name="sampled")
@example(place=("categories", "synset"), value=b"5", name="sampled")
@examples(80)
def test_any_value_in_json(read: Reader, root: Path, place: tuple[str, str], value: bytes, name: str) -> None:
    array, key = place
    content = json.loads(json.dumps(COCO))
    (content if array == "top" else content[array][0])[key] = "@@"
    if key == "segmentation":
        content["annotations"][0]["area"] = 99
    check(read, name, root, json.dumps(content).encode().replace(b'"@@"', value, 1))


VALUES = st.recursive(
    st.one_of(
        st.sampled_from((None, True, -1, 0, 1, 2, 255, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"))),
        st.sampled_from(("", "..", "../a", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "\x1b[2J", b"", b"abc")),
        st.just(np.uint8(3)),
        st.just(np.zeros((0, 3), dtype=np.uint8)),
        st.just(layer()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from((0, 1, 9, "children", "parent", "hierarchy", "num_instance_masks")), inner),
    ),
    max_leaves=10,
)


@given(
    tree=VALUES, masks=VALUES, key=st.sampled_from((9, -1, "9", "../a", "/etc/passwd", "a\0b", "x" * 5000, 2**70, 0.5))
)
@examples(20)
def test_any_value_in_pickles(read: Reader, root: Path, tree: Any, masks: Any, key: Any) -> None:
    for left, right in (
        (tree, PACKED),
        ({key: tree}, PACKED),
        ({key: TREE[9]}, PACKED),
        (TREE, masks),
        (TREE, ([layer()], masks)),
    ):
        files = pickle.dumps(left), pickle.dumps(right)
        written(root / "hannotation.pickle", files[0])
        written(root / "masks" / "9.pickle", files[1])
        read("hannotation", root, root=root, allowed=pickle_bound(sum(map(len, files))) + 16 * MIB)
