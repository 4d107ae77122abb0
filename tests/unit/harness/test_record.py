"""`run.json` is read and written in one place: what it says survives, what is wrong is named."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from disbench.core.errors import InputError
from disbench.harness.archive import open_run
from disbench.harness.record import RunRecord, SetRunRecord, parse_record
from tests.refusals import refuses
from tests.unit.run_tools import DESCRIPTION

FACTS = {"shards": {"content_hash": "0", "sets": 5}, "choice": {"sets": 2, "seed": 0, "min_members": 1}}
DIVERSE = {**DESCRIPTION, "task": "diverse"} | {
    "dataset": {**DESCRIPTION["dataset"], "facts": FACTS},
    "protocol": {"clicks": 2, "seed": 0, "move": 3, "threshold": 0.49, "every": 1, "limit": None},
}
STORED = sorted(Path("reports").glob("leaderboard/runs/*/*.zip"))


def content(description: dict[str, Any]) -> bytes:
    return json.dumps(description).encode()


def test_records_of_both_tasks_are_what_was_written() -> None:
    record = parse_record(content(DESCRIPTION), "run.json")
    assert isinstance(record, RunRecord)
    written = record.as_json()
    assert parse_record(content(written), "run.json") == record
    assert list(written) == list(DESCRIPTION)
    for part in ("method", "dataset", "protocol", "machine"):
        assert list(written[part].items()) == list(DESCRIPTION[part].items())
    record = parse_record(content(DIVERSE), "run.json")
    assert isinstance(record, SetRunRecord) and record.protocol.clicks == 2
    assert list(record.as_json())[:2] == ["format", "task"]


@pytest.mark.parametrize("archive", STORED, ids=str)
def test_committed_records(archive: Path) -> None:
    record = open_run(archive).record
    assert parse_record(content(record.as_json()), "run.json") == record


MISSING = [
    (part, key)
    for part in ("method", "dataset", "protocol", "execution", "machine", "result")
    for key in DESCRIPTION[part]
    if key not in ("facts", "source_sha256")
] + [("versions", "opencv")]
WRONG = [
    *((part, key, [None]) for part, key in MISSING if (part, key) != ("method", "card")),
    *((part, "unknown", 1) for part in ("method", "dataset", "protocol", "execution", "machine", "result")),
    *(("method", "card", card) for card in ({"options": {"radius": 3}}, {"training_data": [1]})),
    *(("dataset", "samples", value) for value in (0, 10**30, True)),
    *(("dataset", "facts", {**FACTS, "choice": choice}) for choice in (None, {"sets": 0}, {"split": {"name": "a"}})),
    ("dataset", "facts", {**FACTS, "shards": {"sets": 5}}),
    ("execution", "store", "some"),
    *(("protocol", key, value) for key, value in (("every", 0), ("max_clicks", 2**15), ("threshold", math.nan))),
    *(("protocol", key, "another") for key in ("selection", "policy", "name", "budget")),
    *(("protocol", key, value) for key, value in (("stop_at", 1.5), ("recording", {"file": "a.csv"}))),
    *(("result", key, value) for key, value in (("wall_seconds", -1), ("failed", [{"sample": "s0"}]))),
]


@pytest.mark.parametrize(("part", "key"), MISSING)
def test_what_is_missing_is_named(part: str, key: str) -> None:
    found = copy.deepcopy(DESCRIPTION)
    del found[part][key]
    with pytest.raises(InputError, match=rf"run\.json: .*{key}"):
        parse_record(content(found), "run.json")


@pytest.mark.parametrize(("part", "key", "value"), WRONG)
def test_what_is_wrong_is_named(part: str, key: str, value: object) -> None:
    found = copy.deepcopy(DESCRIPTION)
    found[part][key] = value
    with pytest.raises(InputError, match=r"run\.json: "):
        parse_record(content(found), "run.json")


PARTS = ("method", "dataset", "protocol", "execution", "machine", "versions", "result")


@pytest.mark.parametrize(
    "bad",
    [
        *(content({key: value for key, value in DESCRIPTION.items() if key != part}) for part in PARTS),
        *(content({**DESCRIPTION, part: None}) for part in PARTS),
        *(b"", b"{", b"[]", b"null", b"\xff", b'{"format": 2}', b"[" * 10_000),
    ],
)
def test_a_file_that_is_no_record(bad: bytes) -> None:
    refuses(r"run\.json: ", parse_record, bad, "run.json")
