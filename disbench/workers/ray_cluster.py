"""Run workers on several machines, as actors of a Ray cluster (extra `ray`)."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError, import_extra
from disbench.io import addresses
from disbench.workers.pool import Engine, MakeWorker, Work, Worker, WorkerLost, WorkerPool, run_task

ROOM_TIMEOUT = 300.0  # seconds to wait for room for the first worker


class RayEngine(Engine):
    """Workers as actors of a Ray cluster, placed wherever it has room.

    Every machine needs disbench and the input under the same paths; each copies remote inputs itself. The job is sent
    once to each machine; only this process receives and writes results.

    Args:
        workers: number of workers; None takes as many as the cluster has room for.
        address: address of the cluster; `auto` for the one this machine belongs to; None starts one here. If this
            process is already connected to a cluster, that one is used.
        cores: cores per worker.
        gpus: GPUs per worker.
    """

    name = "ray"

    def __init__(self, workers: int | None, address: str | None, cores: int, gpus: float) -> None:
        self._ray = _connect(address, workers, cores)
        self._room = {"num_cpus": cores, "num_gpus": gpus}
        super().__init__(workers or self._capacity())

    @contextlib.contextmanager
    def _worker_factory(self, work: Work[Any, Any], folder: Path) -> Iterator[MakeWorker]:
        yield partial(self._start_worker, self._ray.put((pickle.dumps(work), addresses.copied_inputs())))

    def _capacity(self) -> int:
        """Number of workers that an idle cluster has room for; a worker needs a single machine."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = {"CPU": self._room["num_cpus"], "GPU": self._room["num_gpus"]}
        places = sum(min(int(own.get(kind, 0) / need) for kind, need in needs.items() if need) for own in nodes)
        if places < 1:
            raise self._no_room_error()
        return places

    def _start_worker(self, stored: Any, pool: WorkerPool[Any, Any]) -> Worker[Any, Any]:
        """Wait for room in the cluster and create a worker; waits without limit while there are other workers."""
        worker = _ActorWorker(self._ray, stored, self._room)
        alone_since = time.monotonic()
        while not worker.ready():
            if pool.terminated:
                worker.terminate()
                raise WorkerLost("it is no longer needed")
            if pool.workers:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > ROOM_TIMEOUT:
                worker.terminate()
                raise self._no_room_error()
        return worker

    def _no_room_error(self) -> InputError:
        found = self._ray.cluster_resources()
        has = f"{found.get('CPU', 0):g} cores and {found.get('GPU', 0):g} GPUs"
        needs = f"{self._room['num_cpus']:g} cores and {self._room['num_gpus']:g} GPUs"
        reason = f"no room for a worker, which needs {needs} on one machine (the cluster has {has} in all)"
        return InputError(f"the Ray cluster has {reason}; wait for others to end, add a machine, or ask for less")


class _ActorWorker:
    """A worker in a Ray actor."""

    def __init__(self, ray: Any, stored: Any, room: dict[str, float]) -> None:
        self._ray = ray
        self._actor = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **room).remote(stored)
        self._started = self._actor.ready.remote()

    def ready(self) -> bool:
        """Wait up to a second for the actor; True if it has started."""
        done, _ = self._ray.wait([self._started], timeout=1.0)
        if done:
            self._result(self._started)
        return bool(done)

    def run(self, task: object) -> Any:
        result = self._result(self._actor.run.remote(task))
        if isinstance(result, Exception):
            raise result
        return result

    def terminate(self) -> None:
        with contextlib.suppress(Exception):  # the actor, its machine, or the cluster is gone
            self._ray.kill(self._actor)

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:  # raised by our code around the job: would recur on another worker
            raise error.as_instanceof_cause() from None
        except errors.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            reason = " ... ".join(dict.fromkeys((lines[0], lines[-1])))  # the event, and the innermost error
            raise WorkerLost(f"a worker of the Ray cluster was lost ({type(error).__name__}: {reason})") from None


class _Actor:
    """The remote side: the worker, and a folder with the pickled job."""

    def __init__(self, stored: tuple[bytes, list[tuple[str, str]]]) -> None:
        pickled, inputs = stored
        addresses.restore_copies(inputs)
        self._folder = tempfile.TemporaryDirectory(prefix="disbench-")
        path = Path(self._folder.name) / "work"
        path.write_bytes(pickled)
        work: Work[Any, Any] = pickle.loads(pickled)
        self._worker = work.make_worker(path)

    def ready(self) -> None:
        """Return once the worker is created."""

    def run(self, task: object) -> object:
        """Result of a task, or its error as a value."""
        return run_task(self._worker, task)


def _connect(address: str | None, workers: int | None, cores: int) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = import_extra("ray", "ray", "--engine ray")
    if ray.is_initialized():
        return ray
    if address is not None:
        _check_reachable(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is None:
            here = None if workers is None else workers * cores
            ray.init(address="local", num_cpus=here, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable_error(address or "on this machine", error) from None
    return ray


def _check_reachable(address: str) -> None:
    """Connect to the address before Ray does, which would retry for ten minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # `auto` and `local` fail at once
        return
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable_error(address, error) from None


def _unreachable_error(place: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    fix = "start one with `ray start --head`, give this machine its token (~/.ray/auth_token), or leave --address out"
    return InputError(f"--address {place}: no Ray cluster answers there ({reason}); {fix}")
