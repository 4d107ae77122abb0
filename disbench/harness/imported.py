"""Results of other tools as runs: the IoUs that the evaluation of RITM's family saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench import __version__
from disbench.baselines.cards import STANDARD_THRESHOLD, MethodCard, MethodSpec
from disbench.core.errors import InputError
from disbench.core.samples import SampleSource, content_of
from disbench.datasets.hannotation import load_plain_pickle
from disbench.harness.presets import Preset
from disbench.harness.protocol import MOST_CLICKS
from disbench.harness.record import DatasetRecord, ExecutionRecord, Imported, Machine, MethodRecord, Result, RunRecord
from disbench.harness.store import CLICKS, RUN, ClickRow, StoredRun, read_run, to_table, write_clicks, write_json
from disbench.io.files import Existing, file_sha256

_FIX = "name a file that scripts/evaluate_model.py wrote with --save-ious or --iou-analysis"
_UNKNOWN = "unknown"
_NAN = float("nan")


def import_ious(
    file: Path,
    method: MethodCard | str,
    source: SampleSource,
    out: Path,
    preset: Preset,
    *,
    options: Mapping[str, Any] | None = None,
    stop_at: float | None = None,
    max_clicks: int | None = None,
    existing: Existing = "fail",
    command: str = "",
) -> StoredRun:
    """Store the IoUs of a pickle as a run that is marked `imported`.

    `file` is what `--save-ious` (a list of one array a sample) or `--iou-analysis` (that list as `all_ious`) writes,
    in the order of the dataset `source`; it is read without running any code in it. `stop_at` is the IoU at which the
    tool ended a sample (`--target-iou`), `max_clicks` its cap, by default the clicks of the longest sample.

    Raises:
        InputError: another file, as many samples as the dataset does not have, IoUs outside [0, 1], samples that end
            neither at `max_clicks` nor at `stop_at`, or a folder that has a run.
    """
    if (out / RUN).exists() and existing != "overwrite":
        raise InputError(f"{out}: has a run already; name another folder or use --existing overwrite")
    ious = _read_ious(file)
    if len(ious) != len(source.ids):
        raise InputError(
            f"{file}: IoUs of {len(ious)} samples, where {source.name} has {len(source.ids)}; name the dataset of the "
            "file, and how it is read (--protocol, --dataset-option)"
        )
    most = max_clicks or max(map(len, ious))
    _check_ends(file, ious, most, stop_at)
    card = method if isinstance(method, MethodCard) else None
    name = card.name if card else str(method)
    spec = MethodSpec(name, "", options or {}, card.standard_threshold if card else STANDARD_THRESHOLD)
    record = RunRecord(
        method=MethodRecord(name, "", spec.options, card.table() if card else {}),
        dataset=DatasetRecord(source.name, len(source.ids), content_of(source).whole, dict(source.facts())),
        protocol=preset.conduct(spec, max_clicks=most, stop_at=stop_at),
        every=1,
        limit=None,
        versions={"disbench": __version__, "opencv": _UNKNOWN},
        execution=ExecutionRecord(),
        machine=Machine(_UNKNOWN, _UNKNOWN, None),
        command=command,
        imported=Imported(file.name, file_sha256(file)),
        result=Result(
            samples=len(ious), clicks=sum(map(len, ious)), wall_seconds=0.0, model_seconds=0.0, harness_seconds=0.0
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN).unlink(missing_ok=True)
    write_clicks(out / CLICKS, (to_table(_rows(name, own)) for name, own in zip(source.ids, ious, strict=True)))
    write_json(out / RUN, record.as_json())
    return read_run(out)


def _read_ious(file: Path) -> list[npt.NDArray[np.float32]]:
    content = load_plain_pickle(file, _FIX)
    found = content.get("all_ious") if isinstance(content, dict) else content
    if not isinstance(found, list | tuple) or not found:
        raise InputError(f"{file}: no list of IoUs, and none called 'all_ious'; {_FIX}")
    ious = []
    for number, own in enumerate(found):
        try:
            row = np.asarray(own, dtype=np.float32)
        except (TypeError, ValueError):
            row = np.empty(0, dtype=np.float32)
        if row.ndim != 1 or not 0 < len(row) <= MOST_CLICKS or (row < 0).any() or (row > 1).any():
            raise InputError(f"{file}: sample {number} has no IoUs from 0 to 1, one a click; {_FIX}")
        ious.append(row)
    return ious


def _check_ends(file: Path, ious: Sequence[npt.NDArray[np.float32]], most: int, stop_at: float | None) -> None:
    """Every sample ends at its last click, or at the first IoU that reaches `stop_at`."""
    for number, row in enumerate(ious):
        reached = [] if stop_at is None else np.flatnonzero(row >= np.float32(stop_at)).tolist()
        if len(row) != (reached[0] + 1 if reached else most):
            ends = f"{most} clicks" + ("" if stop_at is None else f" or at the first IoU of {stop_at:g}")
            raise InputError(
                f"{file}: sample {number} has {len(row)} IoUs, and does not end after {ends}; say with --stop-at at "
                "which IoU the evaluation ended (its --target-iou), and with --max-clicks its cap"
            )


def _rows(sample: str, ious: npt.NDArray[np.float32]) -> list[ClickRow]:
    unknown: dict[str, Any] = {"boundary_iou": _NAN, "model_seconds": _NAN, "harness_seconds": _NAN}
    return [
        ClickRow(sample, click, -1, -1, positive=False, iou=float(iou), **unknown)
        for click, iou in enumerate(ious.tolist(), start=1)
    ]
