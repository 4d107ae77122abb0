"""The dataset that a stored run was made on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets.cards import open_dataset
from disbench.harness.set_source import Choice, IntentSource, SetSource
from disbench.harness.store import RUN, StoredRun
from disbench.io import definitions
from disbench.io.archives import safe_path
from disbench.io.options import overrides


def open_run_dataset(run: StoredRun, data: Path | None, dataset: str | None = None) -> SampleSource:
    """Open the dataset of a run, with the run's own options; its content hash is not compared here.

    Args:
        run: finished.
        data: root of the datasets.
        dataset: where it is, if the run's own name for it is no card of disbench: a card.toml, or a folder. A
            name in a stranger's run is followed no further than to our own cards. Of a run on diverse sets: the
            folder of the shards.

    Raises:
        InputError: the run's dataset is no card of ours and no other is named, or it is not here.
    """
    facts = run.record.dataset.facts
    if "choice" in facts:
        return _intents(run, facts["choice"], data, dataset)
    if dataset is None and run.dataset not in definitions.names("datasets"):
        raise InputError(f"{run.dataset!r} is no dataset of disbench's own; name its card or folder with --dataset")
    wanted = overrides(run.record.dataset.options)
    for text in wanted if dataset is None else []:  # a stranger's options name no folder outside the dataset's
        for part in text.partition("=")[2].split(","):
            safe_path(part, f"{run.place(RUN)}: option {text.partition('=')[0]!r} of the dataset")
    return open_dataset(dataset or run.dataset, data, wanted)


def _intents(run: StoredRun, choice: object, data: Path | None, shards: str | None) -> IntentSource:
    """The targets of a run on each intent, from the user's own shards; the images lie in the usual places."""
    if shards is None:
        raise InputError(f"{run.dataset!r} is made of diverse sets; name the folder of its shards with --dataset")
    try:
        chosen = Choice(**choice) if isinstance(choice, Mapping) else None
    except TypeError:
        chosen = None
    if chosen is None:
        raise InputError(f"{run.folder}: which sets it took is not as it should be ({choice!r}); run it again")
    return IntentSource(SetSource(Path(shards), data=data, choice=chosen))
