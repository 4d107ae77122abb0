"""Inputs at addresses (`s3://bucket/folder`, `gs://...`, `memory://...`): copied to this machine, then plain paths.

What fsspec has a file system for can be named wherever a command reads. A copy lies in the cache under a path made
of the address alone, and is compared with the address each time it is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from disbench.core.errors import InputError, unknown_name
from disbench.io.files import naming

THREADS = 16
"""Files that are copied at once."""
BREAKS = (0.5, 2.0, 8.0)
"""Seconds before each further attempt at a transfer that broke off; the file system's own attempts come first."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL = ("file", "local")
_WEB = ("http", "https")
_OF_EXTRA = ("s3", "s3a", "gs", "gcs")
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
"""What file systems call that which changes with a file's content, the surest first."""
_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_A_DAY = 86400.0

Result = TypeVar("Result")
_places: dict[Path, str] = {}
"""Folders of this machine -> the addresses that they stand for: a bucket's inputs, an output's working folder."""
_inputs: dict[Path, str] = {}
"""Folders of this machine that stand for whole buckets, with their addresses."""
_localised: dict[Path, str] = {}
"""What this process has copied or found to be the same: path here -> address."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file at an address.

    Attributes:
        name: as the file system calls it.
        size: bytes; None if it does not tell.
        version: a text that changes with the content: size, and ETag or time of change.
    """

    name: str
    size: int | None
    version: str

    @property
    def stamp(self) -> int:
        """The time of change (nanoseconds) that a copy of this version bears, between 2001 and 2020.

        So a copy and what it is a copy of are put in place by one rename, and no second file can be at odds with it.
        """
        number = int.from_bytes(hashlib.sha256(self.version.encode()).digest()[:8], "big")
        return (10**15 + number % (6 * 10**14)) * 1000  # whole microseconds: all that some file systems keep

    def is_at(self, path: Path) -> bool:
        """Whether the file of a path is a copy of this version."""
        try:
            status = path.stat()
        except OSError:
            return False
        return status.st_mtime_ns == self.stamp and self.size in (None, status.st_size)


def is_address(text: object) -> bool:
    """Whether a text is an address, `scheme://...`, rather than a path."""
    return bool(_ADDRESS.match(str(text)))


def cache_folder() -> Path:
    """Where copies lie: `$DISBENCH_CACHE`, or `disbench/remote` in the user's cache folder."""
    own = os.environ.get("DISBENCH_CACHE")
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(own) if own else Path(root) / "disbench" / "remote").resolve()


def plain(address: str) -> str:
    """An address without a slash at its end, if it is one that may be used.

    Raises:
        InputError: it names nothing, has a part such as "..", is a chain of addresses, or holds a secret: addresses
            are written into results.
    """
    found = _ADDRESS.match(address)
    assert found, address
    scheme, rest = found[1].lower(), address[found.end() :].rstrip("/")
    host = rest.partition("/")[0]
    if "@" in host and scheme not in ("abfs", "abfss"):  # of these two the part before the @ is a container
        raise InputError(
            f"{scheme}://...@{host.rpartition('@')[2]}: an address must not hold a user or password, since it is "
            "written into results; give them by the environment or fsspec's configuration"
        )
    if scheme in _WEB and "?" in rest:
        raise InputError(
            f"{scheme}://{rest.partition('?')[0]}: what follows the '?' may be a secret, and addresses are written "
            "into results; fetch the file yourself and name the path"
        )
    if "::" in address:
        raise InputError(f"{address}: a chain of addresses; name the file itself")
    parts = (rest.lstrip("/") if scheme == "memory" else rest).split("/")
    if scheme not in _LOCAL and not all(map(_is_name, parts)):
        raise InputError(f"{address}: not the address of a file or folder; write it as {scheme}://place/name")
    return f"{scheme}://{rest if scheme in _LOCAL else '/'.join(parts)}"


def path_of(text: str, cache: Path | None = None) -> Path:
    """The path of a path, or where the copy of an address lies; nothing is copied yet (`here` does that).

    Args:
        text: path or address; `file://` addresses become paths.
        cache: folder of the copies; by default `cache_folder()`.

    Raises:
        InputError: as `plain`.
    """
    if not is_address(text):
        return Path(text)
    scheme, _, rest = plain(text).partition("://")
    if scheme in _LOCAL:
        return Path(rest)
    bucket, *names = rest.split("/")
    root = (cache or cache_folder()) / "inputs" / scheme / bucket
    _places[root] = _inputs[root] = f"{scheme}://{bucket}"
    return root.joinpath(*names)


def localised(address: str, *, cache: Path | None = None) -> Path:
    """A file or a whole folder, copied to this machine unless the same is here already.

    Every file has its name only when it is whole; what is no longer at the address goes away here too.

    Args:
        address: of the file or folder, or a path, which is returned as it is.
        cache: folder of the copies; by default `cache_folder()`.

    Returns:
        The path here; its last part is the address's.

    Raises:
        InputError: nothing is there, it changed while it was read, it cannot be reached, or its package is missing.
        OSError: the disk is full or cannot be written.
    """
    place = path_of(address, cache)
    if address_of(place) is not None:
        _bring(plain(address), place)
    return place


def here(path: Path, *, optional: bool = False) -> Path:
    """The same path, with what it stands for copied to it, if it is one that `path_of` gave or lies below one.

    Asked again, a process does not look at the address again.

    Args:
        path: any.
        optional: nothing at the address is no error.

    Raises:
        InputError: as `localised`.
    """
    address = address_of(path)
    if address is None or any(place in _localised for place in (path, *path.parents)):
        return path
    try:
        _bring(address, path)
    except InputError as error:
        if not optional or not isinstance(error.__cause__, FileNotFoundError):
            raise
    return path


def address_of(path: Path) -> str | None:
    """The address that a path stands for (`path_of`), if any."""
    for root, address in _inputs.items():
        if path.is_relative_to(root):
            return "/".join((address, *path.relative_to(root).parts))
    return None


def there(path: Path) -> bool:
    """Whether there is a file or folder, here or at the address that the path stands for.

    Raises:
        InputError: the address cannot be reached.
    """
    address = address_of(path)
    if address is None or path in _localised:
        return path.exists()
    system, name = connected(address)
    with telling(address):
        return bool(system.exists(name))


def local_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the paths of copies in the place of addresses.

    Raises:
        InputError: as `localised`.
    """
    return {name: local_text(value) if isinstance(value, str) else value for name, value in options.items()}


def local_text(text: str) -> str:
    """A name as it is, or the path of the copy of an address.

    Raises:
        InputError: as `localised`.
    """
    return str(here(path_of(text))) if is_address(text) else text


def localised_addresses() -> list[tuple[str, str]]:
    """What this process has copied so far, (address, path here) each, for `localise_again` on another machine."""
    return [(address, str(path)) for path, address in _localised.items()]


def localise_again(record: Iterable[tuple[str, str]]) -> None:
    """Copy the same addresses to the same paths on this machine, unless they are here already.

    Raises:
        InputError: as `localised`.
    """
    for address, path in record:
        _bring(address, Path(path))


def call(folder: Path, address: str) -> None:
    """Have messages name an address in the place of a folder (`with_addresses`)."""
    _places[folder] = address


def with_addresses(text: str) -> str:
    """A message for the user: addresses in the place of the folders that stand for them."""
    for place in sorted(_places, key=lambda path: -len(str(path))):
        text = text.replace(str(place), _places[place])
    return text


def connected(address: str) -> tuple[Any, str]:
    """The file system of an address, and what it calls the file or folder.

    Raises:
        InputError: an unknown kind of address, a package that is missing, or no way to get there.
    """
    from fsspec import available_protocols  # noqa: PLC0415
    from fsspec.core import url_to_fs  # noqa: PLC0415

    scheme = address.partition("://")[0]
    if scheme not in available_protocols():
        raise unknown_name("kind of address", scheme, available_protocols(), address)
    with telling(address):
        system, name = url_to_fs(address)
    return system, str(name)


@contextmanager
def telling(address: str) -> Iterator[None]:
    """Turn whatever a file system raises into one sentence; an error of this machine's disk stays.

    Every backend has its own errors, of libraries that disbench does not know; so all of them are taken.

    Raises:
        InputError: in the place of anything else.
    """
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(_missing_package(address, error)) from error
    except FileNotFoundError as error:
        raise InputError(f"{address}: there is nothing of this name; check the address") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
            raise
        words = " ".join(str(error).split())[:300] or type(error).__name__
        if _lacks_credentials(error):
            cure = "set them as for the provider's own tools (such as AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS)"
        elif isinstance(error, PermissionError):
            cure = "check your rights there and your credentials"
        else:
            cure = "check the address and the network, then run the same command again"
        raise InputError(f"{address}: {words.rstrip('.')}; {cure}") from error


def patiently(do: Callable[[], Result], address: str) -> Result:
    """What a call gives; attempts that fail for a passing reason are repeated, a few times (`BREAKS`).

    Raises:
        InputError: the last attempt failed too, or the reason will not pass.
    """
    for pause in BREAKS:
        try:
            with telling(address):
                return do()
        except InputError as error:
            cause = error.__cause__
            if cause is None or isinstance(cause, FileNotFoundError | PermissionError | ImportError):
                raise
            if _lacks_credentials(cause):
                raise
            time.sleep(pause)
    with telling(address):
        return do()


def entry_of(info: Mapping[str, Any]) -> Entry:
    """A file, from what its file system says of it."""
    size = None if info.get("size") is None else int(info["size"])
    for key in _VERSIONS:
        value = info.get(key)
        if value not in (None, ""):
            # One file system tells the same time as a number in a listing and as a date of one file.
            text = str(value.timestamp() if hasattr(value, "timestamp") else value).strip('"')
            return Entry(str(info["name"]), size, f"{size} {text}")
    return Entry(str(info["name"]), size, str(size))


def look_at(system: Any, name: str) -> Entry:
    """A file as it is at its address now, not as a listing in memory has it."""
    system.invalidate_cache()
    return entry_of(system.info(name))


def copy_here(system: Any, entry: Entry, place: Path, address: str, scratch: Path) -> None:
    """Copy one file, whole or not at all; its name is replaced if there is one.

    Args:
        system: its file system.
        entry: the file, as it was listed.
        place: where to.
        address: to name in errors.
        scratch: a folder on the same disk, made if missing.

    Raises:
        InputError: the file changed since, or cannot be had.
        OSError: the disk.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    arriving = scratch / uuid.uuid4().hex
    try:
        with naming(place):
            patiently(lambda: system.get_file(entry.name, str(arriving)), address)
            now = patiently(lambda: look_at(system, entry.name), address)
            if now.version != entry.version or entry.size not in (None, arriving.stat().st_size):
                raise InputError(f"{address}: it changed while it was read; run the same command again")
            os.utime(arriving, ns=(entry.stamp, entry.stamp))
            place.parent.mkdir(parents=True, exist_ok=True)
            arriving.replace(place)
    finally:
        arriving.unlink(missing_ok=True)


@contextmanager
def alone(lock: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock of this machine: it ends with the process, however that ends.

    Args:
        lock: its file; made if missing.
        wait: for another process that has it.

    Yields:
        False if another process has it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            import fcntl  # noqa: PLC0415  (not on Windows)
        except ImportError:
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _bring(address: str, place: Path) -> None:
    """Make a path of this machine the same as an address."""
    root = place.parents[len(address.partition("://")[2].split("/"))]  # of place = root/scheme/bucket/...
    key = hashlib.sha256(address.encode()).hexdigest()[:24]
    with naming(place), alone(root / ".locks" / key):
        system, name = connected(address)
        found = patiently(lambda: _listed(system, name, address), address)
        wanted = {place / relative: entry for relative, entry in found.items()}
        _copy_all(system, {p: e for p, e in wanted.items() if not e.is_at(p)}, address, root / ".arriving")
        _remove_others(place, wanted, root / ".arriving")
    _localised[place] = address


def _listed(system: Any, name: str, address: str) -> dict[str, Entry]:
    """Path below the address -> file; the path of a file's own address is "."."""
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
            raise InputError(
                f"{address}: it lists {relative!r}, which cannot be the path of a file below it; rename or remove it"
            )
        found[relative] = entry_of({**about, "name": full})
    if not found:
        raise FileNotFoundError(name)
    return found


def _copy_all(system: Any, wanted: Mapping[Path, Entry], address: str, scratch: Path) -> None:
    """Copy files in parallel; the first error ends it, and what was copied stays."""
    if not wanted:
        return
    from tqdm import tqdm  # noqa: PLC0415

    total = sum(entry.size or 0 for entry in wanted.values())
    bar = tqdm(total=total, unit="B", unit_scale=True, desc=address.rpartition("/")[2], disable=None)
    with bar, ThreadPoolExecutor(min(THREADS, len(wanted))) as pool:
        scheme = address.partition("://")[0]
        jobs = {
            pool.submit(copy_here, system, entry, place, _called(scheme, entry.name), scratch): entry
            for place, entry in wanted.items()
        }
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update(jobs[job].size or 0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _remove_others(place: Path, wanted: Mapping[Path, Entry], scratch: Path) -> None:
    """Remove what is not at the address, and what killed processes left a day ago."""
    if place.is_dir():
        for path in place.rglob("*"):
            if path not in wanted and not path.is_dir():
                path.unlink(missing_ok=True)
    for path in scratch.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process looks after it at the same time
            if time.time() - path.stat().st_ctime > _A_DAY:
                path.unlink()


def _called(scheme: str, name: str) -> str:
    """The address of a file, from what its file system calls it."""
    return name if is_address(name) else f"{scheme}://{name.lstrip('/')}"


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not set(part) & {"\\", "\0"}


def _missing_package(address: str, error: ImportError) -> str:
    scheme = address.partition("://")[0]
    if scheme in _OF_EXTRA:
        return f'{address}: {scheme}:// needs a package that is not installed; run: pip install "disbench[remote]"'
    return f"{address}: {scheme}:// needs a package that is not installed ({' '.join(str(error).split())})"


def _lacks_credentials(error: BaseException) -> bool:
    return "credential" in f"{type(error).__name__} {error}".lower()


def names_match(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file's path below its folder is one of those that shell patterns name."""
    from fnmatch import fnmatchcase  # noqa: PLC0415

    return any(fnmatchcase(name, pattern) for pattern in patterns)
