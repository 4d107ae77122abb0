"""Frozen splits against the literal rule: keys, candidates, rank and draw over arrays of pixels."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from split_tools import parts_scenes, parts_shards

from disbench.core.scenes import SampledScene
from disbench.sampling.splits import make_split, standard_draw
from disbench.shards.reader import ShardReader

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def mask_sha256(mask: Mask) -> str:
    return sha256(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"])


def iou(one: Mask, other: Mask) -> Fraction:
    return Fraction(int((one & other).sum()), int((one | other).sum()))


class Restated:
    """All candidates of some scenes: key -> center, members, part name, image."""

    def __init__(self, scenes: list[SampledScene], prefix: str) -> None:
        self.found: dict[str, tuple[Mask, list[Mask], str, str]] = {}
        for sampled in scenes:
            objects = sampled.scene.objects
            pixels = [coco_mask.decode(item.rle).astype(bool) for item in objects]
            for number, item in enumerate(objects):
                above = []
                while (parent := sampled.parents[above[-1] if above else number]) >= 0:  # type: ignore[operator]
                    above.append(parent)
                whole = next((i for i in above if objects[i].kind != "group"), None)
                region = pixels[number].copy()
                for child, parent in enumerate(sampled.parents):
                    if parent == number:
                        region &= ~pixels[child]
                if (
                    item.kind in ("crowd", "group")
                    or whole is None
                    or pixels[number].sum() < 80
                    or region.sum() < 20
                    or iou(pixels[number], pixels[whole]) > Fraction(9, 10)
                ):
                    continue
                image = Path(sampled.scene.file_name).stem
                key = f"{prefix}/{image}/{item.annotation_id}"
                name = item.category.split(":")[-1].lower().removesuffix("_2")
                self.found[key] = pixels[number], [pixels[i] for i in (number, *above)], name, image

    def drawn(self, dataset: str, size: int | None) -> list[str]:
        ranked = sorted(self.found, key=lambda key: sha256(f"disbench parts 1\n{dataset}\n{key}"))
        if size is None:
            return ranked
        taken: list[str] = []
        images: Counter[str] = Counter()
        names: Counter[str] = Counter()
        for key in ranked:
            mask, _, name, image = self.found[key]
            alike = any(self.found[o][3] == image and iou(mask, self.found[o][0]) > Fraction(1, 2) for o in taken)
            if len(taken) < size and images[image] < 3 and names[name] < math.ceil(size * 0.05) and not alike:
                taken.append(key)
                images[image] += 1
                names[name] += 1
        return taken


CASES = [(0, None, "*"), (1, 50, "*"), (2, 900, "*"), (3, 41, "val2017/*")]


@pytest.mark.parametrize(("seed", "size", "images"), CASES)
def test_splits_are_the_literal_rules(seed: int, size: int | None, images: str, tmp_path: Path) -> None:
    shards = parts_shards(tmp_path / "shards", parts_scenes(40, seed))
    scenes = [one for one in ShardReader(shards) if images == "*" or one.scene.file_name.startswith("val2017/")]
    expected = Restated(scenes, "cars/val")
    keys = expected.drawn("cars", size)
    made = make_split(shards, tmp_path / "cars.jsonl", standard_draw("cars", "val", images, size), "as typed").record
    lines = [json.loads(line) for line in (tmp_path / "cars.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == keys
    for line in lines:
        center, members, *_ = expected.found[line["key"]]
        assert line == {
            "key": line["key"],
            "mask": mask_sha256(center),
            "members": [mask_sha256(member) for member in members],
        }
    listed = "".join(f"{key}\n" for key in sorted(expected.found))
    assert (made.candidates, made.candidates_sha256) == (len(expected.found), sha256(listed))
    assert made.list_sha256 == sha256((tmp_path / "cars.jsonl").read_bytes())
    objects = sum(len(one.sets) for one in scenes)
    assert 40 < len(keys) <= len(expected.found) < objects
