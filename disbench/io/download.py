"""Downloads over HTTP that can be interrupted: resumed by ranges, checked by SHA-256, whole or not there.

`urllib` rather than fsspec: its HTTP file system needs aiohttp (a second to import) and cannot resume. Files of Google
Drive, whose plain addresses answer with a page, are gdown's (the extra `drives`).
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from disbench import __version__
from disbench.core.errors import InputError, extra_module, one_line
from disbench.io.files import file_sha256, naming, whole_file

ATTEMPTS = 5  # in a row that bring nothing new before a download is given up
BREAK = 1.0  # seconds before the next attempt, doubled with each that failed
_CHUNK = 2**20
_TIMEOUT = 60.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that another attempt may not meet
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416
_HEADERS = {"User-Agent": f"disbench/{__version__}", "Accept-Encoding": "identity"}
_NO_HEAD = (403, 405, 501)  # what servers answer that do not know HEAD
_DRIVE = re.compile(r"https://drive\.google\.com/(?:u/\d+/)?(?:file/d/|open\?id=|uc\?(?:\S*&)?id=)([\w-]+)")


class _TryAgainError(Exception):
    """A transfer that broke off, or that has to begin anew."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str = "",
    size: int = 0,
    progress: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Download a file; where an earlier attempt broke off, only the rest; nothing if it is there. Its SHA-256 (hex).

    Until it is whole it is called `NAME.part`, with `NAME.part.json` beside it. A server that ignores ranges, or whose
    file has changed since, sends it from the start again.

    `url` is http or https, or what the owner of a file on Google Drive shares; the folder of `path` exists; `sha256`
    (hex) and `size` (bytes) are "" and 0 to take any file; `pause` is called with seconds between attempts.
    `InputError` for another kind of address, an answer such as 404, a transfer that keeps breaking off, or a file of
    another hash or size.
    """
    if path.is_file():  # it gets this name only when it is whole
        digest = file_sha256(path)
        if sha256.lower() in ("", digest):
            return digest
    if not _is_web(url):
        raise InputError(f"{url!r}: not an address that can be fetched; it begins with http:// or https://")
    part = _Part(path, url)
    if found := _DRIVE.match(url):
        _transfer_from_drive(part, found[1], progress=progress)
    else:
        _transfer_all(part, size, progress=progress, pause=pause)
    digest = file_sha256(part.path)
    if size and part.held != size:
        raise part.refused(f"{part.held} bytes arrived, where the card has {size}")
    if sha256 and digest != sha256.lower():
        raise part.refused(f"its SHA-256 is {digest}, where the card has {sha256}")
    part.path.replace(path)
    part.forget()
    return digest


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says of a file without sending it: a status such as "200 OK", and bytes (None if it does not say).

    A drive's bytes are not known: its address leads to a page.
    """

    alive: bool
    status: str
    bytes: int | None = None


def head(url: str, timeout: float = _TIMEOUT) -> Answer:
    """Ask for a file without its content; a server that refuses HEAD is asked for its first byte."""
    if not _is_web(url):
        return Answer(False, "not an address of http or https")
    drive = _DRIVE.match(url)
    place = f"https://drive.google.com/uc?export=download&id={drive[1]}" if drive else url
    status = ""
    for method, more in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        request = urllib.request.Request(place, headers={**_HEADERS, **more}, method=method)
        try:
            with _OPENER.open(request, timeout=timeout) as response:
                whole = response.headers.get("Content-Range", "").rpartition("/")[2]
                length = whole or response.headers.get("Content-Length", "")
                size = int(length) if length.isdigit() and not drive else None
                return Answer(True, f"{response.status} {response.reason}", size)
        except urllib.error.HTTPError as error:
            error.close()
            status = f"{error.code} {one_line(str(error.reason))}"
            if error.code not in _NO_HEAD:
                break
        except (InputError, ValueError, OSError, http.client.HTTPException) as error:
            return Answer(False, one_line(str(getattr(error, "reason", error))))
    return Answer(False, status)


def _is_web(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https") and url.isprintable()
    except ValueError:  # half an IPv6 address
        return False


class _Part:
    """What has arrived of a file, and a note of the version that it is part of."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path.with_name(f"{path.name}.part"), url
        self._note = path.with_name(f"{path.name}.part.json")

    @property
    def held(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> str:
        """The version at the server; empty where what has arrived cannot be continued."""
        try:
            url, version = json.loads(self._note.read_bytes())
        except (OSError, ValueError, TypeError):
            return ""
        return str(version) if url == self.url else ""

    def begin(self, version: str) -> None:
        with whole_file(self._note) as file:
            file.write(json.dumps([self.url, version]).encode())

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def refused(self, reason: str) -> InputError:
        self.forget()
        return InputError(f"{self.url}: {reason}; it was thrown away, so get it elsewhere or correct the card")


def _transfer_from_drive(part: _Part, file: str, *, progress: bool) -> None:
    """A shared file by its number; gdown keeps what arrived, and goes on from there the next time."""
    gdown = extra_module("gdown", "drives", part.url)
    part.forget()  # gdown would take it for the whole file
    try:
        gdown.download(id=file, output=str(part.path), quiet=not progress, resume=True, use_cookies=False)
    except Exception as error:  # its own classes, and those of requests
        raise InputError(f"{part.url}: the drive does not give it ({one_line(str(error))}); get it by hand") from error


def _transfer_all(part: _Part, size: int, *, progress: bool, pause: Callable[[float], None]) -> None:
    """Transfers until the file is whole; an attempt that brought something does not count as failed."""
    from tqdm import tqdm  # noqa: PLC0415

    most, failed, reason = 0, 0, ""
    name = part.path.stem
    with tqdm(total=size or None, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
        while failed < ATTEMPTS:
            if reason:
                pause(BREAK * 2.0**failed)
            try:
                _transfer(part, size, bar)
                return
            except _TryAgainError as error:
                reason = str(error)
            failed = 0 if part.held > most else failed + 1
            most = max(most, part.held)
    raise InputError(f"{part.url}: {reason}; what arrived is kept, run the same command again to go on")


def _transfer(part: _Part, size: int, bar: Any) -> None:
    """One request: the whole file, or what is missing of it; `_TryAgainError` for what another attempt may get past."""
    version = part.version
    held = part.held if version else 0
    response = _answer(part, held, version)
    if response is None:
        return
    with response:
        headers = response.headers
        begins = headers.get("Content-Range", "").startswith(f"bytes {held}-")
        if response.status != _PARTIAL:
            held = 0
        elif not begins or _version(headers) not in ("", version):
            part.forget()
            raise _TryAgainError("the server sent another part than was asked for")
        length = headers.get("Content-Length", "")
        total = held + int(length) if length.isdigit() else None
        part.begin(_version(headers))
        bar.total, bar.n = total, held
        _copy(response, part, held, size, bar)
    if part.held > size > 0:
        raise part.refused(f"{part.held} bytes arrived, where the card has {size}")
    if total not in (None, part.held):
        raise _TryAgainError(f"the transfer broke off after {part.held} of {total} bytes")


def _answer(part: _Part, held: int, version: str) -> Any:
    """The server's answer; None if nothing is missing."""
    headers = {**_HEADERS, **({"Range": f"bytes={held}-", "If-Range": version} if held else {})}
    try:
        return _OPENER.open(urllib.request.Request(part.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        said = f"the server answers {error.code} {one_line(str(error.reason))}"
        if error.code == _RANGE_NOT_SATISFIABLE and held:
            if error.headers.get("Content-Range") == f"bytes */{held}":
                return None
            part.forget()
        elif error.code not in _PASSING:
            raise InputError(f"{part.url}: {said}; correct the card's address, or get the file by hand") from None
        raise _TryAgainError(said) from None
    except InputError:
        raise
    except (http.client.InvalidURL, ValueError) as error:  # such as a host's name that is none
        raise InputError(f"{part.url}: not an address ({error}); correct the card") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _TryAgainError(f"no connection ({getattr(error, 'reason', error)})") from None


def _copy(response: Any, part: _Part, held: int, size: int, bar: Any) -> None:
    """Write what comes, as far as a known size and a little beyond."""
    with naming(part.path), part.path.open("r+b" if held else "wb") as file:
        file.seek(held)
        while not file.tell() > size > 0:
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _TryAgainError(f"the transfer broke off ({error})") from None
            if not chunk:
                return
            file.write(chunk)
            bar.update(len(chunk))


def _version(headers: Message) -> str:
    """What names a version of a remote file: its strong ETag, or when it was changed."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything less."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request to follow, or an error."""
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise InputError(f"{req.full_url}: the server sends on to {newurl}, which is not fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)
