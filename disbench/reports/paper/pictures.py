"""The paper's Figures 5 and 6 from stored runs: what each stage gives, and methods at the first click."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.errors import InputError
from disbench.core.figures import FORMS
from disbench.core.sheets import Strip, draw_sheet, sheet_of, window_around
from disbench.harness.store import StoredRun
from disbench.io import definitions
from disbench.reports.entries import Entry, by_dataset, find_runs, read_entries
from disbench.reports.render.text import counted, plain
from disbench.reports.report import write_files
from disbench.reports.run_samples import (
    RunSample,
    candidate_panels,
    first_click_panel,
    first_masks,
    mask_panel,
    open_same_dataset,
    read_samples,
    target_panel,
)
from disbench.reports.tables import deviation

LEGEND = (
    "Blue area: a mask. Dashed line, yellow and black: the target. Grey stripes: ignored pixels. Yellow dot: the first "
    "click; white disc: a positive click, black square: a negative one, the last one larger. Frame: the candidate that "
    "was kept. A rectangle on an image: the part that the others enlarge."
)
"""What the drawing of both figures means."""


@dataclass(frozen=True)
class Method:
    """One method's outcome on the samples of Figure 6.

    Attributes:
        label: its name, in the figure.
        samples: in the figure's order.
    """

    label: str
    samples: tuple[RunSample, ...]


def draw_figure5(
    samples: Sequence[RunSample],
    heading: str,
    texts: Sequence[str] = (),
    *,
    candidates: int = 4,
    refined: Sequence[int] = (2, 3),
) -> dict[str, bytes]:
    """Figure 5: image and first click, the candidates of stage 1, the refined masks, the target; a row a sample.

    Args:
        samples: of a run that stored all candidates; at least one.
        heading: of the figure.
        texts: paragraphs below the heading.
        candidates: shown of a sample, at most, at least 1; the kept one is always among them.
        refined: clicks after which the mask is shown.

    Returns:
        Form (`png`, `svg`, `pdf`) -> bytes of the file.

    Raises:
        InputError: a sample's candidates were not stored, or its run lengths are damaged.
    """
    windows = [window_around(found.sample.target, found.clicks(max(refined, default=1)), room=2) for found in samples]
    offered = [candidate_panels(found, candidates, window) for found, window in zip(samples, windows, strict=True)]
    places = max(map(len, offered))
    strips = tuple(
        Strip(
            plain(found.sample.id),
            (
                (
                    first_click_panel(found, window),
                    *panels,
                    *[None] * (places - len(panels)),
                    *(
                        mask_panel(found, number, window, target=False) if number <= len(found.rows) else None
                        for number in refined
                    ),
                    target_panel(found, window),
                ),
            ),
        )
        for found, panels, window in zip(samples, offered, windows, strict=True)
    )
    return _drawn(heading, texts, strips)


def draw_figure6(
    methods: Sequence[Method], heading: str, texts: Sequence[str] = (), *, candidates: int = 3
) -> dict[str, bytes]:
    """Figure 6: image and target, and beside them what each method gives at the first click, with its IoU.

    A method that offers several candidates, and whose run stored them, has the kept one in the first row of a
    sample and the others below it.

    Args:
        methods: at least one, all with the same samples.
        heading: of the figure.
        texts: paragraphs below the heading.
        candidates: shown of a method, at most, at least 1.

    Returns:
        Form (`png`, `svg`, `pdf`) -> bytes of the file.

    Raises:
        InputError: stored run lengths are damaged.
    """
    strips = []
    for found in zip(*(method.samples for method in methods), strict=True):
        window = window_around(found[0].sample.target, found[0].clicks(1), room=3)
        columns = [
            first_masks(sample, method.label, candidates, window) for method, sample in zip(methods, found, strict=True)
        ]
        rows = []
        for row in range(max(map(len, columns))):
            before = (first_click_panel(found[0], window), target_panel(found[0], window)) if row == 0 else (None, None)
            rows.append((*before, *(column[row] if row < len(column) else None for column in columns)))
        strips.append(Strip(plain(found[0].sample.id), tuple(rows)))
    return _drawn(heading, texts, tuple(strips))


def reproduce_figure5(
    runs: Sequence[Path],
    out: Path,
    data: Path | None,
    samples: Sequence[str] | None = None,
    forms: Sequence[str] = FORMS,
) -> list[Path]:
    """Draw Figure 5 for each run that stored its candidates (`--store all`); any method can fill it.

    Args:
        runs: each a run, or a folder with runs below it, at any depth.
        out: folder for `figure5.png`, `.svg`, `.pdf`; of several runs `figure5-1.png` and so on.
        data: root of the datasets.
        samples: ids of those to show; None draws them by lot, with the seed of the figure's definition.
        forms: which files to write.

    Returns:
        The files.

    Raises:
        InputError: no run stored its candidates, none has the samples, a dataset that is not here or not the
            one that a run was made on.
    """
    definition = _definition("figure5")
    stored = find_runs(runs)
    chosen = [
        (run, entry)
        for run, entry in zip(stored, read_entries(stored), strict=True)
        if _store(run) == "all" and _has(run, samples)
    ]
    if not chosen:
        raise _none_to_show("all candidates", "all", len(stored), samples)
    figures = []
    for run, entry in chosen:
        names, how = _names(list(run.by_sample()), definition, samples)
        figures.append(
            draw_figure5(
                read_samples(run, open_same_dataset(run, data), names),
                f"{definition['title']}, {entry.label} on {entry.dataset} ({entry.short_hash})",
                (f"{entry.protocol}; {how}.", LEGEND, *definition["remarks"]),
                candidates=definition["candidates"],
                refined=definition["refined"],
            )
        )
    return _write("figure5", [{form: made[form] for form in forms} for made in figures], out)


def reproduce_figure6(
    runs: Sequence[Path],
    out: Path,
    data: Path | None,
    samples: Sequence[str] | None = None,
    forms: Sequence[str] = FORMS,
) -> list[Path]:
    """Draw Figure 6 for each dataset that has runs with stored masks (`--store kept` or `all`).

    Runs of a dataset stand side by side, on samples that all of them have.

    Args:
        runs: each a run, or a folder with runs below it, at any depth.
        out: folder for `figure6.png`, `.svg`, `.pdf`; of several datasets `figure6-1.png` and so on.
        data: root of the datasets.
        samples: ids of those to show; None draws them by lot, with the seed of the figure's definition.
        forms: which files to write.

    Returns:
        The files.

    Raises:
        InputError: as `reproduce_figure5`.
    """
    definition = _definition("figure6")
    stored = find_runs(runs)
    entries = read_entries(stored)
    by_folder = {entry.folder: run for entry, run in zip(entries, stored, strict=True)}
    figures = []
    for group in by_dataset(entries).values():
        shown = [
            entry
            for entry in group
            if _store(by_folder[entry.folder]) != "none" and _has(by_folder[entry.folder], samples)
        ]
        if shown:
            hidden = [entry for entry in group if entry not in shown]
            figures.append(_figure6(shown, hidden, [by_folder[e.folder] for e in shown], definition, data, samples))
    if not figures:
        raise _none_to_show("masks", "kept", len(stored), samples)
    return _write("figure6", [{form: made[form] for form in forms} for made in figures], out)


def _figure6(
    entries: Sequence[Entry],
    hidden: Sequence[Entry],
    runs: Sequence[StoredRun],
    definition: Mapping[str, Any],
    data: Path | None,
    samples: Sequence[str] | None,
) -> dict[str, bytes]:
    first, *others = [list(run.by_sample()) for run in runs]
    common = [name for name in first if all(name in ids for ids in map(frozenset, others))]
    if not common:
        raise InputError(
            f"{runs[0].folder} and {runs[1].folder}: no sample that all runs have; give runs made with the same "
            "--every and --limit"
        )
    names, how = _names(common, definition, samples)
    source = open_same_dataset(runs[0], data)
    methods = [
        Method(entry.label, tuple(read_samples(run, source, names))) for entry, run in zip(entries, runs, strict=True)
    ]
    notes = [f"{entry.label}: {text}." for entry in entries if (text := deviation(entry, entries))]
    if hidden:
        notes.append(f"Without stored masks, and so not shown: {', '.join(e.label for e in hidden)}.")
    return draw_figure6(
        methods,
        f"{definition['title']}, on {entries[0].dataset} ({entries[0].short_hash})",
        (f"{how[:1].upper()}{how[1:]}.", *notes, LEGEND, *definition["remarks"]),
        candidates=definition["candidates"],
    )


def _definition(name: str) -> Mapping[str, Any]:
    return definitions.load(definitions.find("reports", name))


def _store(run: StoredRun) -> str:
    return run.record.execution.store


def _has(run: StoredRun, samples: Sequence[str] | None) -> bool:
    return samples is None or set(samples) <= set(run.by_sample())


def _none_to_show(what: str, store: str, runs: int, samples: Sequence[str] | None) -> InputError:
    named = f" and has the samples {', '.join(map(plain, samples))}" if samples else ""
    return InputError(
        f"none of {counted(runs, 'run')} stored {what}{named}; make one with disbench run --store {store}"
    )


def _names(ids: Sequence[str], definition: Mapping[str, Any], samples: Sequence[str] | None) -> tuple[list[str], str]:
    """The samples to show, and how they were chosen."""
    if samples:
        return list(samples), "samples named by the user"
    count, seed = definition["samples"], definition["seed"]
    order = np.random.default_rng(seed).permutation(len(ids))[:count]
    return [ids[number] for number in order], f"{counted(len(order), 'sample')} of {len(ids):,}, drawn with seed {seed}"


def _drawn(heading: str, texts: Sequence[str], strips: tuple[Strip, ...]) -> dict[str, bytes]:
    return draw_sheet(sheet_of(heading, texts, strips, place=1.3, dpi=220, letters=7.5), FORMS)


def _write(name: str, figures: Sequence[Mapping[str, bytes]], out: Path) -> list[Path]:
    stems = [name] if len(figures) == 1 else [f"{name}-{number}" for number in range(1, len(figures) + 1)]
    contents = {
        f"{stem}.{form}": content
        for stem, figure in zip(stems, figures, strict=True)
        for form, content in figure.items()
    }
    return write_files(contents, out)
