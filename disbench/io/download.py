"""Downloads that can be interrupted: resumed by HTTP ranges, checked by SHA-256, whole or not there."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from disbench import __version__
from disbench.core.errors import InputError
from disbench.io.files import file_sha256, naming, whole_file
from disbench.io.plain_data import parse_json_table

ATTEMPTS = 5
"""Attempts in a row that bring nothing new before a download is given up."""
BREAK = 1.0
"""Seconds before the next attempt, doubled with each that failed."""
_CHUNK = 2**20
_TIMEOUT = 60.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may be gone a moment later."""
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL = 206


class _TryAgainError(Exception):
    """A transfer that broke off, or that has to begin anew."""


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of the partial file: where it comes from, which version, and how long it will be."""

    url: str
    validator: str = ""
    total: int | None = None


def download(
    url: str,
    path: Path,
    *,
    sha256: str = "",
    size: int = 0,
    progress: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Download a file; where an earlier attempt broke off, only the rest of it; nothing if it is there.

    Until it is whole it is called `NAME.part`, with `NAME.part.json` beside it. A server that ignores ranges,
    or whose file has changed since, sends it from the start again.

    Args:
        url: http or https.
        path: where to put it; its folder exists.
        sha256: of the file (hex); empty to take what comes.
        size: bytes of the file; 0 if not known.
        progress: show a progress bar on standard error.
        pause: called with seconds between attempts.

    Returns:
        SHA-256 (hex) of the file.

    Raises:
        InputError: another kind of address, an answer such as 404, a transfer that keeps breaking off, or a
            file that is not the expected one.
    """
    if path.is_file():  # it gets this name only when it is whole
        digest = file_sha256(path)
        if not sha256 or digest == sha256.lower():
            return digest
    if not _is_address(url):
        raise InputError(f"{url!r}: not an address that can be fetched; it begins with http:// or https://")
    part = path.with_name(f"{path.name}.part")
    if not _is_whole(part, url):
        _transfer_all(url, part, size, progress=progress, pause=pause)
    digest = file_sha256(part)
    held = part.stat().st_size
    if size and held != size:
        _refuse(url, part, f"{held} bytes arrived, where the card has {size}")
    if sha256 and digest != sha256.lower():
        _refuse(url, part, f"its SHA-256 is {digest}, where the card has {sha256}")
    part.replace(path)
    _state_path(part).unlink(missing_ok=True)
    return digest


def _is_address(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https") and url.isprintable()
    except ValueError:  # half an IPv6 address
        return False


def _refuse(url: str, part: Path, reason: str) -> NoReturn:
    _forget(part)
    raise InputError(f"{url}: {reason}; it was thrown away, so get it elsewhere or mend the card")


def _transfer_all(url: str, part: Path, size: int, *, progress: bool, pause: Callable[[float], None]) -> None:
    """Transfers until the file is whole; an attempt that brought something does not count as failed."""
    from tqdm import tqdm  # noqa: PLC0415

    most, failed, reason = 0, 0, ""
    with tqdm(
        total=size or None, desc=part.stem, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress
    ) as bar:
        while failed < ATTEMPTS:
            if reason:
                pause(BREAK * 2.0**failed)
            try:
                _transfer(url, part, bar, size)
                return
            except _TryAgainError as error:
                reason = str(error)
            failed = 0 if _size(part) > most else failed + 1
            most = max(most, _size(part))
    raise InputError(f"{url}: {reason}; what arrived is kept, run the same command again to go on")


def _transfer(url: str, part: Path, bar: Any, size: int) -> None:
    """One request: the whole file, or what is missing of it.

    Raises:
        InputError: an answer that another attempt will not change.
        _TryAgainError: anything that another attempt may mend.
    """
    state, held = _read_state(part), _size(part)
    if state is None or state.url != url or not state.validator:
        state, held = _State(url), 0
    with _request(url, state, held, part) as response:
        headers = response.headers
        if held and not _continues(response.status, headers, state, held):
            if response.status == _PARTIAL:
                _forget(part)
                raise _TryAgainError("the server sent another part than was asked for")
            held = 0
        length = headers.get("Content-Length")
        total = held + int(length) if length and length.isdigit() else None
        _write_state(part, _State(url, _validator(headers), total))
        bar.total, bar.n = total, held
        arrived = _copy(response, part, held, bar, size)
        if arrived > size > 0:
            _refuse(url, part, f"{arrived} bytes arrived, where the card has {size}")
    if total is not None and _size(part) != total:
        raise _TryAgainError(f"the transfer broke off after {_size(part)} of {total} bytes")


def _request(url: str, state: _State, held: int, part: Path) -> Any:
    headers = {"User-Agent": f"disbench/{__version__}", "Accept-Encoding": "identity"}
    if held:
        headers |= {"Range": f"bytes={held}-", "If-Range": state.validator}
    try:
        return _OPENER.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE and held:
            _forget(part)
            raise _TryAgainError("the server has another file by now") from None
        if error.code in _PASSING:
            raise _TryAgainError(f"the server answers {error.code} {error.reason}") from None
        raise InputError(
            f"{url}: the server answers {error.code} {error.reason}; mend the card's address, or get the file by hand"
        ) from None
    except InputError:
        raise
    except (http.client.InvalidURL, ValueError) as error:  # a host's name that is none is a ValueError
        raise InputError(f"{url}: not an address ({error}); mend the card") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _TryAgainError(f"no connection ({getattr(error, 'reason', error)})") from None


def _continues(status: int, headers: Message, state: _State, held: int) -> bool:
    """Whether an answer is the rest of the file that is held."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if status != _PARTIAL or found is None or int(found[1]) != held:
        return False
    same_length = found[2] == "*" or state.total is None or int(found[2]) == state.total
    return same_length and _validator(headers) in ("", state.validator)


def _copy(response: Any, part: Path, held: int, bar: Any, size: int) -> int:
    """Write what comes, as far as a known size and a little beyond; how much there is of it."""
    with naming(part), part.open("r+b" if held else "wb") as file:
        file.seek(held)
        while True:
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _TryAgainError(f"the transfer broke off ({error})") from None
            if not chunk or file.tell() > size > 0:
                return file.tell()
            file.write(chunk)
            bar.update(len(chunk))


def _validator(headers: Message) -> str:
    """What names a version of a remote file: its strong ETag, or when it was changed."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _is_whole(part: Path, url: str) -> bool:
    state = _read_state(part)
    return state is not None and state.url == url and state.total is not None and _size(part) == state.total


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> _State | None:
    """What was noted of a partial file; a damaged note is none."""
    if not part.is_file():
        return None
    try:
        content = parse_json_table(_state_path(part).read_bytes())
        state = _State(str(content["url"]), str(content["validator"]), content["total"])
    except (OSError, ValueError, KeyError):
        return None
    return state if state.validator.isprintable() else None  # it goes into a header


def _write_state(part: Path, state: _State) -> None:
    with whole_file(_state_path(part)) as file:
        file.write(json.dumps(asdict(state)).encode())


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


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


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https alone: no files, no FTP, no data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()
