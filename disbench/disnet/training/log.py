"""The log of a training: a CSV file that a resumed training continues, and TensorBoard's if it is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.io.files import naming, whole_file


class TrainingLog:
    """Rows of numbers by step.

    Args:
        folder: gets `NAME.csv`, and the folder `tensorboard`.
        name: of the file, and of the group of TensorBoard's curves.
        step: rows of this step and of later ones are dropped from an older file: they come again.

    Raises:
        InputError: an older file that is no such log.
    """

    def __init__(self, folder: Path, name: str, step: int) -> None:
        self.path, self.name = folder / f"{name}.csv", name
        self.rows = [row for row in _read(self.path) if int(row["step"]) < step]
        self._board = _board(folder / "tensorboard")

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """A row; the file is whole after it."""
        self.rows.append({"step": str(step), **{key: f"{value:.6g}" for key, value in numbers.items()}})
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with whole_file(self.path) as file:
            file.write(text.getvalue().encode())
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(f"{self.name}/{key}", value, step)

    def close(self) -> None:
        """Write out what TensorBoard holds back."""
        if self._board is not None:
            self._board.close()


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with naming(path), path.open(newline="", encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file, strict=True)]
        if any(None in row or None in row.values() or not row["step"].isdecimal() for row in rows):
            raise ValueError("a row without a step, or of another length")
        _ = [int(row["step"]) for row in rows]
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(
            f"{path}: not the log of a training ({error}); move it away, or start anew with --existing overwrite"
        ) from error
    return rows


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        return None
    return SummaryWriter(str(folder))
