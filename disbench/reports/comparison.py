"""`compare`: paired comparison of two stored runs on the same samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from disbench.core.arrays import IntArray
from disbench.core.errors import InputError
from disbench.core.metrics import clicks_to_reach
from disbench.core.sheets import LEGEND, Strip, draw_sheet, make_sheet
from disbench.core.statistics import RESAMPLES, Difference, paired_difference
from disbench.harness.measures import NOT_A_NUMBER, PERCENTS, SOLVED, Measure, RunRows, UnavailableError, measures_in
from disbench.harness.store import StoredRun
from disbench.io.files import write_files
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.render import DASH, Cell, Column, Footnotes, Table, as_text, counted, csv_text, markdown, plain
from disbench.reports.samples import common_window, mask_panels, open_same_dataset, read_samples
from disbench.reports.tables import deviation, failures, reference, undefined

PAGE, RESULTS, PICTURE = "comparison.md", "comparison.csv", "differences.png"
HOW = (
    "A minus B on the same samples, averaged. Interval: 95 % percentile bootstrap of the mean over samples. p: "
    f"two-sided sign-flip test, (b + 1) / (B + 1) with B = {RESAMPLES:,}, not corrected for the number of measures. "
    "Lower NoC and higher IoU are better; the last columns count samples."
)
_RENAMED = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
"""Fields of `Difference` renamed in `comparison.csv`: field -> column."""


@dataclass(frozen=True)
class Compared:
    """A measure and its difference between the runs, or None and the reason."""

    measure: Measure
    difference: Difference | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two runs; `warnings` are reasons to doubt it.

    `clicks` is NoC@`percent` of each sample, for A and B; `percent` is 90, or the highest threshold below it that no
    run stops short of. `order` has the sample indices, largest difference first.
    """

    a: Entry
    b: Entry
    measures: tuple[Compared, ...]
    warnings: tuple[str, ...]
    clicks: tuple[IntArray, IntArray]
    percent: int
    order: tuple[int, ...]

    @property
    def samples(self) -> Sequence[str]:
        """Sample ids, in dataset order."""
        return self.a.rows.samples


def single_run(folder: Path) -> StoredRun:
    """The only run in or below a folder; `InputError` if there is none, more than one, or a damaged one."""
    runs = find_runs([folder])
    if len(runs) > 1:
        raise InputError(f"{folder}: contains {len(runs)} runs; name one of them, such as {runs[0].folder}")
    return runs[0]


def compare_runs(a: StoredRun, b: StoredRun) -> Comparison:
    """Compare two runs sample by sample, counting clicks up to the smaller `max_clicks`.

    `InputError` if their samples differ, they have no common measure, or a run is damaged.
    """
    first, second = read_entries([a, b])
    for entry in (first, second):
        if entry.budget:
            raise InputError(f"{entry.run.folder}: run with a fixed budget of points; there are no clicks to compare")
    _check_same_samples(first, second)
    cap = min(first.rows.max_clicks, second.rows.max_clicks)
    of_a, of_b = (dataclasses.replace(entry.rows, max_clicks=cap) for entry in (first, second))
    percent = max((p for p in PERCENTS if p <= SOLVED and of_a.reaches(p) and of_b.reaches(p)), default=0)
    if not percent:
        raise InputError(
            f"{a.folder} and {b.folder}: samples stop below an IoU of {PERCENTS[0] / 100:g}, so nothing can be "
            "compared; run them without --stop-at"
        )
    clicks_a, clicks_b = (clicks_to_reach(rows.ious, percent / 100, cap) for rows in (of_a, of_b))
    measures = tuple(_compared(measure, of_a, of_b) for measure in measures_in("comparison"))
    order = tuple(_order(clicks_a - clicks_b, of_a, of_b))
    return Comparison(
        first, second, measures, tuple(_warnings(first, second, cap)), (clicks_a, clicks_b), percent, order
    )


def comparison_table(comparison: Comparison) -> Table:
    """One row per measure."""
    notes = Footnotes()
    columns = ("A", "B", "A − B", "95 % interval", "p", "A better", "tie", "B better")
    return Table(
        "comparison",
        f"{plain(comparison.a.dataset)} ({comparison.a.short_hash}): A against B",
        HOW,
        (Column("Measure", number=False), *map(Column, columns)),
        tuple(_line(compared, notes) for compared in comparison.measures),
        notes.by_mark(),
    )


def comparison_lines(comparison: Comparison) -> list[str]:
    """The comparison as terminal output."""
    return [
        *_heading(comparison),
        *(f"warning: {text}" for text in comparison.warnings),
        "",
        as_text(comparison_table(comparison)),
        "",
        HOW,
    ]


def write_comparison(comparison: Comparison, out: Path, picture: bytes | None = None) -> list[Path]:
    """Write `comparison.md`, `comparison.csv` and, given the PNG of `draw_differences`, `differences.png`.

    Replaces the files of an earlier comparison in the folder and removes its picture.
    """
    shared = {
        "run_a": comparison.a.folder,
        "run_b": comparison.b.folder,
        "label_a": comparison.a.label,
        "label_b": comparison.b.label,
        "dataset": comparison.a.dataset,
        "content_hash": comparison.a.content_hash,
        "samples": len(comparison.samples),
    }
    names = {_RENAMED.get(field.name, field.name): field.name for field in dataclasses.fields(Difference)}
    records = [
        {
            "measure": compared.measure.name.removeprefix("mean_"),  # one sample has no mean
            **shared,
            **{name: getattr(compared.difference, field, None) for name, field in names.items()},
            "notes": ". ".join(filter(None, (compared.reason, *comparison.warnings))),
        }
        for compared in comparison.measures
    ]
    table = comparison_table(comparison)
    paragraphs = [
        f"# {markdown.escape(table.title)}",
        "\n".join(f"- {markdown.escape(line)}" for line in _heading(comparison)),
        *(f"**Warning:** {markdown.escape(text)}." for text in comparison.warnings),
        markdown.table(table),
    ]
    if picture is not None:
        paragraphs += ["## Where they differ most", f"![The samples on which the runs differ most]({PICTURE})"]
    page = "\n\n".join(paragraphs) + "\n"
    return write_files({PAGE: page.encode(), RESULTS: csv_text(records).encode(), PICTURE: picture}, out)


def draw_differences(comparison: Comparison, data: Path | None, samples: int = 8, dataset: str | None = None) -> bytes:
    """Draw the samples on which two runs differ most, with their stored masks, as a PNG; arguments as `draw_failures`.

    Raises:
        InputError: the dataset is missing or differs from that of the runs, or a run is damaged.
    """
    runs = (comparison.a.run, comparison.b.run)
    source = open_same_dataset(runs[0], data, dataset)
    chosen = comparison.order[:samples]
    names = [comparison.samples[number] for number in chosen]
    strips = []
    for number, of_a, of_b in zip(chosen, *(read_samples(run, source, names) for run in runs), strict=True):
        window = common_window(of_a, of_b)
        rows = (
            (of_a.panel("image", outlined=window), *mask_panels(of_a, window, "A")),
            (of_b.target_panel(window), *mask_panels(of_b, window, "B")),
        )
        a, b = (int(clicks[number]) for clicks in comparison.clicks)
        strips.append(Strip(f"{plain(comparison.samples[number])}: NoC@{comparison.percent} A {a}, B {b}", rows))
    texts = (
        *_heading(comparison),
        f"The {counted(len(chosen), 'sample')} of {len(comparison.samples):,} on which NoC@{comparison.percent} "
        "differs most; of equal ones, those whose IoUs differ most.",
        LEGEND,
    )
    return draw_sheet(make_sheet("Where two runs differ most", texts, strips))["png"]


def _check_same_samples(a: Entry, b: Entry) -> None:
    folders, names = (a.run.folder, b.run.folder), (a.rows.samples, b.rows.samples)
    if a.content_hash != b.content_hash:
        raise InputError(
            f"{folders[0]} was made on {a.dataset_name} and {folders[1]} on {b.dataset_name}; "
            "a paired comparison needs runs on the same samples"
        )
    if list(names[0]) != list(names[1]):
        alone = sorted(set(names[0]).symmetric_difference(names[1]))
        which = f"{len(alone):,} only in one, such as {plain(alone[0])}" if alone else "in another order"
        raise InputError(
            f"{folders[0]} has {len(names[0]):,} samples (chosen: {a.conditions['samples']}) and {folders[1]} "
            f"{len(names[1]):,} ({b.conditions['samples']}), {which}; a paired comparison needs the same samples: run "
            "both with the same --every and --limit"
        )


def _compared(measure: Measure, a: RunRows, b: RunRows) -> Compared:
    assert measure.by_sample is not None
    values, reasons = [], {}
    for letter, rows in (("A", a), ("B", b)):
        try:
            values.append(measure.by_sample(rows))
        except UnavailableError as error:
            reasons[letter] = str(error)
    if reasons:
        alike = len(reasons) == 2 and len(set(reasons.values())) == 1
        texts = [reasons["A"]] if alike else [f"{letter}: {reason}" for letter, reason in reasons.items()]
        return Compared(measure, None, "; ".join(texts))
    if not all(np.isfinite(of_run).all() for of_run in values):
        return Compared(measure, None, NOT_A_NUMBER)
    return Compared(measure, paired_difference(*values, lower_is_better=measure.better == "lower"))


def _warnings(a: Entry, b: Entry, cap: int) -> Iterator[str]:
    if text := deviation(b, reference([a, b])):
        yield f"A and B differ in more than the method, B has {text}"
    if a.rows.max_clicks != b.rows.max_clicks:
        yield f"only the first {counted(cap, 'click')} of each sample are compared"
    for letter, entry in (("A", a), ("B", b)):
        yield from (f"{letter}: {text}" for text in (failures(entry), undefined(entry)) if text)


def _order(clicks: IntArray, a: RunRows, b: RunRows) -> list[int]:
    """Sample indices by difference in clicks, then in mean IoU over common clicks, then in dataset order."""
    areas = []
    for of_a, of_b in zip(a.ious, b.ious, strict=True):
        apart = np.abs(of_a[: len(of_b)].astype(np.float64) - of_b[: len(of_a)])
        areas.append(float(np.nanmean(apart)) if np.isfinite(apart).any() else 0.0)
    return sorted(range(len(areas)), key=lambda number: (-abs(int(clicks[number])), -areas[number], number))


def _heading(comparison: Comparison) -> list[str]:
    a, b = comparison.a, comparison.b
    return [
        f"A: {a.label}; {a.protocol}",
        f"B: {b.label}; {b.protocol}",
        f"On {a.dataset_name}, {counted(len(comparison.samples), 'sample')}",
    ]


def _line(compared: Compared, notes: Footnotes) -> tuple[Cell, ...]:
    found, measure = compared.difference, compared.measure
    title = Cell(measure.headings["comparison"][1])
    if found is None:
        return (title, *[Cell(DASH, notes.marks(compared.reason))] * 8)

    def signed(value: float) -> str:
        return f"{'+' if value >= 0 else ''}{measure.text(value)}"

    texts = (
        *map(measure.text, (found.mean_a, found.mean_b)),
        signed(found.mean),
        f"{signed(found.low)}, {signed(found.high)}",
        f"{found.p:.4f}",
        *(f"{count:,}" for count in (found.a_better, found.ties, found.b_better)),
    )
    return (title, *map(Cell, texts))
