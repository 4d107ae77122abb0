"""The bridge as a method: a peer's code in its own Python, or any program that speaks the protocol.

A `Bridge` runs one child process at a time (`Child`); `child.py` is the code of the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from disbench.baselines.bridge.adapters import LOADERS
from disbench.baselines.bridge.child import MAGIC, PROTOCOL, WireError, packed, read_message
from disbench.core.clicks import Click
from disbench.core.errors import InputError, unknown_name
from disbench.core.prediction import MethodError, Prediction, RgbImage
from disbench.io.files import file_sha256
from disbench.io.settings import Bounds, Option
from disbench.workers.processes import delay_interrupts, describe_exit

CHILD = Path(__file__).with_name("child.py")  # the program that runs adapters
SHIMS = Path(__file__).with_name("shims")
"""Folder of `sitecustomize.py`, which makes older systems work with newer packages."""
Answer = tuple[dict[str, Any], list[npt.NDArray[Any]]]
_STARTS = 3
_MOST_CANDIDATES = 64
_WORDS = 4096  # bytes of the child's standard error that are kept
_SENTENCE, _FEWEST_WORDS = 300, 60  # characters of an error, and at least of the child's stderr in it
_BEGINNING = 60  # bytes of a message quoted in an error
_PIPE_BYTES = 1 << 20
_PARTING_SECONDS = 2.0
_GLANCE_SECONDS = 0.5  # between checks of a silent child: its own children may hold its pipes open
_ANSWERS = {"start": "ready", "open": "opened", "predict": "prediction", "keep": "kept", "restart": "restarted"}


class Bridge:
    """A method in a child process, which is restarted if it ends.

    `adapter` is a name in `adapters.py` or a user's file (`.py`), ignored if `command` is given; `options` go to the
    adapter.
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
            raise InputError("the bridge needs POSIX pipes; run it on Linux or macOS")
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
                f"{self._name}: {error}; check that its repository, Python and checkpoint belong together"
            ) from error

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the child's Python and libraries."""
        return self.child.versions

    @property
    def takes_granularity(self) -> bool:
        """Whether the child's `open` takes a granularity."""
        return self.child.takes_granularity

    def open(self, image: RgbImage, granularity: float | None = None) -> BridgeSession:
        """Begin with an image, uint8 (height, width, 3); pass `granularity` only to a child that takes it."""
        self.make_ready()
        self._sessions += 1
        number, forgotten = self._sessions, self._forgotten[:]
        header: dict[str, Any] = {"type": "open", "session": number, "forget": forgotten}
        if granularity is not None:
            header["granularity"] = granularity
        answer, _ = self.child.ask(header, (image,), timeout=self.timeout)
        del self._forgotten[: len(forgotten)]
        kind = RestartableSession if answer.get("restart") is True else BridgeSession
        session = kind(self, self.child, number, (image.shape[0], image.shape[1]))
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
        if threading.current_thread() is threading.main_thread():  # otherwise the child would die with this thread
            command = [*command, "--parent", str(os.getpid())]
        self.child = Child(command, self._start_timeout)
        self._forgotten.clear()
        self._ending = weakref.finalize(self, Child.end, self.child)


class BridgeSession:
    """One image in a child."""

    def __init__(self, method: Bridge, child: Child, number: int, size: tuple[int, int]) -> None:
        self._method, self._child, self._number, self._size = method, child, number, size

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """Candidates for all clicks; `BridgeError` if the child ended, timed out, raised, or did not send one array."""
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


class RestartableSession(BridgeSession):
    """One image in a child that can forget its clicks."""

    def restart(self) -> None:
        """Forget all clicks."""
        self._ask({"type": "restart"})


def child_command(adapter: str, *, repo: str, python: str, checkpoint: str, command: str, name: str = "") -> list[str]:
    """Check the arguments of `Bridge` and return the child's command line; `name` is for error messages."""
    if repo and not Path(repo).expanduser().is_dir():
        raise InputError(f"repo = {repo}: no such folder; name a checkout of the method's code")
    if checkpoint and not Path(checkpoint).expanduser().exists():
        raise InputError(f"checkpoint = {checkpoint}: no such file; name the trained weights")
    whole = [str(Path(place).expanduser().resolve()) if place else "" for place in (repo, checkpoint)]
    places = ["--repo", whole[0], "--checkpoint", whole[1]]
    if command:
        return [*_program_of(command), *places]
    needed = {"python": python, "repo": repo}
    if not adapter.endswith(".py"):
        needed["checkpoint"] = checkpoint
    for option, value in needed.items():
        if not value:
            raise InputError(
                f"{name or adapter}: the method runs in its own environment; install it (disbench methods install) "
                f"and add --variant NAME, or add --set {option}=PATH"
            )
    program = _found(python)
    if program is None:
        raise InputError(f"python = {python}: no such program; name the Python of the method's environment")
    if not adapter.endswith(".py"):
        if adapter not in LOADERS:
            raise unknown_name("adapter", adapter, LOADERS)
    elif not Path(adapter).is_file():
        raise InputError(f"{adapter}: no such file; name the adapter's file")
    else:
        adapter = str(Path(adapter).resolve())
    return [program, str(CHILD), "--adapter", adapter, *places]


def _program_of(command: str) -> list[str]:
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise InputError(f"command = {command}: {error}; quote it as in a shell") from error
    program = _found(parts[0]) if parts else None
    if program is None:
        raise InputError(f"command = {command}: cannot be started; begin it with an existing program")
    return [program, *parts[1:]]


def _found(program: str) -> str | None:
    """Absolute path of a program; links are not resolved, since an environment's Python is often a link."""
    place = Path(program).expanduser()
    return shutil.which(str(place.absolute()) if os.sep in program else program)


def provenance(options: Mapping[str, Any]) -> dict[str, Any]:
    """For the run record: the repository's commit, and SHA-256 of the checkpoint and of a user's adapter."""
    found: dict[str, Any] = {}
    for name, ending in (("checkpoint", ""), ("adapter", ".py")):
        path = Path(str(options.get(name) or "")).expanduser()
        if path.is_file() and path.name.endswith(ending):
            found[f"{name}_sha256"] = file_sha256(path)
    if options.get("repo"):
        git = ["git", "-C", str(Path(str(options["repo"])).expanduser())]
        own = bool(_output_of([*git, "ls-files"]))  # otherwise the folder is not a checkout itself
        found["repo_commit"] = _output_of([*git, "rev-parse", "HEAD"]) if own else ""
        found["repo_changed"] = own and bool(_output_of([*git, "status", "--porcelain", "-uno", "."]))
    return found


def _output_of(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class BridgeError(MethodError):
    """The program did not answer according to the protocol; the message is one sentence."""


class Child:
    """A child process started by a command; it must be ready within `timeout` seconds."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        import fcntl  # noqa: PLC0415  (not on every system)

        self._stderr, self._received, self._ended = bytearray(), bytearray(), False
        # The child's Python must not search this Python's modules.
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONHOME"}
        environment["PYTHONPATH"] = str(SHIMS)
        try:
            with delay_interrupts():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise BridgeError(f"{command[0]} cannot be started ({error.strerror})") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._incoming, self._outgoing = self._process.stdout.fileno(), self._process.stdin.fileno()
        os.set_blocking(self._outgoing, False)
        for pipe in (self._incoming, self._outgoing):  # a pipe that holds a whole mask needs fewer round trips
            with contextlib.suppress(AttributeError, OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._listener = threading.Thread(target=self._drain_stderr, daemon=True)
        self._listener.start()
        header, _ = self.ask({"type": "start"}, timeout=timeout)
        if header.get("protocol") != PROTOCOL:
            self.end()
            raise BridgeError(f"the program speaks protocol {_plain(header.get('protocol'))}, not {PROTOCOL}")
        self.takes_granularity = header.get("granularity") is True
        said = header.get("versions")
        known = said.items() if isinstance(said, dict) else ()
        self.versions: Mapping[str, str] = {_plain(name): _plain(text) for name, text in known}

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def ask(
        self, header: Mapping[str, Any], arrays: Sequence[npt.NDArray[Any]] = (), *, timeout: float, most_bytes: int = 0
    ) -> Answer:
        """Send a message (nothing for "start") and wait for the answer, both within `timeout` seconds.

        Failure and interruption end the child: the rest of an answer would be read as the next answer.

        Raises:
            BridgeError: the child ended, timed out, reported an error, broke the protocol or sent arrays of more than
                `most_bytes`.
        """
        verb = header["type"]
        asked = f"the program was asked to {verb} and"
        end = time.monotonic() + timeout
        self._received.clear()
        try:
            for piece in packed(header, arrays) if verb != "start" else ():
                self._write(piece, end)
            answer, found = read_message(lambda count: self._read(count, end), most_bytes)
        except (WireError, EOFError, OSError) as error:
            happened = self._describe_failure(error, timeout)
            self.end(0)
            raise self._with_stderr(f"{asked} {happened}") from None
        except BaseException:
            self.end(0)
            raise
        if answer["type"] == "error":
            if verb == "start":
                self.end(0)
            where = f" ({_plain(answer['where'])[:60]})" if answer.get("where") else ""
            words = _plain(answer.get("error") or "an error without words")
            raise BridgeError(f"{asked} raised {words[: _SENTENCE - len(asked) - 8 - len(where)]}{where}")
        if answer["type"] != _ANSWERS[verb]:
            self.end(0)
            raise BridgeError(f"{asked} answered {_plain(answer['type'])[:40]!r} where {_ANSWERS[verb]!r} was due")
        return answer, found

    def end(self, patience: float = _PARTING_SECONDS) -> None:
        """End the process and its children, `patience` seconds after closing its input."""
        if self._ended:
            return  # its process id may have been reused
        self._ended = True
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._wait_for_end(patience)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(_PARTING_SECONDS)

    def _wait_for_end(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _describe_failure(self, error: Exception, timeout: float) -> str:
        if isinstance(error, WireError):
            wrote = f"{found} where a message was due" if (found := self._unexpected_output()) else str(error)
            return f"wrote {wrote}; its standard output is for the protocol alone"
        if isinstance(error, TimeoutError):
            happened = f"did not answer within {timeout:g} s"
        else:
            self._wait_for_end(_PARTING_SECONDS)
            happened = "closed its standard output"
            if (code := self._process.poll()) is not None:
                happened = f"{'was' if code < 0 else 'ended with'} {describe_exit(code)}"
        wrote = self._unexpected_output()
        return f"wrote {wrote}, and {happened}" if wrote else happened

    def _read(self, count: int, end: float) -> npt.NDArray[np.uint8]:
        content = np.empty(count, dtype=np.uint8)  # unlike a bytearray, not zeroed first
        view, done = content.data, 0
        while done < count:
            self._wait(self._incoming, select.POLLIN, end)
            got = os.readv(self._incoming, [view[done:]])
            if not got:
                raise EOFError
            if len(self._received) < _BEGINNING:
                self._received += view[done : done + min(got, _BEGINNING)]
            done += got
        return content

    def _write(self, piece: bytes | memoryview, end: float) -> None:
        view = memoryview(piece)
        while view:
            self._wait(self._outgoing, select.POLLOUT, end)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._outgoing, view) :]

    def _drain_stderr(self) -> None:
        """Drain the child's standard error so that it never blocks, keeping the end."""
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError), self._process.stderr as stream:
            while said := stream.read(1 << 16):
                self._stderr = (self._stderr + said)[-_WORDS:]

    def _wait(self, descriptor: int, event: int, end: float) -> None:
        """Wait until a pipe can be read or written; EOFError if the child has ended and left nothing to read."""
        poll = select.poll()
        poll.register(descriptor, event)
        while (left := end - time.monotonic()) > 0:
            gone = not self.alive
            if poll.poll(0 if gone else 1000 * min(left, _GLANCE_SECONDS)):
                return
            if gone:
                raise EOFError
        raise TimeoutError

    def _unexpected_output(self) -> str:
        """The child's output where a message was expected; "" if it may be the start of a message."""
        heard = bytes(self._received)
        if heard.startswith(MAGIC[: len(heard)]):
            return ""
        if select.select([self._incoming], [], [], 0)[0]:
            heard += os.read(self._incoming, _BEGINNING)
        return repr(heard[:_BEGINNING])

    def _with_stderr(self, sentence: str) -> BridgeError:
        words = _plain(bytes(self._stderr).decode(errors="replace"))
        sentence = sentence[: _SENTENCE - _FEWEST_WORDS] if words else sentence
        joined = f"{sentence}; its last words: "
        return BridgeError(joined + words[len(joined) - _SENTENCE :] if words else sentence)


def _plain(text: object) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
