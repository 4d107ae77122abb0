"""Packed runs: the same bytes for the same run, read as the run itself, and nothing else taken for one."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.harness import StoredRun, open_run, pack, verify_run
from disbench.harness.archive import read_packed
from disbench.harness.store import CLICKS, JOURNAL, RUN
from disbench.reports.entries import find_runs
from disbench.reports.report import make_report
from tests.refusals import refuses
from tests.toy_methods import Discs
from tests.toy_samples import ToySource
from tests.unit.run_tools import forged, redescribed, toy_run

Members = list[tuple[zipfile.ZipInfo, bytes]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return toy_run(tmp_path_factory.mktemp("runs") / "run", ToySource(3), Discs(candidates=2))


@pytest.fixture(scope="module")
def packed(run: StoredRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(run.folder, tmp_path_factory.mktemp("packed") / "toy.zip")


def repacked(packed: Path, out: Path, change: Callable[[Members], object]) -> Path:
    """An archive with other members."""
    with zipfile.ZipFile(packed) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    change(members)
    with zipfile.ZipFile(out, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return out


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Members], object]:
    """Changes the manifest of an archive."""

    def rewrite(members: Members) -> None:
        content = json.loads(members[0][1])
        change(content)
        members[0] = (members[0][0], json.dumps(content).encode())

    return rewrite


def test_a_packed_run_is_the_run(run: StoredRun, packed: Path) -> None:
    found = open_run(packed)
    assert found.record == run.record
    assert found.rows() == run.rows()
    assert found.rows(["iou", "sample"]) == run.rows(["iou", "sample"])
    assert [table.num_rows for table in found.samples()] == [5, 5, 5]
    assert found.folder == packed.parent / "toy"
    verified = verify_run(packed, source=ToySource(3))
    assert verified == type(verified)(**{**vars(verify_run(run.folder, source=ToySource(3))), "place": packed})
    said = read_packed(packed).manifest
    assert (said.masks, said.figures["clicks"]) == ("all", 15)


def test_the_same_run_gives_the_same_bytes(run: StoredRun, packed: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "elsewhere")
    os.utime(copy / CLICKS, (0, 0))
    (copy / CLICKS).chmod(0o600)
    path = pack(copy)
    assert path == tmp_path / "elsewhere.zip"
    assert path.read_bytes() == packed.read_bytes()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["elsewhere", "elsewhere.zip"]


def test_masks_can_be_left_out(run: StoredRun, tmp_path: Path) -> None:
    path = pack(run.folder, tmp_path / "small.zip", masks=False)
    assert pack(run.folder, tmp_path / "again.zip", masks=False).read_bytes() == path.read_bytes()
    found = open_run(path)
    masks = ["mask", "candidate_masks"]
    assert found.record == run.record
    assert found.schema().equals(run.schema())
    assert found.rows().drop_columns(masks) == run.rows().drop_columns(masks)
    assert [found.rows()[name].null_count for name in masks] == [15, 15]
    verified = verify_run(path, source=ToySource(3))
    assert (verified.holds, verified.clicks) == (True, 3)
    assert "packed without its masks" in verified.unchecked[0]
    claimed = repacked(path, tmp_path / "claimed.zip", manifest(lambda said: said.update(masks="all")))
    assert not verify_run(claimed, source=ToySource(3)).holds
    bare = toy_run(tmp_path / "bare", store="none")
    assert pack(bare.folder).read_bytes() == pack(bare.folder, tmp_path / "b.zip", masks=False).read_bytes()


def test_what_is_not_packed(run: StoredRun, tmp_path: Path) -> None:
    refuses(r"\.zip", pack, run.folder, tmp_path / "x.tar")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / JOURNAL).touch()
    damaged = forged(run, tmp_path / "damaged", lambda rows: None).folder
    (damaged / CLICKS).write_bytes((damaged / CLICKS).read_bytes()[:-9])
    odd = forged(run, tmp_path / "odd", lambda rows: rows[4].update(iou=0.25)).folder
    described = redescribed(run, tmp_path / "described", lambda said: said["result"].update(clicks=3))
    for place, words in (
        (tmp_path / "begun", "not finished"),
        (damaged, "not a whole file of a run"),
        (odd, "the run does not hold: 1 x IoU that is not its kept"),
        (described, "clicks: 3, in the rows 15"),
    ):
        refuses(rf"{place.name}.*: .*{words}", pack, place)
    assert not list(tmp_path.rglob("*.zip"))
    assert not list(tmp_path.rglob("*.partial"))


def add(name: str, content: bytes = b"x") -> Callable[[Members], object]:
    return lambda members: members.append((zipfile.ZipInfo(name), content))


def replace(at: int, content: bytes) -> Callable[[Members], object]:
    return lambda members: members.__setitem__(at, (members[at][0], content))


def compress(members: Members) -> None:
    """A bomb: a hundred megabytes in a hundred kilobytes."""
    members[2] = (zipfile.ZipInfo(CLICKS), bytes(100_000_000))
    members[2][0].compress_type = zipfile.ZIP_DEFLATED


def link(members: Members) -> None:
    members[1][0].external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "change",
    [
        *(add(name) for name in ("extra.txt", "../evil", "/etc/evil", RUN)),
        *(lambda members: members.pop(), lambda members: members.clear(), lambda members: members.reverse()),
        *(compress, link, replace(2, b"PAR1"), replace(1, b"{}")),
        *(replace(0, content) for content in (b"{}", b"[" * 100_000, b"\xff")),
        *(manifest(lambda said, more=more: said.update(more)) for more in ({"form": 2}, {"files": []})),
        manifest(lambda said: said.pop("figures")),
        manifest(lambda said: said["files"].update(more={})),
        *(manifest(lambda said, w=w: said["files"][CLICKS].update(w)) for w in ({"sha256": "0" * 64}, {"bytes": 1})),
    ],
)
def test_what_is_not_a_packed_run(packed: Path, tmp_path: Path, change: Callable[[Members], object]) -> None:
    path = repacked(packed, tmp_path / "x.zip", change)
    refuses(r"x\.zip: ", open_run, path)
    assert [item.name for item in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["figures"]["noc"].update({"90": 1.0}),
        lambda said: said["figures"].update(failed=1),
        lambda said: said.update(masks="none"),
    ],
)
def test_a_manifest_that_claims_too_much(
    packed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = repacked(packed, tmp_path / "x.zip", manifest(change))
    problems = verify_run(path, source=ToySource(3)).problems
    assert any("manifest.json" in problem for problem in problems)


@given(st.data())
@settings(max_examples=80)
def test_a_changed_byte_is_refused_or_says_nothing(packed: Path, data: st.DataObject) -> None:
    """Bytes of the zip's own headers may change what nobody reads (dates); no content changes."""
    content = bytearray(packed.read_bytes())
    ends = st.one_of(
        st.integers(0, 900), st.integers(len(content) - 300, len(content) - 1), st.integers(0, len(content) - 1)
    )
    content[data.draw(ends)] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.zip"
        path.write_bytes(content)
        try:
            found = open_run(path)
        except InputError as error:
            assert str(path) in str(error)
            return
        original = open_run(packed)
        assert found.record == original.record
        assert found.rows() == original.rows()


def names(runs: Sequence[StoredRun]) -> list[str]:
    return [run.folder.name for run in runs]


def test_reports_do_not_tell_whether_runs_are_packed(run: StoredRun, tmp_path: Path) -> None:
    for place in ("a/one", "a/one-more", "b/one.5"):
        shutil.copytree(run.folder, tmp_path / "plain" / place)
        target = tmp_path / "packed" / f"{place}.zip"
        pack(tmp_path / "plain" / place, target)
    reports = [make_report([tmp_path / kind], tmp_path / f"{kind}-report") for kind in ("plain", "packed")]
    assert len(reports[0].paths) == 6
    for ours, theirs in zip(reports[0].paths, reports[1].paths, strict=True):
        assert ours.name == theirs.name
        assert ours.read_bytes() == theirs.read_bytes()
    assert [line.split(":", 1)[1] for line in reports[0].lines] == [line.split(":", 1)[1] for line in reports[1].lines]


def test_a_run_beside_its_packed_form_counts_once(run: StoredRun, tmp_path: Path) -> None:
    first = shutil.copytree(run.folder, tmp_path / "runs" / "one")
    archive = pack(first)
    assert names(find_runs([tmp_path / "runs"])) == ["one"]
    assert names(find_runs([archive, first, archive])) == ["one"]
    shutil.copy(archive, tmp_path / "runs" / "two.zip")
    assert names(find_runs([tmp_path / "runs"])) == ["one", "two"]
    other = toy_run(tmp_path / "other", ToySource(2), store="none")
    pack(other.folder, archive)
    refuses("one: the folder and the archive of this name are different runs", find_runs, [tmp_path / "runs"])
    archive.write_bytes(b"no zip")
    refuses(r"one\.zip: not a whole packed run", find_runs, [tmp_path / "runs"])
