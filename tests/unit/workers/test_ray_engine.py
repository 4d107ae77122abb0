"""The Ray engine on clusters of this machine: the same bytes, through the loss of workers and of a whole node."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed")

from disbench.baselines.cards import MethodSpec, method_spec  # noqa: E402
from disbench.core.errors import InputError  # noqa: E402
from disbench.datasets.instances import AnnotatedImages, open_annotations  # noqa: E402
from disbench.harness import Execution, Protocol, StoredRun, run_benchmark  # noqa: E402  # noqa: E402
from disbench.harness.store import SECONDS  # noqa: E402
from disbench.sampling.job import SamplingWork, chunks_by_cost, make_shards  # noqa: E402
from disbench.sampling.recipes import load_recipe  # noqa: E402
from disbench.workers import LocalEngine, open_engine  # noqa: E402
from tests import toy_methods  # noqa: E402
from tests.commands import contents, disbench, typed  # noqa: E402
from tests.refusals import refuses  # noqa: E402
from tests.synthetic import write_lvis  # noqa: E402
from tests.toy_samples import ToySource  # noqa: E402
from tests.troubled_scenes import TroubledScenes  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.fault]
CHUNKS, SCENES = 13, 16
SHORT = Protocol(max_clicks=4)


def spec(name: str) -> MethodSpec:
    return method_spec(f"{toy_methods.__file__}:{name}", [])


def rows(run: StoredRun) -> list[dict[str, object]]:
    return run.rows().drop_columns(list(SECONDS)).to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without room for workers and a node with two places; more nodes come and go."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedImages:
    path = write_lvis(tmp_path_factory.mktemp("annotations") / "lvis.json", CHUNKS * SCENES, objects=2)
    return AnnotatedImages([open_annotations(path, "lvis")])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disbench.sampling.job.scenes_per_chunk", lambda images, workers: SCENES)


def wait_for_cores(count: int) -> None:
    deadline = time.monotonic() + 60
    while ray.cluster_resources().get("CPU") != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_same_shards(cluster: Any, source: AnnotatedImages, tmp_path: Path) -> None:
    recipe = load_recipe("lvis-hierarchy", ["shard_bytes=30000"])
    make_shards(source, recipe, tmp_path / "local", engine=LocalEngine(2))
    engine = open_engine("ray")
    assert engine.workers == 2
    make_shards(source, recipe, tmp_path / "ray", engine=engine)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert len(contents(tmp_path / "ray")) > 3


def test_the_same_rows(cluster: Any, tmp_path: Path) -> None:
    runs = {
        name: run_benchmark(spec("Discs"), ToySource(), tmp_path / name, SHORT, Execution(2), engine=engine)
        for name, engine in (("local", None), ("ray", open_engine("ray", 2)))
    }
    assert rows(runs["ray"]) == rows(runs["local"])
    assert runs["ray"].record.execution.engine == "ray"
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == ["clicks.parquet", "run.json"]


def test_a_method_that_hangs_or_dies_costs_one_sample(cluster: Any, tmp_path: Path) -> None:
    """A worker there watches over the method as one here does."""
    source = ToySource(6, (0, 5, 0, 6))
    engine = open_engine("ray", 2)
    run = run_benchmark(spec("Misbehaves"), source, tmp_path / "run", SHORT, Execution(2, timeout=2.0), engine=engine)
    failed = {item.sample: item.reason for item in run.record.result.failed}
    assert failed.keys() == {"s1", "s3"}
    assert failed["s1"] == "predict: no answer within 2 s"
    assert failed["s3"] == "predict: the worker process ended (exit code 9)"
    (sentence,) = engine.lost
    assert sentence == "sample s3: predict: the worker process ended (exit code 9); another process does it again"


def test_errors_come_back(cluster: Any, source: AnnotatedImages, tmp_path: Path) -> None:
    scenes = TroubledScenes(source, "input error", 2 * SCENES, tmp_path)
    work = SamplingWork(scenes, load_recipe("lvis-hierarchy"))
    with pytest.raises(InputError) as raised:
        list(open_engine("ray", 2).in_order(work, chunks_by_cost(scenes, range(len(source))), tmp_path))
    assert str(raised.value) == f"image {2 * SCENES}: its mask is missing; mend the file"


def test_a_node_is_lost(cluster: Any, source: AnnotatedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of the job; what its workers had is done again by those that are left."""
    monkeypatch.setattr("disbench.sampling.job.scenes_per_chunk", lambda images, workers: 1)
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    recipe = load_recipe("lvis-hierarchy")
    engine = open_engine("ray", 4)
    scenes = TroubledScenes(source, "slow", 0, tmp_path)
    tasks = list(chunks_by_cost(source, range(len(source))))
    assert len(tasks) == len(source)
    with contextlib.closing(engine.in_order(SamplingWork(scenes, recipe), tasks, tmp_path)) as chunks:
        found = [next(chunks).batch]
        while len(list(tmp_path.glob("*.process"))) < 4:  # until all are at work
            found.append(next(chunks).batch)
        cluster.remove_node(node, allow_graceful=False)  # its workers may work on for a moment
        for chunk in chunks:
            found.append(chunk.batch)
            if engine.lost:
                scenes.hurry()
    undisturbed = SamplingWork(source, recipe)
    assert found == [undisturbed.run(task).batch for task in tasks]
    assert engine.lost
    assert all("worker of the Ray cluster was lost" in sentence for sentence in engine.lost)
    wait_for_cores(2)


def test_the_driver_is_killed_and_started_again(cluster: Any, tmp_path: Path) -> None:
    """Its actors end with it; what is finished stays, and any engine goes on from there."""
    annotations = write_lvis(tmp_path / "lvis.json", 900)
    out = tmp_path / "out"

    def sampling(folder: Path, *others: str) -> list[str]:
        return [
            *("sample", "lvis-hierarchy", "--lvis", str(annotations), "--out", str(folder)),
            *("--set", "shard_bytes=30000", "--workers", "2", *others),
        ]

    assert disbench(*sampling(tmp_path / "whole")).returncode == 0
    whole = contents(tmp_path / "whole")
    with subprocess.Popen(typed(*sampling(out, "--engine", "ray", "--address", cluster.address))) as process:
        while not list(out.glob("shard-*.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (out / "manifest.json").exists()
    assert disbench(*sampling(out, "--engine", "ray", "--address", cluster.address)).returncode == 0
    assert contents(out) == whole


def test_no_room(cluster: Any) -> None:
    with pytest.raises(InputError, match=r"no room for a worker, which needs 3 cores and 0 GPUs .* has 2 cores"):
        open_engine("ray", cores_per_worker=3)
    refuses("needs 1 cores and 1 GPUs", open_engine, "ray", gpus_per_worker=1)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere:what"])
def test_no_cluster(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=rf"--address {address}: no Ray cluster answers there .*ray start --head"):
        open_engine("ray", address=address)
