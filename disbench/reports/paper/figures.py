"""The paper's Figure 4 from stored runs: mean IoU by click, a panel a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from disbench.core.errors import InputError, unknown_name
from disbench.core.figures import FORMS
from disbench.io import definitions
from disbench.reports.curves import Panel, draw_curves
from disbench.reports.entries import Entry
from disbench.reports.paper.published import Dataset, Published, read_published
from disbench.reports.paper.runs import departures, is_method, not_shown, notes_on_samples, read_paper_runs
from disbench.reports.render.table import Footnotes
from disbench.reports.render.text import counted
from disbench.reports.report import Report, run_curve, write_files
from disbench.reports.tables import by_setting, curves_csv, most_common_opencv

FORMATS = (*FORMS, "csv")
_PANELS_BESIDE = 2


@dataclass(frozen=True)
class CurvesDefinition:
    """A figure of curves.

    Attributes:
        name: short, of letters and digits.
        title: what it shows.
        datasets: a panel each.
        most_methods: curves in a panel, at most.
        order: patterns of methods, those first that are drawn first.
        remarks: on the paper's figure.
    """

    name: str
    title: str
    datasets: tuple[Dataset, ...]
    most_methods: int
    order: tuple[str, ...]
    remarks: tuple[str, ...]


def make_curves_figure(
    name: str,
    runs: Sequence[Path],
    out: Path,
    *,
    formats: Iterable[str] = FORMATS,
) -> Report:
    """Draw a figure of curves; a panel without a run says so.

    Args:
        name: of the figure's definition (`figure4`).
        runs: folders, each a run or with runs below it.
        out: folder for the files; made if missing.
        formats: of `FORMATS`; `csv` has the curves' values.

    Returns:
        The files, and what is not shown, and why. The same runs give the same bytes.

    Raises:
        InputError: an unknown figure, or a run that cannot be read.
    """
    published = read_published()
    definition = read_curves_definition(name, published)
    entries = read_paper_runs(runs).entries
    shown, remarks = shown_runs(definition, entries)
    chosen = [form for form in FORMATS if form in formats]
    panels = [_panel(dataset, entries, shown, published) for dataset in definition.datasets]
    drawn = draw_curves(panels, [form for form in FORMS if form in chosen], _PANELS_BESIDE)
    contents: dict[str, bytes | None] = {f"{definition.name}.{form}": drawn[form] for form in drawn}
    if "csv" in chosen:
        curves = [entry for members in shown for entry in members if entry.summary.miou is not None]
        contents[f"{definition.name}.csv"] = curves_csv(curves).encode() if curves else None
    paths = write_files(contents, out)
    without = [panel.title for panel in panels if not panel.curves]
    lines = [
        *map(str, paths),
        f"{definition.title}: {counted(len(shown), 'method')}",
        *([f"not run: {', '.join(without)}"] if without else []),
        *remarks,
        *definition.remarks,
    ]
    return Report(tuple(paths), tuple(lines))


def read_curves_definition(name: str, published: Published) -> CurvesDefinition:
    """The definition of a figure of curves.

    Raises:
        InputError: no such definition, or not as it should be.
    """
    path = definitions.find("reports", name)
    content = definitions.load(path)
    try:
        datasets = content["datasets"]
        for key in datasets:
            if key not in published.datasets:
                raise unknown_name("dataset", key, published.datasets, str(path))
        return CurvesDefinition(
            path.stem,
            content["title"],
            tuple(published.datasets[key] for key in datasets),
            int(content["most_methods"]),
            tuple(pattern.lower() for pattern in content["order"]),
            tuple(content.get("remarks", ())),
        )
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not as a figure's definition should be ({error!r}); mend it") from error


def shown_runs(definition: CurvesDefinition, entries: Sequence[Entry]) -> tuple[list[list[Entry]], list[str]]:
    """The runs whose curves are drawn, those of one method and setting together, and sentences on the rest."""
    cards = {dataset.card for dataset in definition.datasets}
    elsewhere = [entry for entry in entries if entry.dataset not in cards]
    here = [entry for entry in entries if entry.dataset in cards]
    stopped = [entry for entry in here if entry.summary.miou is None]
    settings = list(by_setting([entry for entry in here if entry.summary.miou is not None]).values())
    settings.sort(key=lambda members: _place(members[0], definition.order))
    shown, more = settings[: definition.most_methods], settings[definition.most_methods :]
    remarks = [
        not_shown(elsewhere, "since the figure has no panel for their datasets"),
        not_shown(stopped, "since their samples end early"),
        not_shown(
            [entry for members in more for entry in members],
            f"since the figure has at most {definition.most_methods} methods",
        ),
    ]
    return shown, [text for text in remarks if text]


def _place(entry: Entry, order: Sequence[str]) -> int:
    return next((place for place, pattern in enumerate(order) if is_method(entry, [pattern])), len(order))


def _panel(dataset: Dataset, entries: Sequence[Entry], shown: Sequence[Sequence[Entry]], published: Published) -> Panel:
    """The curves of one dataset; a method has the same style in all panels."""
    notes = Footnotes()
    curves = []
    for style, members in enumerate(shown):
        for entry in members:
            if entry.dataset == dataset.card:
                texts = (
                    *departures(entry, published),
                    *notes_on_samples(entry, dataset, most_common_opencv(entries)),
                )
                curves.append(run_curve(entry, notes.marks(*texts), style))
    marked = tuple(f"[{mark}] {text}" for mark, text in notes.by_mark().items())
    return Panel(dataset.title, tuple(curves), marked)
