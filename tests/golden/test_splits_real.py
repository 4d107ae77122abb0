"""The frozen splits of this package against the real data that they were drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbench.sampling import make_shards
from disbench.sampling.recipes import load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.sampling.splits import check_split, read_split

pytestmark = pytest.mark.real_data


def test_clothing(data_root: Path, tmp_path: Path) -> None:
    recipe = load_recipe("paco-parts")
    paths = SourcePaths(lvis=[data_root / "clothing" / "paco_style.json"])
    make_shards(open_source(recipe, paths), recipe, tmp_path)
    split = read_split("clothing-parts-300")
    assert check_split(split, tmp_path) is None
    assert len(split.sets) == 300
    images = {int(one.key.split("/")[2]) for one in split.sets}
    assert not any(image % 5 for image in images)  # the others are trained on
