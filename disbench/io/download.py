"""Resumable HTTP downloads, verified by SHA-256 and written atomically.

`urllib` rather than fsspec, whose HTTP file system needs aiohttp (a second to import) and cannot resume. Google Drive
links, which lead to a web page rather than the file, are downloaded by gdown (the extra `drives`).
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
from disbench.core.errors import InputError, import_extra, one_line
from disbench.io.files import add_file_name, atomic_write, file_sha256

ATTEMPTS = 5  # failed attempts in a row, without any new data, before a download is given up
FIRST_DELAY = 1.0  # seconds before the first retry, doubled with each failure
_CHUNK = 2**20
_TIMEOUT = 60.0
_RETRY_STATUSES = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth a retry
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416
_HEADERS = {"User-Agent": f"disbench/{__version__}", "Accept-Encoding": "identity"}
_NO_HEAD = (403, 405, 501)  # answers of servers that do not support HEAD
_DRIVE = re.compile(r"https://drive\.google\.com/(?:u/\d+/)?(?:file/d/|open\?id=|uc\?(?:\S*&)?id=)([\w-]+)")


class _TryAgainError(Exception):
    """A transfer was interrupted or has to start again."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str = "",
    size: int = 0,
    progress: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Download a file unless `path` exists, resuming an interrupted download; returns its SHA-256 (hex).

    An incomplete download is stored as `NAME.part`, with `NAME.part.json` beside it. If the server ignores ranges or
    its file has changed, the download starts again.

    `url` is http or https, or a Google Drive share link; the folder of `path` must exist; `sha256` (hex) and `size`
    (bytes) are not checked if "" and 0; `pause` is called with the seconds between attempts. `InputError` for another
    kind of URL, a status such as 404, a transfer that keeps failing, or a wrong hash or size.
    """
    if path.is_file():  # it gets this name only once complete
        digest = file_sha256(path)
        if sha256.lower() in ("", digest):
            return digest
    if not _is_web(url):
        raise InputError(f"{url!r}: not a URL that can be downloaded; it must begin with http:// or https://")
    part = _Part(path, url)
    if found := _DRIVE.match(url):
        _transfer_from_drive(part, found[1], progress=progress)
    else:
        _transfer_all(part, size, progress=progress, pause=pause)
    digest = file_sha256(part.path)
    if size and part.size != size:
        raise part.rejected(f"{part.size} bytes arrived, but the card says {size}")
    if sha256 and digest != sha256.lower():
        raise part.rejected(f"its SHA-256 is {digest}, but the card says {sha256}")
    part.path.replace(path)
    part.delete()
    return digest


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """A server's answer to `head`: a status such as "200 OK", and the file's size (None if the server does not say).

    The size is unknown for Google Drive, whose links lead to a web page.
    """

    alive: bool
    status: str
    bytes: int | None = None


def head(url: str, timeout: float = _TIMEOUT) -> LinkStatus:
    """Request a file's headers; if the server refuses HEAD, request the first byte."""
    if not _is_web(url):
        return LinkStatus(False, "not an http or https URL")
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
                return LinkStatus(True, f"{response.status} {response.reason}", size)
        except urllib.error.HTTPError as error:
            error.close()
            status = f"{error.code} {one_line(str(error.reason))}"
            if error.code not in _NO_HEAD:
                break
        except (InputError, ValueError, OSError, http.client.HTTPException) as error:
            return LinkStatus(False, one_line(str(getattr(error, "reason", error))))
    return LinkStatus(False, status)


def _is_web(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https") and url.isprintable()
    except ValueError:  # half an IPv6 address
        return False


class _Part:
    """The part of a file downloaded so far, and a note of the remote version that it belongs to."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path.with_name(f"{path.name}.part"), url
        self._note = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> str:
        """Remote version of the partial file; empty if the download cannot be resumed."""
        try:
            url, version = json.loads(self._note.read_bytes())
        except (OSError, ValueError, TypeError):
            return ""
        return str(version) if url == self.url else ""

    def begin(self, version: str) -> None:
        with atomic_write(self._note) as file:
            file.write(json.dumps([self.url, version]).encode())

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def rejected(self, reason: str) -> InputError:
        self.delete()
        return InputError(f"{self.url}: {reason}; the file was discarded, get it elsewhere or correct the card")


def _transfer_from_drive(part: _Part, file: str, *, progress: bool) -> None:
    """Download a shared file by its id; gdown keeps an incomplete file and resumes it the next time."""
    gdown = import_extra("gdown", "drives", part.url)
    part.delete()  # gdown would treat it as complete
    try:
        gdown.download(id=file, output=str(part.path), quiet=not progress, resume=True, use_cookies=False)
    except Exception as error:  # its own classes, and those of requests
        raise InputError(f"{part.url}: Google Drive refuses it ({one_line(str(error))}); get it by hand") from error


def _transfer_all(part: _Part, size: int, *, progress: bool, pause: Callable[[float], None]) -> None:
    """Repeat transfers until the file is complete; an attempt that brought data does not count as failed."""
    from tqdm import tqdm  # noqa: PLC0415

    most, failed, reason = 0, 0, ""
    name = part.path.stem
    with tqdm(total=size or None, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
        while failed < ATTEMPTS:
            if reason:
                pause(FIRST_DELAY * 2.0**failed)
            try:
                _transfer(part, size, bar)
                return
            except _TryAgainError as error:
                reason = str(error)
            failed = 0 if part.size > most else failed + 1
            most = max(most, part.size)
    raise InputError(f"{part.url}: {reason}; the part so far is kept, run the same command again to resume")


def _transfer(part: _Part, size: int, bar: Any) -> None:
    """Send one request, for the whole file or its missing rest; `_TryAgainError` if a retry may succeed."""
    version = part.version
    held = part.size if version else 0
    response = _request(part, held, version)
    if response is None:
        return
    with response:
        headers = response.headers
        begins = headers.get("Content-Range", "").startswith(f"bytes {held}-")
        if response.status != _PARTIAL:
            held = 0
        elif not begins or _version(headers) not in ("", version):
            part.delete()
            raise _TryAgainError("the server sent a different range than requested")
        length = headers.get("Content-Length", "")
        total = held + int(length) if length.isdigit() else None
        part.begin(_version(headers))
        bar.total, bar.n = total, held
        _copy(response, part, held, size, bar)
    if part.size > size > 0:
        raise part.rejected(f"{part.size} bytes arrived, where the card has {size}")
    if total not in (None, part.size):
        raise _TryAgainError(f"the transfer was interrupted after {part.size} of {total} bytes")


def _request(part: _Part, held: int, version: str) -> Any:
    """The server's response; None if nothing is missing."""
    headers = {**_HEADERS, **({"Range": f"bytes={held}-", "If-Range": version} if held else {})}
    try:
        return _OPENER.open(urllib.request.Request(part.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        why = f"the server answers {error.code} {one_line(str(error.reason))}"
        if error.code == _RANGE_NOT_SATISFIABLE and held:
            if error.headers.get("Content-Range") == f"bytes */{held}":
                return None
            part.delete()
        elif error.code not in _RETRY_STATUSES:
            raise InputError(f"{part.url}: {why}; correct the URL in the card, or download the file by hand") from None
        raise _TryAgainError(why) from None
    except InputError:
        raise
    except (http.client.InvalidURL, ValueError) as error:  # such as an invalid host name
        raise InputError(f"{part.url}: not a valid URL ({error}); correct the card") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _TryAgainError(f"no connection ({getattr(error, 'reason', error)})") from None


def _copy(response: Any, part: _Part, held: int, size: int, bar: Any) -> None:
    """Write the response's body, stopping soon after `size` bytes if the size is known."""
    with add_file_name(part.path), part.path.open("r+b" if held else "wb") as file:
        file.seek(held)
        while not file.tell() > size > 0:
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _TryAgainError(f"the transfer was interrupted ({error})") from None
            if not chunk:
                return
            file.write(chunk)
            bar.update(len(chunk))


def _version(headers: Message) -> str:
    """Version of a remote file: its strong ETag, or its modification time."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything less secure."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The redirected request; `InputError` if it is not allowed."""
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise InputError(f"{req.full_url}: the server redirects to {newurl}, which is not allowed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)
