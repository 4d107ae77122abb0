"""Outputs at addresses: a working folder on this machine, whose finished files are sent to the address."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from disbench.core.errors import InputError
from disbench.io import addresses
from disbench.io.files import whole_file

ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Kinds of addresses at which a file appears whole when its upload has ended; elsewhere it gets its name then."""
JOURNAL_PAUSE = 60.0
"""Seconds, at least, from one copy of a journal to the next."""
_JOURNAL = ".sqlite"
_PARTIAL = ".partial"
Existing = Literal["resume", "overwrite", "fail"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A file of the working folder as it was sent to the address, or came from it.

    Attributes:
        version: of the file at the address (`disbench.io.addresses.Entry`).
        size: bytes of the file here.
        changed: its time of change (nanoseconds) here.
    """

    version: str
    size: int
    changed: int


class Mirror:
    """A folder at an address, and the working folder on this machine that a job writes.

    As a context manager it brings what is at the address and not here, so that a job that another machine began can
    be resumed. `push` sends a file that is finished. A block that ends well sends the rest, `last` at the very end,
    and removes the working folder; one that ends with an error sends what is finished and keeps the folder.

    Args:
        address: of the folder.
        names: shell patterns of the files that belong to the job; others at the address are left alone.
        last: the file that says that the job is complete; it is removed first when the job begins again.
        existing: `resume` brings what is there, `overwrite` removes it, `fail` refuses it.
        pull: whether files at the address are brought here at all.
        keep: keep the working folder after a complete job.
    """

    def __init__(
        self,
        address: str,
        names: Sequence[str],
        *,
        last: str = "",
        existing: Existing = "resume",
        pull: bool = True,
        keep: bool = False,
    ) -> None:
        self.address, self.names, self.last = addresses.plain(address), names, last
        self.existing, self.pull, self.keep = existing, pull, keep
        key = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        self._stem = addresses.cache_folder() / "outputs" / f"{self.address.rpartition('/')[2]}-{key}"
        self.folder = self._stem
        self._state = self._beside("json")
        self._known: dict[str, Sent] = {}
        self._failed = False
        self._journal_sent, self._pause = time.monotonic(), JOURNAL_PAUSE
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Mirror:
        """Make the working folder ready.

        Raises:
            InputError: the address cannot be written, something is there and may not, or another process of this
                machine writes to it.
        """
        addresses.call(self.folder, self.address)
        with contextlib.ExitStack() as exits:
            if not exits.enter_context(addresses.alone(self._beside("lock"), wait=False)):
                raise InputError(f"{self.address}: another process of this machine writes to it; wait for its end")
            self._system, self._root = addresses.connected(self.address)
            self._known = self._read_state()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._prove_writable()
            self._meet_existing()
            self._exits = exits.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Send what is not sent yet.

        Raises:
            InputError: it cannot be sent. After an error of the block that one comes first, and the folder stays.
        """
        with self._exits:
            if error is None:
                self._send_rest()
                if not self.keep:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    shutil.rmtree(self._beside("arriving"), ignore_errors=True)
                    for ending in ("json", "probe"):
                        self._beside(ending).unlink(missing_ok=True)
            elif not self._failed:
                with contextlib.suppress(InputError, OSError):
                    self._send_changed(self._finished())

    def push(self, path: Path) -> None:
        """Send a finished file of the working folder.

        Raises:
            InputError: it cannot be sent, after several attempts; it stays here, and resuming goes on from it.
        """
        self._send(path, path)

    def save(self) -> None:
        """Send copies of journals (SQLite), if the last ones are old enough; call it as often as you like.

        Raises:
            InputError: as `push`.
        """
        if time.monotonic() - self._journal_sent < self._pause:
            return
        begun = time.monotonic()
        self._send_changed([path for path in self._finished() if path.suffix == _JOURNAL])
        self._journal_sent = time.monotonic()
        self._pause = max(JOURNAL_PAUSE, 10 * (self._journal_sent - begun))  # a tenth of the time, at most

    def _beside(self, ending: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{ending}")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _prove_writable(self) -> None:
        """Fail at the start, not after an hour, if nothing can be written there."""
        probe = self._beside("probe")
        probe.write_bytes(b"disbench")

        def write() -> None:
            if not self._is_atomic:  # object stores have no folders, and would make a bucket
                self._system.makedirs(self._root, exist_ok=True)
            self._system.put_file(str(probe), self._at(f"disbench{_PARTIAL}"))

        addresses.patiently(write, self.address)
        with contextlib.suppress(Exception):  # who may write and not remove can still sample and run
            self._system.rm_file(self._at(f"disbench{_PARTIAL}"))

    @property
    def _is_atomic(self) -> bool:
        return self.address.partition("://")[0] in ATOMIC

    def _meet_existing(self) -> None:
        present = addresses.patiently(self._listed, self.address)
        if self.existing == "fail" and present:
            raise InputError(
                f"{self.address}: there are results already; name another folder or use --existing overwrite"
            )
        if self.existing == "overwrite":
            for name in sorted(present, key=lambda name: name != self.last):
                self._remove(name)
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            self._known = {}
            self._write_state()
        elif self.pull:
            for name, entry in present.items():
                self._bring(name, entry)
            self._send_changed(self._finished())

    def _listed(self) -> dict[str, addresses.Entry]:
        """Name -> file, of the job's files at the address."""
        self._system.invalidate_cache()
        try:
            found = self._system.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        entries = [addresses.entry_of(info) for info in found if info["type"] == "file"]
        named = {entry.name.rpartition("/")[2]: entry for entry in entries}
        return {name: named[name] for name in sorted(named) if self._is_ours(name)}

    def _is_ours(self, name: str) -> bool:
        return not name.endswith(_PARTIAL) and bool(name) and addresses.names_match(name, self.names)

    def _bring(self, name: str, entry: addresses.Entry) -> None:
        """Copy a file from the address, unless the one here is the same or goes on from it."""
        path, sent = self.folder / name, self._known.get(name)
        if sent is not None and sent.version == entry.version and path.is_file():
            return
        addresses.copy_here(self._system, entry, path, f"{self.address}/{name}", self._beside("arriving"))
        self._note(name, entry.version, path)

    def _finished(self) -> list[Path]:
        """The job's files here, without the last."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = {path: path.relative_to(self.folder).as_posix() for path in files}
        return [path for path in files if self._is_ours(names[path]) and names[path] != self.last]

    def _send_rest(self) -> None:
        """Make the address what the folder is: new files, then the last, then what went away here."""
        self._send_changed([*self._finished(), *([self.folder / self.last] if self.last else [])])
        for name in [name for name in self._known if not (self.folder / name).exists()]:
            self._remove(name)

    def _send_changed(self, paths: Sequence[Path]) -> None:
        for path in paths:
            sent, status = self._known.get(path.relative_to(self.folder).as_posix()), path.stat()
            if sent is not None and (sent.size, sent.changed) == (status.st_size, status.st_mtime_ns):
                continue
            if path.suffix == _JOURNAL:
                with _copied_journal(path, self._beside("journal")) as copy:
                    self._send(copy, path)
            else:
                self._send(path, path)

    def _send(self, content: Path, path: Path) -> None:
        """Send a file's content under the name that a path of the folder has."""
        name, status = path.relative_to(self.folder).as_posix(), path.stat()
        target = self._at(name)

        def upload() -> addresses.Entry:
            self._put(content, target)
            entry = addresses.look_at(self._system, target)
            if entry.size not in (None, content.stat().st_size):
                raise OSError(f"{entry.size} bytes arrived of {content.stat().st_size}")
            return entry

        try:
            entry = addresses.patiently(upload, f"{self.address}/{name}")
        except InputError as error:
            self._failed = True
            raise InputError(f"cannot be sent to {error}; what is finished is kept on this machine") from error
        self._known[name] = Sent(entry.version, status.st_size, status.st_mtime_ns)
        self._write_state()

    def _put(self, content: Path, target: str) -> None:
        if self._is_atomic:
            self._system.put_file(str(content), target)
            return
        self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(content), f"{target}{_PARTIAL}")
        if self._system.exists(target):  # not every file system renames over another file
            self._system.rm_file(target)
        self._rename(f"{target}{_PARTIAL}", target)

    def _rename(self, old: str, new: str) -> None:
        from fsspec import AbstractFileSystem  # noqa: PLC0415

        if type(self._system).mv is not AbstractFileSystem.mv:
            self._system.mv(old, new)
        else:  # what fsspec does for it, without reading "[" and "*" in names as patterns
            self._system.cp_file(old, new)
            self._system.rm_file(old)

    def _remove(self, name: str) -> None:
        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(self._at(name))

        addresses.patiently(remove, f"{self.address}/{name}")
        self._known.pop(name, None)
        self._write_state()

    def _note(self, name: str, version: str, path: Path) -> None:
        status = path.stat()
        self._known[name] = Sent(version, status.st_size, status.st_mtime_ns)
        self._write_state()

    def _write_state(self) -> None:
        content = {name: [sent.version, sent.size, sent.changed] for name, sent in self._known.items()}
        with whole_file(self._state) as file:
            file.write(json.dumps(content).encode())

    def _read_state(self) -> dict[str, Sent]:
        try:
            return {name: Sent(*sent) for name, sent in json.loads(self._state.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):  # without it, all is brought again
            return {}


@dataclass(frozen=True, slots=True)
class Output:
    """Where a job writes.

    Attributes:
        folder: on this machine.
        mirror: of an address; None where the folder itself was named.
    """

    folder: Path
    mirror: Mirror | None = None

    def push(self, path: Path) -> None:
        """Tell that a file is finished."""
        if self.mirror is not None:
            self.mirror.push(path)

    def save(self) -> None:
        """Tell that a journal has grown."""
        if self.mirror is not None:
            self.mirror.save()


@contextmanager
def output(place: str, names: Sequence[str], **options: Any) -> Iterator[Output]:
    """Where to write what a user wants at a path or an address.

    Args:
        place: a folder's path, or its address.
        names: of the files (`Mirror`).
        options: further ones of `Mirror`.

    Yields:
        The folder to write to; at the end of the block its content is at the address.

    Raises:
        InputError: as `Mirror`.
    """
    if not addresses.is_address(place) or addresses.plain(place).startswith(("file://", "local://")):
        yield Output(addresses.path_of(place))
        return
    with Mirror(place, names, **options) as mirror:
        yield Output(mirror.folder, mirror)


def split_file(place: str) -> tuple[str, str]:
    """The folder and the name of a file that is to be written at a path or an address."""
    folder, _, name = (addresses.plain(place) if addresses.is_address(place) else place).rpartition("/")
    return folder or ("/" if place.startswith("/") else "."), name


@contextmanager
def _copied_journal(path: Path, copy: Path) -> Iterator[Path]:
    """A consistent copy of a SQLite file that may be written to meanwhile.

    Raises:
        InputError: the file cannot be read.
    """
    copy.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(copy)) as to,
        ):
            source.backup(to)
        yield copy
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be copied ({error}); run the same command again") from error
    finally:
        copy.unlink(missing_ok=True)
