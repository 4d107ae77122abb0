"""Parts of real datasets, merged: the undivided bytes; and every recipe's real shards hold what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from disbench.sampling import make_shards, merge_parts
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.sampling.verify import verify_shards
from disbench.shards.manifest import read_manifest

pytestmark = pytest.mark.real_data


def paths_of(kind: str, data: Path) -> SourcePaths:
    lvis, coco = [data / "lvis" / "lvis_val_100.json"], [data / "coco" / "instances_val.json"]
    return {
        "lvis": SourcePaths(lvis=lvis),
        "coco": SourcePaths(coco=coco),
        "coco+lvis": SourcePaths(lvis=lvis, coco=coco),
        "voc": SourcePaths(voc=data / "VOC2007", split="trainval"),
        "clothing": SourcePaths(lvis=[data / "clothing" / "paco_style.json"]),
    }[kind]


@pytest.mark.parametrize(
    ("name", "kind", "overrides", "parts", "limit"),
    [
        ("lvis-hierarchy", "lvis", ["shard_bytes=40000"], 7, None),
        ("coco-lvis-hierarchy", "coco+lvis", ["join=outer", "nest=union", "shard_bytes=100000"], 3, None),
        ("coco-lvis-hierarchy", "coco+lvis", ["join=inner"], 5, None),
        ("containment", "lvis", ["shard_bytes=30000"], 4, 60),
        ("voc-proximity", "voc", ["shard_bytes=20000"], 5, None),
        ("random-merge", "coco", ["shard_bytes=60000"], 2, 40),
        ("paco-parts", "clothing", ["shard_bytes=200000"], 3, 200),
    ],
)
def test_merged_parts_are_the_undivided_folder_and_hold(
    name: str, kind: str, overrides: list[str], parts: int, limit: int | None, data_root: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(name, overrides)
    source: Any = open_source(recipe, paths_of(kind, data_root))
    whole = make_shards(source, recipe, tmp_path / "whole", limit=limit)
    folders = [tmp_path / f"part-{number}" for number in range(1, parts + 1)]
    for number, folder in enumerate(folders, start=1):
        make_shards(source, recipe, folder, limit=limit, part=(number, parts))
    assert merge_parts(folders, tmp_path / "merged") == whole
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "merged" / path.name).read_bytes(), path.name
    if overrides == ["join=inner"]:  # counted once, not five times
        assert whole.dropped == read_manifest(tmp_path / "merged").dropped
        assert any("only" in reason for reason in whole.dropped), whole.dropped
    found = verify_shards(tmp_path / "merged")
    assert found.lines()[1:] == []
    assert found.scenes > 0
