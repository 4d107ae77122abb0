"""Training log: a CSV file that a resumed training continues, TensorBoard if installed, and speed."""

from __future__ import annotations

import csv
import io
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from disbench.core.errors import InputError
from disbench.io.files import atomic_write


class TrainingLog:
    """Rows of numbers by step, in `NAME.csv` and the folder `tensorboard`.

    On resuming, existing rows from `step` on are dropped.
    """

    def __init__(self, folder: Path, name: str, step: int) -> None:
        self.path, self.name = folder / f"{name}.csv", name
        self.rows = [row for row in _read(self.path) if int(row["step"]) < step]
        self._board = _board(folder / "tensorboard")

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a row and write it to disk immediately."""
        self.rows.append({"step": str(step), **{key: f"{value:.6g}" for key, value in numbers.items()}})
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self.path) as file:
            file.write(text.getvalue().encode())
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(f"{self.name}/{key}", value, step)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file, strict=True)]
        if not all(row["step"].isdecimal() and None not in row for row in rows):
            raise ValueError("a row without a step, or with extra cells")
    except (ValueError, KeyError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a training log ({error}); move it away, or start over with --existing overwrite"
        ) from error
    return rows


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        return None
    return SummaryWriter(str(folder))


class ThroughputMeter:
    """Examples per second, fraction of time spent waiting for data, and peak memory."""

    def __init__(self, examples_a_step: int) -> None:
        self._examples, self._steps, self._waited = examples_a_step, 0, 0.0
        self._began = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in the block as waiting."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def step(self) -> None:
        """Count a step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Figures since the last call."""
        spent = max(time.monotonic() - self._began, 1e-9)
        figures = {
            "seconds": spent,
            "examples_a_second": self._steps * self._examples / spent,
            "waiting_share": self._waited / spent,
            "peak_gib": _peak_gib(),
        }
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0
        return figures


def _peak_gib() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
