"""The bridge as a method: a peer's own code in its own Python, or any program that speaks the protocol."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disbench.baselines.bridge.process import BridgeError, Child, child_file
from disbench.clicks import Click
from disbench.errors import InputError, unknown_name
from disbench.prediction import Prediction, RgbImage

ADAPTERS = Path(__file__).with_name("adapters")
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "repo": {"default": "", "help": "Folder of the method's own repository (a checkout of its code)."},
    "python": {"default": "", "help": "The Python of the environment that its code runs in."},
    "checkpoint": {"default": "", "help": "File of the trained weights, in the method's own format."},
    "device": {"default": "cpu", "help": "Device of torch: cpu, cuda, cuda:1."},
    "timeout": {"default": 55.0, "minimum": 0.1, "help": "Seconds that one call may take."},
    "start_timeout": {"default": 300.0, "minimum": 0.1, "help": "Seconds until the model must be there."},
    "command": {
        "default": "",
        "help": "A program that speaks the protocol, with its arguments, in place of python and the adapter.",
    },
}
"""Options that every method of the bridge has; its card adds its own."""
PLACES = ("repo", "python", "device", "timeout", "start_timeout", "command")
"""Those that do not say what runs: tables leave them out of a method's name."""
_FAILED_STARTS = 3
_MOST_CANDIDATES = 64


class Bridge:
    """A method in a child process, which is started anew when it ended.

    Args:
        adapter: name of one in `adapters/`, or a file of the user's (`.py`); of no effect with a command.
        repo: as in `OPTIONS`, like the next ones.
        python: see there.
        checkpoint: see there.
        device: see there.
        timeout: see there.
        start_timeout: see there.
        command: see there.
        options: the adapter's own.

    Raises:
        InputError: something is missing, or the program cannot be started.
    """

    def __init__(
        self,
        *,
        adapter: str = "",
        repo: str = "",
        python: str = "",
        checkpoint: str = "",
        device: str = "cpu",
        timeout: float = 55.0,
        start_timeout: float = 300.0,
        command: str = "",
        **options: object,
    ) -> None:
        self._command = child_command(
            adapter, repo=repo, python=python, checkpoint=checkpoint, command=command
        )
        self._command += ["--device", device, "--options", json.dumps(options, sort_keys=True)]
        if threading.current_thread() is threading.main_thread():
            self._command += ["--parent", str(os.getpid())]
        self.timeout, self._start_timeout = timeout, start_timeout
        self._failed_starts, self._sessions = 0, 0
        self._forgotten: list[int] = []
        try:
            self.child = Child(self._command, start_timeout)
        except BridgeError as error:
            raise InputError(
                f"{adapter or command}: {error}; see that its repository, Python and checkpoint belong together"
            ) from error
        self._ending = weakref.finalize(self, Child.end, self.child)

    @property
    def versions(self) -> Mapping[str, str]:
        """What the child said of itself."""
        return self.child.versions

    def open(self, image: RgbImage) -> BridgeSession:
        """Begin with an image, uint8 (height, width, 3).

        Raises:
            BridgeError: the child ended before and cannot be started again, or fails on the image.
        """
        if not self.child.alive:
            self._start_again()
        self._sessions += 1
        number, forgotten = self._sessions, self._forgotten[:]
        header = {"type": "open", "session": number, "forget": forgotten}
        self.child.ask(header, (image,), timeout=self.timeout)
        del self._forgotten[: len(forgotten)]
        session = BridgeSession(self, self.child, number, (image.shape[0], image.shape[1]))
        weakref.finalize(session, self._forgotten.append, number)
        return session

    def close(self) -> None:
        """End the child."""
        self._ending()

    def _start_again(self) -> None:
        self._ending()
        if self._failed_starts >= _FAILED_STARTS:
            raise BridgeError(f"the program could not be started {_FAILED_STARTS} times in a row")
        try:
            self.child = Child(self._command, self._start_timeout)
        except BridgeError:
            self._failed_starts += 1
            raise
        self._failed_starts = 0
        self._forgotten.clear()
        self._ending = weakref.finalize(self, Child.end, self.child)


class BridgeSession:
    """One image in a child."""

    def __init__(self, method: Bridge, child: Child, number: int, size: tuple[int, int]) -> None:
        self._method, self._child, self._number, self._size = method, child, number, size

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """Candidates for all clicks so far.

        Raises:
            BridgeError: the child ended, is late, raised, or answers something that is no prediction.
        """
        height, width = self._size
        header, arrays = self._ask(
            {"type": "predict", "clicks": [[click.x, click.y, click.positive] for click in clicks]},
            most_bytes=_MOST_CANDIDATES * height * width * 4,
        )
        if header["type"] != "prediction" or len(arrays) != 1:
            raise self._refused(f"{header['type']!r} with {len(arrays)} arrays")
        (masks,) = arrays
        if masks.ndim != 3 or masks.shape[1:] != self._size or not len(masks) or masks.dtype == np.uint8:
            raise self._refused(
                f"masks of shape {masks.shape} and type {masks.dtype}, not (candidates, {height}, {width}) of bool or "
                "float32"
            )
        return Prediction(masks, self._scores(header.get("scores"), len(masks)))

    def keep(self, index: int) -> None:
        """Tell the child which candidate was kept."""
        self._ask({"type": "keep", "index": index})

    def _ask(
        self, header: dict[str, Any], most_bytes: int = 0
    ) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
        if self._child is not self._method.child or not self._child.alive:
            raise BridgeError("the program ended, and what it knew of this sample is gone")
        header["session"] = self._number
        return self._child.ask(header, timeout=self._method.timeout, most_bytes=most_bytes)

    def _scores(self, scores: object, count: int) -> list[float] | None:
        if scores is None:
            return None
        if not isinstance(scores, list) or len(scores) != count:
            raise self._refused(f"scores {scores!r:.80} for {count} masks")
        if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
            raise self._refused(f"scores that are no numbers ({scores!r:.80})")
        return [float(score) for score in scores]

    def _refused(self, what: str) -> BridgeError:
        return BridgeError(f"the program was asked to predict and answered {what}")


def child_command(
    adapter: str, *, repo: str, python: str, checkpoint: str, command: str, name: str = ""
) -> list[str]:
    """What starts the child, checked as far as that can be done before.

    Args:
        adapter: as of `Bridge`, like the next ones.
        repo: see there.
        python: see there.
        checkpoint: see there.
        command: see there.
        name: of the method, for errors.

    Raises:
        InputError: an option, a file or an adapter is missing.
    """
    for option, value in (("repo", repo), ("checkpoint", checkpoint)):
        if value and not Path(value).expanduser().exists():
            raise InputError(
                f"{option} = {value}: there is no such {'folder' if option == 'repo' else 'file'}"
            )
    places = ["--repo", _whole(repo), "--checkpoint", _whole(checkpoint)]
    if command:
        try:
            return [*shlex.split(command), *places]
        except ValueError as error:
            raise InputError(f"command = {command}: {error}; quote it as for a shell") from error
    for option, value in (("python", python), ("repo", repo)):
        if not value:
            raise InputError(
                f"{name or adapter}: it runs in an environment of its own; add --set {option}=PATH"
            )
    if not os.access(Path(python).expanduser(), os.X_OK):
        raise InputError(
            f"python = {python}: no program is there; name the Python of the method's environment"
        )
    program = str(Path(python).expanduser())
    return [program, str(child_file()), "--adapter", str(adapter_file(adapter)), *places]


def adapter_file(name: str) -> Path:
    """The file of an adapter.

    Raises:
        InputError: no such file, or no adapter of this name.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise InputError(f"{name}: there is no such file; name the adapter's file")
        return Path(name).resolve()
    known = adapter_names()
    if name not in known:
        raise unknown_name("adapter", name, known)
    return ADAPTERS / f"{name}.py"


def adapter_names() -> list[str]:
    """The names of all adapters that come with the package."""
    return sorted(path.stem for path in ADAPTERS.glob("*.py") if path.stem != "__init__")


def provenance(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a run records of a bridged method: the repository's commit, the checkpoint's SHA-256.

    Args:
        options: of the method.
    """
    found: dict[str, Any] = {}
    checkpoint, repo = Path(str(options.get("checkpoint") or "")).expanduser(), str(options.get("repo") or "")
    if checkpoint.is_file():
        with checkpoint.open("rb") as file:
            found["checkpoint_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if repo:
        found["repo_commit"] = _said(["git", "-C", str(Path(repo).expanduser()), "rev-parse", "HEAD"])
        found["repo_changed"] = bool(
            _said(["git", "-C", str(Path(repo).expanduser()), "status", "--porcelain", "-uno"])
        )
    return found


def _said(command: Sequence[str]) -> str:
    """What a program prints; "" if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _whole(place: str) -> str:
    return str(Path(place).expanduser().resolve()) if place else ""
