"""Turn a scene into diverse sets: choose its objects, relate them and build the sets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import networkx as nx
import numpy as np

from disbench.core.arrays import BoolArray, FloatArray, IntArray
from disbench.core.errors import InputError
from disbench.core.limits import MAX_DEPTH
from disbench.core.masks import Rle, areas, boxes, difference, pairwise_overlaps, union
from disbench.core.scenes import Links, SampledScene, Scene, SceneObject, scene_objects
from disbench.datasets.scene_sources import check_count
from disbench.sampling.diverse_sets import containment_sets, hierarchy_sets, proximity_sets, random_merge_sets
from disbench.sampling.hierarchy import Forest, build_forest, containment_matrix
from disbench.sampling.links import DECLARED, checked_parents, insert_groups, remap_parents
from disbench.sampling.proximity import proximity_graph
from disbench.sampling.recipes import Recipe

BOX_IOU = 0.70
COCO_IOU = 0.70
LVIS_IOU = 0.85
STUFF_AREA = 500
"""Masks of COCO and LVIS with larger IoUs are duplicates; stuff must have more than `STUFF_AREA` pixels left
(docs/hierarchy.md)."""


def sample_scene(scene: Scene, recipe: Recipe) -> SampledScene:
    """Apply a recipe to a scene; random draws are seeded by the recipe's seed and the image id.

    Raises:
        InputError: more objects than `MAX_OBJECTS`, or a declared tree deeper than `MAX_DEPTH`.
    """
    check_count(f"{scene.source}: image {scene.image_id} ({scene.file_name})", len(scene.objects))
    chosen = choose_objects(scene, recipe)
    parents: Sequence[int | None] | None = chosen.parents
    if chosen.links is not None and recipe.method == "hierarchy":
        chosen, parents = _with_declared_tree(chosen, chosen.links, recipe)
    # Shards store the tree in separate columns.
    return relate_objects(dataclasses.replace(chosen, parents=None, links=None), recipe, parents)


def relate_objects(scene: Scene, recipe: Recipe, parents: Sequence[int | None] | None = None) -> SampledScene:
    """Relate all objects of a scene and make its sets by a recipe.

    `parents` are the parents declared by a dataset (-1 or None for a root); they replace containment.
    """
    rles = scene.rles
    no_tree: tuple[None, ...] = (None,) * len(rles)
    no_neighbours = ((),) * len(rles)
    if recipe.method == "hierarchy":
        # Stuff comes after the instances, so the nodes are the first objects and keep their indices.
        nodes = sum(item.kind != "stuff" for item in scene.objects)
        area, box = scene.areas[:nodes], scene.boxes[:nodes]
        if parents is not None:
            forest = _forest_from_parents([-1 if parent is None else parent for parent in parents[:nodes]])
            if (depth := max(forest.levels, default=0)) > MAX_DEPTH:
                raise InputError(
                    f"{scene.source}: image {scene.image_id} ({scene.file_name}) declares a tree of {depth + 1} "
                    f"levels, but the maximum is {MAX_DEPTH + 1}; leave the image out"
                )
        else:
            contains = containment_matrix(rles[:nodes], recipe.box_share, recipe.mask_share, (area, box))
            forest = build_forest(contains, area)
        sets = hierarchy_sets(rles[:nodes], forest, recipe.nest, area)
        padding = no_tree[nodes:]
        return SampledScene(scene, forest.parents + padding, forest.levels + padding, no_neighbours, tuple(sets))
    if recipe.method == "containment":
        area = scene.areas
        contains = containment_matrix(rles, recipe.box_share, recipe.mask_share, (area, scene.boxes))
        return SampledScene(scene, no_tree, no_tree, no_neighbours, tuple(containment_sets(contains, area)))
    things = [i for i, item in enumerate(scene.objects) if item.kind == "thing"]
    graph = proximity_graph(
        [rles[i] for i in things],
        box=scene.boxes[things],
        dilated=recipe.dilated,
        iterations=recipe.iterations,
        min_overlap=recipe.min_overlap,
    )
    graph = nx.relabel_nodes(graph, dict(enumerate(things)))
    graph.add_nodes_from(range(len(rles)))
    sets = proximity_sets(rles, graph, things, recipe.cap)
    if recipe.method == "random-merge":
        generator = np.random.default_rng([recipe.seed, *scene.image_id.encode()])
        sets = random_merge_sets(rles, sets, things, recipe.largest_merge, generator)
    neighbours = tuple(tuple(sorted(graph[i])) for i in range(len(rles)))
    return SampledScene(scene, no_tree, no_tree, neighbours, tuple(sets))


def choose_objects(scene: Scene, recipe: Recipe) -> Scene:
    """Filter the objects of a scene; COCO's come first, stuff last (docs/hierarchy.md, 1 and 4)."""
    dropped = Counter(scene.dropped)
    reasons = [_drop_reason(item, recipe) for item in scene.objects]
    dropped.update(reason for reason in reasons if reason)
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    instances = [i for i in kept if scene.objects[i].kind != "stuff"]
    declares = scene.links is not None and recipe.links == "declared"  # a part may nearly fill its whole
    if recipe.drop_repeated and ("lvis" in scene.source or scene.source == "sa1b") and not declares:
        instances = _without_duplicates(scene, instances, dropped)
    elif "coco" in scene.source:
        instances.sort(key=lambda i: scene.objects[i].source != "coco")
    stuff = [i for i in kept if scene.objects[i].kind == "stuff"] if recipe.stuff else []
    instance_objects = [scene.objects[i] for i in instances]
    cut_stuff = _cut_stuff([scene.objects[i] for i in stuff], instance_objects, dropped)

    def remapped(parents: Sequence[int], counts: Counter[str]) -> tuple[int, ...]:
        return (*remap_parents(parents, instances, counts), *(-1 for _ in cut_stuff))

    links = None
    if scene.links is not None and recipe.links == "declared":
        links = dataclasses.replace(scene.links, parents=remapped(scene.links.parents, dropped))
    parents = None if scene.parents is None else remapped(scene.parents, Counter())
    return dataclasses.replace(
        scene, objects=(*instance_objects, *cut_stuff), parents=parents, links=links, dropped=+dropped
    )


def _with_declared_tree(scene: Scene, links: Links, recipe: Recipe) -> tuple[Scene, tuple[int, ...]]:
    """The scene with groups of like parts inserted after the instances, and each object's parent."""
    count = sum(item.kind != "stuff" for item in scene.objects)
    objects, stuff = scene.objects[:count], scene.objects[count:]
    dropped = Counter(scene.dropped)
    parents = checked_parents(objects, links.parents[:count], recipe, dropped, nest=links.nest)
    extended = list(objects)
    if recipe.groups:
        extended, parents = insert_groups(objects, parents)
    changed = dataclasses.replace(
        scene, objects=(*extended, *stuff), source=f"{scene.source}{DECLARED}", dropped=+dropped
    )
    return changed, (*parents, *(-1 for _ in stuff))


def _drop_reason(item: SceneObject, recipe: Recipe) -> str | None:
    if item.area == 0:
        return "empty mask"
    if item.area < recipe.min_area:
        return f"smaller than {recipe.min_area} pixels"
    if item.area < recipe.min_box_fill * item.box[2] * item.box[3]:
        return f"fills less than {recipe.min_box_fill:g} of its box"
    return None


def _without_duplicates(scene: Scene, kept: Sequence[int], dropped: Counter[str]) -> list[int]:
    """COCO masks not in LVIS, then LVIS masks not repeated later."""
    coco = [i for i in kept if scene.objects[i].source == "coco"]
    lvis = [i for i in kept if scene.objects[i].source != "coco"]
    rles, box = scene.rles, scene.boxes
    lvis_rles = [rles[i] for i in lvis]
    in_lvis = coco_repeated_in_lvis([rles[i] for i in coco], lvis_rles, box[coco], box[lvis])
    repeated_later = lvis_repeated_later(lvis_rles, box[lvis])
    title = "LVIS mask" if "lvis" in scene.source else "mask"
    for flags, reason in ((in_lvis, "COCO mask that LVIS has too"), (repeated_later, f"{title} that comes again")):
        if count := int(flags.sum()):
            dropped[reason] += count
    return [
        i
        for i, repeated in zip([*coco, *lvis], [*in_lvis.tolist(), *repeated_later.tolist()], strict=True)
        if not repeated
    ]


def _cut_stuff(
    stuff: Sequence[SceneObject], instances: Sequence[SceneObject], dropped: Counter[str]
) -> list[SceneObject]:
    uncovered = uncovered_stuff([item.rle for item in stuff], [item.rle for item in instances])
    dropped[f"stuff with no more than {STUFF_AREA} pixels left"] += uncovered.count(None)
    return [
        part
        for item, rle in zip(stuff, uncovered, strict=True)
        if rle is not None
        for part in scene_objects([rle], [(item.category, item.synset, item.annotation_id, item.source, item.kind)])
    ]


def _forest_from_parents(parents: Sequence[int]) -> Forest:
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
    levels = [0] * len(parents)
    pending = [node for node, parent in enumerate(parents) if parent < 0]
    for node in pending:  # grows during iteration
        for child in children[node]:
            levels[child] = levels[node] + 1
        pending += children[node]
    return Forest(tuple(parents), tuple(levels), tuple(map(tuple, children)))


def interval_box_ious(first: IntArray, second: IntArray) -> FloatArray:
    """Box IoU of the merge rule, float64 (n, m): the product of the IoUs of the row and column intervals.

    An interval IoU is the intersection over the enclosing interval, in inclusive pixels; the product is not the usual
    ratio of areas. Boxes are int (n, 4) and (m, 4) of x, y, width, height.
    """
    shares = []
    for axis in (0, 1):
        start, other_start = first[:, None, axis], second[None, :, axis]
        end, other_end = start + first[:, None, axis + 2], other_start + second[None, :, axis + 2]
        inner = np.maximum(np.minimum(end, other_end) - np.maximum(start, other_start), 0)
        shares.append(inner / (np.maximum(end, other_end) - np.minimum(start, other_start)))
    return np.asarray(shares[0] * shares[1], dtype=np.float64)


def coco_repeated_in_lvis(
    coco: Sequence[Rle], lvis: Sequence[Rle], box: IntArray | None = None, lvis_box: IntArray | None = None
) -> BoolArray:
    """COCO masks also in LVIS: box IoU > 0.70 and mask IoU > 0.70 with some LVIS mask; bool (n,).

    Masks are non-empty and of one size; boxes are precomputed `boxes` of the masks.
    """
    if not coco or not lvis:
        return np.zeros(len(coco), dtype=bool)
    shares = interval_box_ious(boxes(coco) if box is None else box, boxes(lvis) if lvis_box is None else lvis_box)
    return _any_above(COCO_IOU, shares > BOX_IOU, coco, lvis)


def lvis_repeated_later(lvis: Sequence[Rle], box: IntArray | None = None) -> BoolArray:
    """LVIS masks repeated later: box IoU > 0.70 and mask IoU > 0.85 with a later LVIS mask; bool (n,).

    Masks are in file order; boxes as for `coco_repeated_in_lvis`. The later mask counts even if it is dropped too.
    """
    if len(lvis) < 2:
        return np.zeros(len(lvis), dtype=bool)
    box = boxes(lvis) if box is None else box
    return _any_above(LVIS_IOU, np.triu(interval_box_ious(box, box) > BOX_IOU, k=1), lvis, lvis)


def uncovered_stuff(stuff: Sequence[Rle], instances: Sequence[Rle]) -> list[Rle | None]:
    """Stuff regions minus the union of the kept instance masks; None if at most 500 pixels are left."""
    if not stuff:
        return []
    covered = [union(instances)] if instances else []
    left = [difference(region, covered) for region in stuff]
    return [rle if area > STUFF_AREA else None for rle, area in zip(left, areas(left), strict=True)]


def _any_above(threshold: float, near: BoolArray, rles: Sequence[Rle], others: Sequence[Rle]) -> BoolArray:
    """True for masks whose IoU with any of the `near` others exceeds the threshold."""
    return np.asarray((pairwise_overlaps(near, rles, others, "iou") > threshold).any(axis=1), dtype=np.bool_)
