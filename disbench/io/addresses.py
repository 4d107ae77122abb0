"""Remote inputs (`s3://bucket/folder`, `gs://...`, any scheme that fsspec supports), cached on this machine.

The path of a copy depends only on its address; each process compares a copy with its source once, on first use.
fsspec's own caches (`filecache`, `simplecache`) name files by hash, while readers need the original folder layout, and
they expose a file under its final name before it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from disbench.core.errors import InputError, unknown_name
from disbench.io.files import add_file_name, scratch_folder, user_cache

THREADS = 16  # files copied in parallel
RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before each retry; the file system's own retries come first
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL = ("file", "local")
# Keys of a file's info that change with its content, most reliable first.
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "updated", "created")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

Result = TypeVar("Result")
_copied: dict[Path, str] = {}  # copies that this process made or found unchanged: local path -> address


class Entry(NamedTuple):
    """A remote file: its name, its size in bytes (None if unknown), and a version that changes with its content."""

    name: str
    size: int | None
    version: str

    @property
    def stamp(self) -> int:
        """Modification time (ns) that marks a copy of this version, so that one rename publishes both."""
        number = int.from_bytes(hashlib.sha256(self.version.encode()).digest()[:8], "big")
        return (10**15 + number % (6 * 10**14)) * 1000  # 2001 to 2020; some file systems keep whole microseconds

    def matches(self, path: Path) -> bool:
        """True if a local file is a copy of this version."""
        try:
            status = path.stat()
        except OSError:
            return False
        return status.st_mtime_ns == self.stamp and self.size in (None, status.st_size)


def is_address(text: object) -> bool:
    """True if `text` is an address, `scheme://...`, rather than a path."""
    return bool(_ADDRESS.match(str(text)))


def cache_folder() -> Path:
    """The folder for copies: `$DISBENCH_CACHE`, or `disbench/remote` in the user's cache folder."""
    own = os.environ.get("DISBENCH_CACHE")
    return (Path(own) if own else user_cache() / "remote").resolve()


def _checked(address: str) -> tuple[str, str]:
    """The scheme of an address, and the rest without a trailing slash.

    `InputError` if it is empty, has a part such as "..", is chained, or holds a secret (addresses are stored in
    results).
    """
    scheme, _, rest = address.partition("://")
    scheme, rest = scheme.lower(), rest.rstrip("/")
    if scheme in _LOCAL:
        return scheme, rest
    host = rest.partition("/")[0]
    if "@" in host and scheme not in ("abfs", "abfss"):  # for these two, the part before the @ is a container
        said = f"{scheme}://...@{host.rpartition('@')[2]}: a user or password would be written into results"
        raise InputError(f"{said}; set credentials in the environment or in fsspec's configuration")
    if scheme in ("http", "https") and "?" in rest:
        said = f"{scheme}://{rest.partition('?')[0]}: the part after '?' may be a secret and would be stored in results"
        raise InputError(f"{said}; download the file yourself and give its path")
    if "::" in address:
        raise InputError(f"{address}: chained addresses are not supported; give the address of the file itself")
    rest = rest.lstrip("/") if scheme == "memory" else rest
    if not all(map(_is_name, rest.split("/"))):
        raise InputError(f"{address}: not the address of a file or folder; write it as {scheme}://place/name")
    return scheme, rest


def path_of(text: str) -> Path:
    """The local path of a path or address; for anything but `file://` that of its copy, which `local_copy` makes."""
    if not is_address(text):
        return Path(text)
    scheme, rest = _checked(text)
    return Path(rest) if scheme in _LOCAL else cache_folder() / "inputs" / scheme / rest


def address_of(path: Path) -> str | None:
    """The address whose copy is stored at `path`, or None."""
    root = cache_folder() / "inputs"
    if not path.is_relative_to(root) or len(path.parts) < len(root.parts) + 2:
        return None
    scheme, *parts = path.relative_to(root).parts
    return f"{scheme}://{'/'.join(parts)}"


def restore_addresses(text: str) -> str:
    """A message for the user, with cache paths replaced by addresses."""
    return re.sub(rf"{re.escape(str(cache_folder()))}/(?:inputs|outputs/[0-9a-f]+)/([^/]+)/", r"\1://", text)


def local_copy(path: Path, *, optional: bool = False) -> Path:
    """Return `path`; if it belongs to an address (`path_of`), copy the remote file or folder to it first.

    A file gets its name only once it is complete, and files deleted at the address are deleted here too. Each process
    checks an address once. `InputError` if nothing exists there (unless `optional`), it changed during the copy, it
    cannot be reached, or its package is missing; OSError if the disk is full or not writable.
    """
    address = address_of(path)
    if address is None or _is_copied(path):
        return path
    try:
        _copy(address, path)
    except InputError as error:
        if not optional or not isinstance(error.__cause__, FileNotFoundError):
            raise
    return path


def _is_copied(path: Path) -> bool:
    return any(place in _copied for place in (path, *path.parents))


def exists(path: Path) -> bool:
    """True if a file or folder exists locally or at the address of `path`."""
    address = address_of(path)
    if address is None or _is_copied(path):
        return path.exists()
    system, name = connect(address)
    return with_retries(lambda: bool(system.exists(name)), address)


def folder_exists(path: Path) -> bool:
    """True if the folder exists; assumed for web addresses, where only single files can be requested."""
    if (address := address_of(path)) is None:
        return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises where a name is too long)
    return address.startswith(("http://", "https://")) or exists(path)


def localize(text: str) -> str:
    """`text` unchanged, or for an address the path of its copy (see `local_copy`)."""
    return str(local_copy(path_of(text))) if is_address(text) else text


def localize_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with addresses replaced by the paths of their copies."""
    return {name: localize(value) if isinstance(value, str) else value for name, value in options.items()}


def copied_inputs() -> list[tuple[str, str]]:
    """(address, local path) of everything this process has copied, for `restore_copies` on another machine."""
    return [(address, str(path)) for path, address in _copied.items()]


def restore_copies(record: Iterable[tuple[str, str]]) -> None:
    """Copy the same addresses to the same paths on this machine, unless they exist."""
    for address, path in record:
        _copy(address, Path(path))


def connect(address: str) -> tuple[Any, str]:
    """The file system of an address and the path within it; `InputError` if it cannot be accessed."""
    from fsspec import available_protocols  # noqa: PLC0415
    from fsspec.core import url_to_fs  # noqa: PLC0415

    scheme = address.partition("://")[0]
    if scheme not in available_protocols():
        raise unknown_name("kind of address", scheme, available_protocols(), address)
    system, name = with_retries(lambda: url_to_fs(address), address)
    return system, str(name)


def with_retries(do: Callable[[], Result], address: str) -> Result:
    """Call a file system, retrying (`RETRY_DELAYS`) errors that may be temporary.

    Each backend raises errors of its own libraries, so all become `InputError`, except errors of the local disk.
    """
    for pause in (*RETRY_DELAYS, None):
        try:
            return do()
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            sentence, lasting = _explain(error, address.partition("://")[0])
            if lasting or pause is None:
                raise InputError(f"{address}: {sentence}") from error
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _explain(error: Exception, scheme: str) -> tuple[str, bool]:
    """A file system's error as a sentence for the user, and whether a retry would fail again."""
    words = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if isinstance(error, ImportError):
        fix = 'run: pip install "disbench[remote]"' if scheme in ("s3", "s3a", "gs", "gcs") else words
        return f"{scheme}:// needs a package that is not installed; {fix}", True
    if isinstance(error, FileNotFoundError):
        return "no such file or folder; check the address", True
    if "credential" in f"{type(error).__name__} {words}".lower():
        return f"{words}; set them as for the provider's own tools (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS)", True
    if isinstance(error, PermissionError):
        return f"{words}; check your permissions and credentials", True
    return f"{words}; check the address and the network, then run the same command again", False


def entry_of(info: Mapping[str, Any]) -> Entry:
    """A file from its file system's info."""
    size = None if info.get("size") is None else int(info["size"])
    version = next((value for key in _VERSIONS if (value := info.get(key)) not in (None, "")), "")
    # Some file systems give the time as a number in a listing but as a datetime for a single file.
    text = str(version.timestamp() if hasattr(version, "timestamp") else version).strip('"')
    return Entry(str(info["name"]), size, f"{size} {text}")


def copy_file(system: Any, entry: Entry, place: Path, address: str, scratch: Path) -> None:
    """Copy one file atomically, by way of a scratch folder on the same disk; `InputError` if its size differs."""
    arriving = scratch / uuid.uuid4().hex
    with add_file_name(place):
        with_retries(lambda: system.get_file(entry.name, str(arriving)), address)
        if entry.size not in (None, arriving.stat().st_size):
            raise _changed(address)
        os.utime(arriving, ns=(entry.stamp, entry.stamp))
        place.parent.mkdir(parents=True, exist_ok=True)
        arriving.replace(place)


def _copy(address: str, place: Path) -> None:
    from filelock import FileLock  # noqa: PLC0415

    root = place.parents[address.partition("://")[2].count("/") + 1]  # place is ROOT/scheme/bucket/...
    scratch = root / ".arriving" / hashlib.sha256(address.encode()).hexdigest()[:24]
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with add_file_name(place), FileLock(f"{scratch}.lock"):
        system, name = connect(address)
        listed = partial(with_retries, lambda: _listed(system, name, address), address)
        found = listed()
        wanted = {relative: entry for relative, entry in found.items() if not entry.matches(place / relative)}
        if wanted:
            with scratch_folder(scratch):
                _copy_files(system, wanted, place, address, scratch)
            now = listed()
            if stale := [relative for relative, entry in wanted.items() if now.get(relative) != entry]:
                for relative in stale:
                    (place / relative).unlink()
                raise _changed(_joined(address, stale[0]))
        for path in place.rglob("*"):
            if path.relative_to(place).as_posix() not in found and not path.is_dir():
                path.unlink()
    _copied[place] = address


def _listed(system: Any, name: str, address: str) -> dict[str, Entry]:
    """Relative path -> file; "." if the address is a file."""
    system.invalidate_cache()
    info = system.info(name)
    if info["type"] == "file":
        return {".": entry_of(info)}
    found = {}
    for full, about in system.find(name, detail=True).items():
        if about["type"] != "file" or full.endswith("/"):  # some tools leave empty objects for folders
            continue
        relative = full.removeprefix(f"{name.rstrip('/')}/")
        if not all(map(_is_name, relative.split("/"))):
            raise InputError(f"{address}: {relative!r} is not a valid file path; rename or remove it")
        found[relative] = entry_of({**about, "name": full})
    if not found:
        raise FileNotFoundError(name)
    return found


def _copy_files(system: Any, wanted: Mapping[str, Entry], place: Path, address: str, scratch: Path) -> None:
    """Copy files in parallel; stops at the first error and keeps the files copied so far."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    from tqdm import tqdm  # noqa: PLC0415

    def copy(relative: str) -> int:
        copy_file(system, wanted[relative], place / relative, _joined(address, relative), scratch)
        return wanted[relative].size or 0

    total = sum(entry.size or 0 for entry in wanted.values())
    bar = tqdm(total=total, unit="B", unit_scale=True, desc=address.rpartition("/")[2], disable=None)
    with bar, ThreadPoolExecutor(min(THREADS, len(wanted))) as pool:
        for size in pool.map(copy, wanted):
            bar.update(size)


def _joined(address: str, relative: str) -> str:
    return address if relative == "." else f"{address}/{relative}"


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not set(part) & {"\\", "\0"}


def _changed(address: str) -> InputError:
    return InputError(f"{address}: changed during the copy; run the same command again")
