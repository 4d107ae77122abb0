"""Runs from strangers: figures or a refusal, and no text of theirs that a browser, LaTeX or a spreadsheet obeys."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import shutil
import tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.harness.archive import pack, read_packed
from disbench.harness.store import (
    CLICKS,
    JOURNAL,
    RUN,
    SCHEMA,
    ClickRow,
    Journal,
    StoredRun,
    read_run,
    to_table,
    write_clicks,
)
from disbench.harness.verification import verify_run
from disbench.reports.entries import read_entries
from disbench.reports.page import page_html
from disbench.reports.render import latex, markdown
from disbench.reports.report import make_report
from disbench.reports.samples import hard_samples
from disbench.reports.tables import budget_table, clicks_table, curves_csv, overview_table, quality_table, results_csv
from tests.fuzz import stored_forms as forms
from tests.fuzz.tools import examples
from tests.unit.run_tools import draw_ious, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Six samples of four clicks; one fails. All that a verification needs is in `run.json`."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, draw_ious(6, 4), failed={2: "it broke"}, protocol={"max_clicks": 4})
    description = json.loads((folder / RUN).read_bytes())
    rows = [row | {"x": row["click"]} for row in pq.read_table(folder / CLICKS).to_pylist()]  # none twice
    table = pa.Table.from_pylist(rows, SCHEMA)
    write_clicks(folder / CLICKS, [table])
    failed = table.filter(table["failure"].is_valid()).to_pylist()
    description["result"] |= {
        "failed": [{"sample": r["sample"], "click": r["click"], "reason": r["failure"]} for r in failed],
        **{name: sum(table[name].to_pylist()) for name in ("model_seconds", "harness_seconds")},
        "batches_repeated": {"count": 1},
    }
    description["method"]["card"]["weights"] = [{"file": "w", "sha256": "0"}]
    description["protocol"] |= {"preset": "ritm", "preset_values": {"threshold": 0.5}}
    (folder / RUN).write_text(json.dumps(description))
    return read_run(folder)


def read_everything(place: Path) -> None:
    """Each reader of runs on its own; what a report takes, each of its forms shows."""

    def report() -> None:
        found = forms.result_or_refusal(lambda: read_run(place) if place.is_dir() else read_packed(place).run, place)
        if found is None:
            return
        entries = read_entries([found])
        tables = [make(entries) for make in (clicks_table, quality_table, overview_table, budget_table)]
        texts = [results_csv(entries), curves_csv(entries), *(markdown.table(table) for table in tables)]
        texts += [latex.table(table, table.name) for table in tables]
        texts.append(page_html(entries))
        for text in texts:
            text.encode()
        hard_samples(entries[0])

    forms.result_or_refusal(report, place.name)
    forms.result_or_refusal(lambda: "\n".join(verify_run(place).lines()).encode("utf-8", "replace"), place.name)
    if place.is_dir():
        forms.result_or_refusal(lambda: pack(place, place.parent / "packed.zip"), place.name)
    assert {path.name for path in place.parent.iterdir()} <= {place.name, "packed.zip"}


@examples(150)
@given(name=st.sampled_from((RUN, CLICKS, CLICKS)), store=st.sampled_from(("none", "kept", "all")), data=st.data())
def test_spoilt_files(run: StoredRun, name: str, store: str, data: st.DataObject) -> None:
    description = copy.deepcopy(run.record.as_json())
    description["execution"]["store"] = store
    spoiling = {
        "run": json.dumps(description).encode(),
        name.partition(".")[0]: data.draw(forms.spoilt(run.folder / name)),
    }
    with forms.copied(run.folder, **spoiling) as folder:
        forms.result_or_refusal(lambda: read_run(folder).rows(), folder)
        read_everything(folder)


ROW = ClickRow("s", 1, 1, 2, True, 0.5, 0.5, 0, 1, (0.5,), None, 0.1, 0.1, 9, 8)


def journal_of(folder: Path) -> Path:
    journal = Journal(folder)
    journal.begin({"method": {"name": "x"}})
    journal.add("s", "hash", to_table([ROW]))
    journal.note(["again"], {"torch": "2"})
    journal.spend(1.0)
    journal.close()
    return folder / JOURNAL


def read_journal(folder: Path) -> None:
    journal = Journal(folder)
    try:
        for read in (journal.job, journal.finished, journal.notes, lambda: list(journal.tables(journal.finished()))):
            forms.result_or_refusal(read, folder)
    finally:
        journal.close()


@examples(30)
@given(data=st.data())
def test_bytes_of_journals(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = journal_of(Path(place))
        path.write_bytes(data.draw(forms.damaged(path.read_bytes())))
        forms.result_or_refusal(lambda: read_journal(Path(place)), place)


# ------------------------------------------------------------------------------------------- texts in reports


class _Structure(HTMLParser):
    """What a browser makes of a page: its elements with their attributes' names, and its texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(name for name, _ in attrs)] += 1

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements["a comment", ()] += 1


def structure(page: str) -> _Structure:
    found = _Structure()
    found.feed(page)
    found.close()
    return found


def with_texts(description: dict[str, Any], text: str) -> bytes:
    """A description that says one thing wherever a person could have written something."""
    found = copy.deepcopy(description)
    found["method"] |= {"name": text, "entry": text, "options": {text: text}}
    found["method"]["card"] |= dict.fromkeys(("title", "citation", "backbone", "code", "licence", "input_size"), text)
    weights = [{"file": text, "sha256": text}]
    found["method"]["card"] |= {"training_data": [text], "weights": weights, "options": {}}
    found["dataset"] |= {"name": text, "content_hash": text, "facts": {"title": text, "options": {text: text}}}
    found["protocol"] |= {"preset": text}
    found["versions"] = {"disbench": text, "opencv": text, text or "x": text}
    found["machine"] |= {"system": text, "processor": text}
    return json.dumps(found | {"command": text}).encode()


texts_from_outside = forms.nasty_texts.filter(lambda text: "\ud800" not in text)


@examples(20)
@given(text=texts_from_outside)
def test_no_text_is_markup_or_a_formula(run: StoredRun, text: str) -> None:
    with forms.copied(run.folder, run=with_texts(run.record.as_json(), "harmless")) as folder:
        plain = structure(page_html(read_entries([read_run(folder)])))
    with forms.copied(run.folder, run=with_texts(run.record.as_json(), text)) as folder:
        entries = read_entries([read_run(folder)])
        found = structure(page_html(entries))
        assert set(found.elements) <= set(plain.elements)
        for kind in ("script", "style", "img", "a", "meta", "link", "input", "form", "iframe", "svg"):
            here, there = (sum(n for (tag, _), n in page.elements.items() if tag == kind) for page in (found, plain))
            assert here <= there, kind
        for row in csv.reader(io.StringIO(results_csv(entries) + curves_csv(entries))):
            for field in row:
                number = re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", field)
                assert number or not field.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")), field
        for table in (clicks_table(entries), quality_table(entries), overview_table(entries)):
            _check_latex(latex.table(table, table.name), text)


# fmt: off
COMMANDS = {
    "begin", "end", "centering", "caption", "label", "footnotesize", "resizebox", "ifdim", "width", "textwidth",
    "else", "fi", "toprule", "midrule", "bottomrule", "cmidrule", "multicolumn", "textbf", "underline",
    "scriptsize", "times", "textsuperscript", "par", "smallskip", "raggedright", "emph", "addlinespace",
    "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "symbol",
    "uparrow", "downarrow",
}
# fmt: on


def _check_latex(table: str, text: str) -> None:
    """No command but ours, no special character that is not escaped, braces in pairs."""
    body = "\n".join(table.splitlines()[1:])  # the first line is a comment of ours
    assert set(re.findall(r"\\([A-Za-z]+)", body)) <= COMMANDS, text
    bare = re.sub(r"\\([A-Za-z]+|.)", "", body)
    assert not set(bare) & set("$#_^~%") - ({"%"} if "{%\n" in body else set()), text
    depth = 0
    for char in re.sub(r"\\.", "", body, flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0


def test_a_whole_report_of_nasty_texts(run: StoredRun, tmp_path: Path) -> None:
    for number, text in enumerate(forms.NASTY_TEXTS[:-2:3]):
        folder = shutil.copytree(run.folder, tmp_path / "runs" / f"{number}")
        (folder / RUN).write_bytes(with_texts(run.record.as_json(), text))
    report = make_report([tmp_path / "runs"], tmp_path / "out", page=True)
    assert {path.parent for path in report.paths} == {tmp_path / "out"}
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}
    page = (tmp_path / "out" / "leaderboard.html").read_text(encoding="utf-8")
    found = structure(page).elements
    assert not [name for _, names in found for name in names if name.startswith("on")]
    assert sum(count for (tag, _), count in found.items() if tag == "script") == page.count("<script")
    assert "<script>alert" not in page


# ------------------------------------------------------------------------------------------------------ memory


def read_each(folder: Path) -> list[str]:
    said = []
    for read in (verify_run, lambda f: read_entries([read_run(f)]), pack):
        try:
            read(folder)
            said.append("read")
        except InputError as error:
            said.append(str(error))
    if "read" in said:
        return said
    raise InputError(str(said))


def bomb(run: StoredRun, what: str) -> tuple[dict[str, Any], bytes]:
    description, rows = copy.deepcopy(run.record.as_json()), run.rows().to_pylist()
    if what == "rows":
        one = pa.Table.from_pylist(rows[:1], SCHEMA)
        return description, forms.parquet_bytes(one.take(np.zeros(2_000_000, np.int64)))
    description["protocol"]["max_clicks"] = 2**15 - 1  # each failed sample is filled up
    row = next(row for row in rows if row["failure"])
    rows = [row | {"sample": f"s{number}", "click": 1} for number in range(10_000)]
    description["dataset"]["samples"] = description["result"]["samples"] = 10_000
    return description, forms.parquet_bytes(pa.Table.from_pylist(rows, SCHEMA))


@pytest.mark.parametrize("what", ["clicks", "rows"])
def test_bombs(run: StoredRun, what: str) -> None:
    description, clicks = bomb(run, what)
    with forms.copied(run.folder, run=json.dumps(description).encode(), clicks=clicks) as folder:
        words, grown = forms.in_a_child(read_each, folder)
        assert words.startswith("refused"), words[-500:]
        assert grown < 800, (what, grown)
