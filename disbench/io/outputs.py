"""Outputs at paths or addresses; an address gets a local working folder whose finished files are uploaded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from disbench.core.errors import InputError
from disbench.io import addresses
from disbench.io.files import Existing, atomic_write, scratch_folder

ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # uploads here appear complete; elsewhere they are renamed
JOURNAL_PAUSE = 60.0  # minimum seconds between two uploads of a journal
_JOURNAL = ".sqlite"
_PARTIAL = ".partial"


class Output:
    """A local folder that a job writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def push(self, path: Path) -> None:
        """Mark a file of the folder as finished."""

    def save(self) -> None:
        """Note that a journal (SQLite) of the folder has grown; cheap to call often."""


@contextmanager
def open_output(
    place: str, names: Sequence[str], *, last: str = "", existing: Existing = "resume", pull: bool = True
) -> Iterator[Output]:
    """Provide a folder for output to a path or an address.

    Files that exist only at the address are downloaded first, so a job started on another machine can be resumed. If
    the block succeeds, files not yet sent by `push` are uploaded, `last` at the very end, and the working folder is
    removed; if it raises, finished files are uploaded and the folder is kept.

    Args:
        place: path or address of a folder.
        names: shell patterns of the job's files; other files at the address are left alone.
        last: the file that marks the job as complete; deleted first when the job starts over.
        existing: for addresses only: `resume` downloads existing files, `overwrite` deletes them, `fail` refuses them.
        pull: whether to download files from the address at all.

    `InputError` if the address is not writable, has results under `fail`, is in use by another process of this machine,
    or if an upload fails.
    """
    address = addresses.address_of(addresses.path_of(place))
    if address is None:
        yield Output(addresses.path_of(place))
        return
    from filelock import FileLock, Timeout  # noqa: PLC0415

    mirror = Mirror(address, names, last)
    try:
        with FileLock(f"{mirror.work_folder}.lock", timeout=0):
            mirror.begin(existing, pull)
            try:
                yield mirror
            except BaseException:
                mirror.send_finished()
                raise
            mirror.complete()
    except Timeout:
        raise InputError(f"{address}: another process of this machine writes to it; wait until it ends") from None


def split_file(place: str) -> tuple[str, str]:
    """Folder and name of a file to be written at a path or an address."""
    folder, _, name = place.rstrip("/").rpartition("/")
    return folder or ("/" if place.startswith("/") else "."), name


class Mirror(Output):
    """A remote folder and its local working folder (made by `open_output`)."""

    def __init__(self, address: str, names: Sequence[str], last: str) -> None:
        self.address, self.names, self.last = address, names, last
        self.work_folder = addresses.cache_folder() / "outputs" / hashlib.sha256(address.encode()).hexdigest()[:16]
        super().__init__(self.work_folder.joinpath(*address.replace("://", "/").split("/")))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._is_atomic = address.partition("://")[0] in ATOMIC
        self._system, self._root = addresses.connect(address)
        # File -> its version at the address, and size and modification time of the same content here.
        self._sent: dict[str, tuple[str, int, int]] = {}
        self._state = self.work_folder / "sent.json"
        self._failed = False
        self._journal_sent, self._pause = time.monotonic(), JOURNAL_PAUSE

    def begin(self, existing: Existing, pull: bool) -> None:
        """Download, delete or refuse existing files; fails now, not after an hour, if the address is not writable."""
        with contextlib.suppress(OSError, ValueError):  # without it, everything is downloaded again
            self._sent = {name: tuple(sent) for name, sent in json.loads(self._state.read_bytes()).items()}
        self._check_writable()
        present = addresses.with_retries(self._listed, self.address)
        if existing == "fail" and present:
            raise InputError(f"{self.address}: there are results already; use another place or --existing overwrite")
        if existing == "overwrite":
            for name in sorted(present, key=lambda name: name != self.last):
                self._remove(name)
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            self._sent = {}
        elif pull:
            self._download(present)
            self._send_changed(self._finished())

    def push(self, path: Path) -> None:
        """Upload a finished file; `InputError` if retries fail (the file stays here, and resuming sends it)."""
        self._send(path, path)

    def save(self) -> None:
        """Upload copies of journals if the last ones are old enough; errors as for `push`."""
        begun = time.monotonic()
        if begun - self._journal_sent < self._pause:
            return
        self._send_changed([path for path in self._finished() if path.suffix == _JOURNAL])
        self._journal_sent = time.monotonic()
        self._pause = max(JOURNAL_PAUSE, 10 * (self._journal_sent - begun))  # at most a tenth of the time

    def send_finished(self) -> None:
        """Upload finished files after the job failed; raises nothing, so the job's error is reported."""
        if not self._failed:
            with contextlib.suppress(InputError, OSError):
                self._send_changed(self._finished())

    def complete(self) -> None:
        """Make the address match the folder (new files, `last`, then deletions), and remove the folder."""
        self._send_changed([*self._finished(), *([self.folder / self.last] if self.last else [])])
        for name in [name for name in self._sent if not (self.folder / name).exists()]:
            self._remove(name)
        shutil.rmtree(self.work_folder, ignore_errors=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _check_writable(self) -> None:
        probe = self.work_folder / "probe"
        probe.write_bytes(b"disbench")

        def write() -> None:
            if not self._is_atomic:  # object stores have no folders, and would make a bucket
                self._system.makedirs(self._root, exist_ok=True)
            self._system.put_file(str(probe), self._at(f"disbench{_PARTIAL}"))

        addresses.with_retries(write, self.address)
        with contextlib.suppress(Exception):  # without permission to delete, a job can still write
            self._system.rm_file(self._at(f"disbench{_PARTIAL}"))

    def _listed(self) -> dict[str, addresses.Entry]:
        """The job's files at the address: name -> file."""
        self._system.invalidate_cache()
        try:
            found = self._system.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        entries = [addresses.entry_of(info) for info in found if info["type"] == "file"]
        named = {entry.name.rpartition("/")[2]: entry for entry in entries}
        return {name: named[name] for name in sorted(named) if self._is_ours(name)}

    def _is_ours(self, name: str) -> bool:
        return bool(name) and not name.endswith(_PARTIAL) and any(fnmatchcase(name, known) for known in self.names)

    def _download(self, present: Mapping[str, addresses.Entry]) -> None:
        """Download files unless the local ones have the same content or continue it."""
        with scratch_folder(self.work_folder / "arriving") as scratch:
            for name, entry in present.items():
                path = self.folder / name
                if path.is_file() and self._sent.get(name, ("",))[0] == entry.version:
                    continue
                addresses.copy_file(self._system, entry, path, f"{self.address}/{name}", scratch)
                self._record_sent(name, entry.version, path.stat())

    def _finished(self) -> list[Path]:
        files = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        return [files[name] for name in sorted(files) if self._is_ours(name) and name != self.last]

    def _send_changed(self, paths: Sequence[Path]) -> None:
        for path in paths:
            status = path.stat()
            sent = self._sent.get(path.relative_to(self.folder).as_posix())
            if sent is not None and sent[1:] == (status.st_size, status.st_mtime_ns):
                continue
            if path.suffix == _JOURNAL:
                with _journal_copy(path, self.work_folder / "journal") as copy:
                    self._send(copy, path)
            else:
                self._send(path, path)

    def _send(self, content: Path, path: Path) -> None:
        name, status = path.relative_to(self.folder).as_posix(), path.stat()

        def upload() -> addresses.Entry:
            self._put(content, self._at(name))
            self._system.invalidate_cache()
            entry = addresses.entry_of(self._system.info(self._at(name)))
            if entry.size not in (None, content.stat().st_size):
                raise OSError(f"only {entry.size} of {content.stat().st_size} bytes arrived")
            return entry

        try:
            entry = addresses.with_retries(upload, f"{self.address}/{name}")
        except InputError as error:
            self._failed = True
            raise InputError(f"cannot be uploaded to {error}; finished files are kept on this machine") from error
        self._record_sent(name, entry.version, status)

    def _put(self, content: Path, target: str) -> None:
        from fsspec import AbstractFileSystem  # noqa: PLC0415

        if self._is_atomic:
            self._system.put_file(str(content), target)
            return
        partial = f"{target}{_PARTIAL}"
        self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(content), partial)
        if self._system.exists(target):  # some file systems cannot rename over an existing file
            self._system.rm_file(target)
        if type(self._system).mv is not AbstractFileSystem.mv:
            self._system.mv(partial, target)
        else:  # as fsspec's mv, which would read "[" and "*" in names as patterns
            self._system.cp_file(partial, target)
            self._system.rm_file(partial)

    def _remove(self, name: str) -> None:
        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(self._at(name))

        addresses.with_retries(remove, f"{self.address}/{name}")
        self._sent.pop(name, None)
        self._write_state()

    def _record_sent(self, name: str, version: str, status: os.stat_result) -> None:
        self._sent[name] = (version, status.st_size, status.st_mtime_ns)
        self._write_state()

    def _write_state(self) -> None:
        with atomic_write(self._state) as file:
            file.write(json.dumps(self._sent).encode())


@contextmanager
def _journal_copy(path: Path, copy: Path) -> Iterator[Path]:
    """A consistent copy of a SQLite file that may be written to concurrently; `InputError` if it cannot be read."""
    copy.unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as to:
            source.backup(to)
        yield copy
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be copied ({error}); run the same command again") from error
    finally:
        copy.unlink(missing_ok=True)
