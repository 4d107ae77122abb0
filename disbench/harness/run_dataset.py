"""The dataset that a stored run was made on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from disbench import definitions
from disbench.datasets.cards import open_dataset
from disbench.datasets.unpack import safe_path
from disbench.errors import InputError
from disbench.harness.store import RUN, StoredRun
from disbench.options import overrides
from disbench.samples import SampleSource


def open_run_dataset(run: StoredRun, data: Path | None, dataset: str | None = None) -> SampleSource:
    """Open the dataset of a run, with the run's own options; its content hash is not compared here.

    Args:
        run: finished.
        data: root of the datasets.
        dataset: where it is, if the run's own name for it is no card of disbench: a card.toml, or a folder. A
            name in a stranger's run is followed no further than to our own cards.

    Raises:
        InputError: the run's dataset is no card of ours and no other is named, or it is not here.
    """
    if dataset is None and run.dataset not in definitions.names("datasets"):
        raise InputError(
            f"{run.dataset!r} is no dataset of disbench's own; name its card or folder with --dataset"
        )
    facts = run.description["dataset"].get("facts")
    options = facts.get("options", {}) if isinstance(facts, Mapping) else {}
    wanted = overrides(options) if isinstance(options, Mapping) else []
    for text in (
        wanted if dataset is None else []
    ):  # a stranger's options name no folder outside the dataset's
        for part in text.partition("=")[2].split(","):
            safe_path(part, f"{run.place(RUN)}: option {text.partition('=')[0]!r} of the dataset")
    return open_dataset(dataset or run.dataset, data, wanted)
