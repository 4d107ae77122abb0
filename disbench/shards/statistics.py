"""Statistics of a folder of shards: counts, depths, overlaps, click regions, and what was dropped and why.

One pass over the scenes without decoding RLEs. Memory: a counter per pair of category names, and 16 bytes per pair of
consecutive masks.
"""

from __future__ import annotations

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

from disbench.core.masks import Rle, areas, contained_shares, ious, union
from disbench.core.scenes import SampledScene, SetOfObjects, ancestors, relation
from disbench.shards.manifest import ShardManifest
from disbench.shards.reader import ShardReader

DIFFERENT_IOU = 0.9  # masks of a set with a smaller IoU are different answers to a click
TOP_PAIRS = 15  # maximum number of category pairs listed
COLUMNS = 100  # maximum width of the text report in characters

_NOT_PRINTED = ("Cc", "Cf", "Cs", "Co", "Cn")
_BAR = 40
_LABEL = COLUMNS - 42
_ROWS = 16  # the default cap of proximity sets, so the histogram shows its effect


Statistics = dict[str, Any]  # the return value of `statistics`


def statistics(folder: Path, *, overlaps: bool = True, limit: int | None = None, progress: bool = False) -> Statistics:
    """Compute statistics of a folder of shards.

    Args:
        folder: a finished folder of shards.
        overlaps: measure how the masks of sets overlap; takes most of the time.
        limit: read only the first `limit` scenes, >= 0; None reads all.
        progress: show a progress bar on a terminal.

    Returns:
        A JSON-ready table, which `as_text` formats as a report:

        * recipe, method, source: "" if not in the manifest. images: read from the source, with or without a scene; None
          if not in the manifest. scenes; complete: False if `limit` stopped before the last scene.
        * objects: things and crowds, without groups of like parts (counted here only in the masks of sets). groups:
          added by the sampler. stuff. by_source: source -> kind -> objects, including stuff. categories: of things and
          crowds. stuff_categories.
        * sets, masks, masks_a_set; set_sizes: masks in a set -> sets.
        * levels: level -> objects, empty without a hierarchy. deepest: the first longest chain, as image_id and
          categories from the root down; None without a hierarchy.
        * neighbours: of things: mean, largest, alone (things without any); None without a proximity graph.
        * overlaps: for consecutive masks of a set, inner_in_outer (share of the inner mask inside the outer) and iou,
          each with count, mean and percentiles p5, p50, p95 (rounded to 0.001). For sets of at least two masks, nested
          (share in which each mask lies entirely inside the next) and area_ratio (mean area of the outermost mask over
          the center's). clickable: mean share of the center's pixels in the click region.
        * ambiguity: sets with two masks whose IoU is below `DIFFERENT_IOU`: sets, their number; by_level: level of the
          center (0: root, not counting groups) -> [sets, ambiguous sets]; by_relation: relation to the center
          (`disbench.core.scenes.relation`) -> sets with such a mask different from the center's, descending.
        * left_out: masks missing from sets because of the cap (proximity) or too few objects (random-merge). sets_cut:
          sets with masks missing. repeated: combinations whose union repeats a mask of the set.
        * dropped: reason -> annotations, or images without any, dropped, descending. dropped_everywhere: True if this
          covers all images of the source, not only the scenes read.
        * parent_child, touching: the most frequent pairs of categories: first (the parent), second, count.

    Raises:
        InputError: not a finished folder of shards, or a shard is damaged.
    """
    reader = ShardReader(folder)
    tally = _Tally(_Overlaps() if overlaps else None)
    wanted = len(reader) if limit is None else min(limit, len(reader))
    for sampled in tqdm(islice(reader, wanted), total=wanted, unit="scene", disable=None if progress else True):
        tally.add(sampled)
    return tally.result(reader.manifest, complete=wanted == len(reader))


@dataclass
class _Overlaps:
    shares: array[float] = field(default_factory=lambda: array("d"))
    ious: array[float] = field(default_factory=lambda: array("d"))
    sums: defaultdict[str, Any] = field(default_factory=lambda: defaultdict(int))
    by_level: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    by_relation: Counter[str] = field(default_factory=Counter)

    def add(self, sampled: SampledScene) -> None:
        """Measure the sets of a scene; masks and pairs shared by several sets are measured once."""
        rles = sampled.scene.rles
        chains = [[tuple(sorted(member)) for member in item.members] for item in sampled.sets]
        masks = {key: union([rles[i] for i in key]) for chain in chains for key in chain}
        area = dict(zip(masks, areas(list(masks.values())).tolist(), strict=True))
        shares = {
            (inner, outer): float(contained_shares(masks[inner], [masks[outer]])[0])
            for inner, outer in {pair for chain in chains for pair in pairwise(chain)}
        }
        for chosen, chain in zip(sampled.sets, chains, strict=True):
            if pairs := list(pairwise(chain)):
                common = [round(shares[inner, outer] * area[inner]) for inner, outer in pairs]
                self.shares.extend([shares[pair] for pair in pairs])
                self.ious.extend([n / (area[a] + area[b] - n) for n, (a, b) in zip(common, pairs, strict=True)])
                self.sums["with pairs"] += 1
                self.sums["nested"] += all(shares[pair] == 1 for pair in pairs)
                self.sums["ratios"] += area[chain[-1]] / area[chain[0]]
            self._add_ambiguity(sampled, chosen, [masks[key] for key in chain])
            excluded = union([rles[i] for i in chosen.click_excludes]) if chosen.click_excludes else None
            covered = float(contained_shares(rles[chosen.center], [excluded])[0]) if excluded else 0.0
            self.sums["clickable"] += 1.0 - covered
        self.sums["sets"] += len(sampled.sets)

    def _add_ambiguity(self, sampled: SampledScene, chosen: SetOfObjects, members: Sequence[Rle]) -> None:
        differ = ious(members[0], members) < DIFFERENT_IOU
        pairs = combinations(members[1:], 2)
        ambiguous = bool(differ.any()) or any(ious(one, [other])[0] < DIFFERENT_IOU for one, other in pairs)
        self.sums["ambiguous"] += ambiguous
        if (level := sampled.levels[chosen.center]) is not None:
            kinds = [sampled.scene.objects[i].kind for i in ancestors(sampled.parents, chosen.center)]
            counts = self.by_level[level - kinds.count("group")]
            counts[0] += 1
            counts[1] += ambiguous
        different = [member for member, differs in zip(chosen.members, differ.tolist(), strict=True) if differs]
        self.by_relation.update({relation(sampled, chosen.center, member) for member in different})

    def result(self) -> tuple[Statistics, Statistics]:
        """`overlaps` and `ambiguity`."""
        sums = self.sums
        overlaps = {
            "inner_in_outer": _summary(self.shares),
            "iou": _summary(self.ious),
            "nested": _mean(sums["nested"], sums["with pairs"]),
            "area_ratio": _mean(sums["ratios"], sums["with pairs"]),
            "clickable": _mean(sums["clickable"], sums["sets"]),
        }
        by_relation = dict(_by_count(self.by_relation))
        return overlaps, {
            "sets": sums["ambiguous"],
            "by_level": _string_keys(self.by_level),
            "by_relation": by_relation,
        }


@dataclass
class _Tally:
    overlaps: _Overlaps | None
    sums: Counter[str] = field(default_factory=Counter)
    by_source: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    categories: defaultdict[bool, set[str]] = field(default_factory=lambda: defaultdict(set))  # by whether it is stuff
    set_sizes: Counter[int] = field(default_factory=Counter)
    levels: Counter[int] = field(default_factory=Counter)
    deepest: Statistics | None = None
    parent_child: Counter[tuple[str, str]] = field(default_factory=Counter)
    neighbour_counts: Counter[int] = field(default_factory=Counter)
    touching: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, sampled: SampledScene) -> None:
        self.sums["scenes"] += 1
        self.dropped.update(sampled.scene.dropped)
        for item in sampled.scene.objects:
            if item.kind == "group":
                self.sums["groups"] += 1
                continue
            self.by_source[item.source][item.kind] += 1
            self.categories[item.kind == "stuff"].add(item.category)
        for chosen in sampled.sets:
            self.set_sizes[len(chosen.members)] += 1
            self.sums["left_out"] += chosen.left_out
            self.sums["sets_cut"] += chosen.left_out > 0
            self.sums["repeated"] += chosen.repeated
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
            if self.deepest is None or len(path) > len(self.deepest["categories"]):
                names = [objects[i].category for i in reversed(path)]
                self.deepest = {"image_id": sampled.scene.image_id, "categories": names}
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

    def result(self, manifest: ShardManifest, *, complete: bool) -> Statistics:
        """The sums, with what the manifest knows beyond the scenes."""
        sets, masks = self.set_sizes.total(), _weighted_sum(self.set_sizes)
        stuff = sum(kinds["stuff"] for kinds in self.by_source.values())
        overlaps, ambiguity = self.overlaps.result() if self.overlaps else (None, None)
        near, neighbours = self.neighbour_counts, None
        if max(near, default=0) or manifest.method in ("proximity", "random-merge"):  # else zeros would be a finding
            mean = _mean(_weighted_sum(near), near.total())
            neighbours = {"mean": mean, "largest": max(near, default=0), "alone": near[0]}
        return {
            "recipe": manifest.recipe_name,
            "method": manifest.method,
            "source": manifest.source,
            "images": manifest.images,
            "scenes": self.sums["scenes"],
            "complete": complete,
            "objects": sum(kinds.total() for kinds in self.by_source.values()) - stuff,
            "groups": self.sums["groups"],
            "stuff": stuff,
            "by_source": {name: dict(sorted(kinds.items())) for name, kinds in sorted(self.by_source.items())},
            "categories": len(self.categories[False]),
            "stuff_categories": len(self.categories[True]),
            "sets": sets,
            "masks": masks,
            "masks_a_set": _mean(masks, sets),
            "set_sizes": _string_keys(self.set_sizes),
            "levels": _string_keys(self.levels),
            "deepest": self.deepest,
            "neighbours": neighbours,
            "overlaps": overlaps,
            "ambiguity": ambiguity,
            **{name: self.sums[name] for name in ("left_out", "sets_cut", "repeated")},
            "dropped": dict(_by_count(manifest.dropped or self.dropped)),
            "dropped_everywhere": manifest.dropped is not None,
            "parent_child": _top(self.parent_child),
            "touching": _top(self.touching),
        }


def _summary(shares: array[float]) -> dict[str, float | None]:
    if not shares:
        return {"count": 0, **dict.fromkeys(("mean", "p5", "p50", "p95"))}
    percentiles = np.rint(1000 * np.percentile(shares, (5, 50, 95), method="inverted_cdf")) / 1000
    named = dict(zip(("p5", "p50", "p95"), percentiles.tolist(), strict=True))
    return {"count": len(shares), "mean": math.fsum(shares) / len(shares), **named}


def _string_keys(counts: Mapping[int, Any]) -> dict[str, Any]:
    """Counts with string keys, as JSON needs, in ascending numeric order."""
    return {str(number): counts[number] for number in sorted(counts)}


def _by_count(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Items by descending count, then by name, independent of their order in the shards."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _top(counts: Counter[tuple[str, str]]) -> list[Statistics]:
    pairs = _by_count(counts)[:TOP_PAIRS]
    return [{"first": first, "second": second, "count": count} for (first, second), count in pairs]


def _weighted_sum(counts: Counter[int]) -> int:
    return sum(value * count for value, count in counts.items())


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


Row = tuple[str, ...]  # label, value and, in some rows, a remark


def as_text(stats: Statistics) -> str:
    """The statistics as an aligned plain-text report, at most 100 columns wide."""
    recipe, method = stats["recipe"], stats["method"]
    method_note = f" ({method})" if method not in ("", recipe) else ""
    source_note = f" from {stats['source']}" if stats["source"] else ""
    limit_note = "" if stats["complete"] else f", the first {stats['scenes']:,} scenes"
    dropped = f"dropped, of {'all images' if stats['dropped_everywhere'] else 'the scenes that were read'}"
    dropped_rows = [(reason, f"{count:,}") for reason, count in stats["dropped"].items() if count]
    sections = [
        textwrap.wrap(f"{recipe or 'shards'}{method_note}{source_note}{limit_note}", COLUMNS),
        _table("", _count_rows(stats)),
        _histogram("masks a set: sets", stats["set_sizes"]),
        _histogram("level (0: root): objects", stats["levels"]),
        _chain_lines(stats["deepest"]) if stats["deepest"] else [],
        _neighbour_table(stats["neighbours"]) if stats["neighbours"] else [],
        _ambiguity_table(stats["ambiguity"], stats["sets"]) if stats["ambiguity"] and stats["sets"] else [],
        *(_overlap_tables(stats["overlaps"]) if stats["overlaps"] else []),
        _table("", _left_out_rows(stats) if stats["left_out"] or stats["repeated"] else []),
        _table(dropped, dropped_rows) or [f"{dropped}: nothing"],
        _table("most frequent parent > child", _pair_rows(stats["parent_child"], " > ")),
        _table("most frequent neighbours", _pair_rows(stats["touching"], " | ")),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    # Names come from the shards: strip control characters before they reach a terminal.
    return "".join(char for char in text if char == "\n" or unicodedata.category(char) not in _NOT_PRINTED)


def compare_folders(folders: Sequence[tuple[str, Statistics]]) -> str:
    """Compare several folders, given as (name, statistics), in one aligned table with a column per folder."""

    def share(count: int, total: int) -> str:
        return f"{count:,} ({count / total:.1%})" if total else "0"

    def column(stats: Statistics) -> dict[str, str]:
        ambiguity, sets = stats["ambiguity"], stats["sets"]
        rows = {
            "recipe": stats["recipe"],
            "scenes": f"{stats['scenes']:,}",
            "objects": f"{stats['objects']:,}",
            "groups of like parts": f"{stats['groups']:,}",
            "sets": f"{sets:,}",
            "masks a set": _format(stats["masks_a_set"], ".2f"),
            "sets of one mask": share(stats["set_sizes"].get("1", 0), sets),
        }
        if ambiguity:
            rows["ambiguous sets"] = share(ambiguity["sets"], sets)
            levels = ambiguity["by_level"].items()
            rows |= {f"  center on level {level}": share(part, total) for level, (total, part) in levels}
            rows |= {f"  with a mask: {name}": share(count, sets) for name, count in ambiguity["by_relation"].items()}
        return rows

    columns = [column(stats) for _, stats in folders]
    names = list(dict.fromkeys(name for rows in columns for name in rows))
    levels = sorted(name for name in names if name.startswith("  center"))
    names.sort(key=lambda name: (name.startswith("  with"), levels.index(name) + 1 if name in levels else 0))
    cells = [["", *(name for name, _ in folders)]]
    cells += [[name, *(rows.get(name, "-") for rows in columns)] for name in names]
    widths = [max(map(len, column_cells)) for column_cells in zip(*cells, strict=True)]
    row_format = "  ".join(f"{{:{'>' if place else '<'}{width}}}" for place, width in enumerate(widths))
    return "\n".join(row_format.format(*row) for row in cells)


def _count_rows(stats: Statistics) -> list[Row]:
    rows: list[Row] = [
        ("images seen", "unknown" if stats["images"] is None else f"{stats['images']:,}"),
        ("scenes", f"{stats['scenes']:,}", "images with an object"),
        ("objects", f"{stats['objects']:,}", f"of {stats['categories']:,} categories"),
    ]
    if stats["groups"]:
        rows.append(("groups of like parts", f"{stats['groups']:,}", "added"))
    if stats["stuff"]:
        rows.append(("stuff regions", f"{stats['stuff']:,}", f"of {stats['stuff_categories']:,} categories"))
    for source, kinds in stats["by_source"].items():
        rows += [(f"  {source or 'unnamed'}, {kind}", f"{count:,}") for kind, count in kinds.items()]
    mean = f"{stats['masks_a_set']:.2f} a set" if stats["masks_a_set"] else ""
    return [*rows, ("sets", f"{stats['sets']:,}"), ("masks in sets", f"{stats['masks']:,}", mean)]


def _histogram(title: str, counts: Mapping[str, int]) -> list[str]:
    """Bars; rows after the first `_ROWS` are merged into one."""
    bars = dict(islice(counts.items(), _ROWS))
    if remaining := list(counts)[_ROWS:]:
        label = f"{remaining[0]} to {remaining[-1]}" if len(remaining) > 1 else remaining[0]
        bars[label] = sum(counts[value] for value in remaining)
    total, largest = sum(bars.values()), max(bars.values(), default=0)
    width = max(map(len, bars), default=0)
    rows = [
        (f"{label:>{width}}", f"{count:,}", f"{count / total:>6.1%}  {'#' * math.ceil(_BAR * count / largest)}")
        for label, count in bars.items()
    ]
    return _table(title, rows)


def _chain_lines(chain: Statistics) -> list[str]:
    path = textwrap.wrap(" > ".join(chain["categories"]), COLUMNS, initial_indent="  ", subsequent_indent="  ")
    return [f"deepest chain: {len(chain['categories'])} objects, in image {chain['image_id']}", *path]


def _neighbour_table(neighbours: Statistics) -> list[str]:
    rows: list[Row] = [
        ("neighbours a thing, mean", _format(neighbours["mean"], ".2f")),
        ("neighbours a thing, most", f"{neighbours['largest']:,}"),
        ("things without a neighbour", f"{neighbours['alone']:,}"),
    ]
    return _table("", rows)


def _ambiguity_table(ambiguity: Statistics, total: int) -> list[str]:
    counts = [("all", ambiguity["sets"], total)]
    counts += [(f"center on level {level}", part, sets) for level, (sets, part) in ambiguity["by_level"].items()]
    counts += [(f"with a mask: {name}", count, total) for name, count in ambiguity["by_relation"].items()]
    rows = [(label, f"{count:,}", f"of {whole:,}, {count / whole:.1%}") for label, count, whole in counts]
    return _table(f"ambiguous sets (two masks with IoU < {DIFFERENT_IOU:g})", rows)


def _overlap_tables(overlaps: Statistics) -> list[list[str]]:
    def row(label: str, spread: Statistics) -> Row:
        percentiles = (f"{name} {_format(spread[name], '.3f')}" for name in ("p5", "p50", "p95"))
        return label, _format(spread["mean"], ".3f"), ", ".join(percentiles)

    inner, iou = overlaps["inner_in_outer"], overlaps["iou"]
    pairs = [row("share of the inner mask in the outer, mean", inner), row("IoU, mean", iou)]
    sets = [
        ("sets of two masks or more that nest exactly", _format(overlaps["nested"], ".1%")),
        ("area, outermost mask over center, mean", _format(overlaps["area_ratio"], ".2f")),
        ("share of the center that is clickable, mean", _format(overlaps["clickable"], ".1%")),
    ]
    return [_table(f"consecutive masks ({iou['count']:,} pairs)", pairs), _table("", sets)]


def _left_out_rows(stats: Statistics) -> list[Row]:
    cause = "too few objects" if stats["method"] == "random-merge" else "the cap"
    sets = f"in {stats['sets_cut']:,} of the sets" if stats["sets_cut"] else ""
    rows = [(f"masks left out ({cause})", stats["left_out"], sets)]
    rows.append(("combinations that repeat a mask", stats["repeated"], ""))
    # Combinations grow like 2**n: print large counts with an exponent.
    return [(label, f"{n:,}" if n < 10**12 else f"{Decimal(n):.3g}", remark) for label, n, remark in rows]


def _pair_rows(pairs: Sequence[Statistics], between: str) -> list[Row]:
    return [(f"{pair['first']}{between}{pair['second']}", f"{pair['count']:,}") for pair in pairs]


def _table(title: str, rows: Sequence[Row]) -> list[str]:
    """Left-aligned labels, right-aligned values, then the remark; indented below a title."""
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


def _format(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
