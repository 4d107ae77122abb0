"""Scenes whose reading goes wrong in a worker process: it is killed, gets stuck, or raises an error."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core.errors import InputError
from disbench.core.scenes import Scene, SceneSource


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_midst_of_a_message() -> None:
    """From now on, this process sends half of what is large, then dies, as if killed just then."""
    send = Connection._send  # type: ignore[attr-defined]

    def send_half(self: Connection, data: Any) -> None:
        large = len(data) > 4096
        send(self, data[: len(data) // 2] if large else data)
        if large:
            kill()

    Connection._send = send_half  # type: ignore[attr-defined]


def take_all_memory() -> None:
    """The system gives this process no more address space than it has, and it asks for more."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20), resource.RLIM_INFINITY))
    np.ones(1 << 28)  # 2 GiB


class UnportableError(Exception):
    """An exception that pickles, and cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass
class TroubledScenes:
    """Another source's scenes, but for one image that brings trouble.

    Attributes:
        source: the scenes.
        trouble: "killed at start" (whatever is read), "killed in a message", "killed once" (in the midst of the first
            message, not of the next), "input error", "out of memory", "stuck" (for an hour), "slow" (a tenth of a
            second a chunk, until `hurry` is called; names its processes in the log), or "none".
        image: number of the image that brings it.
        log: folder for one empty file for each chunk whose reading began, named by its first image.
    """

    source: SceneSource
    trouble: str
    image: int
    log: Path

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.trouble == "killed at start" and parent_process():
            kill()

    @property
    def name(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        (self.log / f"{indices[0]}").touch()
        if self.trouble == "slow":
            time.sleep(0.0 if (self.log / "hurry").exists() else 0.1)
            (self.log / f"{os.getpid()}.process").touch()
        if self.image in indices:
            self._bring_trouble()
        return self.source.read(indices)

    def hurry(self) -> None:
        """End the trouble of being slow."""
        (self.log / "hurry").touch()

    def fingerprint(self) -> dict[str, str]:
        return self.source.fingerprint()

    def _bring_trouble(self) -> None:
        once = self.trouble == "killed once" and not (self.log / "killed").exists()
        if once or self.trouble == "killed in a message":
            (self.log / "killed").touch()
            die_in_the_midst_of_a_message()
        elif self.trouble == "out of memory":
            take_all_memory()
        elif self.trouble == "stuck":
            time.sleep(3600)
        elif self.trouble == "input error":
            raise InputError(f"image {self.image}: its mask is missing; mend the file")
