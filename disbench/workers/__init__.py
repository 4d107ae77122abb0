"""Engines: where the workers of a long job are. Work and results are the same, byte for byte, on each of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Literal, Protocol

from disbench.core.errors import InputError
from disbench.workers.local import LocalEngine
from disbench.workers.work import Result, Task, Work, Worker, WorkerLost

__all__ = ["Engine", "EngineName", "LocalEngine", "Work", "Worker", "WorkerLost", "open_engine"]

EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Hands tasks to workers, and their results on.

    A worker that is lost (killed, out of memory, its machine gone) is replaced, and its task done again, three times
    at most; what a task itself raises ends the job at once.

    Attributes:
        name: `local` or `ray`.
        workers: how many.
        lost: a sentence for every worker that was lost.
    """

    name: str
    workers: int
    lost: list[str]

    def tell(self, sentence: str) -> None:
        """Remember and warn of something that happened to a worker."""

    def in_order(self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path) -> Generator[Result, None, None]:
        """The results in the tasks' order.

        Args:
            work: what every worker begins.
            tasks: taken as workers become free: no more than four for each worker are under way or waiting.
            folder: of the results; the work lies in it while there are workers.

        Raises:
            InputError: a task lost its worker each time, or there is no room for a worker.
            Exception: what a task raised.
        """

    def as_finished(
        self, work: Work[Task, Result], tasks: Iterable[Task], folder: Path
    ) -> Generator[Result, None, None]:
        """The results as they come; otherwise as `in_order`."""


def open_engine(
    name: EngineName = "local",
    workers: int | None = None,
    *,
    address: str | None = None,
    cores_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
) -> Engine:
    """An engine by its name, as the command line gives it.

    Args:
        name: `local` (processes on this machine) or `ray` (processes on the machines of a Ray cluster).
        workers: how many; by default one a core, or as many as the cluster has room for.
        address: of a Ray cluster (`auto`: the one that this machine belongs to); by default one of this machine alone
            is begun, and ended with this process.
        cores_per_worker: cores that Ray keeps for each.
        gpus_per_worker: GPUs that Ray keeps for each; a share below 1 lets several use one.

    Raises:
        InputError: options that do not go together, Ray is not installed, no cluster there, or one without room.
    """
    if name == "ray":
        from disbench.workers.ray_cluster import RayEngine  # noqa: PLC0415

        return RayEngine(workers, address, cores_per_worker, gpus_per_worker)
    if address is not None or gpus_per_worker:
        raise InputError("--address and --gpus-per-worker belong to a Ray cluster; add --engine ray")
    return LocalEngine(workers or cores())


def cores() -> int:
    """Cores that this process may use."""
    import os  # noqa: PLC0415

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
