"""Recipes: how to make diverse sets, read from the TOML files in `sampling/`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from disbench.core.limits import MAX_COUNT
from disbench.core.masks import Raster
from disbench.datasets.scene_sources import FolderName
from disbench.io import definitions
from disbench.io.settings import Bounds, settings_from, with_overrides
from disbench.sampling.diverse_sets import Nest
from disbench.sampling.proximity import Dilated

Method = Literal["hierarchy", "proximity", "containment", "random-merge"]
SourceName = Literal["lvis", "coco", "coco+lvis", "sbd", "voc", "hannotation", "photos", FolderName]
METHODS: tuple[Method, ...] = get_args(Method)
Pixels = Annotated[int, Bounds(1, MAX_COUNT)]
Share = Annotated[float, Bounds(0, 1)]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to turn scenes into diverse sets. Every field is an option of the TOML file and of `--set`.

    Attributes:
        name: name of the recipe.
        description: one line.
        method: how sets are made.
        sources: accepted kinds of sources.
        seed: random seed (only `random-merge` draws when a dataset is written).
        min_area: minimum area of an object in pixels.
        min_box_fill: minimum share of its bounding box that an object fills (SBD's training rule).
        raster: how polygons are rasterized.
        join: COCO with LVIS: `inner`, the images in both, as RITM did; `outer`, all images.
        drop_repeated: drop COCO masks that are also in LVIS, and repeated LVIS masks.
        stuff: append COCO's stuff regions (needs panoptic annotations).
        coco_masks: take COCO's things from the `instances` file or the `panoptic` PNGs.
        bad_annotations: on an invalid annotation, `fail` stops; `drop` skips and counts it.
        box_share: containment needs at least this share of the inner box.
        mask_share: containment needs more than this share of the inner mask.
        links: hierarchy: if a dataset declares parts, use its links (`declared`) or relate all masks by containment
            (`geometric`).
        keep_share: declared links: minimum share of a part inside its parent; otherwise it becomes a root.
        groups: declared links: insert the union of like parts ("all wheels") between them and their whole.
        nest: hierarchy: masks as `annotated`, or with the inner masks added (`union`).
        dilated: proximity: dilate `one` mask of a pair or `both`.
        iterations: proximity: number of 3 x 3 dilations.
        min_overlap: proximity: pixels of overlap that make neighbours.
        cap: proximity: maximum number of masks in a set.
        largest_merge: random-merge: maximum number of objects united with the center.
        shard_bytes: maximum size of a shard before compression.
    """

    name: str
    description: str
    method: Method
    sources: tuple[SourceName, ...]
    seed: Annotated[int, Bounds(0)] = 0
    min_area: Pixels = 80
    min_box_fill: Share = 0.0
    raster: Raster = "pycocotools"
    join: Literal["inner", "outer"] = "inner"
    drop_repeated: bool = True
    stuff: bool = True
    coco_masks: Literal["instances", "panoptic"] = "instances"
    bad_annotations: Literal["fail", "drop"] = "fail"
    box_share: Share = 0.70
    mask_share: Share = 0.80
    links: Literal["declared", "geometric"] = "declared"
    keep_share: Share = 0.50
    groups: bool = True
    nest: Nest = "annotated"
    dilated: Dilated = "one"
    iterations: Annotated[int, Bounds(1, 10_000)] = 1
    min_overlap: Pixels = 1
    cap: Annotated[int, Bounds(1, 2**16)] = 16
    largest_merge: Annotated[int, Bounds(1, 2**16)] = 3
    shard_bytes: Annotated[int, Bounds(4096, 2**40)] = 16 * 2**20

    def as_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready, for the manifest."""
        return {**dataclasses.asdict(self), "sources": list(self.sources)}


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or from a TOML file and apply `option=value` overrides.

    Raises:
        InputError: unknown recipe or option, a value of the wrong type or out of range, or a damaged file.
    """
    path = definitions.find("sampling", name)
    content = dict(definitions.load(path))
    content.setdefault("name", path.stem)
    given = list(overrides)
    return settings_from(Recipe, with_overrides(content, given, Recipe), f"{path} with --set" if given else str(path))
