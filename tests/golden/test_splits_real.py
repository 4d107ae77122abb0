"""The frozen splits of this package against the real data that they were drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbench.sampling import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.sampling.splits import Split, check_split, read_split

pytestmark = pytest.mark.real_data


def checked(name: str, recipe_name: str, paths: SourcePaths, place: Path) -> Split:
    """The split, which holds in shards that are made anew."""
    recipe, split = load_recipe(recipe_name), read_split(name)
    make_shards(open_source(recipe, paths), recipe, place)
    assert check_split(split, place) is None
    return split


@pytest.mark.parametrize(
    ("name", "size", "remainder"), [("clothing-parts-300", 300, 0), ("clothing-parts-validation", 120, 1)]
)
def test_clothing(data_root: Path, tmp_path: Path, name: str, size: int, remainder: int) -> None:
    paths = SourcePaths(lvis=[data_root / "clothing" / "paco_style.json"])
    split = checked(name, "paco-parts", paths, tmp_path)
    assert len(split.sets) == size
    images = {int(one.key.split("/")[2]) for one in split.sets}
    assert {image % 5 for image in images} == {remainder}  # those of 2, 3 and 4 are trained on


def test_ade20k(data_root: Path, tmp_path: Path) -> None:
    paths = SourcePaths(folder=data_root / "ade20k_sample", split="train")
    split = checked("ade-sample", "ade-parts", paths, tmp_path)
    assert len(split.sets) == split.record.candidates == 29
    assert max(len(one.members) for one in split.sets) >= 3  # parts of parts, or groups
