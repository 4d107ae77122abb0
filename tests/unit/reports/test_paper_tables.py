"""The paper's tables: which run fills which row, what is set off and marked, and that no cell is without a reason."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.io import definitions
from disbench.reports.entries import Entry
from disbench.reports.paper.definitions import PaperTable, Pattern, read_definition
from disbench.reports.paper.tables import PaperRuns, make_paper_table, paper_blocks, paper_table, parse_rows
from disbench.reports.render import DASH, Table, latex, markdown
from tests.refusals import refuses
from tests.unit.paper_runs_pool import dataset, method, read_pool, write_pool
from tests.unit.run_tools import write_run

TABLES = ("table1", "table2", "table3", "table4", "table5")
DEFINITIONS = {name: read_definition(PaperTable, name) for name in TABLES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_pool(folder)
    return folder


@pytest.fixture(scope="module")
def pool(runs: Path) -> list[Entry]:
    return read_pool(runs)


def build(name: str, entries: list[Entry], named: dict[str, str] | None = None) -> Table:
    blocks, remarks = paper_blocks(DEFINITIONS[name], PaperRuns(tuple(entries), named or {}))
    return paper_table(DEFINITIONS[name], blocks, remarks)


def lines_of(table: Table, *labels: str) -> dict[str, dict[str, Any]]:
    """The lines of a row, by what its column `Number` says: heading -> cell."""
    heads = [f"{column.group} {column.name}".strip() for column in table.columns]
    found = {}
    for row in table.rows:
        if tuple(cell.text for cell in row[: len(labels)]) == labels:
            cells = dict(zip(heads, row, strict=True))
            found[cells["Number"].text] = cells
    return found


def notes(table: Table, cell: Any) -> list[str]:
    return [table.footnotes[mark] for mark in cell.marks]


def rows_with(pool: list[Entry], name: str) -> dict[str, list[str]]:
    """Row -> folders of the runs that fill it."""
    blocks, _ = paper_blocks(DEFINITIONS[name], PaperRuns(tuple(pool), {}))
    found: dict[str, list[str]] = {}
    for block in blocks:
        found.setdefault(block.row, []).extend(run.folder for run in block.runs)
    return {row: folders for row, folders in found.items() if folders}


def test_which_run_fills_which_row(pool: list[Entry]) -> None:
    places = ("berkeley", "davis", "grabcut", "sbd-val")
    found = {name: rows_with(pool, name) for name in TABLES}
    for row, folder in (
        ("DISNet ViT-B C+L", "disnet"),
        ("DISNet ViT-B SBD", "disnet-sbd"),
        ("RITM HRNet-32 C+L", "ritm"),
        ("SimpleClick ViT-B C+L", "simpleclick"),
        ("PiClick ViT-B C+L", "score"),
        ("InterFormer ViT-B C+L", "subset"),
    ):
        assert found["table1"][row] == [f"{place}/{folder}" for place in places]
    assert found["table1"]["FCANet ResNet-101 VOC"] == ["other-hash"]
    assert "grabcut/geodesic" in found["table1"][""]
    assert "grabcut/no-fcg" in found["table1"][""], "an ablation is no DISNet of Table 1"
    assert set(found["table1"]) <= {"", *DEFINITIONS["table1"].rows}
    assert found["table2"]["AC ConvFFN"] == ["berkeley/disnet", "grabcut/disnet"]
    assert found["table2"]["ConvFFN"] == ["berkeley/no-ac", "grabcut/no-ac"]
    assert set(found["table2"]) == {"AC ConvFFN", "ConvFFN", ""}
    assert found["table3"]["15 and 5"] == ["berkeley/disnet-sbd", "sbd-val/disnet-sbd"]
    assert found["table3"]["5 and 5"] == ["berkeley/radius", "sbd-val/radius"]
    assert found["table4"]["SBD Proximity"] == ["davis/disnet-sbd", "sbd-val/disnet-sbd"]
    assert found["table4"]["C+L Proximity"] == ["davis/proximity", "sbd-val/proximity"]
    assert found["table4"]["C+L Hierarchy"] == ["davis/disnet", "sbd-val/disnet"]
    assert found["table5"]["FC MO MCA"] == ["berkeley/no-fcg", "davis/no-fcg", "sbd-val/no-fcg"]
    assert found["table5"]["FC MO FCG"] == ["berkeley/undefined", "davis/undefined", "sbd-val/undefined"]


def test_every_run_is_in_the_table_or_said_to_be_left_out(pool: list[Entry]) -> None:
    for name in TABLES:
        blocks, remarks = paper_blocks(DEFINITIONS[name], PaperRuns(tuple(pool), {}))
        shown = [run.folder for block in blocks for run in block.runs]
        assert len(shown) == len(set(shown))
        for entry in pool:
            assert entry.folder in shown or any(entry.method in text for text in remarks), (name, entry.folder)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"name": "other"}, False),
        ({"backbone": "", "options": {"backbone": "hrnet_32"}}, True),
        ({"options": {"backbone": "hrnet18"}}, False),
        ({"data": ["COCO"]}, False),
        ({"data": [], "options": {"training_data": "COCO+LVIS"}}, True),
    ],
)
def test_what_a_row_asks_of_a_run(tmp_path: Path, changes: dict[str, Any], fits: bool) -> None:
    facts = {"name": "ritm", "data": ["COCO", "LVIS"], "backbone": "HRNet-32", "options": {}, **changes}
    options = facts.pop("options")
    write_run(tmp_path / "run", method={**method(**facts), "options": options})
    pattern = Pattern(("ritm*",), ("HRNet-32",), ("C+L",))
    assert pattern.fits(read_pool(tmp_path)[0]) is fits


@pytest.mark.parametrize(("value", "wanted", "fits"), [(5.0, 5, True), (1, True, False), (None, 5, False)])
def test_what_a_row_asks_of_an_option(tmp_path: Path, value: Any, wanted: Any, fits: bool) -> None:
    write_run(tmp_path / "run", method=method("disnet", **({} if value is None else {"option": value})))
    entry = read_pool(tmp_path)[0]
    assert Pattern(("disnet",), options={"option": ("other", wanted)}).fits(entry) is fits
    lacking = Pattern(("disnet",), options={"option": (wanted,)}, lacking={"option": wanted})
    assert lacking.fits(entry) is (fits or value is None)


def test_printed_measured_difference(tmp_path: Path) -> None:
    ious = [[0.5, 0.86, 0.91, *[0.95] * 17], [0.9] * 20]  # NoC@85 (2 + 1) / 2, NoC@90 (3 + 1) / 2
    write_run(tmp_path / "run", ious, method=method("disnet", ["COCO", "LVIS"]))
    lines = lines_of(build("table1", read_pool(tmp_path)), "DISNet (ours, in the paper) ↑ ↓", "C+L", "ViT-B")
    assert list(lines) == ["published", "measured: disnet", "difference"]
    found = [line["GrabCut NoC@90"] for line in lines.values()]
    assert [cell.text for cell in found] == ["1.16", "2.00", "+0.84"]
    assert found[1].interval == "1.00, 3.00"
    assert lines["difference"]["GrabCut NoC@85"].text == "+0.34"
    assert {lines["measured: disnet"][f"SBD NoC@{t}"].text for t in (85, 90)} == {"not run"}
    assert lines["difference"]["SBD NoC@85"].text == "not run"


def test_a_design_is_in_a_group_of_its_own(tmp_path: Path) -> None:
    for name in ("ritm-design", "geodesic"):
        write_run(tmp_path / name, [[0.9] * 20], method=method(name, []))
    blocks, _ = paper_blocks(DEFINITIONS["table1"], PaperRuns(tuple(read_pool(tmp_path)), {}))
    groups = {block.runs[0].method: DEFINITIONS["table1"].groups[block.group] for block in blocks if block.runs}
    assert groups["ritm-design"].title.startswith("Designs") and not groups["ritm-design"].rows
    assert groups["geodesic"].title == "Not in the paper's table: runs"


def test_failures_are_counted_by_the_rule_of_published_ones(tmp_path: Path) -> None:
    ious = [[0.1] * 19 + [0.9], [0.1] * 20, [0.9] * 20]
    write_run(tmp_path / "run", ious, method=method("disnet", ["COCO", "LVIS"]), dataset=dataset("davis"))
    found = [
        line["DAVIS NoF@90"] for line in lines_of(build("table4", read_pool(tmp_path)), "C+L & Hierarchy").values()
    ]
    assert [cell.text for cell in found] == ["45", "2", "−43"]
    assert found[1].interval == ""


def test_best_second_best_and_groups_as_printed() -> None:
    table = build("table1", [])
    found = {
        (row[0].text, row[1].text, head.group, head.name): cell.emphasis
        for row in table.rows
        for head, cell in zip(table.columns, row, strict=True)
        if cell.emphasis
    }
    disnet, column = "DISNet (ours, in the paper) ↑ ↓", ("GrabCut", "NoC@90")
    assert found[disnet, "C+L", *column] == "best"
    assert found["PiClick [46] ↓", "C+L", *column] == "second"
    assert found["FocusCut [25]", "SBD", *column] == "best"
    assert found["SimpleClick [27]", "SBD", *column] == "second"
    assert found["FCANet [26] ↑", "VOC", *column] == "best"
    second = [key for key, value in found.items() if key[1:] == ("SBD", "SBD", "NoC@90") and value == "second"]
    assert second == [("FCFI [43]", "SBD", "SBD", "NoC@90")]
    assert not any(key[0] in ("FocalClick", "RITM") for key in found), "the last groups are not the paper's"
    for name in TABLES[1:]:
        assert not any(cell.emphasis for row in build(name, []).rows for cell in row)
    assert [group.partition(" (")[0] for group in table.groups.values()] == [
        *("Trained on PascalVOC", "Trained on SBD", "Trained on COCO+LVIS"),
        "Not in the paper's table: the methods' own tables",
    ]


def test_best_and_second_best_as_measured(tmp_path: Path) -> None:
    good, fair, bad = [[0.95] * 20], [[0.5] + [0.95] * 19], [[0.5] * 2 + [0.95] * 18]
    lvis = ["COCO", "LVIS"]
    write_run(tmp_path / "a", good, method=method("simpleclick", lvis), protocol={"selection": "score"})
    write_run(tmp_path / "b", fair, method=method("piclick", lvis))
    write_run(tmp_path / "c", bad, method=method("disnet", lvis))
    write_run(tmp_path / "d", fair, method=method("icmformer", lvis), protocol={"stop_at": 0.9})
    write_run(tmp_path / "e", bad, method=method("simpleclick", ["SBD"]))
    table = build("table1", read_pool(tmp_path))
    (column,) = [i for i, head in enumerate(table.columns) if (head.group, head.name) == ("GrabCut", "NoC@90")]
    measured = [row for row in table.rows if row[3].text.startswith("measured: ")]
    assert {(row[1].text, row[3].text.removeprefix("measured: ")): row[column].emphasis for row in measured} == {
        ("C+L", "simpleclick"): "",  # of another protocol
        ("C+L", "piclick"): "best",
        ("C+L", "disnet"): "second",
        ("C+L", "icmformer"): "best",
        ("SBD", "simpleclick"): "",  # alone
    }


ANOTHER_GRABCUT = "another GrabCut: content hash ffffffff instead of the card's b04d9de7"


@pytest.mark.parametrize(
    ("changes", "footnote", "where"),
    [
        ({"protocol": {"selection": "score"}}, "another protocol: selection score instead of oracle-first", "Number"),
        ({"protocol": {"threshold": 0.6}}, "threshold 0.6 instead of the method's own 0.49", "Number"),
        ({"protocol": {"every": 3}, "dataset": {"samples": 34}}, "samples: every 3rd (12 of 34)", "GrabCut NoC@90"),
        ({"dataset": {"content_hash": "f" * 64}}, ANOTHER_GRABCUT, "GrabCut NoC@90"),
    ],
)
def test_what_departs_from_the_papers_protocol_is_marked(
    tmp_path: Path, changes: dict[str, dict[str, Any]], footnote: str, where: str
) -> None:
    """Also where most runs depart from it, as they all do here."""
    write_run(tmp_path / "run", method=method("disnet", ["COCO", "LVIS"]), **changes)
    table = build("table1", read_pool(tmp_path))
    lines = lines_of(table, "DISNet (ours, in the paper) ↑ ↓", "C+L")
    (line,) = (line for number, line in lines.items() if number.startswith("measured"))
    assert notes(table, line[where]) == [footnote]
    assert not line["SBD NoC@90"].marks


def test_a_run_that_stops_before_has_no_number(tmp_path: Path) -> None:
    lvis = method("disnet", ["COCO", "LVIS"])
    write_run(tmp_path / "run", [[0.5, 0.87], [0.9]], method=lvis, protocol={"stop_at": 0.85})
    table = build("table1", read_pool(tmp_path))
    lines = lines_of(table, "DISNet (ours, in the paper) ↑ ↓", "C+L")
    assert lines["measured: disnet"]["GrabCut NoC@85"].text == "1.50"
    missing = lines["measured: disnet"]["GrabCut NoC@90"]
    assert (missing.text, notes(table, missing)) == (
        "not available",
        ["not available: samples of this run end at an IoU of 0.85"],
    )
    assert lines["difference"]["GrabCut NoC@90"].text == "not available"


def test_runs_mapped_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "mine" / "a", method=method("my-ritm"))
    write_run(tmp_path / "mine" / "b", method=method("my-ritm"), dataset=dataset("davis"))
    write_run(tmp_path / "runs" / "c", method=method("geodesic"))
    row = "RITM HRNet-32 C+L"
    rows = parse_rows([f"{row}={tmp_path / 'mine'}"])
    made = make_paper_table("table1", [tmp_path / "runs"], tmp_path / "out", rows=rows)
    assert f"with a run: {row}" in made.lines
    alone = make_paper_table("table1", [], tmp_path / "alone", rows=rows, formats=["csv"])
    assert [path.name for path in alone.paths] == ["table1.csv"]
    again = make_paper_table("table1", [tmp_path], tmp_path / "again", rows=rows)
    assert (again.paths[0].read_bytes()) == made.paths[0].read_bytes(), "a run counts once"
    for bad in (f"RITM HRNet-32={tmp_path / 'mine'}", "RITM HRNet-32 C+L", f"={tmp_path / 'mine'}"):
        with pytest.raises(InputError, match=r"ROW=FOLDER|unknown row"):
            make_paper_table("table1", [], tmp_path / "bad", rows=parse_rows([bad]))
    twice = parse_rows([f"{row}={tmp_path / 'mine'}", f"DISNet ViT-B SBD={tmp_path / 'mine' / 'a'}"])
    refuses("assigned to the rows", make_paper_table, "table1", [], tmp_path / "bad", rows=twice)
    assert not (tmp_path / "bad").exists()


@settings(max_examples=30)
@given(data=st.data())
def test_no_cell_is_empty_whatever_was_run(pool: list[Entry], data: st.DataObject) -> None:
    entries = data.draw(st.lists(st.sampled_from(pool), unique_by=lambda entry: entry.folder, max_size=12))
    name = data.draw(st.sampled_from(TABLES))
    table = build(name, entries)
    numbers = len(DEFINITIONS[name].columns)
    for row in table.rows:
        assert len(row) == len(table.columns)
        for cell in row:
            assert cell.text.strip() not in ("", DASH, "nan", "None")
            assert set(cell.marks) <= set(table.footnotes)
        for cell in row[-numbers:]:
            known = cell.text in ("not run", "not printed") or cell.text.strip("+−").replace(".", "").isdigit()
            assert known or (cell.text == "not available" and (cell.marks or row[-numbers - 1].text == "difference"))
    used = {mark for row in table.rows for cell in row for mark in cell.marks}
    assert used == set(table.footnotes)
    for text in (markdown.table(table), latex.table(table, table.name)):
        assert "||" not in text.replace("| |", "||").replace("\\|\\|", "")
        assert "& &" not in text


def test_csv_has_every_number_and_a_reason_where_there_is_none(runs: Path, pool: list[Entry], tmp_path: Path) -> None:
    make_paper_table("table1", [runs], tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table1.csv").read_text())))
    assert {"measured", "published", "difference", "low", "high", "reason"} <= set(rows[0])
    for row in rows:
        complete = row["measured"] and row["published"] and row["difference"]
        assert bool(complete) is (row["reason"] == "")
        if complete:
            assert float(row["difference"]) == float(row["measured"]) - float(row["published"])
        assert (row["run"] == "") is ("not run" in row["reason"])
    entry = next(entry for entry in pool if entry.folder == "grabcut/ritm")
    (row,) = [row for row in rows if row["run"] == "grabcut/ritm" and row["measure"] == "NoC@90"]
    assert float(row["measured"]) == entry.values["noc_90"].number
    assert (float(row["low"]), float(row["high"])) == (entry.values["noc_90"].low, entry.values["noc_90"].high)
    (row,) = [row for row in rows if row["run"] == "sbd-val/ritm" and row["measure"] == "NoC@85"]
    assert (row["published"], row["published_elsewhere"]) == ("3.95", "3.59")
    assert "the RITM repository's README prints SBD NoC@85 3.59" in row["notes"]


def test_own_definition_and_what_is_wrong_with_one(tmp_path: Path) -> None:
    good = definitions.find("reports", "table4").read_text()
    own = tmp_path / "own.toml"
    own.write_text(good.replace("Table 4: training", "Mine: training"))
    made = make_paper_table(str(own), [], tmp_path / "out")
    assert made.paths[0].name == "own.md"
    for old, new in (
        ("sbd_noc85", "sbd_noc84"),
        ("sbd_noc85", "sdb_noc85"),
        ('"SBD & Proximity"', '"SBD"'),
        ('name = "C+L Proximity"', 'name = "SBD Proximity"'),
        ('published = "table4_sampling.csv"', "published = 4"),
    ):
        own.write_text(good.replace(old, new))
        refuses(re.escape(str(own)), make_paper_table, str(own), [], tmp_path / "bad")
