"""Shards from strangers: whatever lies in the folder, its readers give scenes that hold together, or refuse."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.core.limits import MAX_PIXELS
from disbench.core.masks import areas, decode
from disbench.io.files import file_sha256
from disbench.sampling.verify import verify_shards
from disbench.shards.contact_sheet import draw_contact_sheet
from disbench.shards.export import export_coco, export_ritm
from disbench.shards.manifest import MANIFEST
from disbench.shards.reader import DiverseSets, ShardReader
from disbench.shards.rows import SCHEMA, read_shard_metadata
from disbench.shards.statistics import as_text, statistics
from tests.fuzz import stored_forms as forms
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

    forms.result_or_refusal(scenes, folder)
    forms.result_or_refusal(lambda: (as_text(statistics(folder)), json.dumps(statistics(folder))), folder)
    forms.result_or_refusal(lambda: export_coco(folder, folder.parent / "coco.json"), folder)
    forms.result_or_refusal(lambda: export_ritm(folder, folder.parent / "ritm"), folder)
    forms.result_or_refusal(lambda: verify_shards(folder).lines(), folder)
    forms.result_or_refusal(lambda: ShardReader(folder).manifest.content_hash, folder)
    if sheet:
        forms.result_or_refusal(
            lambda: draw_contact_sheet(folder, folder.parent / "images", folder.parent / "s.png"),
            folder.parent,  # it names the shards or the folder of the images
        )
    forms.result_or_refusal(lambda: read_shard_metadata(folder / SHARD), folder)
    around = {path.name for path in folder.parent.iterdir()}
    assert around <= {"shards", "coco.json", "ritm", "s.png"}


@examples(60)
@given(data=st.data())
def test_spoilt_shards(whole: Path, data: st.DataObject) -> None:
    with folder_of(data.draw(forms.spoilt(whole / SHARD))) as folder:
        read_everything(folder, sheet=data.draw(st.integers(0, 50)) == 0)


@examples(30)
@given(data=st.data())
def test_manifests(whole: Path, data: st.DataObject) -> None:
    manifest = json.loads((whole / MANIFEST).read_bytes()) | {
        "dropped": {"empty mask": 1},
        "images": 4,
        "scenes": 3,
        "source": "by-hand",
    }
    with folder_of((whole / SHARD).read_bytes(), data.draw(forms.changed(manifest))) as folder:
        read_everything(folder)


NOT_MANIFESTS: list[Any] = [b"", b"[]", b"null", b"{", b"\xff", b'"x"', b"[" * 100_000]
NOT_MANIFESTS += [b'{"schema":"1","files":' + b"9" * 5000 + b"}", {"schema": "1", "files": [], "x": forms.nested(900)}]


@pytest.mark.parametrize("content", NOT_MANIFESTS)
def test_what_is_not_a_manifest(whole: Path, content: Any) -> None:
    with folder_of((whole / SHARD).read_bytes(), content) as folder:
        assert forms.result_or_refusal(lambda: ShardReader(folder), folder) is None


@pytest.mark.parametrize("name", [*forms.NASTY_TEXTS, "../shards/" + SHARD, "./" + SHARD, "."])
def test_names_that_leave_the_folder(whole: Path, name: str) -> None:
    content = (whole / SHARD).read_bytes()
    with folder_of(content, name=name) as folder:
        (folder.parent / "b").write_bytes(content)
        assert forms.result_or_refusal(lambda: ShardReader(folder), folder.name) is None
        assert not forms.result_or_refusal(lambda: verify_shards(folder).ok, folder.name)


@examples(30)
@given(shard=forms.other_columns(SCHEMA))
def test_other_columns(shard: bytes) -> None:
    with folder_of(shard) as folder:
        assert forms.result_or_refusal(lambda: list(ShardReader(folder)), folder) is None
        assert not verify_shards(folder).ok
        read_everything(folder)


def read_some(folder: Path) -> None:
    for read in (DiverseSets, lambda f: ShardReader(f).names()):
        with suppress(InputError):  # what it looks at may be harmless
            read(folder)
    try:
        statistics(folder)
    except InputError:
        list(ShardReader(folder))


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
    with folder_of(forms.parquet_bytes(table), rows=rows) as folder:
        del table
        words, grown = forms.in_a_child(read_some, folder)
        assert words.startswith("refused"), words[-500:]
        assert grown < 400, (what, grown)


def test_images_that_are_too_large_are_not_written(tmp_path: Path) -> None:
    from dataclasses import replace

    sampled = random_scene(np.random.default_rng(0), "1", things=1, stuff=0)
    side = int(MAX_PIXELS**0.5) + 1
    large = replace(sampled, scene=replace(sampled.scene, height=side, width=side))
    assert forms.result_or_refusal(lambda: write_shards(tmp_path, [large]), "image 1") is None
