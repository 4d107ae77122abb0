"""Shards from strangers: whatever lies in the folder, its readers give scenes that hold together, or refuse."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import areas, decode
from disbench.io.files import file_sha256
from disbench.sampling.verify import verify_shards
from disbench.shards.contact_sheet import draw_contact_sheet
from disbench.shards.export import export_coco, export_ritm
from disbench.shards.manifest import MANIFEST
from disbench.shards.reader import DiverseSets, ShardReader
from disbench.shards.rows import SCHEMA, shard_facts
from disbench.shards.statistics import as_text, statistics
from tests.fuzz.stored_forms import (
    NASTY_TEXTS,
    changed,
    damaged_parquet,
    in_a_child,
    nested,
    parquet_bytes,
    result_or_refusal,
)
from tests.fuzz.tools import examples
from tests.unit.shard_tools import SHARD, random_scene, write_shards


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes with a tree and sets, and one with neighbours."""
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng, f"{i}", things=4, stuff=1, size=(9, 11)) for i in range(3)]
    return write_shards(tmp_path_factory.mktemp("whole") / "shards", scenes)


@contextmanager
def folder_of(shard: bytes, manifest: Any = None, **entry: Any) -> Iterator[Path]:
    """A folder whose manifest is right about a shard's bytes, or a manifest as given."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "shards"
        folder.mkdir()
        (folder / SHARD).write_bytes(shard)
        if manifest is None:
            said = {"name": SHARD, "rows": 3, "bytes": len(shard), "sha256": file_sha256(folder / SHARD)}
            manifest = {"schema": "1", "files": [said | entry], "recipe": {"name": "fuzz"}}
        content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        (folder / MANIFEST).write_bytes(content)
        yield folder


def read_everything(folder: Path, *, sheet: bool = False) -> None:
    """Each reader of shards on its own; what one refuses, another may read."""

    def scenes() -> int:
        sets = DiverseSets(folder)
        for number, chosen in enumerate(sets):
            assert all(decode(mask).shape == tuple(mask["size"]) for mask in chosen.masks)
            assert number or sets[0] == chosen
        for sampled in ShardReader(folder):
            assert all(area > 0 for area in areas(sampled.scene.rles))
        return len(sets)

    result_or_refusal(scenes, folder)
    result_or_refusal(lambda: (as_text(statistics(folder)), json.dumps(statistics(folder))), folder)
    result_or_refusal(lambda: export_coco(folder, folder.parent / "coco.json"), folder)
    result_or_refusal(lambda: export_ritm(folder, folder.parent / "ritm"), folder)
    result_or_refusal(lambda: verify_shards(folder).lines(), folder)
    result_or_refusal(lambda: ShardReader(folder).manifest.content_hash, folder)
    if sheet:
        result_or_refusal(
            lambda: draw_contact_sheet(folder, folder.parent / "images", folder.parent / "s.png"),
            folder.parent,  # it names the shards or the folder of the images
        )
    result_or_refusal(lambda: shard_facts(folder / SHARD), folder)
    around = {path.name for path in folder.parent.iterdir()}
    assert around <= {"shards", "coco.json", "ritm", "s.png"}


@examples(30)
@given(data=st.data())
def test_bytes_of_a_shard(whole: Path, data: st.DataObject) -> None:
    with folder_of(data.draw(damaged_parquet((whole / SHARD).read_bytes()))) as folder:
        read_everything(folder)


@examples(30)
@given(data=st.data())
def test_manifests(whole: Path, data: st.DataObject) -> None:
    manifest = json.loads((whole / MANIFEST).read_bytes()) | {
        "dropped": {"empty mask": 1},
        "images": 4,
        "scenes": 3,
        "source": "by-hand",
    }
    with folder_of((whole / SHARD).read_bytes(), data.draw(changed(manifest))) as folder:
        read_everything(folder)


NOT_MANIFESTS: list[Any] = [b"", b"[]", b"null", b"{", b"\xff", b'"x"', b"[" * 100_000]
NOT_MANIFESTS += [b'{"schema":"1","files":' + b"9" * 5000 + b"}", {"schema": "1", "files": [], "x": nested(900)}]


@pytest.mark.parametrize("content", NOT_MANIFESTS)
def test_what_is_not_a_manifest(whole: Path, content: Any) -> None:
    with folder_of((whole / SHARD).read_bytes(), content) as folder:
        assert result_or_refusal(lambda: ShardReader(folder), folder) is None


@pytest.mark.parametrize("name", [*NASTY_TEXTS, "../shards/" + SHARD, "./" + SHARD, "."])
def test_names_that_leave_the_folder(whole: Path, name: str) -> None:
    content = (whole / SHARD).read_bytes()
    with folder_of(content, name=name) as folder:
        (folder.parent / "b").write_bytes(content)
        assert result_or_refusal(lambda: ShardReader(folder), folder.name) is None
        assert not result_or_refusal(lambda: verify_shards(folder).holds, folder.name)


NUMBERS = st.one_of(st.sampled_from((-(2**31), -1, 0, 1, 3, 4, 5, 9, 11, 2**15, 2**31 - 1)), st.none())
FLOATS = st.sampled_from((0.0, -1.0, 0.5, 1e308, float("inf"), float("nan")))
COUNTS = st.one_of(st.binary(max_size=12), st.sampled_from((b"", b"o2", b"0" * 40, b"\xff" * 9, b"oooooooooooo0")))
TEXTS = st.sampled_from((*(t for t in NASTY_TEXTS if t != "\ud800"), "thing", "crowd", "stuff", "0"))


@st.composite
def changed_row(draw: st.DrawFn, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with values of the right type that say something else."""
    found = json.loads(json.dumps(rows, default=lambda raw: {"raw": raw.hex()}))
    found = [_raw(row) for row in found]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(found))
        where = draw(st.sampled_from([row, *row["objects"], *row["sets"]]))
        key = draw(st.sampled_from(sorted(where)))
        kind = type(where[key])
        if kind is list and draw(st.booleans()) and where[key]:
            where[key].pop()
        elif kind is list and key in ("neighbours", "click_excludes"):
            where[key].append(draw(NUMBERS))
        elif kind is list and key == "members":
            where[key].append(draw(st.one_of(st.none(), st.lists(NUMBERS, max_size=3))))
        elif kind is list and key == "box":
            where[key] = [draw(NUMBERS) for _ in range(4)]
        elif kind is bytes:
            where[key] = draw(COUNTS)
        elif kind is float:
            where[key] = draw(FLOATS)
        elif kind is str:
            where[key] = draw(TEXTS)
        elif key in ("parent", "level", "annotation_id"):
            where[key] = draw(NUMBERS)
        elif kind is int:
            where[key] = draw(NUMBERS.filter(lambda value: value is not None))
    return found


def _raw(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["raw"]) if list(value) == ["raw"] else {k: _raw(v) for k, v in value.items()}
    return [_raw(item) for item in value] if isinstance(value, list) else value


@examples(20)
@given(data=st.data())
def test_rows_that_do_not_hold_together(whole: Path, data: st.DataObject) -> None:
    rows = pq.read_table(whole / SHARD).to_pylist()
    try:
        table = pa.Table.from_pylist(data.draw(changed_row(rows)), SCHEMA)
    except (pa.ArrowException, TypeError):
        return  # a box of another length, or null where Parquet has none
    with folder_of(parquet_bytes(table)) as folder:
        read_everything(folder, sheet=data.draw(st.integers(0, 24)) == 0)


KINDS = st.sampled_from(
    (
        *(pa.int8(), pa.float64(), pa.string(), pa.binary(), pa.bool_(), pa.large_string(), pa.date32()),
        *(pa.list_(pa.int32()), pa.struct([pa.field("x", pa.string())])),
        pa.dictionary(pa.int32(), pa.string()),
    )
)


@examples(30)
@given(names=st.lists(st.sampled_from((*SCHEMA.names, "other")), max_size=8), data=st.data())
def test_other_columns(names: list[str], data: st.DataObject) -> None:
    kinds = [data.draw(KINDS) for _ in names]
    table = pa.table([pa.nulls(3, kind) for kind in kinds], names=names) if names else pa.table({})
    with folder_of(parquet_bytes(table)) as folder:
        assert result_or_refusal(lambda: list(ShardReader(folder)), folder) is None
        assert not verify_shards(folder).holds
        read_everything(folder)


BOMB = """
import sys
from contextlib import suppress
from pathlib import Path
from disbench.shards.contact_sheet import draw_contact_sheet
from disbench.shards.export import export_coco
from disbench.shards.reader import DiverseSets, ShardReader
from disbench.shards.statistics import statistics
folder = Path(sys.argv[1])
def attempt():
    for read in (DiverseSets, lambda f: ShardReader(f).names()):
        with suppress(InputError):  # what it looks at may be harmless
            read(folder)
    try:
        statistics(folder)
    except InputError:
        list(ShardReader(folder))
"""


def bomb(what: str, whole: Path, place: Path) -> tuple[pa.Table, int]:
    """A table that is small as a file, and how many rows it says that it has."""
    row = pq.read_table(whole / SHARD).to_pylist()[0] | {"sets": []}
    row["objects"] = [row["objects"][0] | {"category": "x" * 1_000_000, "neighbours": []}]
    if what == "rows":
        table = pa.Table.from_pylist([row | {"objects": []}], SCHEMA)
        return table.take(np.zeros(1_000_000, np.int64)), 1_000_000
    if what == "an image of two gigapixels":
        row |= {"height": 46_000, "width": 46_000}
        counts = b"".join(_number(n) for n in (1, 46_000 * 46_000 - 1))
        row["objects"] = [row["objects"][0] | {"rle": counts, "area": 46_000 * 46_000 - 1}]
        return pa.Table.from_pylist([row], SCHEMA), 1
    pq.write_table(pa.Table.from_pylist([row], SCHEMA), place)
    table = pq.read_table(place, read_dictionary=["objects.list.element.category"])
    objects = table["objects"].combine_chunks().flatten()
    if what == "a text many times":
        objects = objects.take(np.zeros(20_000, np.int64))  # 20 GB
    else:
        numbers = pa.ListArray.from_arrays([0, 20_000_000], pa.array(np.zeros(20_000_000, np.int32)))
        names = [field.name for field in objects.type]
        leaves = [numbers if name == "neighbours" else objects.field(name) for name in names]
        objects = pa.StructArray.from_arrays(leaves, fields=list(objects.type))
    field = table.schema.field("objects")
    column = pa.ListArray.from_arrays(pa.array([0, len(objects)], pa.int32()), objects, type=field.type)
    return table.set_column(5, field, column), 1


def _number(value: int) -> bytes:
    """COCO's text of a run."""
    text = bytearray()
    while True:
        group, value = value & 31, value >> 5
        more = value != (-1 if group & 16 else 0)
        text.append(48 + group + (32 if more else 0))
        if not more:
            return bytes(text)


@pytest.mark.parametrize("what", ["a text many times", "a number many times", "rows", "an image of two gigapixels"])
def test_bombs(whole: Path, what: str, tmp_path: Path) -> None:
    table, rows = bomb(what, whole, tmp_path / "one.parquet")
    with folder_of(parquet_bytes(table), rows=rows) as folder:
        del table
        words, grown = in_a_child(BOMB, folder)
        assert words.startswith("refused"), words[-500:]
        assert grown < 400, (what, grown)


def test_images_that_are_too_large_are_not_written(tmp_path: Path) -> None:
    from dataclasses import replace

    sampled = random_scene(np.random.default_rng(0), "1", things=1, stuff=0)
    side = int(MAX_PIXELS**0.5) + 1
    large = replace(sampled, scene=replace(sampled.scene, height=side, width=side))
    assert result_or_refusal(lambda: write_shards(tmp_path, [large]), "image 1") is None
