"""From a scene to its diverse sets: which objects take part, how they are related, what a click may mean."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import networkx as nx
import numpy as np

from disbench.core.errors import InputError
from disbench.core.limits import MAX_DEPTH
from disbench.core.scenes import Links, SampledScene, Scene, SceneObject, scene_objects
from disbench.datasets.scene_sources import check_count
from disbench.sampling.diverse_sets import containment_sets, hierarchy_sets, proximity_sets, random_merge_sets
from disbench.sampling.hierarchy import Forest, containment_matrix, grow_forest
from disbench.sampling.links import DECLARED, checked_parents, remaining_links, with_groups
from disbench.sampling.merge import STUFF_AREA, coco_repeated_in_lvis, lvis_repeated_later, stuff_left_over
from disbench.sampling.proximity import proximity_graph
from disbench.sampling.recipes import Recipe


def sample_scene(scene: Scene, recipe: Recipe) -> SampledScene:
    """Choose the objects, relate them and make the sets by a recipe; draws start from its seed and the image's id.

    Raises:
        InputError: more objects than `MAX_OBJECTS`, or a declared tree that is deeper than `MAX_DEPTH`.
    """
    check_count(f"{scene.source}: image {scene.image_id} ({scene.file_name})", len(scene.objects))
    chosen = choose_objects(scene, recipe)
    given = chosen.parents
    if chosen.links is not None and recipe.method == "hierarchy":
        chosen, given = _with_declared_tree(chosen, chosen.links, recipe)
    if given is not None or chosen.links is not None:
        # A row of a shard has the tree in columns of its own.
        chosen = dataclasses.replace(chosen, parents=None, links=None)
    rles = chosen.rles
    count = len(rles)
    unrelated: tuple[None, ...] = (None,) * count
    alone = ((),) * count
    if recipe.method == "hierarchy":
        # Stuff comes after the instances, so the nodes are the first objects and keep their numbers.
        nodes = sum(item.kind != "stuff" for item in chosen.objects)
        area, box = chosen.areas[:nodes], chosen.boxes[:nodes]
        if given is not None:
            forest = _given_forest(given[:nodes])
            if (depth := max(forest.levels, default=0)) > MAX_DEPTH:
                raise InputError(
                    f"{scene.source}: image {scene.image_id} ({scene.file_name}) declares {depth + 1} objects in each "
                    f"other; sets are made of trees of at most {MAX_DEPTH + 1} levels, so leave the image out"
                )
        else:
            contains = containment_matrix(rles[:nodes], recipe.box_share, recipe.mask_share, (area, box))
            forest = grow_forest(contains, area)
        sets = hierarchy_sets(rles[:nodes], forest, recipe.nest, area)
        padding = unrelated[nodes:]
        return SampledScene(chosen, forest.parents + padding, forest.levels + padding, alone, tuple(sets))
    if recipe.method == "containment":
        area = chosen.areas
        contains = containment_matrix(rles, recipe.box_share, recipe.mask_share, (area, chosen.boxes))
        return SampledScene(chosen, unrelated, unrelated, alone, tuple(containment_sets(contains, area)))
    things = [i for i, item in enumerate(chosen.objects) if item.kind == "thing"]
    graph = _neighbourhood(chosen, things, recipe)
    sets = proximity_sets(rles, graph, things, recipe.cap)
    if recipe.method == "random-merge":
        generator = np.random.default_rng([recipe.seed, *scene.image_id.encode()])
        sets = random_merge_sets(rles, sets, things, recipe.largest_merge, generator)
    neighbours = tuple(tuple(sorted(graph[i])) for i in range(count))
    return SampledScene(chosen, unrelated, unrelated, neighbours, tuple(sets))


def choose_objects(scene: Scene, recipe: Recipe) -> Scene:
    """The objects that take part, COCO's first, stuff last (docs/hierarchy.md, 1 and 4)."""
    dropped = Counter(scene.dropped)
    keep: list[int] = []
    for index, item in enumerate(scene.objects):
        reason = _too_small(item, recipe)
        if reason:
            dropped[reason] += 1
        else:
            keep.append(index)
    instances = [i for i in keep if scene.objects[i].kind != "stuff"]
    declares = scene.links is not None and recipe.links == "declared"  # a part may nearly fill its whole
    if recipe.drop_repeated and ("lvis" in scene.source or scene.source == "sa1b") and not declares:
        instances = _without_repeated(scene, instances, dropped)
    elif "coco" in scene.source:
        instances.sort(key=lambda i: scene.objects[i].source != "coco")
    stuff = [i for i in keep if scene.objects[i].kind == "stuff"] if recipe.stuff else []
    kept = [scene.objects[i] for i in instances]
    left = _cut_stuff([scene.objects[i] for i in stuff], kept, dropped)

    def remaining(parents: Sequence[int], counts: Counter[str]) -> tuple[int, ...]:
        return (*remaining_links(parents, instances, counts), *(-1 for _ in left))

    links = None
    if scene.links is not None and recipe.links == "declared":
        links = dataclasses.replace(scene.links, parents=remaining(scene.links.parents, dropped))
    own = None if scene.parents is None else remaining(scene.parents, Counter())
    return dataclasses.replace(scene, objects=(*kept, *left), parents=own, links=links, dropped=+dropped)


def _with_declared_tree(scene: Scene, links: Links, recipe: Recipe) -> tuple[Scene, tuple[int, ...]]:
    """The scene with groups of like parts after its instances, and the parent of each object."""
    count = sum(item.kind != "stuff" for item in scene.objects)
    objects, stuff = scene.objects[:count], scene.objects[count:]
    dropped = Counter(scene.dropped)
    parents = checked_parents(objects, links.parents[:count], recipe, dropped, nest=links.nest)
    found = list(objects)
    if recipe.groups:
        found, parents = with_groups(objects, parents)
    changed = dataclasses.replace(scene, objects=(*found, *stuff), source=f"{scene.source}{DECLARED}", dropped=+dropped)
    return changed, (*parents, *(-1 for _ in stuff))


def _too_small(item: SceneObject, recipe: Recipe) -> str | None:
    if item.area == 0:
        return "empty mask"
    if item.area < recipe.min_area:
        return f"smaller than {recipe.min_area} pixels"
    if item.area < recipe.min_box_fill * item.box[2] * item.box[3]:
        return f"fills less than {recipe.min_box_fill:g} of its box"
    return None


def _without_repeated(scene: Scene, keep: Sequence[int], dropped: Counter[str]) -> list[int]:
    """COCO masks that LVIS does not have, then LVIS masks that do not come again later."""
    coco = [i for i in keep if scene.objects[i].source == "coco"]
    lvis = [i for i in keep if scene.objects[i].source != "coco"]
    rles, box = scene.rles, scene.boxes
    lvis_rles = [rles[i] for i in lvis]
    in_lvis = coco_repeated_in_lvis([rles[i] for i in coco], lvis_rles, box[coco], box[lvis])
    again = lvis_repeated_later(lvis_rles, box[lvis])
    title = "LVIS mask" if "lvis" in scene.source else "mask"
    for flags, reason in ((in_lvis, "COCO mask that LVIS has too"), (again, f"{title} that comes again")):
        if repeats := int(flags.sum()):
            dropped[reason] += repeats
    return [i for i, repeated in zip([*coco, *lvis], [*in_lvis.tolist(), *again.tolist()], strict=True) if not repeated]


def _cut_stuff(
    stuff: Sequence[SceneObject], instances: Sequence[SceneObject], dropped: Counter[str]
) -> list[SceneObject]:
    left = stuff_left_over([item.rle for item in stuff], [item.rle for item in instances])
    cut: list[SceneObject] = []
    for item, rle in zip(stuff, left, strict=True):
        if rle is None:
            dropped[f"stuff with no more than {STUFF_AREA} pixels left"] += 1
            continue
        cut += scene_objects([rle], [(item.category, item.synset, item.annotation_id, item.source, item.kind)])
    return cut


def _given_forest(parents: tuple[int, ...]) -> Forest:
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
    levels = [0] * len(parents)
    pending = [node for node, parent in enumerate(parents) if parent < 0]
    while pending:
        node = pending.pop()
        for child in children[node]:
            levels[child] = levels[node] + 1
            pending.append(child)
    return Forest(parents, tuple(levels), tuple(map(tuple, children)))


def _neighbourhood(scene: Scene, things: Sequence[int], recipe: Recipe) -> nx.Graph:
    """The proximity graph of the things, under the numbers that they have in the scene."""
    graph = proximity_graph(
        [scene.objects[i].rle for i in things],
        box=scene.boxes[things],
        dilated=recipe.dilated,
        iterations=recipe.iterations,
        min_overlap=recipe.min_overlap,
    )
    named = nx.relabel_nodes(graph, dict(enumerate(things)))
    named.add_nodes_from(range(len(scene.objects)))
    return named
