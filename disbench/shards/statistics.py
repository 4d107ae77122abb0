"""What is in a folder of shards: counts, depths, overlaps, click regions, what was left out and why.

One pass over the scenes. Memory does not grow with the number of scenes: sums, histograms, and one counter
for every pair of category names that occurs. Masks stay run lengths.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from disbench.core.arrays import IntArray
from disbench.core.diverse_sets import Combination, SampledScene
from disbench.core.masks import Rle, areas, contained_shares, ious, union
from disbench.core.scenes import SceneObject
from disbench.shards.reader import ShardReader

TOP_PAIRS = 15
"""Category pairs that are listed, at most."""
BINS = 1000
"""Shares are counted to the nearest thousandth, so that percentiles need no memory: they are off by at most
0.0005, and exact at 0 and 1. Means are exact."""
COLUMNS = 100
"""Width of the text report in characters, at most."""

_NOT_PRINTED = ("Cc", "Cf", "Cs", "Co", "Cn")
_BAR = 40
_ROWS = 16  # the default cap of proximity sets, so that a histogram shows where it cuts
_TOUCHING_METHODS = ("proximity", "random-merge")


@dataclass(frozen=True, slots=True)
class Spread:
    """How a share in [0, 1] is distributed.

    Attributes:
        count: how many values there are.
        mean: of all values; None without a value.
        p5: 5th percentile (the smallest value that 5% of the values do not exceed), to a thousandth.
        p50: median, to a thousandth.
        p95: 95th percentile, to a thousandth.
    """

    count: int
    mean: float | None
    p5: float | None
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Chain:
    """A path of the hierarchy: its image and the categories from the root down."""

    image_id: str
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairCount:
    """How often a pair of categories occurs: (parent, child), or two that touch in alphabetical order."""

    first: str
    second: str
    count: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How many neighbours things have in the proximity graph (stuff and crowds have none by definition).

    Attributes:
        mean: neighbours a thing; None without a thing.
        largest: neighbours of the thing that has most.
        alone: things without a neighbour.
    """

    mean: float | None
    largest: int
    alone: int


@dataclass(frozen=True, slots=True)
class Overlaps:
    """How the masks of a set lie in each other.

    Attributes:
        inner_in_outer: for consecutive masks of a set, inner to outer: share of the inner mask's pixels
            that lie in the outer one.
        iou: IoU of the same pairs.
        nested: share of the sets of two masks or more in which every mask lies wholly in the next; None
            without such a set.
        area_ratio: mean area of the outermost mask over the center's, for the same sets; None likewise.
        clickable: mean share of the center's pixels that are in the click region; None without a set.
    """

    inner_in_outer: Spread
    iou: Spread
    nested: float | None
    area_ratio: float | None
    clickable: float | None


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """What a folder of shards holds. Plain numbers; `as_text` and `as_dict` show them.

    Attributes:
        recipe: its name; "" where the manifest has none.
        method: of the recipe; "" likewise.
        source: the dataset or datasets; "" likewise.
        images: images seen in the source, those without a scene included; None where the manifest does not
            tell.
        scenes: scenes that were read.
        complete: False where `limit` stopped the reading before the last scene.
        objects: things and crowd regions.
        stuff: stuff regions.
        by_source: source -> kind -> objects, all kinds.
        categories: different categories of things and crowds.
        stuff_categories: different categories of stuff.
        sets: diverse sets.
        masks: masks in all sets.
        masks_a_set: mean; None without a set.
        set_sizes: masks in a set -> sets, ascending.
        levels: level -> objects, ascending; empty without a hierarchy.
        deepest: the longest chain (the first of them in the order of the shards); None without a hierarchy.
        neighbours: None without a proximity graph.
        overlaps: None where they were switched off.
        left_out: masks that sets lack: by the cap (proximity), or as the image has too few objects
            (random-merge).
        sets_cut: sets that lack a mask.
        repeated: combinations whose union is a mask that the set has already.
        dropped: reason -> annotations (or images without any) left out, most first.
        dropped_everywhere: whether `dropped` counts all images of the source (it comes from the manifest)
            or only the scenes that were read.
        parent_child: the most frequent pairs of categories in the hierarchy, parent first.
        touching: the most frequent pairs of categories that touch.
    """

    recipe: str
    method: str
    source: str
    images: int | None
    scenes: int
    complete: bool
    objects: int
    stuff: int
    by_source: dict[str, dict[str, int]]
    categories: int
    stuff_categories: int
    sets: int
    masks: int
    masks_a_set: float | None
    set_sizes: dict[int, int]
    levels: dict[int, int]
    deepest: Chain | None
    neighbours: Neighbours | None
    overlaps: Overlaps | None
    left_out: int
    sets_cut: int
    repeated: int
    dropped: dict[str, int]
    dropped_everywhere: bool
    parent_child: tuple[PairCount, ...]
    touching: tuple[PairCount, ...]


def statistics(
    folder: Path, *, overlaps: bool = True, limit: int | None = None, progress: bool = False
) -> ShardStatistics:
    """Count what a folder of shards holds.

    Args:
        folder: a finished folder of shards.
        overlaps: measure how the masks of sets overlap; this takes most of the time.
        limit: read only the first scenes, this many.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: the folder is not a finished folder of shards, or a shard is damaged.
        ValueError: a negative limit.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}; it starts at 0")
    reader = ShardReader(folder)
    tally = _Tally(_Overlaps() if overlaps else None)
    wanted = len(reader) if limit is None else min(limit, len(reader))
    for sampled in tqdm(islice(reader, wanted), total=wanted, unit="scene", disable=None if progress else True):
        tally.add(sampled)
    return tally.result(reader.manifest, complete=wanted == len(reader))


def as_dict(stats: ShardStatistics) -> dict[str, Any]:
    """The statistics as JSON takes them: dicts with text for keys, lists, numbers, text, None."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(stats))
    return plain


def as_text(stats: ShardStatistics) -> str:
    """The statistics as an aligned report for a terminal: at most 100 columns, no colours."""
    sections = [
        _heading(stats),
        _counts(stats),
        _histogram("masks a set", stats.set_sizes, "sets"),
        _histogram("level (0: root)", stats.levels, "objects"),
        _chain(stats.deepest),
        _neighbours(stats.neighbours),
        _overlap_lines(stats.overlaps),
        _left_out(stats),
        _dropped(stats),
        _pair_lines("most frequent parent > child", stats.parent_child, " > "),
        _pair_lines("most frequent neighbours", stats.touching, " | "),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    # Names come from the shards, and a terminal obeys what it is told by control characters.
    return "".join(char for char in text if char == "\n" or unicodedata.category(char) not in _NOT_PRINTED)


@dataclass
class _Histogram:
    """Shares to the nearest thousandth, with their exact sum."""

    bins: IntArray = field(default_factory=lambda: np.zeros(BINS + 1, dtype=np.int64))
    total: float = 0.0

    def add(self, shares: Sequence[float]) -> None:
        """Count some shares in [0, 1]."""
        places = np.rint(np.asarray(shares, dtype=np.float64) * BINS).astype(np.int64)
        np.add.at(self.bins, places, 1)
        self.total += math.fsum(shares)

    def spread(self) -> Spread:
        """Mean and percentiles (nearest rank)."""
        count = int(self.bins.sum())
        if not count:
            return Spread(0, None, None, None, None)
        ranks = [math.ceil(count * percent / 100) for percent in (5, 50, 95)]
        p5, p50, p95 = (np.searchsorted(np.cumsum(self.bins), ranks) / BINS).tolist()
        return Spread(count, self.total / count, p5, p50, p95)


@dataclass
class _Overlaps:
    """How masks of sets overlap, summed over scenes."""

    shares: _Histogram = field(default_factory=_Histogram)
    ious: _Histogram = field(default_factory=_Histogram)
    nested: int = 0
    with_pairs: int = 0
    ratios: float = 0.0
    clickable: float = 0.0
    sets: int = 0

    def add(self, sampled: SampledScene) -> None:
        """Measure the sets of a scene; a mask or a pair that several sets share is measured once."""
        rles = sampled.scene.rles
        chains = [[tuple(sorted(member)) for member in item.members] for item in sampled.sets]
        masks = {key: union([rles[i] for i in key]) for chain in chains for key in chain}
        area = dict(zip(masks, areas(list(masks.values())).tolist(), strict=True))
        shared = _intersections(masks, area, {pair for chain in chains for pair in pairwise(chain)})
        for chain in chains:
            self._add_chain(list(pairwise(chain)), area, shared)
        excluded = [(rles[s.center], [rles[i] for i in s.click_excludes]) for s in sampled.sets]
        self.clickable += sum(_clickable(center, others) for center, others in excluded)
        self.sets += len(sampled.sets)

    def _add_chain(
        self,
        pairs: Sequence[tuple[Combination, Combination]],
        area: Mapping[Combination, int],
        shared: Mapping[tuple[Combination, Combination], int],
    ) -> None:
        if not pairs:
            return
        common = [shared[pair] for pair in pairs]
        self.shares.add([n / area[inner] for n, (inner, _) in zip(common, pairs, strict=True)])
        self.ious.add([n / (area[inner] + area[outer] - n) for n, (inner, outer) in zip(common, pairs, strict=True)])
        self.nested += all(n == area[inner] for n, (inner, _) in zip(common, pairs, strict=True))
        self.with_pairs += 1
        self.ratios += area[pairs[-1][1]] / area[pairs[0][0]]

    def result(self) -> Overlaps:
        """The sums as means and percentiles."""
        return Overlaps(
            inner_in_outer=self.shares.spread(),
            iou=self.ious.spread(),
            nested=_mean(self.nested, self.with_pairs),
            area_ratio=_mean(self.ratios, self.with_pairs),
            clickable=_mean(self.clickable, self.sets),
        )


@dataclass
class _Tally:
    """All that is summed over scenes."""

    overlaps: _Overlaps | None
    scenes: int = 0
    by_source: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    categories: set[str] = field(default_factory=set)
    stuff_categories: set[str] = field(default_factory=set)
    set_sizes: Counter[int] = field(default_factory=Counter)
    left_out: int = 0
    sets_cut: int = 0
    repeated: int = 0
    levels: Counter[int] = field(default_factory=Counter)
    deepest: Chain | None = None
    parent_child: Counter[tuple[str, str]] = field(default_factory=Counter)
    neighbour_counts: Counter[int] = field(default_factory=Counter)
    touching: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, sampled: SampledScene) -> None:
        """Count one scene."""
        self.scenes += 1
        self.dropped.update(sampled.scene.dropped)
        for item in sampled.scene.objects:
            self.by_source[item.source][item.kind] += 1
            (self.stuff_categories if item.kind == "stuff" else self.categories).add(item.category)
        for chosen in sampled.sets:
            self.set_sizes[len(chosen.members)] += 1
            self.left_out += chosen.left_out
            self.sets_cut += chosen.left_out > 0
            self.repeated += chosen.repeated
        self._add_hierarchy(sampled)
        self._add_neighbours(sampled)
        if self.overlaps:
            self.overlaps.add(sampled)

    def _add_hierarchy(self, sampled: SampledScene) -> None:
        objects = sampled.scene.objects
        for node, level in enumerate(sampled.levels):
            if level is None:
                continue
            self.levels[level] += 1
            parent = sampled.parents[node]
            if parent is not None and parent >= 0:
                self.parent_child[objects[parent].category, objects[node].category] += 1
            if self.deepest is None or level >= len(self.deepest.categories):
                self.deepest = Chain(sampled.scene.image_id, _path(objects, sampled.parents, node))

    def _add_neighbours(self, sampled: SampledScene) -> None:
        objects = sampled.scene.objects
        for first, (item, row) in enumerate(zip(objects, sampled.neighbours, strict=True)):
            if item.kind == "thing":
                self.neighbour_counts[len(row)] += 1
            for second in row:
                if first < second:
                    low, high = sorted((item.category, objects[second].category))
                    self.touching[low, high] += 1

    def result(self, manifest: Mapping[str, Any], *, complete: bool) -> ShardStatistics:
        """The sums, with what the manifest knows beyond the scenes."""
        recipe = manifest.get("recipe") or {}
        method = str(recipe.get("method", ""))
        sets = self.set_sizes.total()
        masks = sum(size * count for size, count in self.set_sizes.items())
        stuff = sum(kinds["stuff"] for kinds in self.by_source.values())
        dropped = manifest.get("dropped")
        return ShardStatistics(
            recipe=str(recipe.get("name", "")),
            method=method,
            source=str(manifest.get("source", "")),
            images=manifest.get("images"),
            scenes=self.scenes,
            complete=complete,
            objects=sum(kinds.total() for kinds in self.by_source.values()) - stuff,
            stuff=stuff,
            by_source={name: dict(sorted(kinds.items())) for name, kinds in sorted(self.by_source.items())},
            categories=len(self.categories),
            stuff_categories=len(self.stuff_categories),
            sets=sets,
            masks=masks,
            masks_a_set=_mean(masks, sets),
            set_sizes=dict(sorted(self.set_sizes.items())),
            levels=dict(sorted(self.levels.items())),
            deepest=self.deepest,
            neighbours=self._neighbours(method),
            overlaps=self.overlaps.result() if self.overlaps else None,
            left_out=self.left_out,
            sets_cut=self.sets_cut,
            repeated=self.repeated,
            dropped=dict(sorted((dropped or self.dropped).items(), key=lambda item: (-item[1], item[0]))),
            dropped_everywhere=dropped is not None,
            parent_child=_top(self.parent_child),
            touching=_top(self.touching),
        )

    def _neighbours(self, method: str) -> Neighbours | None:
        """None where the recipe has no proximity graph: zeros would read as a finding."""
        counts = self.neighbour_counts
        largest = max(counts, default=0)
        if not largest and method not in _TOUCHING_METHODS:
            return None
        total = sum(size * count for size, count in counts.items())
        return Neighbours(_mean(total, counts.total()), largest, counts[0])


def _intersections(
    masks: Mapping[Combination, Rle],
    area: Mapping[Combination, int],
    pairs: Iterable[tuple[Combination, Combination]],
) -> dict[tuple[Combination, Combination], int]:
    """Pixels that each (inner, outer) pair of masks shares; one call for all pairs of an outer mask."""
    inner_of: defaultdict[Combination, list[Combination]] = defaultdict(list)
    for inner, outer in pairs:
        inner_of[outer].append(inner)
    shared = {}
    for outer, inners in inner_of.items():
        overlap = ious(masks[outer], [masks[inner] for inner in inners])
        for inner, iou in zip(inners, overlap.tolist(), strict=True):
            # IoU = n / (a + b - n), solved for the whole number n.
            shared[inner, outer] = round(iou * (area[inner] + area[outer]) / (1 + iou))
    return shared


def _clickable(center: Rle, excluded: Sequence[Rle]) -> float:
    """Share of the center's pixels that none of the excluded masks covers."""
    if not excluded:
        return 1.0
    return 1.0 - float(contained_shares(center, [union(excluded)])[0])


def _path(objects: Sequence[SceneObject], parents: Sequence[int | None], node: int) -> tuple[str, ...]:
    """Categories from the root down to a node."""
    path = [objects[node].category]
    while (above := parents[node]) is not None and above >= 0:
        node = above
        path.append(objects[node].category)
    return tuple(reversed(path))


def _top(counts: Counter[tuple[str, str]]) -> tuple[PairCount, ...]:
    """The most frequent pairs; of equally frequent ones the first by name, so that order never decides."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(PairCount(first, second, count) for (first, second), count in ranked[:TOP_PAIRS])


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _heading(stats: ShardStatistics) -> list[str]:
    method = f" ({stats.method})" if stats.method and stats.method != stats.recipe else ""
    title = f"{stats.recipe or 'shards'}{method}"
    source = f" from {stats.source}" if stats.source else ""
    partial = "" if stats.complete else f", the first {stats.scenes:,} scenes"
    return textwrap.wrap(f"{title}{source}{partial}", COLUMNS)


def _counts(stats: ShardStatistics) -> list[str]:
    rows = [("images seen", "unknown" if stats.images is None else f"{stats.images:,}", "")]
    rows += [("scenes", f"{stats.scenes:,}", "images with an object")]
    rows += [("objects", f"{stats.objects:,}", f"of {stats.categories:,} categories")]
    if stats.stuff:
        rows += [("stuff regions", f"{stats.stuff:,}", f"of {stats.stuff_categories:,} categories")]
    for source, kinds in stats.by_source.items():
        rows += [(f"  {source or 'unnamed'}, {kind}", f"{count:,}", "") for kind, count in kinds.items()]
    mean = "" if stats.masks_a_set is None else f"{stats.masks_a_set:.2f} a set"
    rows += [("sets", f"{stats.sets:,}", ""), ("masks in sets", f"{stats.masks:,}", mean)]
    return _table(rows)


def _histogram(title: str, counts: Mapping[int, int], unit: str) -> list[str]:
    """Bars; what comes after the first rows is one row."""
    if not counts:
        return []
    total = sum(counts.values())
    rows = [(str(value), count) for value, count in islice(counts.items(), _ROWS)]
    rest = list(islice(counts.items(), _ROWS, None))
    if rest:
        rows.append((f"{rest[0][0]} to {rest[-1][0]}" if len(rest) > 1 else str(rest[0][0]), _sum(rest)))
    width = max(len(f"{count:,}") for _, count in rows)
    label = max(len(value) for value, _ in rows)
    largest = max(count for _, count in rows)
    lines = [f"{title}: {unit}"]
    for value, count in rows:
        bar = "#" * math.ceil(_BAR * count / largest)
        lines.append(f"  {value:>{label}}  {count:>{width},}  {count / total:>6.1%}  {bar}")
    return lines


def _chain(chain: Chain | None) -> list[str]:
    if chain is None:
        return []
    title = f"deepest chain: {len(chain.categories)} objects, in image {chain.image_id}"
    path = " > ".join(chain.categories)
    return [title, *textwrap.wrap(path, COLUMNS, initial_indent="  ", subsequent_indent="  ")]


def _neighbours(neighbours: Neighbours | None) -> list[str]:
    if neighbours is None:
        return []
    rows = [
        ("neighbours a thing, mean", _number(neighbours.mean), ""),
        ("neighbours a thing, most", f"{neighbours.largest:,}", ""),
        ("things without a neighbour", f"{neighbours.alone:,}", ""),
    ]
    return _table(rows)


def _overlap_lines(overlaps: Overlaps | None) -> list[str]:
    if overlaps is None:
        return []
    lines = [f"{f'consecutive masks ({overlaps.iou.count:,} pairs)':<42}  mean     p5    p50    p95"]
    for label, spread in (
        ("share of the inner mask in the outer", overlaps.inner_in_outer),
        ("IoU", overlaps.iou),
    ):
        numbers = (spread.mean, spread.p5, spread.p50, spread.p95)
        lines.append(f"  {label:<40}" + " ".join(f"{_number(n, 3):>6}" for n in numbers))
    rows = [
        ("sets of two masks or more that nest exactly", _share(overlaps.nested), ""),
        ("area, outermost mask over center, mean", _number(overlaps.area_ratio), ""),
        ("share of the center that is clickable, mean", _share(overlaps.clickable), ""),
    ]
    return [*lines, *_table(rows)]


def _left_out(stats: ShardStatistics) -> list[str]:
    if not stats.left_out and not stats.repeated:
        return []
    cause = "too few objects" if stats.method == "random-merge" else "the cap"
    sets = f"in {stats.sets_cut:,} of the sets" if stats.sets_cut else ""
    rows = [(f"masks left out ({cause})", _big(stats.left_out), sets)]
    rows += [("combinations that repeat a mask", _big(stats.repeated), "")]
    return _table(rows)


def _dropped(stats: ShardStatistics) -> list[str]:
    where = "all images" if stats.dropped_everywhere else "the scenes that were read"
    rows = [(reason, f"{count:,}", "") for reason, count in stats.dropped.items() if count]
    return [f"dropped, of {where}{'' if rows else ': nothing'}", *_table(rows, indent="  ")]


def _pair_lines(title: str, pairs: Sequence[PairCount], between: str) -> list[str]:
    if not pairs:
        return []
    rows = [(f"{pair.first}{between}{pair.second}", f"{pair.count:,}", "") for pair in pairs]
    return [title, *_table(rows, indent="  ")]


def _table(rows: Sequence[tuple[str, str, str]], indent: str = "") -> list[str]:
    """Labels to the left, numbers to the right of their column, then a remark."""
    widest = COLUMNS - 40 - len(indent)
    label = max((min(len(row[0]), widest) for row in rows), default=0)
    number = max((len(row[1]) for row in rows), default=0)
    return [
        f"{indent}{_shortened(name, widest):<{label}}  {value:>{number}}  {remark}".rstrip()
        for name, value, remark in rows
    ]


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _sum(counts: Iterable[tuple[Any, int]]) -> int:
    return sum(count for _, count in counts)


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _big(value: int) -> str:
    """Digits as long as a person reads them; combinations grow like 2**n."""
    return f"{value:,}" if value < 10**12 else f"{Decimal(value):.3g}"
