"""All numbers, unrounded, as CSV: one row a run, and one row a click of each curve."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from disbench.core.arrays import FloatArray
from disbench.reports.entries import Entry, by_dataset
from disbench.reports.render.text import plain
from disbench.reports.summary import AT_CLICKS, PERCENTS, Seconds, Summary
from disbench.reports.table import deviation, failures, ran_out, undefined

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""The wide ones are as good as the others to some spreadsheets."""


def results_csv(entries: Sequence[Entry]) -> str:
    """One row a run: who it is, how it was made, every number; an empty field where there is none."""
    groups = by_dataset(entries)
    return csv_text([_result(entry, groups[entry.dataset_key]) for entry in entries])


def curves_csv(entries: Sequence[Entry]) -> str:
    """One row a click of each run that has curves."""
    return csv_text(
        [
            {
                "run": entry.folder,
                "label": entry.label,
                "dataset": entry.dataset,
                "content_hash": entry.content_hash,
                "click": click + 1,
                "mean_iou": _number(entry.summary.miou, click),
                "mean_boundary_iou": _number(entry.summary.boundary, click),
            }
            for entry in entries
            if entry.summary.miou is not None
            for click in range(entry.max_clicks)
        ]
    )


def _result(entry: Entry, group: Sequence[Entry]) -> dict[str, Any]:
    method, summary = entry.description["method"], entry.summary
    protocol, versions = entry.description["protocol"], entry.description["versions"]
    machine, execution = entry.description["machine"], entry.description["execution"]
    return {
        "run": entry.folder,
        "method": entry.method,
        "label": entry.label,
        "options": json.dumps(method["options"], sort_keys=True),
        "resolution": entry.resolution,
        "training_data": entry.training_data,
        "backbone": entry.backbone,
        "dataset": entry.dataset,
        "content_hash": entry.content_hash,
        "dataset_samples": entry.dataset_samples,
        "every": protocol["every"],
        "limit": protocol["limit"],
        "samples": summary.samples,
        "clicks": summary.clicks,
        "failed": len(summary.failures),
        "not_a_number": len(summary.undefined),
        "loop": entry.conditions["loop"],
        "selection": entry.conditions["selection"],
        "policy": entry.conditions["click policy"],
        "seed": protocol["seed"],
        "threshold": entry.threshold,
        "max_clicks": entry.max_clicks,
        "stop_at": entry.stop_at,
        "budget": protocol.get("budget", ""),
        "preset": entry.preset,
        "initial_masks": entry.conditions["initial masks"],
        **_at_budget(summary),
        **_reached(entry),
        **{f"mean_iou_{click}": _number(summary.miou, click - 1) for click in AT_CLICKS},
        **{f"mean_boundary_iou_{click}": _number(summary.boundary, click - 1) for click in AT_CLICKS},
        "never_solved_90": summary.never_solved,
        **_seconds("model", summary.model),
        **_seconds("harness", summary.harness),
        "disbench": versions.get("disbench"),
        "opencv": entry.conditions["OpenCV"],
        "processor": machine["processor"],
        "cores": machine["cores"],
        "workers": execution["workers"],
        "threads": execution["threads"],
        "batch": execution["batch"],
        "notes": ". ".join(
            filter(None, (deviation(entry, group), failures(entry), undefined(entry), ran_out(entry))),
        ),
    }


def _at_budget(summary: Summary) -> dict[str, float | None]:
    found = summary.at_budget
    values = (None, None, None) if found is None else (found.mean, found.low, found.high)
    return dict(zip(("iou_at_budget", "iou_at_budget_low", "iou_at_budget_high"), values, strict=True))


def _reached(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for percent in PERCENTS:
        estimate, fails = entry.summary.noc.get(percent), entry.summary.nof.get(percent)
        found[f"noc_{percent}"] = None if estimate is None else estimate.mean
        found[f"noc_{percent}_low"] = None if estimate is None else estimate.low
        found[f"noc_{percent}_high"] = None if estimate is None else estimate.high
        found[f"nof_{percent}_ritm"] = None if fails is None else fails.ritm
        found[f"nof_{percent}_strict"] = None if fails is None else fails.strict
    return found


def _seconds(whose: str, found: Seconds) -> dict[str, Any]:
    return {
        f"{whose}_seconds": found.every,
        f"{whose}_seconds_first_click": found.first,
        f"{whose}_seconds_later_clicks": found.later,
    }


def _number(curve: FloatArray | None, index: int) -> float | None:
    """A value of a curve; None beyond its end or where it is not a number."""
    if curve is None or index >= len(curve) or curve[index] != curve[index]:
        return None
    return float(curve[index])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows that have the same keys, with a heading; texts from outside cannot become formulas."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _field(value) for key, value in row.items()})
    return file.getvalue()


def _field(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
