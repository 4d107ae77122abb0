"""What is in a folder of shards: counts, depths, overlaps, click regions, what was left out and why.

One pass over the scenes: sums, a counter for every pair of category names that occurs, and 16 bytes a pair of
consecutive masks. Masks stay run lengths.
"""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from disbench.core.diverse_sets import SampledScene, SetOfObjects, ancestors, relation
from disbench.core.masks import Rle, areas, contained_shares, ious, union
from disbench.shards.manifest import ShardManifest
from disbench.shards.reader import ShardReader

DIFFERENT = 0.9
"""Two masks of a set with a smaller IoU are different answers to a click."""
TOP_PAIRS = 15
"""Category pairs that are listed, at most."""
COLUMNS = 100
"""Width of the text report in characters, at most."""

_NOT_PRINTED = ("Cc", "Cf", "Cs", "Co", "Cn")
_BAR = 40
_LABEL = COLUMNS - 42
_ROWS = 16  # the default cap of proximity sets, so that a histogram shows where it cuts
_TOUCHING_METHODS = ("proximity", "random-merge")


@dataclass(frozen=True, slots=True)
class Spread:
    """How a share in [0, 1] is distributed: mean, and percentiles to a thousandth; None without a value."""

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
    """Neighbours of things (stuff and crowds have none): mean, most of one thing, and things without any."""

    mean: float | None
    largest: int
    alone: int


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """Sets whose click may mean masks that differ: two of them have an IoU below `DIFFERENT`.

    Attributes:
        sets: how many are ambiguous.
        by_level: level of the center (0: root, groups not counted) -> sets, and those that are ambiguous; empty
            without a hierarchy.
        by_relation: relation to the center (`disbench.core.diverse_sets.relation`) -> sets with such a mask that
            differs from the center's, most first.
    """

    sets: int
    by_level: dict[int, tuple[int, int]]
    by_relation: dict[str, int]


@dataclass(frozen=True, slots=True)
class Overlaps:
    """How the masks of sets lie in each other; None where no set has two masks, or there is no set.

    Attributes:
        inner_in_outer: share of a mask's pixels that lie in the next one of its set.
        iou: IoU of the same pairs.
        nested: share of the sets of two masks or more in which every mask lies wholly in the next.
        area_ratio: mean area of the outermost mask over the center's, for the same sets.
        clickable: mean share of the center's pixels that are in the click region.
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
        recipe: its name; it, `method` and `source` are "" where the manifest has none.
        images: images seen in the source, with or without a scene; None where the manifest does not tell.
        complete: False where `limit` stopped the reading before the last scene.
        objects: things and crowd regions; nothing else here counts groups of like parts, but for the masks of sets.
        groups: groups of like parts, which the sampler added.
        by_source: source -> kind -> objects, stuff included.
        categories: different categories of things and crowds.
        set_sizes: masks in a set -> sets, ascending.
        levels: level -> objects, ascending; empty without a hierarchy.
        deepest: the longest chain (the first of them in the order of the shards); None without a hierarchy.
        ambiguity: how many sets are ambiguous at all; None if overlaps were not measured.
        left_out: masks that sets lack: by the cap (proximity), or as the image has too few objects (random-merge).
        sets_cut: sets that lack a mask.
        repeated: combinations whose union is a mask that the set has already.
        dropped: reason -> annotations (or images without any) left out, most first.
        dropped_everywhere: whether `dropped` counts all images of the source, not only the scenes that were read.
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
    groups: int
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
    ambiguity: Ambiguity | None
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
        limit: scenes to read, from the first on; None reads all.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: the folder is not a finished folder of shards, or a shard is damaged.
        ValueError: a negative limit.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}; it must be 0 or more")
    reader = ShardReader(folder)
    tally = _Tally(_Overlaps() if overlaps else None)
    wanted = len(reader) if limit is None else min(limit, len(reader))
    for sampled in tqdm(islice(reader, wanted), total=wanted, unit="scene", disable=None if progress else True):
        tally.add(sampled)
    return tally.result(reader.manifest, complete=wanted == len(reader))


def as_dict(stats: ShardStatistics) -> dict[str, Any]:
    """The statistics as JSON stores them: keys are text, tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(stats)))
    return plain


def as_text(stats: ShardStatistics) -> str:
    """The statistics as an aligned report for a terminal: at most 100 columns, no colours."""
    method = f" ({stats.method})" if stats.method not in ("", stats.recipe) else ""
    source = f" from {stats.source}" if stats.source else ""
    partial = "" if stats.complete else f", the first {stats.scenes:,} scenes"
    dropped = f"dropped, of {'all images' if stats.dropped_everywhere else 'the scenes that were read'}"
    lost = [(reason, f"{count:,}") for reason, count in stats.dropped.items() if count]
    sections = [
        textwrap.wrap(f"{stats.recipe or 'shards'}{method}{source}{partial}", COLUMNS),
        _table("", _counts(stats)),
        _histogram("masks a set: sets", stats.set_sizes),
        _histogram("level (0: root): objects", stats.levels),
        _chain_lines(stats.deepest) if stats.deepest else [],
        _table("", _neighbour_rows(stats.neighbours) if stats.neighbours else []),
        _ambiguity_table(stats.ambiguity, stats.sets) if stats.ambiguity and stats.sets else [],
        *(_overlap_tables(stats.overlaps) if stats.overlaps else []),
        _table("", _left_out_rows(stats) if stats.left_out or stats.repeated else []),
        _table(dropped, lost) or [f"{dropped}: nothing"],
        _table("most frequent parent > child", _pair_rows(stats.parent_child, " > ")),
        _table("most frequent neighbours", _pair_rows(stats.touching, " | ")),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    # Names come from the shards, and a terminal obeys control characters.
    return "".join(char for char in text if char == "\n" or unicodedata.category(char) not in _NOT_PRINTED)


def comparison(found: Sequence[tuple[str, ShardStatistics]]) -> str:
    """Several folders in one aligned table, a column a folder of which the name is given."""

    def share(count: int, total: int) -> str:
        return f"{count:,} ({count / total:.1%})" if total else "0"

    def column(stats: ShardStatistics) -> dict[str, str]:
        known, sets = stats.ambiguity, stats.sets
        rows = {
            "recipe": stats.recipe,
            "scenes": f"{stats.scenes:,}",
            "objects": f"{stats.objects:,}",
            "groups of like parts": f"{stats.groups:,}",
            "sets": f"{sets:,}",
            "masks a set": _number(stats.masks_a_set, ".2f"),
            "sets of one mask": share(stats.set_sizes.get(1, 0), sets),
        }
        if known:
            rows["ambiguous sets"] = share(known.sets, sets)
            rows |= {f"  center on level {n}": share(hit, all_) for n, (all_, hit) in known.by_level.items()}
            rows |= {f"  with a mask: {name}": share(count, sets) for name, count in known.by_relation.items()}
        return rows

    columns = [column(stats) for _, stats in found]
    names = list(dict.fromkeys(name for rows in columns for name in rows))
    levels = sorted(name for name in names if name.startswith("  center"))
    names.sort(key=lambda name: (name.startswith("  with"), levels.index(name) + 1 if name in levels else 0))
    cells = [
        ["", *(name for name, _ in found)],
        *([name, *(rows.get(name, "-") for rows in columns)] for name in names),
    ]
    widths = [max(map(len, each)) for each in zip(*cells, strict=True)]
    forms = "  ".join(f"{{:{'>' if place else '<'}{width}}}" for place, width in enumerate(widths))
    return "\n".join(forms.format(*row) for row in cells)


def _spread(shares: array[float]) -> Spread:
    if not shares:
        return Spread(0, None, None, None, None)
    percentiles = np.percentile(shares, (5, 50, 95), method="inverted_cdf")
    return Spread(len(shares), math.fsum(shares) / len(shares), *(np.rint(1000 * percentiles) / 1000).tolist())


@dataclass
class _Overlaps:
    """How masks of sets overlap, summed over scenes."""

    shares: array[float] = field(default_factory=lambda: array("d"))
    ious: array[float] = field(default_factory=lambda: array("d"))
    nested: int = 0
    with_pairs: int = 0
    ratios: float = 0.0
    clickable: float = 0.0
    sets: int = 0
    ambiguous: int = 0
    by_level: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    by_relation: Counter[str] = field(default_factory=Counter)

    def add(self, sampled: SampledScene) -> None:
        """Measure the sets of a scene; a mask or a pair that several sets share is measured once."""
        rles = sampled.scene.rles
        chains = [[tuple(sorted(member)) for member in item.members] for item in sampled.sets]
        masks = {key: union([rles[i] for i in key]) for chain in chains for key in chain}
        area = dict(zip(masks, areas(list(masks.values())).tolist(), strict=True))
        shares = {
            (inner, outer): float(contained_shares(masks[inner], [masks[outer]])[0])
            for inner, outer in {pair for chain in chains for pair in pairwise(chain)}
        }
        for chain in chains:
            pairs = list(pairwise(chain))
            if pairs:
                common = [round(shares[inner, outer] * area[inner]) for inner, outer in pairs]
                self.shares.extend([shares[pair] for pair in pairs])
                self.ious.extend([n / (area[a] + area[b] - n) for n, (a, b) in zip(common, pairs, strict=True)])
                self.nested += all(shares[pair] == 1 for pair in pairs)
                self.with_pairs += 1
                self.ratios += area[chain[-1]] / area[chain[0]]
        for chosen, chain in zip(sampled.sets, chains, strict=True):
            self._add_ambiguity(sampled, chosen, [masks[key] for key in chain])
        excluded = [(rles[item.center], [rles[i] for i in item.click_excludes]) for item in sampled.sets]
        self.clickable += sum(
            1.0 - float(contained_shares(center, [union(others)])[0]) if others else 1.0 for center, others in excluded
        )
        self.sets += len(sampled.sets)

    def result(self) -> Overlaps:
        return Overlaps(
            inner_in_outer=_spread(self.shares),
            iou=_spread(self.ious),
            nested=_mean(self.nested, self.with_pairs),
            area_ratio=_mean(self.ratios, self.with_pairs),
            clickable=_mean(self.clickable, self.sets),
        )

    def ambiguity(self) -> Ambiguity:
        levels = {level: (sets, ambiguous) for level, (sets, ambiguous) in sorted(self.by_level.items())}
        return Ambiguity(self.ambiguous, levels, dict(_ranked(self.by_relation)))

    def _add_ambiguity(self, sampled: SampledScene, chosen: SetOfObjects, members: Sequence[Rle]) -> None:
        differs = ious(members[0], members) < DIFFERENT
        pairs = combinations(members[1:], 2)
        ambiguous = bool(differs.any()) or any(ious(one, [other])[0] < DIFFERENT for one, other in pairs)
        self.ambiguous += ambiguous
        if (level := sampled.levels[chosen.center]) is not None:
            kinds = [sampled.scene.objects[i].kind for i in ancestors(sampled.parents, chosen.center)]
            counts = self.by_level[level - kinds.count("group")]
            counts[0] += 1
            counts[1] += ambiguous
        found = {
            relation(sampled, chosen.center, member)
            for member, other in zip(chosen.members, differs.tolist(), strict=True)
            if other
        }
        self.by_relation.update(found)


@dataclass
class _Tally:
    """All that is summed over scenes."""

    overlaps: _Overlaps | None
    scenes: int = 0
    groups: int = 0
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
        self.scenes += 1
        self.dropped.update(sampled.scene.dropped)
        for item in sampled.scene.objects:
            if item.kind == "group":
                self.groups += 1
                continue
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
            if level is None or objects[node].kind == "group":
                continue
            path = [i for i in (node, *ancestors(sampled.parents, node)) if objects[i].kind != "group"]
            self.levels[len(path) - 1] += 1
            if self.deepest is None or len(path) > len(self.deepest.categories):
                self.deepest = Chain(sampled.scene.image_id, tuple(objects[i].category for i in reversed(path)))
            if len(path) > 1:
                self.parent_child[objects[path[1]].category, objects[node].category] += 1

    def _add_neighbours(self, sampled: SampledScene) -> None:
        objects = sampled.scene.objects
        for first, (item, row) in enumerate(zip(objects, sampled.neighbours, strict=True)):
            if item.kind == "thing":
                self.neighbour_counts[len(row)] += 1
            for second in row:
                if first < second:
                    low, high = sorted((item.category, objects[second].category))
                    self.touching[low, high] += 1

    def result(self, manifest: ShardManifest, *, complete: bool) -> ShardStatistics:
        """The sums, with what the manifest knows beyond the scenes."""
        sets, masks = self.set_sizes.total(), _weighted(self.set_sizes)
        stuff = sum(kinds["stuff"] for kinds in self.by_source.values())
        dropped = manifest.dropped
        return ShardStatistics(
            recipe=manifest.recipe_name,
            method=manifest.method,
            source=manifest.source,
            images=manifest.images,
            scenes=self.scenes,
            complete=complete,
            objects=sum(kinds.total() for kinds in self.by_source.values()) - stuff,
            groups=self.groups,
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
            neighbours=self._neighbours(manifest.method),
            overlaps=self.overlaps.result() if self.overlaps else None,
            ambiguity=self.overlaps.ambiguity() if self.overlaps else None,
            left_out=self.left_out,
            sets_cut=self.sets_cut,
            repeated=self.repeated,
            dropped=dict(_ranked(dropped or self.dropped)),
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
        return Neighbours(_mean(_weighted(counts), counts.total()), largest, counts[0])


def _ranked(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Most frequent first; equally frequent ones by name, so that their order in the shards never decides."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _top(counts: Counter[tuple[str, str]]) -> tuple[PairCount, ...]:
    return tuple(PairCount(first, second, count) for (first, second), count in _ranked(counts)[:TOP_PAIRS])


def _weighted(counts: Counter[int]) -> int:
    return sum(value * count for value, count in counts.items())


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


Row = tuple[str, ...]
"""Label, value and, in some rows, a remark."""


def _counts(stats: ShardStatistics) -> list[Row]:
    rows: list[Row] = [
        ("images seen", "unknown" if stats.images is None else f"{stats.images:,}"),
        ("scenes", f"{stats.scenes:,}", "images with an object"),
        ("objects", f"{stats.objects:,}", f"of {stats.categories:,} categories"),
    ]
    if stats.groups:
        rows.append(("groups of like parts", f"{stats.groups:,}", "added"))
    if stats.stuff:
        rows.append(("stuff regions", f"{stats.stuff:,}", f"of {stats.stuff_categories:,} categories"))
    for source, kinds in stats.by_source.items():
        rows += [(f"  {source or 'unnamed'}, {kind}", f"{count:,}") for kind, count in kinds.items()]
    mean = f"{stats.masks_a_set:.2f} a set" if stats.masks_a_set else ""
    return [*rows, ("sets", f"{stats.sets:,}"), ("masks in sets", f"{stats.masks:,}", mean)]


def _histogram(title: str, counts: Mapping[int, int]) -> list[str]:
    """Bars; what comes after the first rows is one row."""
    bars = {str(value): count for value, count in islice(counts.items(), _ROWS)}
    if rest := list(counts)[_ROWS:]:
        label = f"{rest[0]} to {rest[-1]}" if len(rest) > 1 else str(rest[0])
        bars[label] = sum(counts[value] for value in rest)
    total, largest = sum(bars.values()), max(bars.values(), default=0)
    width = max(map(len, bars), default=0)
    rows = [
        (f"{label:>{width}}", f"{count:,}", f"{count / total:>6.1%}  {'#' * math.ceil(_BAR * count / largest)}")
        for label, count in bars.items()
    ]
    return _table(title, rows)


def _chain_lines(chain: Chain) -> list[str]:
    path = textwrap.wrap(" > ".join(chain.categories), COLUMNS, initial_indent="  ", subsequent_indent="  ")
    return [f"deepest chain: {len(chain.categories)} objects, in image {chain.image_id}", *path]


def _neighbour_rows(neighbours: Neighbours) -> list[Row]:
    return [
        ("neighbours a thing, mean", _number(neighbours.mean, ".2f")),
        ("neighbours a thing, most", f"{neighbours.largest:,}"),
        ("things without a neighbour", f"{neighbours.alone:,}"),
    ]


def _ambiguity_table(found: Ambiguity, total: int) -> list[str]:
    rows: list[Row] = [("all", *_of(found.sets, total))]
    rows += [(f"center on level {level}", *_of(hit, sets)) for level, (sets, hit) in found.by_level.items()]
    rows += [(f"with a mask: {name}", *_of(count, total)) for name, count in found.by_relation.items()]
    return _table(f"ambiguous sets (two masks with IoU < {DIFFERENT:g})", rows)


def _of(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"of {total:,}, {count / total:.1%}"


def _overlap_tables(overlaps: Overlaps) -> list[list[str]]:
    def row(label: str, spread: Spread) -> Row:
        percentiles = (f"{name} {_number(getattr(spread, name), '.3f')}" for name in ("p5", "p50", "p95"))
        return label, _number(spread.mean, ".3f"), ", ".join(percentiles)

    pairs = [row("share of the inner mask in the outer, mean", overlaps.inner_in_outer), row("IoU, mean", overlaps.iou)]
    sets = [
        ("sets of two masks or more that nest exactly", _number(overlaps.nested, ".1%")),
        ("area, outermost mask over center, mean", _number(overlaps.area_ratio, ".2f")),
        ("share of the center that is clickable, mean", _number(overlaps.clickable, ".1%")),
    ]
    return [_table(f"consecutive masks ({overlaps.iou.count:,} pairs)", pairs), _table("", sets)]


def _left_out_rows(stats: ShardStatistics) -> list[Row]:
    cause = "too few objects" if stats.method == "random-merge" else "the cap"
    sets = f"in {stats.sets_cut:,} of the sets" if stats.sets_cut else ""
    return [
        (f"masks left out ({cause})", _big(stats.left_out), sets),
        ("combinations that repeat a mask", _big(stats.repeated)),
    ]


def _pair_rows(pairs: Sequence[PairCount], between: str) -> list[Row]:
    return [(f"{pair.first}{between}{pair.second}", f"{pair.count:,}") for pair in pairs]


def _table(title: str, rows: Sequence[Row]) -> list[str]:
    """Labels to the left, values to the right of their column, then the remark; below a title, indented."""
    if not rows:
        return []
    indent = "  " if title else ""
    labels = [label if len(label) <= _LABEL else f"{label[: _LABEL - 3]}..." for label, *_ in rows]
    width, value_width = max(map(len, labels)), max(len(row[1]) for row in rows)
    lines = [
        f"{indent}{label:<{width}}  {value:>{value_width}}  {' '.join(remark)}".rstrip()
        for label, (_, value, *remark) in zip(labels, rows, strict=True)
    ]
    return [title, *lines] if title else lines


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _big(value: int) -> str:
    """All digits while a person can read them; combinations grow like 2**n."""
    return f"{value:,}" if value < 10**12 else f"{Decimal(value):.3g}"
