"""Engines that run the workers of a long job; results are byte-identical on every engine."""

from __future__ import annotations

import os

from disbench.core.choices import EngineName
from disbench.core.errors import InputError
from disbench.workers.pool import Engine, LocalEngine, Work, Worker, WorkerLost

__all__ = ["Engine", "EngineName", "LocalEngine", "Work", "Worker", "WorkerLost", "open_engine"]


def open_engine(
    name: EngineName = "local",
    workers: int | None = None,
    *,
    address: str | None = None,
    cores_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
) -> Engine:
    """Open an engine by name.

    Args:
        name: `local` (processes on this machine) or `ray` (actors of a Ray cluster).
        workers: number of workers; by default one per core, or as many as the cluster has room for.
        address: address of a Ray cluster (`auto`: the one this machine belongs to); None starts one on this machine.
        cores_per_worker: cores that Ray reserves for each worker.
        gpus_per_worker: GPUs that Ray reserves for each worker; below 1, workers share one.
    """
    if name == "ray":
        from disbench.workers.ray_cluster import RayEngine  # noqa: PLC0415

        return RayEngine(workers, address, cores_per_worker, gpus_per_worker)
    if address is not None or gpus_per_worker:
        raise InputError("--address and --gpus-per-worker belong to a Ray cluster; add --engine ray")
    return LocalEngine(workers or cores())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
