"""Killed (SIGKILL) at random moments with two workers, then resumed: the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.commands import contents, disbench, typed
from tests.synthetic import write_lvis

IMAGES = 600
KILLS = int(os.environ.get("DISBENCH_KILLS", "2"))
"""`make faults` has more of them."""


def sampling(annotations: Path, out: Path, workers: int) -> list[str]:
    return [
        *("sample", "lvis-hierarchy", "--lvis", str(annotations), "--out", str(out)),
        *("--workers", str(workers), "--set", "shard_bytes=15000"),
    ]


@pytest.mark.slow
@pytest.mark.fault
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    annotations = write_lvis(tmp_path / "lvis.json", IMAGES, objects=6)
    for workers in (1, 2):
        assert disbench(*sampling(annotations, tmp_path / f"whole-{workers}", workers)).returncode == 0
    whole = contents(tmp_path / "whole-2")
    assert whole == contents(tmp_path / "whole-1")

    moments = random.Random()  # others each time: whatever the moment, the outcome is the same
    shards_left = []
    for attempt in range(KILLS):
        out = tmp_path / f"killed-{attempt}"
        process = subprocess.Popen(typed(*sampling(annotations, out, 2)))
        # The first is killed among its first shards, the others at any moment.
        last, wait = (len(whole) // 4, 0.01) if attempt == 0 else (len(whole) - 1, 0.1)
        children = kill_after(process, out, moments.randrange(attempt == 0, last), moments.uniform(0, wait))
        assert gone_within(children, 10), "a worker outlived its parent"
        shards_left.append(len(list(out.glob("shard-*.parquet"))))
        assert disbench(*sampling(annotations, out, 1 + (attempt == 0))).returncode == 0
        assert contents(out) == whole
    # The moments must really fall between the first and the last shard, or nothing was tested.
    assert sum(0 < left < len(whole) - 1 for left in shards_left) >= max(1, KILLS // 3), shards_left


def kill_after(process: subprocess.Popen[bytes], out: Path, shards: int, seconds: float) -> list[psutil.Process]:
    """SIGKILL the process some time after it has finished so many shards; its children at that moment."""
    while process.poll() is None and len(list(out.glob("shard-*.parquet"))) < shards:
        time.sleep(0.01)
    time.sleep(seconds)
    if process.poll() is not None:
        return []
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return children


def gone_within(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
