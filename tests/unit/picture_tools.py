"""Stored runs with masks, of toy methods on a few of the embedded photos' objects; made without processes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from disbench.core.samples import Sample, SampleSource
from disbench.datasets.cards import open_dataset
from disbench.harness.protocol import Protocol
from disbench.harness.sample_loop import SampleLoop
from disbench.harness.store import CLICKS, RUN, StoredRun, read_run, to_table, write_clicks, write_json
from tests.toy_methods import Discs
from tests.unit.run_tools import DESCRIPTION


@cache
def photos() -> SampleSource:
    return open_dataset("photos", None)


@cache
def photos_hash() -> str:
    return photos().content_hash()


@cache
def sample(number: int) -> Sample:
    return photos().read(number)


def write_photo_run(
    folder: Path,
    store: str = "all",
    *,
    name: str = "discs",
    method: Any = None,
    numbers: Sequence[int] = (3, 60, 140),
    max_clicks: int = 6,
    fails: Mapping[int, int] | None = None,
    **changes: Mapping[str, Any],
) -> StoredRun:
    """A finished run; the method fails on some numbers of samples at some click."""
    rows = []
    for number in numbers:
        loop = SampleLoop(sample(number), Protocol(max_clicks=max_clicks), store)  # type: ignore[arg-type]
        session = (method or Discs(25.0, candidates=3)).open(loop.sample.image)
        while not loop.done:
            if (fails or {}).get(number) == len(loop.clicks):
                rows.append(loop.fail("a bad day"))
            else:
                rows.append(loop.take(session.predict(loop.clicks)))
    folder.mkdir(parents=True)
    write_clicks(folder / CLICKS, [to_table(rows)])
    description = copy.deepcopy(DESCRIPTION)
    description["method"]["name"] = name
    description["dataset"] = {
        "name": "photos",
        "samples": len(photos().ids),
        "content_hash": photos_hash(),
        "facts": {"title": "Photos", "options": {}},
    }
    description["protocol"]["max_clicks"] = max_clicks
    description["execution"]["store"] = store
    description["result"] |= {"samples": len(numbers), "clicks": len(rows)}
    for part, keys in changes.items():
        description[part] = {**description[part], **keys}
    write_json(folder / RUN, description)
    return read_run(folder)
