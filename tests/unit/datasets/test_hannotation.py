"""RITM's annotation: read as it is written, checked, and refused where it brings code."""

import _codecs
import hashlib
import os
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from disbench.core.masks import decode
from disbench.datasets.hannotation import HannotationSource, load_plain_pickle
from disbench.io.files import file_sha256
from tests.refusals import refuses

Labels = npt.NDArray[np.uint8]
BYTE = np.dtype(np.uint8)
RECONSTRUCT = np.empty(0).__reduce__()[0]
SCALAR = np.int64(3).__reduce__()[0]


class Reduces:
    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def as_numpy_1(data: bytes) -> bytes:
    """The pickle as NumPy 1 would have written it: its inner modules had other names."""
    count = data.count(b"numpy._core.")
    for length in (len("numpy._core.multiarray"), len("numpy._core.numeric")):
        data = data.replace(bytes([0x8C, length]) + b"numpy._core.", bytes([0x8C, length - 1]) + b"numpy.core.")
    data = data.replace(b"cnumpy._core.", b"cnumpy.core.")
    if data[1] >= 4 and data[0] == 0x80:
        frame = struct.unpack("<Q", data[3:11])[0]
        data = data[:3] + struct.pack("<Q", frame - count) + data[11:]
    return data


def put(path: Path, content: object, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def png(labels: Labels) -> Labels:
    return cv2.imencode(".png", labels)[1].astype(np.uint8)


def forged_png(width: int, height: int, depth: int = 8, colour: int = 0) -> Labels:
    """A PNG whose head claims another size than it has."""
    data = png(np.zeros((4, 4), np.uint8)).tobytes()
    head = b"IHDR" + struct.pack(">IIBB", width, height, depth, colour) + data[26:29]
    forged = data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    return np.frombuffer(forged, np.uint8)


def node(parent: int | None, *children: int, level: int = 0) -> dict[str, Any]:
    return {"children": list(children), "parent": parent, "node_level": level}


def labels() -> list[Labels]:
    """Two layers of 6 x 8: a whole (1), in it a part (1 of layer 1) and a part of that (2), stuff, an island."""
    first, second, third = (np.zeros((6, 8), np.uint8) for _ in range(3))
    first[0:5, 0:5], first[5, :] = 1, 2
    second[1:4, 1:4], second[0, 7] = 1, 2
    third[2, 2:4] = 7
    return [first, second, third]


MAPPING = [(0, 1), (1, 1), (2, 7), (1, 2), (0, 2)]
ENTRY = {"num_instance_masks": 4, "hierarchy": {0: node(None, 1), 1: node(0, 2, level=1), 2: node(1, level=2), 3: None}}


def write_split(folder: Path, images: dict[Any, Any], packed: object = None) -> Path:
    put(folder / "hannotation.pickle", images)
    content = ([png(layer) for layer in labels()], MAPPING) if packed is None else packed
    for image in images:
        put(folder / "masks" / f"{image}.pickle", content)
    return folder


def read_one(folder: Path, packed: object = None, entry: object = None) -> Any:
    source = HannotationSource(write_split(folder, {9: ENTRY if entry is None else entry}, packed))
    return next(source.read([0]))


def test_a_scene_has_the_masks_kinds_and_tree_of_the_files(tmp_path: Path) -> None:
    scene = read_one(tmp_path)
    assert (scene.image_id, scene.file_name, scene.source) == ("9", "images/9.jpg", "hannotation")
    assert (scene.height, scene.width) == (6, 8)
    assert scene.parents == (-1, 0, 1, -1, -1)
    assert [item.kind for item in scene.objects] == ["thing"] * 4 + ["stuff"]
    assert [item.category for item in scene.objects] == ["object"] * 4 + ["stuff"]
    assert {(item.source, item.synset, item.annotation_id) for item in scene.objects} == {("hannotation", None, None)}
    layers = labels()
    for item, (layer, value) in zip(scene.objects, MAPPING, strict=True):
        mask = layers[layer] == value
        np.testing.assert_array_equal(decode(item.rle), mask)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert item.area == mask.sum()
        assert item.box == (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_scenes_come_in_ascending_image_id_then_named_ones(tmp_path: Path) -> None:
    images: dict[Any, Any] = dict.fromkeys((100, 9, "2008_1", "000000000012", 20), ENTRY)
    source = HannotationSource(write_split(tmp_path, images))
    assert len(source) == 5
    expected = ["9", "000000000012", "20", "100", "2008_1"]
    assert [scene.image_id for scene in source.read(range(5))] == expected
    assert [scene.image_id for scene in source.read([3, 0])] == ["100", "9"]


def test_other_ways_to_write_the_same_masks(tmp_path: Path) -> None:
    layers = [png(layer) for layer in labels()]
    for packed in (
        (layers, {index: MAPPING[index] for index in (4, 2, 0, 1, 3)}),
        ([layer.reshape(-1, 1) for layer in layers], MAPPING),
        (layers, [(np.int64(layer), np.uint8(value)) for layer, value in MAPPING]),
        (tuple(layers), tuple(map(list, MAPPING))),
    ):
        assert read_one(tmp_path / "other", packed) == read_one(tmp_path / "plain")


def test_objects_without_pixels_images_without_masks_and_any_numbers_of_parts(tmp_path: Path) -> None:
    layers = labels()
    layers[1][0, 7] = 0
    item = read_one(tmp_path / "a", ([png(layer) for layer in layers], MAPPING)).objects[3]
    assert (item.area, item.box) == (0, (0, 0, 0, 0))
    scene = read_one(tmp_path / "b", ([png(layers[0])], {}), entry_of(0))
    assert (scene.objects, scene.parents, scene.height) == ((), (), 6)
    entry = entry_of(4, node(3), node(3), node(None, 3), node(2, 0, 1))
    assert read_one(tmp_path / "c", entry=entry).parents == (3, 3, -1, 2, -1)


def test_fingerprint_is_what_sha256sum_says(tmp_path: Path) -> None:
    folder = write_split(tmp_path, {5: ENTRY, 10: ENTRY})
    put(folder / "masks" / "5.pickle", ([png(labels()[0])], [(0, 1)]))
    put(folder / "masks" / "77.pickle", "not named by the annotation")
    lines = "".join(f"{file_sha256(folder / 'masks' / name)}  {name}\n" for name in ("10.pickle", "5.pickle"))
    assert HannotationSource(folder).fingerprint() == {
        "hannotation.pickle": file_sha256(folder / "hannotation.pickle"),
        "masks": hashlib.sha256(lines.encode()).hexdigest(),
    }


def test_another_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    write_split(tmp_path / "val", {5: ENTRY})
    write_split(tmp_path / "train", {5: ENTRY})
    refuses("train, val", HannotationSource, tmp_path)
    for folder in (tmp_path / "nowhere", tmp_path / "val" / "masks", tmp_path / "val" / "hannotation.pickle"):
        refuses(r"no hannotation\.pickle", HannotationSource, folder)


def entry_of(count: Any, *nodes: Any) -> dict[str, Any]:
    return {"num_instance_masks": count, "hierarchy": dict(enumerate(nodes))}


BAD_ENTRIES: dict[str, object] = {
    "not a dictionary": [],
    "no hierarchy": {"num_instance_masks": 1},
    "count is true": entry_of(True, None),
    "too few nodes": entry_of(2, None),
    "no children": entry_of(1, {"parent": None}),
    "parent negative": entry_of(1, node(-1)),
    "parent beyond": entry_of(1, node(1)),
    "child unaware": entry_of(2, node(None, 1), None),
    "cycle": entry_of(4, node(2, 1), node(0, 2), node(1, 0), None),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_an_annotation_that_contradicts_itself_is_refused(tmp_path: Path, name: str) -> None:
    refuses(r"hannotation\.pickle: image 9", lambda: HannotationSource(write_split(tmp_path, {9: BAD_ENTRIES[name]})))


NAMES: list[Any] = [-1, 1.5, 10**5000, "", "../9", "a\nb"]


@pytest.mark.parametrize("images", [[], "text", *({name: ENTRY} for name in NAMES), {9: ENTRY, "9": ENTRY}])
def test_an_annotation_of_something_else_is_refused(tmp_path: Path, images: object) -> None:
    put(tmp_path / "hannotation.pickle", images)
    refuses(r"hannotation\.pickle: ", HannotationSource, tmp_path)


def bad_masks() -> dict[str, object]:
    layers: list[Any] = [png(layer) for layer in labels()]
    colour = cv2.imencode(".png", np.zeros((6, 8, 3), np.uint8))[1]
    jpeg = cv2.imencode(".jpg", np.zeros((6, 8), np.uint8))[1]

    def first(layer: object) -> tuple[object, object]:
        return [layer, *layers[1:]], MAPPING

    return {
        "not a pair": (layers,),
        "mapping with a gap": (layers, {0: (0, 1), 2: (0, 2)}),
        "fewer masks": (layers, MAPPING[:3]),
        "no such layer": (layers, [*MAPPING[:4], (3, 1)]),
        "background": (layers, [(0, 0), *MAPPING[1:]]),
        "value too large": (layers, [(0, 256), *MAPPING[1:]]),
        "the same place": (layers, [(0, 1), (0, 1), *MAPPING[2:]]),
        "no layers": ([], []),
        "sizes differ": ([*layers, png(np.zeros((8, 6), np.uint8))], MAPPING),
        "not PNG": first(jpeg),
        "colour": first(colour),
        "gigantic": first(forged_png(2**15, 2**14)),
    }


@pytest.mark.parametrize("name", bad_masks())
def test_bad_masks_are_refused(tmp_path: Path, name: str) -> None:
    refuses(r"9\.pickle", lambda: read_one(tmp_path, bad_masks()[name]))


PLAIN: list[object] = [
    None,
    {"a": [1, -5, 2**70, 1.5, True, None], 3: ("b", b"c", ()), 2.5: {}, np.int64(4): []},
    [[[[(1, (2, (3, (4, (5,)))))]]]],
    bytearray(b"abc"),
    "é☃" * 300,
    b"\x00\xff" * 300,
]
ARRAYS: list[npt.NDArray[Any]] = [
    np.arange(5, dtype=np.uint8),
    np.arange(300, dtype=np.uint8).reshape(-1, 1),
    np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
    np.array([1.5, -2.5], dtype=">f4"),
    np.array([True, False]),
    np.array(7, dtype=np.int16),
]


SCALARS = [np.int64(-3), np.float32(1.5), np.bool_(True), np.uint8(200), np.int64(-3)]


@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(tmp_path: Path, protocol: int, numpy_1: bool) -> None:
    plain = [item for item in PLAIN if protocol > 4 or not isinstance(item, bytearray)]
    assert load_plain_pickle(put(tmp_path / "a.pickle", plain, protocol)) == plain
    for items in ([SCALARS], *([array, array[..., :1]] if array.ndim else [array] for array in ARRAYS)):
        data = pickle.dumps(items, protocol)
        (tmp_path / "a.pickle").write_bytes(as_numpy_1(data) if numpy_1 else data)
        read: Any = load_plain_pickle(tmp_path / "a.pickle")
        for found, item, again in zip(read, items, pickle.loads(data), strict=True):
            np.testing.assert_array_equal(found, item)
            if isinstance(item, list):
                assert [type(each) for each in found] == [type(each) for each in item]
            else:
                assert found.dtype == again.dtype


def array_state(shape: Any, dtype: Any = BYTE, raw: Any = b"", version: int = 1) -> tuple[Any, ...]:
    return (version, shape, dtype, False, raw)


def forged_array(*state: Any, **options: Any) -> Reduces:
    return Reduces(RECONSTRUCT, np.ndarray, (0,), b"b", state=array_state(*state, **options))


def forged_dtype(name: str, *state: Any) -> Reduces:
    return Reduces(np.dtype, name, False, True, state=state)


def nested(depth: int) -> bytes:
    """`{((((...),),),): None}`, whose hash would need a stack as deep."""
    return b"\x80\x04})" + b"\x85" * depth + b"Ns."


ATTACKS: dict[str, Callable[[Path], object]] = {
    "os.system": lambda mark: Reduces(os.system, f"touch '{mark}'"),
    "numpy.fromfile": lambda mark: Reduces(np.fromfile, str(mark)),
    "codec rot13": lambda mark: Reduces(_codecs.encode, "text", "rot13"),
    "object array": lambda mark: np.array([1, "text"], dtype=object),
    "structured array": lambda mark: np.zeros(3, dtype=[("a", "u1"), ("b", "O")]),
    "object scalar": lambda mark: Reduces(SCALAR, np.dtype("O"), [1]),
    "scalar too short": lambda mark: Reduces(SCALAR, np.dtype("i8"), b"abc"),
    "gigantic shape": lambda mark: forged_array((2**40,)),
    "negative shape": lambda mark: forged_array((-1, -1), raw=b"a"),
    "list of pointers": lambda mark: forged_array((2,), dtype=np.dtype("O"), raw=[1, 2]),
    "reconstruct gigantic": lambda mark: Reduces(RECONSTRUCT, np.ndarray, (2**40,), b"b"),
    "reconstruct another class": lambda mark: Reduces(RECONSTRUCT, np.memmap, (0,), b"b"),
    "frombuffer gigantic": lambda mark: Reduces(np.frombuffer, b"abc", "u1", 2**40),
    "dtype with flags of pointers": lambda mark: forged_dtype("u8", 3, "|", None, None, None, -1, -1, 63),
    "dtype of another size": lambda mark: forged_dtype("u8", 3, "<", None, None, None, 64, 64, 0),
    "dtype in words": lambda mark: Reduces(np.dtype, "u1,(99999999,)u8"),
    "set": lambda mark: {1, 2},
}
FORGED: dict[str, bytes] = {
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
    "chain of getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\n__dict__\nX\x06\x00\x00\x00systemtR(X\x01\x00\x00\x00atR.",
    "extension registry": b"\x80\x02\x82\x01.",
    "instance": b"(S'touch'\nios\nsystem\n.",
    "state of a list": b"\x80\x02]}b.",
    "items of an array": b"\x80\x02cnumpy\nfrombuffer\n(X\x00\x00\x00\x00K\x01K\x02u.",
    "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "deep key": nested(10**5),
    "deep key among many": b"\x80\x04}(" + b")" + b"\x85" * 10**5 + b"Nu.",
    "array of bytes as large as memory": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "many bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**27) + b"abc.",
    "copies of copies": b"\x80\x02c_codecs\nencode\nq\x00(X\xe8\x03\x00\x00%bX\x06\x00\x00\x00latin1tq\x01R%b."
    % (b"a" * 1000, b"h\x00h\x01R" * 1000),
}


def refused(path: Path, data: bytes) -> str:
    """The one sentence with which a file is refused, at no cost in memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        said = refuses("", load_plain_pickle, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 100 * len(data)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    return said


@pytest.mark.parametrize("name", ATTACKS)
def test_everything_else_is_refused_and_nothing_happens(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    for protocol in (2, 4, 5):
        refused(tmp_path / "a.pickle", pickle.dumps([ATTACKS[name](mark)], protocol))
    assert not mark.exists()


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_pickles_that_no_pickler_writes_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path / "a.pickle", data)


@pytest.mark.parametrize("data", [b"\x80\x02Nr\xff\xff\xff\xff.", b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N."])
def test_a_forged_memo_index_or_frame_costs_no_memory(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pickle").write_bytes(data)
    tracemalloc.start()
    assert load_plain_pickle(tmp_path / "a.pickle") is None
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_broken_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle"
    whole = pickle.dumps({9: ENTRY, 10: [np.arange(9), np.float64(1)]}, 4)
    for length in range(1, len(whole)):
        refused(path, whole[:length])
    for garbage in (b"\n", b"garbage", b"\x80\x63", bytes(range(256)), b"\x80\x04.", b"{'a': 1}"):
        refused(path, garbage)
    assert "empty" in refused(path, b"")
    for missing in (tmp_path / "none.pickle", tmp_path):
        refuses(str(missing), load_plain_pickle, missing)
