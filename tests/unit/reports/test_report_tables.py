"""Which runs stand beside each other, and what the footnotes say of those that do not compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.harness.store import JOURNAL
from disbench.reports.entries import Entry, by_dataset, find_runs, read_entries
from disbench.reports.render import DASH, Table
from disbench.reports.tables import clicks_table, overview_table, quality_table
from tests.refusals import refuses
from tests.unit.run_tools import CARD, draw_ious, write_run


def entries_of(folder: Path) -> list[Entry]:
    return read_entries(find_runs([folder]))


def cell(table: Table, row: int, name: str, group: str = "") -> tuple[str, list[str]]:
    """The text of a cell and its footnotes."""
    (at,) = [i for i, head in enumerate(table.columns) if (head.name, head.group) == (name, group)]
    found = table.rows[row][at]
    return found.text, [table.footnotes[mark] for mark in found.marks]


def three_runs(folder: Path, **changes: Mapping[str, Any]) -> list[Entry]:
    """Two alike and one that differs, which comes first."""
    write_run(folder / "a", method={"name": "other"}, **changes)
    write_run(folder / "b")
    write_run(folder / "c", method={"name": "third"})
    return entries_of(folder)


@pytest.mark.parametrize(
    ("changes", "footnote"),
    [
        ({"protocol": {"selection": "score"}}, "selection score instead of oracle-first"),
        ({"protocol": {"policy": "random"}}, "click policy random instead of center; seed 0 instead of none"),
        ({"protocol": {"max_clicks": 10}}, "max_clicks 10 instead of 20"),
        ({"protocol": {"initial_masks": False}}, "initial masks ignored instead of used"),
        (
            {"protocol": {"every": 2, "limit": 12}, "dataset": {"samples": 34}},
            "samples every 2nd, of them the first 12 instead of all",
        ),
        ({"versions": {"opencv": "4.10.0"}}, "OpenCV 4.10.0 instead of 4.12.0"),
    ],
)  # fmt: skip
def test_a_run_of_another_protocol_is_marked(tmp_path: Path, changes: dict[str, dict[str, Any]], footnote: str) -> None:
    entries = three_runs(tmp_path, **changes)
    for table in (clicks_table(entries), quality_table(entries)):
        assert cell(table, 0, "Method")[1] == [f"another protocol: {footnote}"]
        assert cell(table, 1, "Method") == ("toy", [])
        assert cell(table, 2, "Method") == ("third", [])
    overview = overview_table(entries)
    marks = [text for row in overview.rows for found in row for text in map(overview.footnotes.get, found.marks)]
    assert marks
    key = footnote.partition(" instead")[0]
    assert all(part in marks[0] for part in key.replace("samples ", "samples: ").split("; "))
    assert all(not found.marks for row in overview.rows[1:] for found in row)


def test_what_is_no_difference_of_protocol_is_not_marked(tmp_path: Path) -> None:
    entries = three_runs(tmp_path, protocol={"threshold": 0.5, "seed": 7, "limit": 12})
    table = clicks_table(entries)
    assert cell(table, 0, "Method") == ("other (threshold=0.5)", [])
    assert cell(table, 0, "Protocol")[0] == "oracle-first, center, 20 clicks, > 0.5, max_side=320"
    assert table.footnotes == {}


def test_other_samples_get_a_table_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", dataset={"content_hash": "f" * 64})
    groups = list(by_dataset(entries_of(tmp_path)).values())
    assert [clicks_table(group).title for group in groups] == [
        "grabcut (b04d9de7): clicks",
        "grabcut (ffffffff): clicks",
    ]
    assert [len(clicks_table(group).rows) for group in groups] == [1, 1]
    overview = overview_table([entry for group in groups for entry in group])
    assert [column.group for column in overview.columns[4:]] == ["grabcut (b04d9de7)"] * 2 + ["grabcut (ffffffff)"] * 2
    assert len(overview.rows) == 1


def test_numbers_as_the_field_prints_them(tmp_path: Path) -> None:
    rows = [[0.81, 0.86, 0.96], [0.5, 0.5, 0.9], [0.5, 0.6, 0.7]]
    write_run(tmp_path / "run", rows, protocol={"max_clicks": 3})
    entries = entries_of(tmp_path)
    table = clicks_table(entries)
    assert [cell(table, 0, f"NoC@{percent}")[0] for percent in (80, 85, 90, 95)] == ["2.33", "2.67", "3.00", "3.00"]
    assert [cell(table, 0, rule, "NoF@90")[0] for rule in ("ritm", "strict")] == ["3", "1"]
    assert table.rows[0][4].interval == "1.00, 3.00"
    quality = quality_table(entries)
    assert cell(quality, 0, "1", "mean IoU at click") == ("0.603", [])
    assert cell(quality, 0, "3", "boundary IoU at click") == ("0.768", [])
    assert cell(quality, 0, "20", "mean IoU at click") == (
        DASH, ["not available: the run has 3 clicks a sample"]
    )  # fmt: skip
    assert cell(quality, 0, "never solved")[0] == "33.3 %"
    assert cell(quality, 0, "first", "method s/click")[0] == "0.500"
    assert cell(quality, 0, "harness s/click")[0] == "0.00200"


def test_a_run_that_stops_early_has_dashes(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [[0.91], [0.86] * 20], protocol={"stop_at": 0.9})
    entries = entries_of(tmp_path)
    why = ["not available: samples of this run end at an IoU of 0.9"]
    table, quality = clicks_table(entries), quality_table(entries)
    assert cell(table, 0, "NoC@90") == ("10.50", [])
    assert cell(table, 0, "NoC@95") == (DASH, why)
    assert cell(table, 0, "strict", "NoF@95") == (DASH, why)
    assert "stop at 0.9" in cell(table, 0, "Protocol")[0]
    for click in ("1", "20"):
        assert cell(quality, 0, click, "mean IoU at click") == (DASH, why)
        assert cell(quality, 0, click, "boundary IoU at click") == (DASH, why)
    write_run(tmp_path / "low", [[0.81]], protocol={"stop_at": 0.8})
    low = entries_of(tmp_path / "low")
    assert [found.text for found in overview_table(low).rows[0][4:]] == [DASH, DASH]
    assert cell(quality_table(low), 0, "never solved")[0] == DASH


def test_failed_samples_are_marked_with_their_reasons(tmp_path: Path) -> None:
    reasons = {0: "predict raised A", 2: "predict raised A", 3: "open raised B", 5: "C", 6: "D"}
    write_run(tmp_path / "run", failed=reasons)
    entries = entries_of(tmp_path)
    text = (
        "the method failed on 5 of 12 samples, whose IoU counts as 0 from that click on: 2 × predict raised A; "
        "1 × open raised B; 1 × C; and 1 more"
    )
    assert cell(clicks_table(entries), 0, "Method")[1] == [text]
    assert cell(clicks_table(entries), 0, "Failed")[0] == "5"
    assert cell(overview_table(entries), 0, "NoC@85", "grabcut (b04d9de7)")[1] == [text]


def test_what_is_not_a_number_is_told(tmp_path: Path) -> None:
    ious = draw_ious(4)
    ious[1, 2] = np.nan
    write_run(tmp_path / "run", ious)
    entries = entries_of(tmp_path)
    (note,) = cell(clicks_table(entries), 0, "Method")[1]
    assert note.startswith("1 sample with an IoU over an empty union")
    assert note.endswith(": s1")
    assert cell(quality_table(entries), 0, "3", "mean IoU at click")[0] == DASH
    assert cell(quality_table(entries), 0, "5", "mean IoU at click")[0] != DASH


def test_seconds_from_another_machine_are_marked(tmp_path: Path) -> None:
    entries = three_runs(tmp_path, execution={"workers": 1}, machine={"processor": "Another"})
    table = quality_table(entries)
    note = "seconds on Another with 4 cores; workers 1, threads 1, batch 1"
    assert cell(table, 0, "all", "method s/click")[1] == [note]
    assert cell(table, 0, "Method")[1] == []
    assert cell(table, 1, "all", "method s/click")[1] == []
    assert table.caption.endswith("Seconds on A processor with 4 cores; workers 2, threads 1, batch 1.")


def test_labels_name_what_is_not_the_default(tmp_path: Path) -> None:
    options = {"beta": 2.5, "max_side": 320}
    write_run(tmp_path / "a", method={"options": options})
    write_run(tmp_path / "b", method={"options": {**options, "max_side": 640}})
    write_run(tmp_path / "c", method={"card": {}, "options": {"on": True, "sides": ["a", "b"]}})
    labels = [entry.label for entry in entries_of(tmp_path)]
    assert labels == ["toy (beta=2.5)", "toy (beta=2.5, max_side=640)", "toy (on=true, sides=a,b)"]


def test_labels_leave_out_what_does_not_decide_the_answer(tmp_path: Path) -> None:
    places = {"cache": "encodings", "weights": "there"}
    unmarked = CARD | {"options": {**CARD["options"], **{name: {"default": ""} for name in places}}}
    marked = CARD | {"options": {**CARD["options"], "weights": {"default": "", "execution": True}}}
    cards = (
        unmarked,
        unmarked | {"entry": "own:Toy"},
        marked | {"entry": "own:Toy"},
        unmarked | {"entry": "disbench.toy:Toy"},
    )
    for name, card in zip("abcd", cards, strict=True):
        write_run(tmp_path / name, method={"options": {"max_side": 320, **places}, "card": card})
    labels = [entry.label.partition(" #")[0] for entry in entries_of(tmp_path)]
    everything = "toy (cache=encodings, weights=there)"
    assert labels == [everything, everything, "toy (cache=encodings)", "toy"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The same job twice is numbered; other code or weights are another build."""
    write_run(tmp_path / "jobs" / "a")
    write_run(tmp_path / "jobs" / "b", versions={"disbench": "0.2.0"})
    write_run(tmp_path / "jobs" / "c", dataset={"name": "davis"})
    entries = entries_of(tmp_path / "jobs")
    assert [entry.label for entry in entries] == ["toy #1", "toy #2", "toy"]
    assert [row[0].text for row in overview_table(entries).rows] == ["toy #1", "toy #2", "toy"]
    write_run(tmp_path / "builds" / "a")
    write_run(tmp_path / "builds" / "b", method={"source_sha256": "1" * 64})
    card = CARD | {"weights": [{"file": "w.onnx", "sha256": "0" * 64}]}
    write_run(tmp_path / "builds" / "c", method={"card": card})
    labels = [entry.label for entry in entries_of(tmp_path / "builds")]
    assert len(set(labels)) == 3
    assert all(label.startswith("toy [build ") for label in labels)


def test_methods_by_datasets(tmp_path: Path) -> None:
    one, two = [[0.86, 0.91]], [[0.5, 0.86]]
    for name, dataset, ious in (("one", "grabcut", one), ("one", "davis", one), ("two", "grabcut", two)):
        changes = {"method": {"name": name}, "dataset": {"name": dataset}, "protocol": {"max_clicks": 2}}
        write_run(tmp_path / dataset / name, ious, **changes)
    table = overview_table(read_entries(find_runs([tmp_path / "grabcut", tmp_path / "davis"])))
    assert table.title == "Overview: grabcut (b04d9de7), davis (b04d9de7)"
    common = ["oracle-first, center, 2 clicks, > 0.49, max_side=320", "SBD", "ViT-B"]
    assert [[found.text for found in row] for row in table.rows] == [
        ["one", *common, "1.00", "2.00", "1.00", "2.00"],
        ["two", *common, "2.00", "2.00", DASH, DASH],
    ]


def test_runs_are_found_at_any_depth_and_once(tmp_path: Path) -> None:
    write_run(tmp_path / "b" / "deep" / "er")
    write_run(tmp_path / "a")
    found = find_runs([tmp_path / "b" / "deep" / "er", tmp_path])
    assert [run.folder for run in found] == [tmp_path / "b" / "deep" / "er", tmp_path / "a"]
    assert [entry.folder for entry in read_entries(found)] == ["b/deep/er", "a"]


def test_no_run_and_an_unfinished_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        refuses(rf"{folder}: contains no run", find_runs, [tmp_path / folder])
    write_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / JOURNAL).touch()
    refuses("b: the run is not finished", find_runs, [tmp_path])
