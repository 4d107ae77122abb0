"""Stored runs of toy methods, and copies of them with something changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disbench.core.choices import Store
from disbench.harness import Protocol, StoredRun, evaluate, read_run
from disbench.harness.store import CLICKS, RUN, SECONDS, ClickRow, to_table, write_clicks, write_json
from tests.toy_methods import Discs
from tests.toy_samples import ToySource
from tests.unit.run_tools import DESCRIPTION

Rows = list[dict[str, Any]]
Change = Callable[[Rows], object]


def toy_run(
    folder: Path, source: Any = None, method: Any = None, store: Store = "all", every: int = 1, **protocol: Any
) -> StoredRun:
    """A run as `run_benchmark` stores it, evaluated in this process."""
    samples, method = source or ToySource(), method or Discs()
    wanted = Protocol(**{"max_clicks": 5, **protocol})
    numbers = range(0, len(samples.ids), every)
    asked = {key: value for key, value in wanted.as_dict().items() if key != "name"}
    table = evaluate(method, [samples.read(number) for number in numbers], store=store, **asked).to_table()
    description = copy.deepcopy(DESCRIPTION)
    description["dataset"] |= {
        "name": samples.name,
        "samples": len(samples.ids),
        "content_hash": samples.content_hash(),
        "facts": samples.facts(),
    }
    description["protocol"] = {**wanted.as_dict(), "every": every, "limit": None}
    description["execution"]["store"] = store
    description["result"] |= {
        "samples": len(numbers),
        "clicks": len(table),
        "failed": [
            {"sample": row["sample"], "click": row["click"], "reason": row["failure"]}
            for row in table.to_pylist()
            if row["failure"] is not None
        ],
        **{name: sum(table[name].to_pylist()) for name in SECONDS},
    }
    folder.mkdir(parents=True)
    write_clicks(folder / CLICKS, [table])
    write_json(folder / RUN, description)
    return read_run(folder)


def forged(run: StoredRun, folder: Path, change: Change) -> StoredRun:
    """A copy of a run whose rows were changed, and whose `run.json` was not."""
    rows = run.rows().to_pylist()
    change(rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_clicks(folder / CLICKS, [to_table([ClickRow(**row) for row in rows])])
    (folder / RUN).write_bytes((run.folder / RUN).read_bytes())
    return read_run(folder)


def redescribed(run: StoredRun, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run whose `run.json` was changed, and whose rows were not."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLICKS).write_bytes((run.folder / CLICKS).read_bytes())
    description = json.loads((run.folder / RUN).read_text())
    change(description)
    write_json(folder / RUN, description)
    return folder
