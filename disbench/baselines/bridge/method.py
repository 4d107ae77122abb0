"""The bridge as a method: a peer's own code in its own Python, or any program that speaks the protocol."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from disbench.baselines.bridge.adapters import LOADERS
from disbench.baselines.bridge.process import Answer, BridgeError, Child
from disbench.core.clicks import Click
from disbench.core.errors import InputError, unknown_name
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.files import file_sha256
from disbench.io.options import Option
from disbench.io.settings import Bounds

CHILD = Path(__file__).with_name("child.py")
"""The program that runs adapters."""
_STARTS = 3
_MOST_CANDIDATES = 64


class Bridge:
    """A method in a child process, which is restarted after it ended.

    `adapter` is a name in `adapters.py` or a user's file (`.py`), and is ignored with a command; `options` are the
    adapter's own.
    """

    def __init__(
        self,
        *,
        adapter: str = "",
        repo: Annotated[str, Option(help="Checkout of the method's own code.", execution=True)] = "",
        python: Annotated[str, Option(help="The Python of the environment that it runs in.", execution=True)] = "",
        checkpoint: Annotated[str, Option(help="File of the trained weights, in the method's own format.")] = "",
        device: Annotated[str, Option(help="Device of torch: cpu, cuda, cuda:1.", execution=True)] = "cpu",
        timeout: Annotated[float, Bounds(0.1), Option(help="Seconds that one call may take.", execution=True)] = 55.0,
        start_timeout: Annotated[
            float, Bounds(0.1), Option(help="Seconds until the model must be ready.", execution=True)
        ] = 300.0,
        command: Annotated[
            str, Option(help="A program that speaks the protocol, in place of python and the adapter.", execution=True)
        ] = "",
        **options: object,
    ) -> None:
        if os.name != "posix":
            raise InputError("the bridge needs pipes as Linux and macOS have them; run it there")
        self._name = adapter or command
        self._command = child_command(adapter, repo=repo, python=python, checkpoint=checkpoint, command=command)
        self._command += ["--device", device, "--options", json.dumps(options, sort_keys=True)]
        self.timeout, self._start_timeout = timeout, start_timeout
        self._sessions = 0
        self._forgotten: list[int] = []
        try:
            self._start()
        except BridgeError as error:
            raise InputError(
                f"{self._name}: {error}; see that its repository, Python and checkpoint belong together"
            ) from error

    @property
    def versions(self) -> Mapping[str, str]:
        """The child's Python and libraries."""
        return self.child.versions

    @property
    def takes_granularity(self) -> bool:
        """Whether the child's `open` takes one."""
        return self.child.takes_granularity

    def open(self, image: RgbImage, granularity: float | None = None) -> BridgeSession:
        """Begin with an image, uint8 (height, width, 3); a granularity only for a child that takes one."""
        self.make_ready()
        self._sessions += 1
        number, forgotten = self._sessions, self._forgotten[:]
        header: dict[str, Any] = {"type": "open", "session": number, "forget": forgotten}
        if granularity is not None:
            header["granularity"] = granularity
        self.child.ask(header, (image,), timeout=self.timeout)
        del self._forgotten[: len(forgotten)]
        session = BridgeSession(self, self.child, number, (image.shape[0], image.shape[1]))
        weakref.finalize(session, self._forgotten.append, number)
        return session

    def close(self) -> None:
        """End the child."""
        self._ending()

    def make_ready(self) -> None:
        """Restart the child if it ended; the harness calls this before a sample, outside the time limits."""
        if self.child.alive:
            return
        self._ending()
        for tried in range(1, _STARTS + 1):
            try:
                self._start()
                return
            except BridgeError as error:
                if tried == _STARTS:
                    raise InputError(
                        f"{self._name}: the program ended and could not be started again in {_STARTS} attempts: "
                        f"{error}; fix that and run the same command again to resume"
                    ) from error

    def _start(self) -> None:
        command = self._command
        if threading.current_thread() is threading.main_thread():  # the child of another ends with that thread
            command = [*command, "--parent", str(os.getpid())]
        self.child = Child(command, self._start_timeout)
        self._forgotten.clear()
        self._ending = weakref.finalize(self, Child.end, self.child)


class BridgeSession:
    """One image in a child."""

    def __init__(self, method: Bridge, child: Child, number: int, size: tuple[int, int]) -> None:
        self._method, self._child, self._number, self._size = method, child, number, size

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """Candidates for all clicks so far.

        Raises:
            BridgeError: the child ended, is late, raised, or did not answer with one array.
        """
        height, width = self._size
        header, arrays = self._ask(
            {"type": "predict", "clicks": [[click.x, click.y, click.positive] for click in clicks]},
            most_bytes=_MOST_CANDIDATES * height * width * 4,
        )
        if len(arrays) != 1:
            raise BridgeError(f"the program was asked to predict and answered {len(arrays)} arrays, not one of masks")
        return Prediction(arrays[0], header.get("scores"))

    def keep(self, index: int) -> None:
        """Tell the child which candidate was kept."""
        self._ask({"type": "keep", "index": index})

    def _ask(self, header: dict[str, Any], most_bytes: int = 0) -> Answer:
        if self._child is not self._method.child or not self._child.alive:
            raise BridgeError("the program ended, and what it knew of this sample is gone")
        header["session"] = self._number
        return self._child.ask(header, timeout=self._method.timeout, most_bytes=most_bytes)


def child_command(adapter: str, *, repo: str, python: str, checkpoint: str, command: str, name: str = "") -> list[str]:
    """The child's command line from the arguments of `Bridge`, which are checked; `name` is for errors."""
    if repo and not Path(repo).expanduser().is_dir():
        raise InputError(f"repo = {repo}: there is no such folder; name a checkout of the method's code")
    if checkpoint and not Path(checkpoint).expanduser().exists():
        raise InputError(f"checkpoint = {checkpoint}: there is no such file; name the trained weights")
    places = ["--repo", _whole(repo), "--checkpoint", _whole(checkpoint)]
    if command:
        return [*_program_of(command), *places]
    needed = {"python": python, "repo": repo}
    if not adapter.endswith(".py"):
        needed["checkpoint"] = checkpoint
    for option, value in needed.items():
        if not value:
            raise InputError(
                f"{name or adapter}: it runs in an environment of its own; install it (disbench methods install) "
                f"and add --variant NAME, or add --set {option}=PATH"
            )
    program = _found(python)
    if program is None:
        raise InputError(f"python = {python}: no program is there; name the Python of the method's environment")
    return [program, str(CHILD), "--adapter", checked_adapter(adapter), *places]


def _program_of(command: str) -> list[str]:
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise InputError(f"command = {command}: {error}; quote it as for a shell") from error
    program = _found(parts[0]) if parts else None
    if program is None:
        raise InputError(f"command = {command}: it cannot be started; begin it with a program that is here")
    return [program, *parts[1:]]


def _found(program: str) -> str | None:
    """The whole path of a program; links are kept, since an environment's Python is often one."""
    place = Path(program).expanduser()
    return shutil.which(str(place.absolute()) if os.sep in program else program)


def checked_adapter(name: str) -> str:
    """An adapter as `child.py` takes it: a known name, or the whole path of a file."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise InputError(f"{name}: there is no such file; name the adapter's file")
        return str(Path(name).resolve())
    if name not in LOADERS:
        raise unknown_name("adapter", name, LOADERS)
    return name


def provenance(options: Mapping[str, Any]) -> dict[str, Any]:
    """For a run's record: the repository's commit, and SHA-256 of the checkpoint and of a user's adapter."""
    found: dict[str, Any] = {}
    for name, ending in (("checkpoint", ""), ("adapter", ".py")):
        path = Path(str(options.get(name) or "")).expanduser()
        if path.is_file() and path.name.endswith(ending):
            found[f"{name}_sha256"] = file_sha256(path)
    if options.get("repo"):
        folder = str(Path(str(options["repo"])).expanduser())
        git = ["git", "-C", folder]
        own = bool(_said([*git, "ls-files"]))  # else it lies in another checkout, or in none
        found["repo_commit"] = _said([*git, "rev-parse", "HEAD"]) if own else ""
        found["repo_changed"] = own and bool(_said([*git, "status", "--porcelain", "-uno", "."]))
    return found


def _said(command: Sequence[str]) -> str:
    """A program's output; "" if it fails or is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _whole(place: str) -> str:
    return str(Path(place).expanduser().resolve()) if place else ""
