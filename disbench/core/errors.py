"""`InputError`, the error that a user can fix, and helpers for its messages."""

from __future__ import annotations

import difflib
import errno
import importlib
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_MAX_QUOTED = 60  # maximum length of an outside value quoted in a message
_MAX_LINE = 300  # maximum length of one line about an error
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]+")  # characters that break or forge lines on a terminal
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, errno.EDQUOT), "free some space, or name another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow it, or name another place"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "there is a file where a folder is needed; name another place"),
}


class InputError(ValueError):
    """Invalid input: a file, a record or an option.

    The message, one or two sentences, names the file, the record and the fix; the command line prints it without a
    traceback and exits with code 2.
    """


def quote(value: object) -> str:
    """Format an untrusted value of any type and size for a message: short, one line, no control characters."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= _MAX_QUOTED else f"{value[:_MAX_QUOTED]!r}..."
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        few = len(value) <= 4 and not any(isinstance(item, list | tuple | dict) for item in value)
        return f"[{', '.join(map(quote, value))}]" if few else f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def one_line(text: str) -> str:
    """Untrusted text as one line of printable characters, truncated if long."""
    plain = "".join(character if character.isprintable() else " " for character in text[: 10 * _MAX_LINE])
    return " ".join(plain.split())[:_MAX_LINE]


def error_message(error: InputError | OSError) -> str:
    """One line that says what is wrong and how to fix it."""
    if not isinstance(error, OSError):
        return CONTROL.sub(" ", str(error))
    place = f"{error.filename}: " if error.filename else ""
    reason = " ".join((error.strerror or str(error)).split())
    fix = _FIXES.get(error.errno or 0, "fix it, or name another place")
    return f"{place}{reason}; {fix}, then run the same command again"


def describe_error(error: BaseException) -> str:
    """A third-party error on one line: its type, its message, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    try:
        message = one_line(str(error))
    except Exception:
        message = "an error whose message cannot be read"
    return f"{type(error).__name__}: {message}{place}"


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """`InputError` for an unknown name of some kind ("recipe", "option"), with the nearest known names."""
    choices = sorted(known)
    near = difflib.get_close_matches(name[:_MAX_QUOTED], choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(choices)}."
    place = f"{where}: " if where else ""
    return InputError(f"{place}unknown {kind} {quote(name)}; {hint}")


def import_extra(name: str, extra: str, user: str) -> Any:
    """Import an optional module; `InputError` names its `user` and the extra of disbench that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{user} needs {name.partition('.')[0]}, which cannot be imported ({error}); run: pip install "
            f'"disbench[{extra}]"'
        ) from error


def opencv() -> Any:
    """The module `cv2`; `InputError` if it cannot be imported, usually because two system libraries are missing."""
    try:
        import cv2  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"OpenCV cannot be imported ({error}); its package needs two system libraries, on Debian and Ubuntu: "
            "apt-get install libgl1 libglib2.0-0"
        ) from error
    return cv2
