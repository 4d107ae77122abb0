"""Report on an ablation: its measured rows, and the signs of its contrasts compared with the paper's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import FloatArray
from disbench.core.errors import InputError
from disbench.core.statistics import bootstrap_interval
from disbench.harness.measures import MEASURES, NOT_A_NUMBER, Measure, UnavailableError
from disbench.harness.store import RUN
from disbench.io.files import write_files
from disbench.reports.ablation.plans import RUNS, AblationPlan, Contrast, RowRecord, read_record, recorded
from disbench.reports.entries import Entry, find_runs, read_entries
from disbench.reports.paper.definitions import PaperTable, read_definition
from disbench.reports.paper.tables import NOT_PRINTED, NOT_RUN
from disbench.reports.render import DASH, Cell, Column, Footnotes, Table, counted, csv_text, markdown
from disbench.reports.report import Report
from disbench.reports.tables import notes_on_dataset

_HOW = (
    "Measured: after minus before on the same samples, mean over seeds. Over samples: 95 % percentile bootstrap of "
    "the paired differences (exact for clicks and failures). Over seeds: 95 % t interval of the seeds' differences; "
    "one seed has none, so nothing shows how another training would have come out. Finding: holds, against: every "
    "interval excludes 0, on the paper's side or the other; better, worse: the same where the paper prints no "
    "difference or 0; not decided: some interval contains 0. Not corrected for the number of differences. Lower NoC "
    "and higher mIoU@1 (after the first click) are better; NoF follows RITM's rule."
)
_ROWS = (
    "Mean over seeds and samples, with the 95 % interval over samples in brackets and, after a stroke, the one over "
    "seeds if there are several."
)


FIRST = replace(MEASURES["mean_iou_1"], by_sample=lambda rows: np.array([row[0] for row in rows.ious], np.float64))
"""IoU at click 1, available even if runs stop early."""


class SeedRun(NamedTuple):
    """The run of a row and seed."""

    record: RowRecord
    entry: Entry


Results = Mapping[tuple[str, str], Mapping[int, SeedRun]]
"""(row, dataset) -> seed -> run."""


def _title(measure: Measure) -> str:
    """NoC@90, NoF@90, mIoU@1."""
    return measure.title.removesuffix(" ritm")


def _key(measure: Measure) -> str:
    """As in published columns: noc90, nof90; iou1."""
    return measure.name.removeprefix("mean_").removesuffix("_ritm").replace("_", "")


def _text(measure: Measure, value: float, *, sign: bool = False) -> str:
    """A value, or a difference with its `sign`, formatted for tables."""
    size = f"{abs(value):.{ {'clicks': 2, 'samples': 1}.get(measure.unit, 3) }f}"
    before = "−" if value < 0 else "+" if sign else ""
    return f"{before}{size}" if float(size) else size


def values_of(runs: Sequence[SeedRun], measure: Measure) -> FloatArray:
    """A measure as float64 (seeds, samples), 1 for a failure; `UnavailableError` if it is missing."""
    assert measure.by_sample is not None
    found = np.stack([np.asarray(measure.by_sample(run.entry.rows), dtype=np.float64) for run in runs])
    if not np.isfinite(found).all():
        raise UnavailableError(NOT_A_NUMBER)
    return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over seeds and samples (for failures, their number), with 95 % intervals as in `_HOW`."""

    mean: float
    samples: tuple[float, float]
    seeds: tuple[float, float] | None

    @property
    def side(self) -> int:
        """The sign of the mean if every interval excludes 0, else 0."""
        if all(low > 0 for low, _ in self.intervals):
            return 1
        return -1 if all(high < 0 for _, high in self.intervals) else 0

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """The interval over samples and, with several seeds, the one over seeds."""
        return [self.samples, *([self.seeds] if self.seeds else [])]


def estimate(values: npt.ArrayLike, measure: Measure) -> Estimate:
    """Mean and intervals of finite values or differences (seeds, samples); for failures, of their sum over samples."""
    from scipy.special import stdtrit  # noqa: PLC0415  (slow to load)

    given = np.asarray(values, dtype=np.float64)
    seeds, samples = given.shape
    scale = samples if measure.unit == "samples" else 1
    low, high = bootstrap_interval(given.sum(axis=0))  # integer sums are exact, means are not
    means = given.mean(axis=1) * scale
    mean, over_seeds = float(means.mean()), None
    if seeds > 1:
        half = float(stdtrit(seeds - 1, 0.975) * means.std(ddof=1) / math.sqrt(seeds))
        over_seeds = (mean - half, mean + half)
    return Estimate(mean, (low * scale / seeds, high * scale / seeds), over_seeds)


def read_results(folder: Path) -> dict[tuple[str, str], dict[int, SeedRun]]:
    """The finished runs in an ablation's folder.

    Raises:
        InputError: no run is finished, a run or record is damaged, or budgets, samples or protocols differ.
    """
    records = {
        run.parent: read_record(cell) for cell in recorded(folder) for run in sorted(cell.glob(f"{RUNS}/*/{RUN}"))
    }
    if not records:
        raise InputError(f"{folder}: contains no finished row of an ablation; run disbench ablate to the end")
    found: dict[tuple[str, str], dict[int, SeedRun]] = {}
    first_of: dict[str, SeedRun] = {}
    for entry in read_entries(find_runs(list(records))):
        place, options = entry.run.folder, entry.record.method.options
        own = SeedRun(records[place], entry)
        for name, value in own.record.method.items():
            if options.get(name) != value:
                raise InputError(
                    f"{place}: {name} = {options.get(name)!r}, but its row has {value!r}; run the ablation again "
                    "with --existing overwrite"
                )
        first = first_of.setdefault(entry.dataset, own)
        one = next(iter(first_of.values()))
        if own.record.length != one.record.length:
            raise InputError(
                f"{place} was trained for {own.record.budget}, but {one.entry.run.folder} for {one.record.budget}; "
                "rows are compared at one budget, so use another --out for each"
            )
        if _protocol_key(entry) != _protocol_key(first.entry):
            raise InputError(
                f"{place} and {first.entry.run.folder} differ in samples or protocol; measure all rows with the same "
                "--every, --limit and --stop-at"
            )
        found.setdefault((own.record.row, entry.dataset), {})[own.record.seed] = own
    return found


def _protocol_key(entry: Entry) -> tuple[object, ...]:
    rows, threshold = entry.rows, entry.record.protocol.threshold
    return entry.content_hash, dict(entry.conditions), threshold, rows.stop_at, list(rows.samples)


@dataclass(frozen=True, slots=True)
class PaperDifference:
    """The paper's numbers for a contrast or "", after minus before, and the source if it is not the table."""

    before: str = ""
    after: str = ""
    difference: Decimal | None = None
    source: str = ""

    @property
    def side(self) -> int:
        """The sign of the difference; 0 if none is printed."""
        return 0 if self.difference is None else (self.difference > 0) - (self.difference < 0)

    @property
    def text(self) -> str:
        """The difference, formatted for tables."""
        if self.difference is None:
            return NOT_PRINTED
        return f"{self.difference:+}".replace("-", "−") if self.difference else str(self.difference)


@dataclass(frozen=True, slots=True)
class Sign:
    """A measured difference compared with the printed one.

    Attributes:
        dataset: name of the dataset card.
        before: mean of the row without the component, or None; `after` is the row with it.
        ours: after minus before, or None.
        seeds: seeds that both rows have.
        missing: why there is no difference, or "".
    """

    contrast: Contrast
    dataset: str
    measure: Measure
    paper: PaperDifference
    before: float | None = None
    after: float | None = None
    ours: Estimate | None = None
    seeds: tuple[int, ...] = ()
    samples: int = 0
    missing: str = ""

    @property
    def agreement(self) -> str:
        """Whether the mean has the printed sign, significant or not; "" if either is missing."""
        side = 0 if self.ours is None else (self.ours.mean > 0) - (self.ours.mean < 0)
        return "" if not side or not self.paper.side else "same" if side == self.paper.side else "opposite"

    @property
    def finding(self) -> str:
        """The finding, as defined in `_HOW`."""
        if self.ours is None:
            return self.missing
        if not self.ours.side:
            return "not decided"
        if self.paper.side:
            return "holds" if self.ours.side == self.paper.side else "against"
        return "better" if (self.ours.side > 0) == (self.measure.better == "higher") else "worse"


@dataclass(frozen=True)
class MeasuredAblation:
    """A plan with its measured rows and the paper's table, if any."""

    plan: AblationPlan
    paper: PaperTable | None
    results: Results

    @cached_property
    def measures(self) -> list[Measure]:
        """The measures of the paper's table, NoC@90, NoF@90, and the IoU at click 1."""
        printed = {measure.name for measure in self.paper.measures} if self.paper else set()
        return [*(MEASURES[name] for name in sorted(printed | {"noc_90", "nof_90_ritm"})), FIRST]

    @cached_property
    def datasets(self) -> list[str]:
        """The measured datasets, those of the plan first."""
        measured = [dataset for _, dataset in self.results]
        return list(dict.fromkeys([*(d.name for d in self.plan.datasets if d.name in measured), *measured]))

    @cached_property
    def signs(self) -> list[Sign]:
        """One per contrast, dataset and measure; `InputError` if the plan names a row that the paper's table lacks."""
        return [self._sign(*place) for place in product(self.plan.contrasts, self.datasets, self.measures)]

    def _sign(self, contrast: Contrast, dataset: str, measure: Measure) -> Sign:
        before, after = (self.results.get((row, dataset), {}) for row in contrast.rows)
        seeds = tuple(sorted(before.keys() & after.keys()))
        sign = Sign(contrast, dataset, measure, self._printed(contrast, dataset, measure))
        if not seeds:
            return replace(sign, missing=NOT_RUN)
        try:
            of_before, of_after = (values_of([runs[seed] for seed in seeds], measure) for runs in (before, after))
        except UnavailableError as error:
            return replace(sign, missing=str(error))
        return replace(
            sign,
            before=estimate(of_before, measure).mean,
            after=estimate(of_after, measure).mean,
            ours=estimate(of_after - of_before, measure),
            seeds=seeds,
            samples=of_before.shape[1],
        )

    def _printed(self, contrast: Contrast, dataset: str, measure: Measure) -> PaperDifference:
        if contrast.noc is not None and measure.name == "noc_90":
            return PaperDifference(difference=Decimal(str(contrast.noc)), source=contrast.source)
        before, after = (self._number(self.plan.row(row).paper, dataset, measure) for row in contrast.rows)
        return PaperDifference(before, after, Decimal(after) - Decimal(before) if before and after else None)

    def _number(self, row: str, dataset: str, measure: Measure) -> str:
        if self.paper is None or not row:
            return ""
        if row not in self.paper.rows:
            raise InputError(f"{self.paper.name}: has no row {row!r}; correct the ablation that names it")
        columns = {(one.dataset.card, one.name): one.column for one in self.paper.measures}
        return self.paper.printed(row).numbers.get(columns.get((dataset, measure.name), ""), "")


def report_ablation(plan: AblationPlan, folder: Path) -> Report:
    """Write `signs-NAME.md`, `signs-NAME.csv` and `rows-NAME.csv` from the results in a folder into its `report/`.

    `InputError` if no run is finished, or rows cannot be compared.
    """
    paper = read_definition(PaperTable, plan.table) if plan.table else None
    ablation = MeasuredAblation(plan, paper, read_results(folder))
    contents: dict[str, bytes | None] = {
        f"signs-{plan.name}.md": _page(ablation).encode(),
        f"signs-{plan.name}.csv": csv_text([_sign_record(plan.name, sign) for sign in ablation.signs]).encode(),
        f"rows-{plan.name}.csv": csv_text(list(_row_records(ablation))).encode(),
    }
    lines = []
    for sign in _measured(ablation.signs):
        if sign.measure.name == "noc_90":  # one line per contrast and dataset
            measured = sign.missing if sign.ours is None else _text(sign.measure, sign.ours.mean, sign=True)
            found = "" if sign.ours is None else f" ({sign.finding})"
            lines.append(f"  {sign.contrast.name} on {sign.dataset}: NoC@90 {measured}, paper {sign.paper.text}{found}")
    lines += [*filter(None, [_unmeasured(ablation.signs)]), _count_findings(ablation.signs)]
    paths = write_files(contents, folder / "report")
    return Report(tuple(paths), (*map(str, paths), *lines))


def _page(ablation: MeasuredAblation) -> str:
    budget = next(iter(next(iter(ablation.results.values())).values())).record.budget
    printed = [measure.dataset for measure in ablation.paper.measures] if ablation.paper else []
    unmeasured = dict.fromkeys(dataset.title for dataset in printed if dataset.card not in ablation.datasets)
    facts = [
        f"Every row is trained for {budget}.",
        f"The paper also prints numbers on {', '.join(unmeasured)}, where nothing was run." if unmeasured else "",
        _unmeasured(ablation.signs),
        f"{_count_findings(ablation.signs)}.",
    ]
    paragraphs = [
        f"# {markdown.escape(ablation.plan.title)}",
        markdown.escape(" ".join(filter(None, facts))),
        "## Rows",
        markdown.table(_rows_table(ablation)),
        "## Signs",
        markdown.table(_signs_table(ablation)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _measured(signs: Sequence[Sign]) -> list[Sign]:
    """The signs of contrasts with a difference on any dataset."""
    contrasts = [sign.contrast for sign in signs if sign.ours is not None]
    return [sign for sign in signs if sign.contrast in contrasts]


def _unmeasured(signs: Sequence[Sign]) -> str:
    """A sentence that lists the contrasts without a difference."""
    measured = [sign.contrast for sign in _measured(signs)]
    names = dict.fromkeys(sign.contrast.name for sign in signs if sign.contrast not in measured)
    return f"Without a difference, since a row of theirs was not run: {'; '.join(names)}." if names else ""


def _count_findings(signs: Sequence[Sign]) -> str:
    counts = Counter(sign.finding for sign in signs if sign.paper.side and sign.ours is not None)
    if not counts:
        return "No sign that the paper prints was measured"
    parts = [f"{counts[finding]} {finding}" for finding in ("holds", "against", "not decided")]
    return f"Of {counted(sum(counts.values()), 'sign')} that the paper prints: {', '.join(parts)}"


def _rows_table(ablation: MeasuredAblation) -> Table:
    plan, notes = ablation.plan, Footnotes()
    columns = [Column(name, number=False) for name in ("Row", "Seeds")]
    columns += [Column(_title(measure), dataset) for dataset in ablation.datasets for measure in ablation.measures]
    rows = []
    for row in plan.rows:
        runs = [ablation.results.get((row.name, dataset), {}) for dataset in ablation.datasets]
        seeds = sorted({seed for own in runs for seed in own})
        cells = [_row_cell(own, measure, notes) for own in runs for measure in ablation.measures]
        rows.append((Cell(row.name), Cell(", ".join(map(str, seeds)) or NOT_RUN), *cells))
    return Table(f"rows-{plan.name}", plan.title, _ROWS, tuple(columns), tuple(rows), notes.by_mark())


def _row_cell(runs: Mapping[int, SeedRun], measure: Measure, notes: Footnotes) -> Cell:
    if not runs:
        return Cell(NOT_RUN)
    own = [runs[seed] for seed in sorted(runs)]
    try:
        found = estimate(values_of(own, measure), measure)
    except UnavailableError as error:
        return Cell(DASH, notes.marks(str(error)))
    text = " / ".join(", ".join(_text(measure, end) for end in ends) for ends in found.intervals)
    first = own[0].entry
    note = notes_on_dataset(first, first.conditions["OpenCV"])[0]
    failed = sum(len(run.entry.rows.failures) for run in own)
    fault = f"the method failed on {counted(failed, 'sample')}, which count with an IoU of 0" if failed else ""
    return Cell(_text(measure, found.mean), notes.marks(note, fault), text)


def _signs_table(ablation: MeasuredAblation) -> Table:
    plan, notes = ablation.plan, Footnotes()
    columns = (
        *(Column(name, number=False) for name in ("Dataset", "Measure")),
        *(Column(name) for name in ("Paper", "Measured", "over samples", "over seeds")),
        *(Column(name, number=False) for name in ("Sign", "Finding")),
    )
    titles: dict[str, int] = {}
    rows: list[tuple[Cell, ...]] = []
    for sign in _measured(ablation.signs):
        titles.setdefault(f"{sign.contrast.name}: {sign.contrast.after} against {sign.contrast.before}", len(rows))
        rows.append(_sign_line(sign, notes))
    groups = {at: title for title, at in titles.items()}
    return Table(f"signs-{plan.name}", plan.title, _HOW, columns, tuple(rows), notes.by_mark(), groups)


def _sign_line(sign: Sign, notes: Footnotes) -> tuple[Cell, ...]:
    head = (Cell(sign.dataset), Cell(_title(sign.measure)), Cell(sign.paper.text, notes.marks(sign.paper.source)))
    if sign.ours is None:
        shown = Cell(NOT_RUN) if sign.missing == NOT_RUN else Cell(DASH, notes.marks(sign.missing))
        return (*head, shown, *[Cell(DASH)] * 4)
    ends = [
        ", ".join(_text(sign.measure, end, sign=True) for end in interval) if interval else DASH
        for interval in (sign.ours.samples, sign.ours.seeds)
    ]
    texts = (_text(sign.measure, sign.ours.mean, sign=True), *ends, sign.agreement or DASH, sign.finding)
    return (*head, *map(Cell, texts))


def _sign_record(ablation: str, sign: Sign) -> dict[str, Any]:
    ours = sign.ours
    low, high = ours.samples if ours else (None, None)
    seeds_low, seeds_high = ours.seeds if ours and ours.seeds else (None, None)
    return {
        "ablation": ablation,
        "contrast": sign.contrast.name,
        "before": sign.contrast.before,
        "after": sign.contrast.after,
        "dataset": sign.dataset,
        "measure": _key(sign.measure),
        "paper_before": sign.paper.before,
        "paper_after": sign.paper.after,
        "paper_difference": None if sign.paper.difference is None else float(sign.paper.difference),
        "paper_source": sign.paper.source,
        "measured_before": sign.before,
        "measured_after": sign.after,
        "difference": ours.mean if ours else None,
        "samples_low": low,
        "samples_high": high,
        "seeds_low": seeds_low,
        "seeds_high": seeds_high,
        "seeds": " ".join(map(str, sign.seeds)),
        "samples": sign.samples,
        "sign": sign.agreement,
        "finding": sign.finding,
    }


def _row_records(ablation: MeasuredAblation) -> Iterator[dict[str, Any]]:
    """One record per row, seed, dataset and measure."""
    for (row, dataset), runs in ablation.results.items():
        for (seed, run), measure in product(sorted(runs.items()), ablation.measures):
            value, missing = None, ""
            try:
                value = estimate(values_of([run], measure), measure).mean
            except UnavailableError as error:
                missing = str(error)
            yield {
                "ablation": ablation.plan.name,
                "row": row,
                "seed": seed,
                "dataset": dataset,
                "measure": _key(measure),
                "value": value,
                "samples": len(run.entry.rows.samples),
                "run": run.entry.folder,
                "reason": missing,
            }
