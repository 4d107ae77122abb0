"""`disbench leaderboard` and `disbench import`, as a user types them: every row, whatever happens to one of them."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from disbench.baselines.cards import load_card
from disbench.datasets import cards as datasets
from disbench.harness import open_run
from disbench.harness.plan import jobs_of, read_plan
from disbench.harness.store import SECONDS
from disbench.io import definitions
from tests.commands import disbench, printed, refused, typed
from tests.published_system import Host
from tests.synthetic import write_pairs

METHODS = Path(__file__).parents[1] / "toy_methods.py"
KILLS = int(os.environ.get("DISBENCH_KILLS", "2"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", (8,) * 6)


def write_plan(path: Path, dataset: Path, *rows: str) -> Path:
    lines = ['description = "A test"', f'datasets = ["{dataset}"]', "reproduce = []"]
    path.write_text("\n".join([*lines, *(f"[[rows]]\n{row}" for row in rows), ""]))
    return path


def toy(name: str, more: str = "") -> str:
    return f'method = "{METHODS}:{name}"\n{more}'


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each packed run, without what differs from time to time."""
    return {
        path.relative_to(folder).as_posix(): open_run(path).rows().drop(list(SECONDS)).to_pylist()
        for path in sorted(folder.rglob("*.zip"))
    }


def test_a_row_that_fails_stops_no_other(tmp_path: Path, pairs: Path) -> None:
    crashing = tmp_path / "crashing.py"
    crashing.write_text("import os\nos._exit(9)\n")
    plan = write_plan(
        tmp_path / "plan.toml",
        pairs,
        toy("NotMade"),
        f'method = "{crashing}:Late"',
        'method = "dos"',
        toy("Exits"),
        toy("Discs", 'name = "three"\nprotocol = "piclick"\nlimit = 4\noptions = { candidates = 3, scores = false }'),
        toy("Discs"),
    )
    command = ("leaderboard", "run", plan, "--out", "board", "--workers", "1")
    done = disbench(*command, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "cannot be run: No code or weights" in done.stdout
    failures = json.loads((tmp_path / "board/failures.json").read_text())
    assert set(failures) == {"pairs/NotMade", "pairs/Late", "pairs/Exits"}
    assert "no weights here" in failures["pairs/NotMade"]
    assert "exit code 9" in failures["pairs/Late"]
    assert "on all 6 samples" in failures["pairs/Exits"]
    assert all(f"failed: {name}: {sentence}" in done.stderr for name, sentence in failures.items())
    packed = rows_of(tmp_path / "board/runs")
    assert list(packed) == ["pairs/Discs.zip", "pairs/three.zip"]
    assert "report.md: 2 runs on 1 dataset" in done.stdout

    record = open_run(tmp_path / "board/runs/pairs/three.zip").record
    assert record.command.startswith("disbench run ")
    printed(*record.command.split()[1:], cwd=tmp_path)
    same = open_run(tmp_path / "runs/pairs/three")
    assert same.rows().drop(list(SECONDS)).to_pylist() == packed["pairs/three.zip"]
    assert same.record.job() == record.job()

    crashing.write_text(METHODS.read_text().replace("class Counted", "class Late"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "board/runs").rglob("*.zip")}
    printed(*command, "--only", "*/Late", "--only", "*/Discs", "--only", "*/three", cwd=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert set(json.loads((tmp_path / "board/failures.json").read_text())) == set(failures) - {"pairs/Late"}
    assert len(rows_of(tmp_path / "board/runs")) == 3
    lines = [line.strip() for line in disbench(*command, "--dry-run", cwd=tmp_path).stdout.splitlines()]
    assert "three: pairs done" in lines
    assert f"pairs, the last time: {failures['pairs/NotMade']}" in lines
    assert lines[-1].startswith("2 of 6 runs to do; ")


def test_another_run_is_not_replaced_unless_asked(tmp_path: Path, pairs: Path) -> None:
    command = ("leaderboard", "run", tmp_path / "plan.toml", "--out", tmp_path / "board", "--workers", "1")
    write_plan(tmp_path / "plan.toml", pairs, toy("Discs", "limit = 2"))
    printed(*command)
    write_plan(tmp_path / "plan.toml", pairs, toy("Discs", "limit = 3"))
    done = disbench(*command)
    assert done.returncode == 1
    assert "Discs.zip: another run" in done.stderr
    assert open_run(tmp_path / "board/runs/pairs/Discs.zip").record.limit == 2
    printed(*command, "--existing", "overwrite")
    assert open_run(tmp_path / "board/runs/pairs/Discs.zip").record.limit == 3


@pytest.mark.slow
@pytest.mark.fault
def test_a_killed_plan_resumes_to_the_same_rows(tmp_path: Path, pairs: Path) -> None:
    """Killed outright, its workers end with it."""
    rows = (
        toy("Interrupted", f'name = "r{radius}"\noptions = {{ radius = {radius}, seconds = 0.05 }}')
        for radius in (9, 12, 15)
    )
    plan = write_plan(tmp_path / "plan.toml", pairs, *rows)
    command = ("leaderboard", "run", plan, "--workers", "2", "--out")
    begun = time.monotonic()
    printed(*command, tmp_path / "whole")
    takes = time.monotonic() - begun
    killed = 0
    for kill in range(KILLS):
        with subprocess.Popen(typed(*command, tmp_path / "killed")) as process:
            time.sleep(random.uniform(0.5, takes * (kill + 1) / KILLS + 1))
            running = process.poll() is None
            children = psutil.Process(process.pid).children(recursive=True) if running else []
            process.kill()
        killed += running
        _, alive = psutil.wait_procs(children, timeout=30)
        assert all(child.status() == psutil.STATUS_ZOMBIE for child in alive), "a worker outlived its parent"
    assert killed, "no kill came in time"
    printed(*command, tmp_path / "killed")
    assert rows_of(tmp_path / "killed/runs") == rows_of(tmp_path / "whole/runs")
    assert not (tmp_path / "killed/work").exists()


def test_published_systems_are_installed_and_run(
    tmp_path: Path, pairs: Path, squares: Path, host: Host, environments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISBENCH_METHODS", str(tmp_path / "methods"))
    shutil.copytree(environments, tmp_path / "methods/environments", symlinks=True)
    large = host.files["/large.pth"]
    monkeypatch.delitem(host.files, "/large.pth")
    plan = write_plan(
        tmp_path / "plan.toml",
        pairs,
        f'method = "{squares}"\nvariant = "large"\ndatasets = ["{pairs}", "photos"]\nevery = 60',
        f'method = "{squares}"\nvariant = "small"',
    )
    command = ("leaderboard", "run", plan, "--out", tmp_path / "board", "--workers", "1")
    preview = disbench(*command, "--dry-run")
    assert "small: 0.003 GB" in preview.stdout
    assert "large: size unknown (404" in preview.stdout
    host.asked.clear()
    done = disbench(*command)
    assert done.returncode == 1
    failures = json.loads((tmp_path / "board/failures.json").read_text())
    assert set(failures) == {"pairs/squares-large", "photos/squares-large"}
    assert all("large.pth" in sentence and "404" in sentence for sentence in failures.values())
    assert host.asked.count("/large.pth") == 1  # not asked again for the second dataset
    run = open_run(tmp_path / "board/runs/pairs/squares-small.zip")
    assert (run.record.method.facts.backbone, len(run.record.result.failed)) == ("S", 0)
    monkeypatch.setitem(host.files, "/large.pth", large)
    assert "3 runs on 2 datasets" in printed(*command)


def test_dry_run_does_nothing_and_says_all(tmp_path: Path, pairs: Path) -> None:
    rows = (toy("Discs"), 'method = "mobilesam"\ndatasets = ["grabcut"]', 'method = "dos"\nreason = "as a test"')
    plan = write_plan(tmp_path / "plan.toml", pairs, *rows)
    (tmp_path / "data").mkdir()
    places = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "DISBENCH_DATA": str(tmp_path / "data")}
    done = printed("leaderboard", "run", plan, "--dry-run", "--out", tmp_path / "board", **places)
    lines = [" ".join(line.split()) for line in done.splitlines()]
    assert lines[:3] == ["A test", "Discs: pairs of unknown size", "mobilesam: grabcut 0.28 h"]
    assert lines[3] == "dos: cannot be run: as a test"
    size = sum(weight.bytes for weight in load_card("mobilesam").weights)
    assert f"download mobilesam: {size / 1e9:.3f} GB" in lines
    assert any(line.startswith("download grabcut: ") for line in lines)
    assert lines[-1].startswith("2 of 3 runs to do; downloads: ")
    assert not (tmp_path / "board").exists()


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ('method = "mobilsam"', "mobilsam"),
        ('method = "ritm"\nvariant = "no such"', "no such"),
        ('method = "disk"\nprotocol = "rtim"', "rtim"),
        ('method = "disk"\nname = "../up"', "../up"),
        ('method = "disk"\n[[rows]]\nmethod = "disk"', "pairs/disk"),
        ('method = "disk"\nunknown = 1', "unknown"),
        ('method = "disk"\noptions_on.davsi = { radius = 9 }', "davsi"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, pairs: Path, row: str, named: str) -> None:
    plan = write_plan(tmp_path / "plan.toml", pairs, row)
    refused(disbench("leaderboard", "run", plan, "--out", tmp_path / "board"), plan, named)


@pytest.mark.parametrize("name", definitions.names("reports/plans"))
def test_a_plan_that_ships_names_what_is_there(name: str) -> None:
    jobs = jobs_of(read_plan(name))
    assert all(datasets.load_card(job.dataset).samples for job in jobs)
    assert any(not job.obstacle for job in jobs)


def test_a_submission_gets_a_yes_or_a_no(tmp_path: Path, pairs: Path) -> None:
    plan = write_plan(tmp_path / "plan.toml", pairs, toy("Discs"))
    printed("leaderboard", "run", plan, "--out", tmp_path / "board", "--workers", "1")
    good = tmp_path / "board/runs/pairs/Discs.zip"
    done = disbench("leaderboard", "check", good, "--dataset", pairs)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "yes"), done.stderr

    other = write_pairs(tmp_path / "other" / "pairs", (9,) * 6)
    for dataset, why in ((other, "content hash"), (None, "is not a dataset of disbench")):
        named = () if dataset is None else ("--dataset", dataset)
        done = disbench("leaderboard", "check", good, *named)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1] == "no"
        assert why in done.stderr
    damaged = bytearray(good.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.zip").write_bytes(damaged)
    refused(disbench("leaderboard", "check", tmp_path / "damaged.zip", "--dataset", pairs), "damaged.zip")


def noc(ious: list[Any], threshold: float, most: int) -> float:
    """RITM's rule, literally."""
    counts = []
    for row in ious:
        reached = [click for click, iou in enumerate(row, start=1) if iou >= np.float32(threshold)]
        counts.append(reached[0] if reached else most)
    return float(np.mean(counts))


def test_ious_of_ritm_stand_beside_new_runs(tmp_path: Path, pairs: Path) -> None:
    noise = np.random.default_rng(0)
    whole = [np.sort(noise.uniform(0.4, 1, 20)).astype(np.float32) for _ in range(6)]
    ends = [int(np.flatnonzero(row >= np.float32(0.9))[0]) + 1 for row in whole]
    stopped = [row[:end] for row, end in zip(whole, ends, strict=True)]
    analysis = {"dataset_name": "Pairs", "model_name": "h18_NoBRS", "all_ious": whole}
    for name, content in (("whole", analysis), ("stopped", stopped)):
        (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps(content))
    common = ("--method", "ritm", "--dataset", pairs)
    printed("import", "ious", tmp_path / "whole.pickle", *common, "--out", tmp_path / "runs/whole")
    more = ("--stop-at", "0.9", "--max-clicks", "20", "--out", tmp_path / "runs/stopped")
    printed("import", "ious", tmp_path / "stopped.pickle", *common, *more)
    arguments = ("--method", f"{METHODS}:Discs", "--dataset", pairs, "--workers", "1", "--out", tmp_path / "runs/new")
    printed("run", *arguments)
    printed("leaderboard", "build", tmp_path / "runs", "--out", tmp_path / "board")

    with (tmp_path / "board/results.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert len({row["content_hash"] for row in rows.values()}) == 1
    for name in ("whole", "stopped"):
        assert float(rows[name]["noc_90"]) == noc(whole, 0.9, 20)
        assert float(rows[name]["noc_80"]) == noc(whole, 0.8, 20)
        assert (rows[name]["loop"], rows[name]["opencv"]) == ("imported", "unknown")
        assert rows[name]["model_seconds"] == rows[name]["mean_boundary_iou_1"] == ""
    assert float(rows["whole"]["mean_iou_3"]) == pytest.approx(np.mean([row[2] for row in whole]), abs=1e-7)
    assert rows["stopped"]["noc_95"] == rows["stopped"]["mean_iou_3"] == ""
    curves = (tmp_path / "board/curves.csv").read_text()
    assert "whole" in curves
    assert "stopped" not in curves
    for command in (("verify",), ("pack",), ("failures", "--out", tmp_path / "pictures", "--dataset", pairs)):
        refused(disbench(*command, tmp_path / "runs/whole"), "runs/whole", "whole.pickle")


class Runs:
    """A pickle that runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_what_is_no_list_of_ious_is_refused(tmp_path: Path, pairs: Path) -> None:
    row = np.linspace(0, 1, 20, dtype=np.float32)
    mark, file = tmp_path / "mark", tmp_path / "ious.pickle"
    rows = ([row] * 5 + last for last in ([], [row[:7]], [row * 2], [row[:0]], ["text"], [Runs(mark)]))
    for content in (*rows, {"all_ious": [Runs(mark)] * 6}, {"ious": [row] * 6}):
        file.write_bytes(pickle.dumps(content))
        common = ("--method", "mine", "--dataset", pairs, "--out", tmp_path / "run")
        refused(disbench("import", "ious", file, *common), file)
    assert not mark.exists()
    assert not (tmp_path / "run").exists()
