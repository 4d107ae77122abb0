"""Recipes: all that decides how diverse sets are made, read from the TOML files in `sampling/`."""

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
    """How scenes become diverse sets. Every field is an option of the TOML file and of `--set`.

    Attributes:
        name: of the recipe.
        description: one line.
        method: how sets are made.
        sources: the kinds of sources that the recipe takes.
        seed: decides what is drawn at random (only `random-merge` draws when a dataset is written).
        min_area: objects of fewer pixels are left out.
        min_box_fill: objects whose area is a smaller share of their box are left out (SBD's training rule).
        raster: how polygons become masks.
        join: COCO with LVIS: `inner`, the images that both have, as RITM did; `outer`, all images of either.
        drop_repeated: drop COCO masks that LVIS repeats and LVIS masks that come again.
        stuff: append COCO's stuff regions (they need panoptic annotations).
        coco_masks: COCO's things from the `instances` file or the `panoptic` PNGs.
        bad_annotations: `fail` stops at an invalid annotation, `drop` leaves it out and counts it.
        box_share: containment needs this share of the inner box.
        mask_share: containment needs more than this share of the inner mask.
        links: hierarchy: where a dataset declares parts, take its links (`declared`), or relate all masks by
            containment (`geometric`).
        keep_share: declared links: a part needs this share of its pixels in its parent; else it becomes a root.
        groups: declared links: add the union of like parts of a whole ("all wheels") between them and the whole.
        nest: hierarchy: masks as `annotated`, or each with the inner ones added (`union`).
        dilated: proximity: dilate `one` mask of a pair or `both`.
        iterations: proximity: how often the 3 x 3 dilation is repeated.
        min_overlap: proximity: pixels of overlap that make neighbours.
        cap: proximity: masks a set, at most.
        largest_merge: random-merge: objects united with the center, at most.
        shard_bytes: a shard is closed before it would hold more than this (uncompressed).
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
    """The recipe of a name (or of the user's own TOML file), with `option=value` overrides applied.

    Raises:
        InputError: unknown recipe or option, a value of the wrong kind or out of range, a broken file.
    """
    path = definitions.find("sampling", name)
    content = dict(definitions.load(path))
    content.setdefault("name", path.stem)
    given = list(overrides)
    return settings_from(Recipe, with_overrides(content, given, Recipe), f"{path} with --set" if given else str(path))
