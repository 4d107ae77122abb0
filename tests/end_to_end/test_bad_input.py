"""Bad data, full disks, killed workers: one line that names file, record and fix; nothing half written."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.annotations import annotation, write_annotations
from tests.commands import Result, contents, disbench, disbench_anew, heed_interrupts, printed, refused, typed
from tests.synthetic import lvis_content, write_lvis

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals as Linux has them")

IMAGES = 160
SHARD_BYTES = "shard_bytes=10000"
KILLS = int(os.environ.get("DISBENCH_KILLS", "2"))
"""`make faults` has more of them."""


def sampling(annotations: Path, out: Path, *others: str | Path) -> list[str | Path]:
    """The command that samples annotations, in small shards."""
    return [
        *("sample", "lvis-hierarchy", "--lvis", annotations, "--out", out),
        *("--workers", "1", "--set", SHARD_BYTES, *others),
    ]


def whole_shards(out: Path) -> int:
    """How many shards an unfinished folder has, all of them whole and in a row, and nothing else."""
    paths = sorted(out.iterdir()) if out.is_dir() else []
    assert [path.name for path in paths] == [f"shard-{number:05d}.parquet" for number in range(len(paths))]
    assert all(pq.read_table(path).num_rows for path in paths)
    return len(paths)


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """A good LVIS file, whose later images are sampled long after the first shards are written."""
    return lvis_content(IMAGES, objects=6)


@pytest.fixture(scope="module")
def late(content: dict[str, Any]) -> int:
    """Place of an annotation of one of the last images."""
    return next(i for i, record in enumerate(content["annotations"]) if record["image_id"] > 0.9 * IMAGES)


@pytest.fixture(scope="module")
def good(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "lvis.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def undisturbed(good: Path) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    folder = good.with_name("undisturbed")
    printed(*sampling(good, folder))
    found = contents(folder)
    assert len(found) > 5
    return found


def test_a_bad_annotation_and_that_a_fixed_file_is_other_input(
    content: dict[str, Any], late: int, good: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    records = list(content["annotations"])
    records[late] = {**records[late], "category_id": 4711}
    path = write_annotations(tmp_path / "lvis.json", records, content["images"], content["categories"])
    out = tmp_path / "out"
    place = f"annotation {records[late]['id']} (image {records[late]['image_id']})"
    refused(disbench(*sampling(path, out)), path, place, "category 4711", "bad_annotations=drop")
    left = whole_shards(out)
    assert left > 2
    path.write_bytes(good.read_bytes())
    refused(disbench(*sampling(path, out)), out, "--existing overwrite")
    assert whole_shards(out) == left
    printed(*sampling(path, out, "--existing", "overwrite"))
    assert contents(out) == undisturbed


@pytest.mark.parametrize("which", ["hannotation.pickle", "masks/1.pickle"])
def test_a_pickle_that_would_run_code_runs_none(which: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return os.mkdir, (str(proof),)

    (tmp_path / "masks").mkdir()
    good = {1: {"num_instance_masks": 1, "hierarchy": {0: {"parent": None, "children": [], "node_level": 0}}}}
    (tmp_path / "hannotation.pickle").write_bytes(pickle.dumps(good))
    (tmp_path / which).write_bytes(pickle.dumps(Attack()))
    arguments = ("sample", "coco-lvis-hierarchy", "--hannotation", tmp_path, "--out", tmp_path / "out")
    refused(disbench(*arguments), tmp_path / which, "posix.mkdir")
    assert not proof.exists()
    assert whole_shards(tmp_path / "out") == 0


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("none.toml", "--photos"), ["none.toml: "]),
        (("lvis-hierarchy", "--photos", "--set", "min_aera=5"), ["'min_aera'", "'min_area'"]),
        (("lvis-hierarchy", "--photos", "--sbd", "x"), ["--sbd and --photos"]),
        (("lvis-hierarchy",), ["--lvis or --photos"]),
        (("coco-hierarchy", "--set", "coco_masks=panoptic", "--coco", "coco.json"), ["--panoptic"]),
    ],
)
def test_a_wrong_wish(arguments: tuple[str, ...], mentions: list[str], tmp_path: Path) -> None:
    write_annotations(tmp_path / "coco.json", [annotation(1)])
    refused(disbench("sample", *arguments, "--out", "out", cwd=tmp_path), *mentions)
    assert not (tmp_path / "out").exists()


def test_a_traceback_on_request(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing.json", tmp_path / "file"
    file.touch()
    for arguments, last in (
        (["sample", "lvis-hierarchy", "--lvis", missing, "--out", tmp_path], "InputError: .*no such file"),
        (["sample", "lvis-hierarchy", "--photos", "--out", file / "out"], "NotADirectoryError: "),
    ):
        for place in (0, len(arguments)):
            result = disbench(*arguments[:place], "--debug", *arguments[place:])
            assert result.returncode != 0
            assert result.stderr.startswith("Traceback")
            assert re.search(last, result.stderr.splitlines()[-1])


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def without_override() -> None:
    """Root may read and write everything; give that up, so that permissions hold for what runs next."""
    for capability in (1, 2) if os.geteuid() == 0 else ():  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            os._exit(77)


class TestUnwritable:
    def test_a_folder_below_a_file_or_in_its_place(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        for out in (file / "out", file):
            result = disbench("sample", "lvis-hierarchy", "--photos", "--out", out)
            refused(result, out)
        assert file.read_text() == "mine"

    @pytest.mark.parametrize("missing", ["to write into it", "to write below it", "to read"])
    def test_a_right_that_is_missing(self, missing: str, good: Path, tmp_path: Path) -> None:
        locked, out, annotations = tmp_path / "locked", tmp_path / "locked" / "out", tmp_path / "lvis.json"
        annotations.write_bytes(good.read_bytes())
        if missing == "to read":
            locked = annotations
            annotations.chmod(0)
            out = tmp_path / "out"
        else:
            locked.mkdir(mode=0o555)
            out = locked if missing == "to write into it" else out
        result = disbench_anew(*sampling(annotations, out), before=without_override)
        if result.returncode == 77:
            pytest.skip("root could not give up its rights")
        refused(result, locked, "Permission denied")
        assert not out.exists() or not list(out.iterdir())


class TestFullDisk:
    def test_a_shard_larger_than_files_may_be(self, good: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        sizes = [len(data) for name, data in undisturbed.items() if name.startswith("shard-")]
        limit = max(sizes) - 1
        assert sizes[0] <= limit
        out = tmp_path / "out"
        result = disbench_anew(*sampling(good, out), before=partial(limit_files, limit))
        refused(result, out / f"shard-{sizes.index(max(sizes)):05d}.parquet", "File too large")
        assert whole_shards(out) == sizes.index(max(sizes))
        printed(*sampling(good, out))
        assert contents(out) == undisturbed

    def test_a_job_for_the_workers_that_does_not_fit(self, good: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        result = disbench_anew(*sampling(good, out, "--workers", "2"), before=partial(limit_files, 500))
        refused(result, out / "workers.partial", "File too large")
        assert whole_shards(out) == 0

    def test_a_manifest_that_does_not_fit(self, good: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        """All shards are there, but without the manifest the folder is not finished, and says so."""
        out = tmp_path / "out"
        out.mkdir()
        for name, data in undisturbed.items():
            if name.startswith("shard-"):
                (out / name).write_bytes(data)
        shards = len(contents(out))
        result = disbench_anew(*sampling(good, out), before=partial(limit_files, 500))
        refused(result, out / "manifest.json", "File too large")
        assert whole_shards(out) == shards
        refused(disbench("inspect", out), out, "manifest.json")
        printed(*sampling(good, out))
        assert contents(out) == undisturbed


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work for a command to be caught at it."""
    return write_lvis(tmp_path_factory.mktemp("large") / "lvis.json", images=400)


@pytest.fixture(scope="module")
def whole(large: Path) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    folder = large.with_name("whole")
    printed(*sampling(large, folder, "--workers", "2"))
    return contents(folder)


def stop_after(shards: int, arguments: list[str | Path], out: Path, stop: Callable[[psutil.Process], object]) -> Result:
    """The end of a command that is stopped when it has written some shards."""
    with subprocess.Popen(
        typed(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    ) as process:
        try:
            deadline = time.monotonic() + 240
            while len(list(out.glob("shard-*.parquet"))) < shards:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            stop(psutil.Process(process.pid))
            stdout, stderr = process.communicate(timeout=240)
        finally:
            process.kill()
    return Result(typed(*arguments), process.returncode, stdout, stderr)


@pytest.mark.fault
class TestStoppedProcesses:
    """The same command goes on, and writes the same bytes."""

    @pytest.mark.parametrize("number", range(KILLS))
    def test_killed_at_a_random_moment(self, number: int, large: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
        """Of the moments, others each time, the first lies among the first shards."""
        out, moments, children = tmp_path / "out", random.Random(), list[psutil.Process]()
        arguments = sampling(large, out, "--workers", "2")

        def kill(process: psutil.Process) -> None:
            time.sleep(moments.uniform(0, 0.1 if number else 0.01))
            children.extend(process.children(recursive=True))
            process.kill()

        stop_after(moments.randrange(1, len(whole) - 2 if number else len(whole) // 4), arguments, out, kill)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert all(child.status() == psutil.STATUS_ZOMBIE for child in alive), "a worker outlived its parent"
        assert number or len(list(out.glob("shard-*.parquet"))) < len(whole) - 1
        printed(*arguments, "--workers", str(2 - number % 2))
        assert contents(out) == whole

    def test_a_file_that_is_changed_while_it_is_read(
        self, large: Path, whole: dict[str, bytes], tmp_path: Path
    ) -> None:
        """No row of the other file gets into a finished shard; the old file back, the job goes on."""
        annotations, out = tmp_path / large.name, tmp_path / "out"
        content = large.read_bytes()
        annotations.write_bytes(content)
        arguments = sampling(annotations, out, "--workers", "2")
        another = content[: len(content) // 2] + content[len(content) // 2 + 7 :]
        result = stop_after(1, arguments, out, lambda _: annotations.write_bytes(another))
        refused(result, annotations, "changed while it was read", "run the same command again")
        shards = {name: data for name, data in contents(out).items() if name.startswith("shard-")}
        assert shards.items() < whole.items()
        annotations.write_bytes(content)
        printed(*arguments)
        assert contents(out) == whole

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_control_c(self, workers: str, large: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
        """A terminal sends the signal to the workers too."""
        out = tmp_path / "out"
        arguments = sampling(large, out, "--workers", workers)
        result = stop_after(1, arguments, out, lambda process: os.killpg(process.pid, signal.SIGINT))
        assert result.returncode == 130
        assert result.stderr == "interrupted; run the same command again to resume\n"
        assert 0 < whole_shards(out) < len(whole) - 1
        printed(*arguments)
        assert contents(out) == whole
