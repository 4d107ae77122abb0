"""`compare`: two stored runs on the same samples, and whether their difference is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.arrays import FloatArray
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.sheets import LEGEND, Strip, draw_sheet, sheet_of
from disbench.core.statistics import RESAMPLES, Difference, paired_difference
from disbench.harness.store import StoredRun
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.render import markdown
from disbench.reports.render.table import Cell, Column, Footnotes, Table, as_text
from disbench.reports.render.text import DASH, counted, csv_text, plain
from disbench.reports.report import write_files
from disbench.reports.run_samples import (
    image_panel,
    mask_panels,
    open_same_dataset,
    read_samples,
    target_panel,
    window_of,
)
from disbench.reports.summary import AT_CLICKS, PERCENTS, SOLVED
from disbench.reports.tables import deviation, failures, undefined

PAGE, RESULTS, PICTURE = "comparison.md", "comparison.csv", "differences.png"
HOW = (
    "Each measure is taken on the same samples with both runs, and A's value less B's is averaged. Interval: 95 % "
    "percentile bootstrap of that mean over samples. p: two-sided, bootstrap under the null hypothesis (differences "
    f"centred on their mean, {RESAMPLES:,} resamples). p (signs): two-sided, the signs of the differences are flipped "
    f"by lot ({RESAMPLES:,} draws); trust it more where samples are few. Both are (b + 1) / (B + 1), and not corrected "
    "for the number of measures. Of NoC less is better, of IoU more; better and tie count samples."
)
"""How the numbers are made, in words."""


@dataclass(frozen=True)
class Measure:
    """One line of a comparison.

    Attributes:
        name: `NoC@90`, `IoU at click 1`.
        key: for a column of CSV.
        difference: None where the runs cannot give it.
        reason: "" or why.
    """

    name: str
    key: str
    difference: Difference | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same samples.

    Attributes:
        a: the first.
        b: the second.
        names: ids of the samples, in the dataset's order.
        measures: NoC at four IoUs, IoU after some clicks.
        warnings: what makes the comparison doubtful, a sentence each.
        clicks: NoC at `percent` of A and of B, int64 (samples,) each.
        percent: the IoU that `clicks` are for: 90, or the highest below it that both runs go on to.
        order: numbers of the samples, those on which the runs differ most first.
    """

    a: Entry
    b: Entry
    names: tuple[str, ...]
    measures: tuple[Measure, ...]
    warnings: tuple[str, ...]
    clicks: tuple[Any, Any]
    percent: int
    order: tuple[int, ...]


def one_run(folder: Path) -> StoredRun:
    """The run in a folder, or below it if there is only one.

    Raises:
        InputError: none, more than one, or one that is not finished or damaged.
    """
    runs = find_runs([folder])
    if len(runs) > 1:
        raise InputError(f"{folder}: there are {len(runs)} runs in it; name one of them, such as {runs[0].folder}")
    return runs[0]


def compare_runs(a: StoredRun, b: StoredRun) -> Comparison:
    """Compare two runs, sample by sample.

    Clicks are counted up to the smaller of the two runs' caps.

    Raises:
        InputError: the runs are of other samples than each other, or a run is damaged.
    """
    entry_a, entry_b = read_entries([a, b])
    for entry, run in ((entry_a, a), (entry_b, b)):
        if entry.summary.at_budget is not None:
            raise InputError(f"{run.folder}: its method got a fixed budget of points; there are no clicks to compare")
    rows_a, rows_b = a.by_sample(), b.by_sample()
    _check_same_samples((entry_a, entry_b), (list(rows_a), list(rows_b)), (a.folder, b.folder))
    ious = (list(rows_a.values()), list(rows_b.values()))
    cap = min(entry_a.max_clicks, entry_b.max_clicks)
    common = [p for p in PERCENTS if p in entry_a.summary.noc and p in entry_b.summary.noc]
    percent = max((p for p in common if p <= SOLVED), default=0)
    if not percent:
        raise InputError(
            f"{a.folder} and {b.folder}: samples end before an IoU of {PERCENTS[0] / 100:g}, and nothing can be "
            "compared; run them without --stop-at"
        )
    measures = [
        *(_clicks(p, ious, cap, (entry_a, entry_b)) for p in PERCENTS),
        *(_quality(click, ious, cap, (entry_a, entry_b)) for click in AT_CLICKS),
    ]
    clicks = tuple(clicks_to_reach(of_run, percent / 100, cap) for of_run in ious)
    return Comparison(
        entry_a,
        entry_b,
        tuple(rows_a),
        tuple(measures),
        tuple(_warnings(entry_a, entry_b, cap)),
        (clicks[0], clicks[1]),
        percent,
        tuple(_order(clicks[0] - clicks[1], ious)),
    )


def comparison_table(comparison: Comparison) -> Table:
    """A row a measure."""
    notes = Footnotes()
    columns = (
        Column("Measure", number=False),
        *(Column(name) for name in ("A", "B", "A − B", "95 % interval", "p", "p (signs)")),
        *(Column(name) for name in ("A better", "tie", "B better")),
    )
    return Table(
        "comparison",
        f"{plain(comparison.a.dataset)} ({comparison.a.short_hash}): A against B",
        HOW,
        columns,
        tuple(_line(measure, notes) for measure in comparison.measures),
        notes.by_mark(),
    )


def lines_of(comparison: Comparison) -> list[str]:
    """The comparison for a terminal."""
    return [
        *_heading(comparison),
        *(f"warning: {text}" for text in comparison.warnings),
        "",
        as_text(comparison_table(comparison)),
        "",
        HOW,
    ]


def write_comparison(comparison: Comparison, out: Path, picture: bytes | None = None) -> list[Path]:
    """Write `comparison.md`, `comparison.csv` and, if there is a picture, `differences.png`.

    Args:
        comparison: of two runs.
        out: folder; made if missing. Files of an earlier comparison are replaced, an earlier picture removed.
        picture: a PNG, of `draw_differences`.
    """
    contents = {
        PAGE: _page(comparison, picture is not None).encode(),
        RESULTS: csv_text([_record(comparison, measure) for measure in comparison.measures]).encode(),
        PICTURE: picture,
    }
    return write_files(contents, out)


def draw_differences(
    comparison: Comparison,
    runs: tuple[StoredRun, StoredRun],
    data: Path | None,
    samples: int = 8,
    dataset: str | None = None,
) -> bytes:
    """The samples on which two runs differ most, with the masks of both, as a PNG.

    The order is that of `Comparison.order`. Where a run did not store its masks, its clicks and IoUs are
    shown alone.

    Args:
        comparison: of the runs.
        runs: A and B.
        data: root of the datasets.
        samples: how many, at least 1.
        dataset: where the dataset is, if the runs' own name for it is no card.

    Raises:
        InputError: the dataset is not here or not the one that the runs were made on, or a run is damaged.
    """
    source = open_same_dataset(runs[0], data, dataset)
    chosen = comparison.order[:samples]
    names = [comparison.names[number] for number in chosen]
    strips = []
    for number, of_a, of_b in zip(chosen, *(read_samples(run, source, names) for run in runs), strict=True):
        window = window_of(of_a, of_b)
        rows = (
            (image_panel(of_a, window), *mask_panels(of_a, window, "A")),
            (target_panel(of_b, window), *mask_panels(of_b, window, "B")),
        )
        strips.append(Strip(_told(comparison, number), rows))
    texts = (
        *_heading(comparison),
        f"The {counted(len(chosen), 'sample')} of {len(comparison.names):,} on which NoC@{comparison.percent} differs "
        "most; of equal ones, those whose IoUs differ most.",
        LEGEND,
    )
    return draw_sheet(sheet_of("Where two runs differ most", texts, strips))["png"]


def _check_same_samples(
    entries: tuple[Entry, Entry], names: tuple[list[str], list[str]], folders: tuple[Path, Path]
) -> None:
    a, b = entries
    if a.content_hash != b.content_hash:
        raise InputError(
            f"{folders[0]} was made on {a.dataset} ({a.short_hash}) and {folders[1]} on {b.dataset} ({b.short_hash}); "
            "a paired comparison needs runs on the same samples"
        )
    if names[0] != names[1]:
        alone = sorted(set(names[0]).symmetric_difference(names[1]))
        which = f"{len(alone):,} only in one, such as {plain(alone[0])}" if alone else "in another order"
        raise InputError(
            f"{folders[0]} has {len(names[0]):,} samples (those chosen: {a.conditions['samples']}) and {folders[1]} "
            f"{len(names[1]):,} ({b.conditions['samples']}), {which}; a paired comparison needs the same samples: run "
            "both with the same --every and --limit"
        )


def _clicks(
    percent: int, ious: tuple[list[FloatArray], list[FloatArray]], cap: int, entries: tuple[Entry, Entry]
) -> Measure:
    name, key = f"NoC@{percent}", f"noc_{percent}"
    if reason := _stopped([entry for entry in entries if percent not in entry.summary.noc]):
        return Measure(name, key, None, reason)
    a, b = (clicks_to_reach(of_run, percent / 100, cap) for of_run in ious)
    return Measure(name, key, paired_difference(a, b, lower_is_better=True))


def _quality(
    click: int, ious: tuple[list[FloatArray], list[FloatArray]], cap: int, entries: tuple[Entry, Entry]
) -> Measure:
    name, key = f"IoU at click {click}", f"iou_{click}"
    if reason := _stopped([entry for entry in entries if entry.summary.miou is None]):
        return Measure(name, key, None, reason)
    if click > cap:
        return Measure(name, key, None, f"not available: a run has {counted(cap, 'click')} a sample")
    a, b = (np.array([row[click - 1] for row in of_run]) for of_run in ious)
    if not np.isfinite(a - b).all():
        return Measure(name, key, None, "not available: the value of some sample is not a number")
    return Measure(name, key, paired_difference(a, b, lower_is_better=False))


def _stopped(entries: Sequence[Entry]) -> str:
    return f"not available: samples of {entries[0].label} end at an IoU of {entries[0].stop_at:g}" if entries else ""


def _warnings(a: Entry, b: Entry, cap: int) -> list[str]:
    found = []
    if text := deviation(b, [a, b]):
        found.append(f"A and B differ in more than the method, B has {text}")
    if a.max_clicks != b.max_clicks:
        found.append(f"only the first {counted(cap, 'click')} of each sample are compared")
    for letter, entry in (("A", a), ("B", b)):
        found += [f"{letter}: {text}" for text in (failures(entry), undefined(entry)) if text]
    return found


def _order(clicks: Any, ious: tuple[list[FloatArray], list[FloatArray]]) -> list[int]:
    """Samples by the difference of clicks, then by that of IoUs over the clicks that both have, then as they stand."""
    areas = [
        float(np.nanmean(np.abs(a[: len(b)] - b[: len(a)]))) if np.isfinite(a[: len(b)] - b[: len(a)]).any() else 0.0
        for a, b in zip(*ious, strict=True)
    ]
    return sorted(range(len(areas)), key=lambda number: (-abs(int(clicks[number])), -areas[number], number))


def _heading(comparison: Comparison) -> list[str]:
    a, b = comparison.a, comparison.b
    return [
        f"A: {a.label}; {a.protocol}",
        f"B: {b.label}; {b.protocol}",
        f"On {a.dataset} ({a.short_hash}), {counted(len(comparison.names), 'sample')}",
    ]


def _told(comparison: Comparison, number: int) -> str:
    a, b = (int(of_run[number]) for of_run in comparison.clicks)
    return f"{plain(comparison.names[number])}: NoC@{comparison.percent} A {a}, B {b}"


def _line(measure: Measure, notes: Footnotes) -> tuple[Cell, ...]:
    found = measure.difference
    if found is None:
        return (Cell(measure.name), *[Cell(DASH, notes.marks(measure.reason))] * 9)
    places = 2 if measure.key.startswith("noc") else 3
    return (
        Cell(measure.name),
        *(Cell(f"{value:.{places}f}") for value in (found.mean_a, found.mean_b)),
        Cell(f"{found.mean:+.{places}f}"),
        Cell(f"{found.low:+.{places}f}, {found.high:+.{places}f}"),
        *(Cell(f"{p:.4f}") for p in (found.p, found.p_signs)),
        *(Cell(f"{count:,}") for count in (found.a_better, found.ties, found.b_better)),
    )


def _record(comparison: Comparison, measure: Measure) -> dict[str, Any]:
    found = measure.difference
    numbers = (
        *("mean_a", "mean_b", "mean", "low", "high", "p", "p_signs"),
        *("a_better", "ties", "b_better"),
    )
    columns = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    return {
        "measure": measure.key,
        "run_a": comparison.a.folder,
        "run_b": comparison.b.folder,
        "label_a": comparison.a.label,
        "label_b": comparison.b.label,
        "dataset": comparison.a.dataset,
        "content_hash": comparison.a.content_hash,
        "samples": len(comparison.names),
        **{columns.get(name, name): None if found is None else getattr(found, name) for name in numbers},
        "notes": ". ".join(filter(None, (measure.reason, *comparison.warnings))),
    }


def _page(comparison: Comparison, pictured: bool) -> str:
    escape = markdown.escape
    table = comparison_table(comparison)
    paragraphs = [
        f"# {escape(table.title)}",
        "\n".join(f"- {escape(line)}" for line in _heading(comparison)),
        *(f"**Warning:** {escape(text)}." for text in comparison.warnings),
        markdown.table(table),
    ]
    if pictured:
        paragraphs += [
            "## Where they differ most",
            f"![The samples on which the runs differ most]({PICTURE})",
        ]
    return "\n\n".join(paragraphs) + "\n"
