"""Every number of `reports/published/*.csv` is what the tables and `disbench published` show, as it is printed there.

The files are read here without the package, and the conflicts between sources are stated again by hand.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from disbench.io import definitions
from disbench.reports.paper.definitions import PaperTable, published_lines, read_definition
from disbench.reports.paper.tables import PaperRuns, paper_blocks, paper_table
from disbench.reports.render import Cell, Table

FOLDER = definitions.folder("reports") / "published"
FILES = {
    "table1": "table1.csv",
    "table2": "table2_fcg.csv",
    "table3": "table3_mca_radius.csv",
    "table4": "table4_sampling.csv",
    "table5": "table5_components.csv",
}
TITLES = {"grabcut": "GrabCut", "berkeley": "Berkeley", "davis": "DAVIS", "sbd": "SBD"}
README = "repository's README"


def rows_of(file: str) -> list[dict[str, str]]:
    with (FOLDER / file).open(newline="") as content:
        return list(csv.DictReader(content))


def numbers_of(row: dict[str, str]) -> dict[tuple[str, str], str]:
    """(dataset, measure) -> as printed."""
    found = {}
    for key, text in row.items():
        name, _, measure = key.partition("_")
        if name in TITLES and measure[:3] in ("noc", "nof"):
            found[TITLES[name], f"No{measure[2].upper()}@{measure[3:]}"] = text
    return found


def table_of(name: str) -> Table:
    definition = read_definition(PaperTable, name)
    return paper_table(definition, *paper_blocks(definition, PaperRuns((), {})))


def printed_lines(table: Table) -> list[tuple[list[str], dict[tuple[str, str], Cell]]]:
    """Labels and numbers of each line of printed numbers."""
    number = next(at for at, column in enumerate(table.columns) if column.name == "Number")
    lines = []
    for row in table.rows:
        if row[number].text == "published":
            heads = [(column.group, column.name) for column in table.columns[number + 1 :]]
            lines.append(([cell.text for cell in row[:number]], dict(zip(heads, row[number + 1 :], strict=True))))
    return lines


@pytest.mark.parametrize("name", FILES)
def test_a_table_shows_each_printed_number_in_its_place(name: str) -> None:
    rows, lines = rows_of(FILES[name]), printed_lines(table_of(name))
    assert len(lines) >= len(rows)
    for row, (labels, cells) in zip(rows, lines, strict=False):
        numbers = numbers_of(row)
        assert set(cells) == set(numbers)
        for column, text in numbers.items():
            assert cells[column].text == (text or "not printed"), (row, column)
        if name == "table1":
            assert labels[0].startswith(row["method"])
            assert labels[1:] == [row["training_data"], row["backbone"]]
            assert ("↑" in labels[0]) is (row["first_click"] == "yes")
            assert ("↓" in labels[0]) is (row["diverse_output"] == "yes")
            assert row["citation"] in labels[0]
        else:
            assert labels == [text for key, text in row.items() if "_no" not in key]


def test_table_1_shows_each_number_of_the_methods_own_tables() -> None:
    """In the row of the method, behind a stroke where the paper prints another; equal numbers are shown once."""
    lines = printed_lines(table_of("table1"))
    backbones = {("RITM", "SBD"): "HRNet-18s"}  # as the paper calls it
    for row in rows_of("peers_own_tables.csv"):
        backbone = backbones.get((row["method"], row["training_data"]), row["backbone"])
        found = [
            cells
            for labels, cells in lines
            if labels[0].split(" [")[0] == row["method"] and labels[1:] == [row["training_data"], backbone]
        ]
        assert len(found) == 1, row
        for column, text in numbers_of(row).items():
            cell = found[0][column]
            shown = [cell.text, *cell.behind.strip("/ ").split(" / ")]
            assert not text or any(part and part[0].isdigit() and float(part) == float(text) for part in shown)


def test_the_list_of_each_method_has_each_of_its_numbers() -> None:
    for file in (*FILES.values(), "peers_own_tables.csv"):
        for row in rows_of(file):
            lines = published_lines(row.get("method", "DISNet"))
            for (dataset, measure), text in numbers_of(row).items():
                wanted = f"{measure} {text or 'not printed'}"
                assert any(line.startswith(f"    {dataset}: ") and wanted in line for line in lines)


CONFLICTS = [
    # table, row, dataset, measure, printed here, printed elsewhere, by whom
    ("table1", ("RITM [41]", "C+L"), "SBD", "NoC@85", "3.95", "3.59", f"the RITM {README}"),
    ("table1", ("FCFI [43]", "SBD"), "Berkeley", "NoC@90", "2.84", "2.83", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "SBD"), "DAVIS", "NoC@90", "6.48", "6.46", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "SBD"), "SBD", "NoC@90", "5.35", "5.36", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "GrabCut", "NoC@85", "1.50", "1.42", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "GrabCut", "NoC@90", "1.56", "1.68", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "Berkeley", "NoC@90", "2.05", "2.03", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "DAVIS", "NoC@85", "3.88", "3.89", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "DAVIS", "NoC@90", "6.24", "5.13", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "SBD", "NoC@85", "3.70", "3.64", f"the FCFI {README}"),
    ("table1", ("FCFI [43]", "C+L"), "SBD", "NoC@90", "5.16", "5.92", f"the FCFI {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "GrabCut", "NoC@90", "2.72", "2.68", f"the f-BRS {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "Berkeley", "NoC@85", "not printed", "2.61", f"the f-BRS {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "Berkeley", "NoC@90", "4.57", "4.22", f"the f-BRS {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "DAVIS", "NoC@85", "5.04", "5.32", f"the f-BRS {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "DAVIS", "NoC@90", "7.41", "7.35", f"the f-BRS {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "SBD", "NoC@85", "4.81", "4.20", f"the f-BRS {README}"),
    ("table1", ("f-BRS-B [40]", "SBD"), "SBD", "NoC@90", "7.73", "7.10", f"the f-BRS {README}"),
    ("table1", ("CDNet [4] ↓", "SBD"), "GrabCut", "NoC@85", "2.42", "1.86 / 1.40", f"the ClickSEG {README}"),
    ("table1", ("CDNet [4] ↓", "SBD"), "Berkeley", "NoC@85", "1.47", "1.95", f"the ClickSEG {README}"),
    ("table1", ("CDNet [4] ↓", "SBD"), "Berkeley", "NoC@90", "2.06", "3.27", f"the ClickSEG {README}"),
    ("table1", ("DISNet (ours, in the paper) ↑ ↓", "C+L"), "SBD", "NoC@90", "5.11", "5.12", "the paper's Table 4"),
    ("table4", ("C+L & Hierarchy",), "SBD", "NoC@90", "5.12", "5.11", "the paper's Table 1"),
    ("table4", ("C+L & Hierarchy",), "SBD", "NoC@90", "5.12", "5.11", "the paper's Table 5"),
    ("table5", ("yes", "yes", "yes", "yes"), "SBD", "NoC@90", "5.11", "5.12", "the paper's Table 4"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "dataset", "measure", "here", "elsewhere", "source"), CONFLICTS)
def test_both_numbers_stand_with_a_mark_where_sources_differ(
    name: str, row: tuple[str, ...], dataset: str, measure: str, here: str, elsewhere: str, source: str
) -> None:
    table = table_of(name)
    (cell,) = [cells[dataset, measure] for labels, cells in printed_lines(table) if tuple(labels[: len(row)]) == row]
    assert (cell.text, cell.behind) == (here, f"/ {elsewhere}")
    texts = [table.footnotes[mark] for mark in cell.marks]
    assert any(text.startswith(f"{source} prints") and f"{dataset} {measure} {elsewhere[:4]}" in text for text in texts)


def test_nothing_else_of_the_papers_tables_is_in_conflict() -> None:
    """The rows of Table 1 whose numbers all other sources confirm carry no mark of a conflict."""
    marked = {
        (name, *labels[:2])
        for name in FILES
        for labels, cells in printed_lines(table_of(name))
        if any(cell.behind for cell in cells.values())
    }
    assert {key for key in marked if key[0] != "table1"} == {("table4", "C+L & Hierarchy"), ("table5", "yes", "yes")}
    assert {key[1:] for key in marked if key[0] == "table1"} == {
        ("f-BRS-B [40]", "SBD"),
        ("CDNet [4] ↓", "SBD"),
        ("RITM [41]", "C+L"),
        ("FCFI [43]", "SBD"),
        ("FCFI [43]", "C+L"),
        ("DISNet (ours, in the paper) ↑ ↓", "C+L"),
    }


def oddities(name: str) -> str:
    table = table_of(name)
    return " ".join([table.caption, *table.footnotes.values()])


def test_what_is_odd_in_print_is_said_beside_it() -> None:
    for name, words in {
        "table1": (
            "repeats that of SimpleClick",
            "seem to be exchanged",
            "for HRNet-18, not for HRNet-18s",
            "mixes backbones and training sets",
            "Cited as [42], which is CFR-ICL",
        ),
        "table2": ("calls this table \"Table 5\"", "trained on C+L in Table 1"),
        "table3": ("trained on SBD in Table 1",),
        "table4": ("cites a Table 6",),
        "table5": ("calls this table \"Table 2\"", "trained on C+L in Table 1", "Far from the other methods"),
    }.items():  # fmt: skip
        for part in words:
            assert part in oddities(name), (name, part)
    figure = definitions.load(definitions.find("reports", "figure4"))
    assert any("3 datasets" in text and "four" in text for text in figure["remarks"])


def test_the_odd_rows_are_as_the_remarks_say() -> None:
    rows = {(row["method"], row["training_data"]): row for row in rows_of("table1.csv")}
    twin, repeated = rows["InterFormer", "C+L"], numbers_of(rows["SimpleClick", "C+L"])
    assert all(not text or text == repeated[column] for column, text in numbers_of(twin).items())
    own = {(row["method"], row["backbone"], row["training_data"]): row for row in rows_of("peers_own_tables.csv")}
    cdnet, small = rows["CDNet", "SBD"], own["CDNet", "ResNet-34", "C+L"]
    assert [cdnet[key] for key in ("berkeley_noc85", "berkeley_noc90")] == [
        small[key] for key in ("berkeley_noc85", "berkeley_noc90")
    ]
    ritm, real = numbers_of(rows["RITM", "SBD"]), numbers_of(own["RITM", "HRNet-18", "SBD"])
    assert all(not text or text == ritm[column] for column, text in real.items())
    vit = [float(row["sbd_noc90"]) for row in rows.values() if row["backbone"] == "ViT-B" and row["method"] != "DISNet"]
    assert (min(vit), max(vit)) == (5.30, 5.62)
    assert Path(FOLDER / "README.md").is_file()
