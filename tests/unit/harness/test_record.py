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
from tests.unit.run_tools import DESCRIPTION

FACTS = {"shards": {"content_hash": "0", "sets": 5}, "choice": {"sets": 2, "seed": 0, "min_members": 1}}
DIVERSE = {**DESCRIPTION, "task": "diverse"} | {
    "dataset": {**DESCRIPTION["dataset"], "facts": FACTS},
    "protocol": {"clicks": 2, "seed": 0, "move": 3, "threshold": 0.49, "every": 1, "limit": None},
}
STORED = sorted(Path("reports").glob("leaderboard/runs/*/*.zip"))


def content(description: dict[str, Any]) -> bytes:
    return json.dumps(description).encode()


def test_a_record_is_what_was_written() -> None:
    record = parse_record(content(DESCRIPTION), "run.json")
    assert isinstance(record, RunRecord)
    written = record.as_json()
    assert parse_record(content(written), "run.json") == record
    assert list(written) == list(DESCRIPTION)
    for part in ("method", "dataset", "protocol", "machine"):
        assert list(written[part].items()) == list(DESCRIPTION[part].items())


def test_the_diverse_task_has_a_record_of_its_own() -> None:
    record = parse_record(content(DIVERSE), "run.json")
    assert isinstance(record, SetRunRecord) and record.protocol.clicks == 2
    assert list(record.as_json())[:2] == ["format", "task"]


@pytest.mark.parametrize("archive", STORED, ids=str)
def test_committed_records(archive: Path) -> None:
    record = open_run(archive).record
    assert parse_record(content(record.as_json()), "run.json") == record


def changed(part: str, key: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(DESCRIPTION)
    found[part][key] = value
    return found


MISSING = [
    (part, key)
    for part in ("method", "dataset", "protocol", "execution", "machine", "result")
    for key in DESCRIPTION[part]
    if key not in ("facts", "source_sha256")
] + [("versions", "opencv")]
WRONG = [
    *((part, key, [None]) for part, key in MISSING if (part, key) != ("method", "card")),
    *((part, "unknown", 1) for part in ("method", "dataset", "protocol", "execution", "machine", "result")),
    ("method", "card", {"options": {"radius": 3}}),
    ("method", "card", {"training_data": [1]}),
    ("dataset", "samples", 0),
    ("dataset", "samples", 10**30),
    ("dataset", "samples", True),
    ("dataset", "facts", None),
    ("versions", "opencv", 5),
    ("execution", "store", ["all"]),
    ("dataset", "facts", {**FACTS, "choice": None}),
    ("dataset", "facts", {**FACTS, "choice": {"sets": 0}}),
    ("dataset", "facts", {**FACTS, "shards": {"sets": 5}}),
    ("protocol", "every", 0),
    ("protocol", "limit", 0),
    ("protocol", "max_clicks", 2**15),
    ("protocol", "max_clicks", True),
    ("protocol", "max_clicks", "5"),
    ("protocol", "threshold", math.nan),
    ("protocol", "selection", "best"),
    ("protocol", "threshold", 10**400),
    ("protocol", "stop_at", 1.5),
    ("protocol", "policy", "clairvoyant"),
    ("protocol", "name", "another"),
    ("protocol", "budget", "everything"),
    ("protocol", "recording", {"file": "a.csv"}),
    ("execution", "store", "some"),
    ("result", "wall_seconds", -1),
    ("result", "failed", [{"sample": "s0"}]),
]


@pytest.mark.parametrize(("part", "key"), MISSING)
def test_what_is_missing_is_named(part: str, key: str) -> None:
    found = copy.deepcopy(DESCRIPTION)
    del found[part][key]
    with pytest.raises(InputError, match=rf"run\.json: .*{key}"):
        parse_record(content(found), "run.json")


@pytest.mark.parametrize(("part", "key", "value"), WRONG)
def test_what_is_wrong_is_named(part: str, key: str, value: object) -> None:
    with pytest.raises(InputError, match=r"run\.json: "):
        parse_record(content(changed(part, key, value)), "run.json")


@pytest.mark.parametrize("part", ["method", "dataset", "protocol", "execution", "machine", "versions", "result"])
def test_a_part_that_is_missing(part: str) -> None:
    for found in ({key: value for key, value in DESCRIPTION.items() if key != part}, {**DESCRIPTION, part: None}):
        with pytest.raises(InputError, match=r"run\.json: "):
            parse_record(content(found), "run.json")


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"null", b"\xff", b'{"format": 2}', b"[" * 10_000])
def test_a_file_that_is_no_record(bad: bytes) -> None:
    with pytest.raises(InputError, match=r"run\.json: "):
        parse_record(bad, "run.json")
