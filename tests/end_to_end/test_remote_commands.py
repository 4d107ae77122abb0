"""The commands with addresses of S3, against a server on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disbench.reports.report import FILES
from tests.commands import contents, typed
from tests.commands import in_this_process as disbench
from tests.synthetic import write_lvis

moto = pytest.importorskip("moto.server", reason="moto[server] is not installed (extra dev)")
pytest.importorskip("s3fs", reason="s3fs is not installed (extra remote or dev)")
pytestmark = [pytest.mark.remote, pytest.mark.slow]

RUN = ("--dataset", "photos", "--workers", "1", "--every", "86", "--out", "s3://bucket/runs/x")
SAMPLING = ("sample", "lvis-hierarchy", "--workers", "1", "--set", "shard_bytes=25000")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of S3."""
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, with an empty bucket `bucket`; the environment that commands need."""
    import boto3
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
        "DISBENCH_CACHE": str(tmp_path / "machine-1"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DISBENCH_DATA", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    made = boto3.resource("s3").Bucket("bucket")
    if made.creation_date is not None:
        made.objects.all().delete()
    made.create()
    return made


def stored(bucket: Any, prefix: str) -> dict[str, bytes]:
    return {o.key.removeprefix(prefix): o.get()["Body"].read() for o in bucket.objects.filter(Prefix=prefix)}


def test_killed_and_resumed_by_another_machine(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes as on this machine's disk; then read at the address."""
    annotations = write_lvis(tmp_path / "lvis_v1_train.json", 130, objects=6)
    bucket.upload_file(str(annotations), "data/lvis/lvis_v1_train.json")
    assert disbench(*SAMPLING, "--lvis", annotations, "--out", tmp_path / "local")[0] == 0
    local = contents(tmp_path / "local")

    job = (*SAMPLING, "--data", "s3://bucket/data", "--out", "s3://bucket/ä b/shards")
    process = subprocess.Popen(typed(*job), stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(bucket.objects.filter(Prefix="ä b/shards/shard-"))) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = stored(bucket, "ä b/shards/")
    assert 2 <= len([name for name in begun if name.startswith("shard-")]) < len(local) - 1
    assert all(local[name] == content for name, content in begun.items() if name.startswith("shard-"))

    monkeypatch.setenv("DISBENCH_CACHE", str(tmp_path / "machine-2"))
    code, out, err = disbench(*job)
    assert code == 0, err
    assert out.startswith("s3://bucket/ä b/shards: ")
    assert stored(bucket, "ä b/shards/") == local
    assert not [path for path in (tmp_path / "machine-2" / "outputs").iterdir() if path.is_dir()]

    code, out, err = disbench("verify", "s3://bucket/ä b/shards")
    assert code == 0 and out.startswith("s3://bucket/ä b/shards: ") and "whole" in out
    code, out, err = disbench("inspect", "s3://bucket/ä b/shards", "--json", "--rows", "0", "--fast")
    assert code == 0 and json.loads(out), err
    code, out, _ = disbench("export", "s3://bucket/ä b/shards", "--format", "coco", "--out", "s3://bucket/c.json")
    assert code == 0 and json.loads(stored(bucket, "c.json")[""])["annotations"]

    code, out, err = disbench(*job, "--set", "seed=1")
    assert code == 2 and "s3://bucket/ä b/shards: its shards are from a different job" in err, err
    shard = next(name for name in local if name.startswith("shard-"))
    bucket.put_object(Key=f"ä b/shards/{shard}", Body=b"damaged")
    monkeypatch.setenv("DISBENCH_CACHE", str(tmp_path / "machine-3"))
    code, out, err = disbench("verify", "s3://bucket/ä b/shards")
    assert code == 2 and shard in err


def test_run_and_report(bucket: Any, tmp_path: Path) -> None:
    run = ("run", "--method", "disk", "--dataset", "photos", "--workers", "1", "--every", "86")
    code, out, err = disbench(*run, "--max-clicks", "3", "--out", "s3://bucket/runs/disk")
    assert code == 0, err
    assert "next: disbench report s3://bucket/runs/disk" in out
    assert set(stored(bucket, "runs/disk/")) == {"run.json", "clicks.parquet"}
    description = stored(bucket, "runs/disk/")["run.json"].decode()
    assert "hunter2" not in description and str(tmp_path) not in description
    bucket.put_object(Key="report/leaderboard.html", Body=b"of an earlier report")
    code, out, err = disbench("report", "s3://bucket/runs", "--out", "s3://bucket/report")
    assert code == 0 and out.startswith("s3://bucket/report/report.md: 1 run on 1 dataset"), err
    assert set(stored(bucket, "report/")) == set(FILES) - {"leaderboard.html", "depth.png", "depth.svg"}
    code, out, err = disbench("verify", "s3://bucket/runs/disk")
    assert code == 0 and "s3://bucket/runs/disk" in out, err
    code, out, err = disbench(*run, "--max-clicks", "3", "--existing", "fail", "--out", "s3://bucket/runs/disk")
    assert code == 2 and "s3://bucket/runs/disk: there are results already" in err


def test_what_cannot_work_says_so_in_a_sentence(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    photos = ("sample", "lvis-hierarchy", "--photos", "--workers", "1", "--out")
    for arguments, words in (
        ((*photos, "s3://nobucket/x"), "s3://nobucket/x: "),
        (("verify", "s3://bucket/nothing"), "s3://bucket/nothing: no such file or folder"),
        ((*photos, "s4://bucket/x"), "did you mean 's3'"),
        (("run", "--method", "disnet", "--set", "checkpoint=s3://bucket/none", *RUN), "s3://bucket/none: "),
    ):
        code, out, err = disbench(*arguments)
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1, err
    code, out, err = disbench("failures", "s3://bucket/runs", "--out", "s3://bucket/failures")
    assert code == 2 and "give a path" in err
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    code, out, err = disbench(*photos, "s3://bucket/x")
    assert (code, out) == (2, "") and "s3://bucket/x: " in err and "AWS_PROFILE" in err, err
    assert not stored(bucket, "x")
