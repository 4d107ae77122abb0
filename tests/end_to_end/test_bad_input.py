"""Bad data, full disks, killed workers: one line that names file, record and fix; nothing half written."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from tests.annotations import annotation, write_annotations
from tests.commands import Result, contents, disbench, disbench_anew, heed_interrupts, refused, typed
from tests.synthetic import lvis_content, write_lvis

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals as Linux has them")

IMAGES = 160
SHARD_BYTES = "shard_bytes=10000"


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
    assert disbench(*sampling(good, folder)).returncode == 0
    found = contents(folder)
    assert len(found) > 5
    return found


BAD_ANNOTATIONS: dict[str, dict[str, Any]] = {
    "odd count": {"segmentation": [[1, 2, 30, 40, 50, 60, 7]]},
    "NaN": {"segmentation": [[1, 2, 30, 40, 50, float("nan")]]},
    "larger RLE": {"segmentation": {"size": [200, 200], "counts": [40000]}},
    "damaged RLE": {"segmentation": {"size": [120, 120], "counts": "5"}},
    "unknown category": {"category_id": 4711},
}


def test_bad_annotations_can_be_left_out_and_are_counted(content: dict[str, Any], late: int, tmp_path: Path) -> None:
    records = [dict(record) for record in content["annotations"]]
    for place, change in enumerate(BAD_ANNOTATIONS.values()):
        records[late + place].update(change)
    records[0]["image_id"] = 10**6
    bad = write_annotations(tmp_path / "bad.json", records, content["images"], content["categories"])
    dropping = ("--set", "bad_annotations=drop")
    dropped = disbench(*sampling(bad, tmp_path / "dropped", *dropping))
    assert (dropped.returncode, dropped.stderr) == (0, "")
    assert f"left out: {len(BAD_ANNOTATIONS)} x invalid annotation" in dropped.stdout
    assert "left out: 1 x annotation of a missing image" in dropped.stdout

    kept = [*records[1:late], *records[late + len(BAD_ANNOTATIONS) :]]
    without = write_annotations(tmp_path / "fixed.json", kept, content["images"], content["categories"])
    assert disbench(*sampling(without, tmp_path / "fixed", *dropping)).returncode == 0
    columns = ["image_id", "objects", "sets"]
    dropped_tables, fixed_tables = (
        [pq.read_table(path, columns=columns) for path in sorted((tmp_path / name).glob("*.parquet"))]
        for name in ("dropped", "fixed")
    )
    assert dropped_tables == fixed_tables


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
    assert disbench(*sampling(path, out, "--existing", "overwrite")).returncode == 0
    assert contents(out) == undisturbed


SPOILED: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "gone": Path.unlink,
    "an annotation of a missing image": lambda path: write_annotations(path, [annotation(5, 77)]),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_bad_file(spoil: Callable[[Path], object], good: Path, tmp_path: Path) -> None:
    path = tmp_path / "lvis.json"
    path.write_bytes(good.read_bytes())
    spoil(path)
    refused(disbench(*sampling(path, tmp_path / "out")), path)
    assert not (tmp_path / "out").exists()


class TestOtherDatasets:
    def test_a_matlab_file_without_instances(self, tmp_path: Path) -> None:
        (tmp_path / "inst").mkdir()
        (tmp_path / "train.txt").write_text("a\n")
        path = tmp_path / "inst" / "a.mat"
        arguments = ("sample", "sbd-proximity", "--sbd", tmp_path, "--out", tmp_path / "out")
        savemat(path, {"GTcls": {"Segmentation": np.zeros((3, 3))}})
        refused(disbench(*arguments), path, "'GTinst'")
        assert whole_shards(tmp_path / "out") == 0
        path.unlink()
        refused(disbench(*arguments), path)

    @pytest.mark.parametrize("which", ["hannotation.pickle", "masks/1.pickle"])
    def test_a_pickle_that_would_run_code_runs_none(self, which: str, tmp_path: Path) -> None:
        proof = tmp_path / "proof"

        class Attack:
            def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
                return os.mkdir, (str(proof),)

        (tmp_path / "masks").mkdir()
        hierarchy = {0: {"parent": None, "children": [], "node_level": 0}}
        good = {1: {"num_instance_masks": 1, "hierarchy": hierarchy}}
        (tmp_path / "hannotation.pickle").write_bytes(pickle.dumps(good))
        (tmp_path / which).write_bytes(pickle.dumps(Attack()))
        pickle.loads((tmp_path / which).read_bytes())
        assert proof.is_dir()  # an ordinary reader runs it
        proof.rmdir()
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

    @pytest.mark.parametrize("below", ["", "new"])
    def test_a_folder_without_permission_to_write(self, below: str, tmp_path: Path) -> None:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        out = locked / below
        result = disbench_anew("sample", "lvis-hierarchy", "--photos", "--out", out, before=without_override)
        if result.returncode == 77:
            pytest.skip("root could not give up its right to write everywhere")
        refused(result, locked, "Permission denied")
        assert not list(locked.iterdir())

    def test_annotations_without_permission_to_read(self, good: Path, tmp_path: Path) -> None:
        path = tmp_path / "lvis.json"
        path.write_bytes(good.read_bytes())
        path.chmod(0)
        result = disbench_anew(*sampling(path, tmp_path / "out"), before=without_override)
        if result.returncode == 77:
            pytest.skip("root could not give up its right to read everything")
        refused(result, path, "Permission denied")
        assert not (tmp_path / "out").exists()


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path, undisturbed: dict[str, bytes]) -> Iterator[Path]:
        """A real file system with room for half of the shards."""
        folder = tmp_path / "disk"
        folder.mkdir()
        room = sum(map(len, undisturbed.values())) // 2
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)]
        try:
            result = subprocess.run(mount, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if result.returncode:
            pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    @pytest.mark.fault
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_no_space_left(self, workers: str, small_disk: Path, good: Path, undisturbed: dict[str, bytes]) -> None:
        out = small_disk / "out"
        arguments = sampling(good, out, "--workers", workers)
        refused(disbench(*arguments), out / "shard-", "No space left on device")
        assert whole_shards(out) > 2
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        assert disbench(*arguments).returncode == 0
        assert contents(out) == undisturbed

    def test_a_shard_larger_than_files_may_be(self, good: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        sizes = [len(data) for name, data in undisturbed.items() if name.startswith("shard-")]
        limit = max(sizes) - 1
        assert sizes[0] <= limit
        out = tmp_path / "out"
        result = disbench_anew(*sampling(good, out), before=partial(limit_files, limit))
        refused(result, out / f"shard-{sizes.index(max(sizes)):05d}.parquet", "File too large")
        assert whole_shards(out) == sizes.index(max(sizes))
        assert disbench(*sampling(good, out)).returncode == 0
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
        assert disbench(*sampling(good, out)).returncode == 0
        assert contents(out) == undisturbed


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work for a command to be caught at it."""
    return write_lvis(tmp_path_factory.mktemp("large") / "lvis.json", images=400)


@pytest.fixture(scope="module")
def whole(large: Path) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    folder = large.with_name("whole")
    assert disbench(*sampling(large, folder, "--workers", "2")).returncode == 0
    return contents(folder)


def stop_after_a_shard(arguments: list[str | Path], out: Path, stop: Callable[[psutil.Process], None]) -> Result:
    """The end of a command that is stopped when it has written its first shard."""
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
            while not list(out.glob("shard-*.parquet")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            stop(psutil.Process(process.pid))
            stdout, stderr = process.communicate(timeout=240)
        finally:
            process.kill()
    return Result(typed(*arguments), process.returncode, stdout, stderr)


class TestStoppedProcesses:
    """A worker that is killed is replaced; after Ctrl-C the same command goes on: the same bytes."""

    @pytest.mark.fault
    def test_a_killed_worker(self, large: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = sampling(large, out, "--workers", "2")

        def kill_a_worker(process: psutil.Process) -> None:
            workers = [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
            assert len(workers) == 2
            workers[1].kill()

        result = stop_after_a_shard(arguments, out, kill_a_worker)
        assert result.returncode == 0
        assert "a worker process ended before its work (killed by SIGKILL); another worker does it" in result.stderr
        assert contents(out) == whole

    @pytest.mark.fault
    def test_a_file_that_is_changed_while_it_is_read(
        self, large: Path, whole: dict[str, bytes], tmp_path: Path
    ) -> None:
        """No row of the other file gets into a finished shard; the old file back, the job goes on."""
        annotations, out = tmp_path / large.name, tmp_path / "out"
        annotations.write_bytes(large.read_bytes())
        arguments = sampling(annotations, out, "--workers", "2")

        def write_another(_: psutil.Process) -> None:
            content = annotations.read_bytes()
            annotations.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 7 :])

        result = stop_after_a_shard(arguments, out, write_another)
        refused(result, annotations, "changed while it was read", "run the same command again")
        shards = {name: data for name, data in contents(out).items() if name.startswith("shard-")}
        assert shards.items() < whole.items()
        annotations.write_bytes(large.read_bytes())
        assert disbench(*arguments).returncode == 0
        assert contents(out) == whole

    @pytest.mark.fault
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_control_c(self, workers: str, large: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
        """A terminal sends the signal to the workers too."""
        out = tmp_path / "out"
        arguments = sampling(large, out, "--workers", workers)
        result = stop_after_a_shard(arguments, out, lambda process: os.killpg(process.pid, signal.SIGINT))
        assert result.returncode == 130
        assert result.stderr == "interrupted; run the same command again to resume\n"
        assert 0 < whole_shards(out) < len(whole) - 1
        assert disbench(*arguments).returncode == 0
        assert contents(out) == whole
