"""The child process of the bridge: runs a peer's code and answers through pipes (docs/bridge.md).

This file runs in the peer's Python. It needs Python 3.7 or later and NumPy, and does not import disbench. Standard
input and output are reserved for the protocol: all printed text goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import json
import math
import os
import platform
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROTOCOL = 1
MAGIC = b"DSB1"
LENGTH = struct.Struct("<I")
MOST_HEADER = 1 << 20  # bytes
DTYPES = ("|b1", "|u1", "<f4")
MOST_BYTES = 1 << 30  # of all arrays in a message to the child: an image of 18,000 x 18,000 pixels
_ERROR_LENGTH = 500
_PARTING_SECONDS = 1.0


class WireError(Exception):
    """The bytes read are not a valid protocol message."""


def packed(header: Mapping[str, Any], arrays: Sequence[Any] = ()) -> list[Any]:
    """A message as pieces to write in order, from a JSON-ready header and arrays with dtypes in `DTYPES`."""
    flat = [np.ascontiguousarray(array) for array in arrays]
    listed = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in flat]
    text = json.dumps(dict(header, arrays=listed), allow_nan=False).encode()
    pieces: list[Any] = [MAGIC + LENGTH.pack(len(text)) + text]
    pieces += [array.reshape(-1).view(np.uint8).data for array in flat if array.size]
    return pieces


def read_message(read: Callable[[int], Any], most_bytes: int) -> tuple[dict[str, Any], list[Any]]:
    """Read one message: (header, arrays).

    Args:
        read: read(count) returns exactly `count` bytes, as a writable buffer or bytes, or raises.
        most_bytes: maximum size of all arrays together, checked before they are read.

    Raises:
        WireError: not a protocol message, or too large.
    """
    begin = bytes(read(len(MAGIC) + LENGTH.size))
    if begin[: len(MAGIC)] != MAGIC:
        raise WireError(f"{begin!r} where a message was due")
    (length,) = LENGTH.unpack(begin[len(MAGIC) :])
    if length > MOST_HEADER:
        raise WireError(f"a header of {length} bytes; at most {MOST_HEADER} are read")
    header, listed = _header(bytes(read(length)))
    sizes = [_bytes(entry) for entry in listed]
    if sum(sizes) > most_bytes:
        raise WireError(f"arrays of {sum(sizes)} bytes; at most {most_bytes} are read")
    return header, [_array(read(size) if size else b"", entry) for entry, size in zip(listed, sizes)]  # noqa: B905


def _array(content: Any, entry: dict[str, Any]) -> Any:
    kind = "|u1" if entry["dtype"] == "|b1" else entry["dtype"]
    try:
        array = np.frombuffer(content, dtype=kind).reshape(entry["shape"])
    except ValueError as error:  # sides too long for NumPy in an empty array
        raise WireError(f"an array of the shape {entry['shape']!r:.80}") from error
    if entry["dtype"] != "|b1":
        return array
    return array.view(np.bool_) if not array.size or array.max() <= 1 else array != 0  # avoids a copy


def _header(text: bytes) -> tuple[dict[str, Any], list[Any]]:
    try:
        header = json.loads(text.decode())
        listed = header.pop("arrays")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WireError(f"a header that is not JSON with arrays: {text[:80]!r}") from error
    if not isinstance(header.get("type"), str) or not isinstance(listed, list) or len(listed) > 16:
        raise WireError(f"a header without a type or a list of arrays: {text[:80]!r}")
    return header, listed


def _bytes(entry: Any) -> int:
    """Size in bytes of an array described in a header."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if shape is None or entry.get("dtype") not in DTYPES or not isinstance(shape, list) or len(shape) > 4:
        raise WireError(f"an array that the protocol does not have: {entry!r:.80}")
    size = int(np.dtype(entry["dtype"]).itemsize)
    for side in shape:
        if type(side) is not int or side < 0:
            raise WireError(f"an array of the shape {shape!r:.80}")
        size *= side
    return size


class Server:
    """Answers messages with an adapter's model; its sessions have `predict` and optionally `keep` and `restart`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._sessions: dict[int, Any] = {}
        self.takes_granularity = "granularity" in inspect.signature(model.open).parameters

    def answer(self, header: dict[str, Any], arrays: list[Any]) -> tuple[dict[str, Any], Sequence[Any]]:
        """The answer to a message: (header, arrays)."""
        kind = header["type"]
        if kind == "open":
            for number in header.get("forget", []):
                self._sessions.pop(number, None)
            told = {"granularity": header["granularity"]} if "granularity" in header else {}
            session = self._sessions[header["session"]] = self._model.open(np.array(arrays[0]), **told)
            return {"type": "opened", "restart": hasattr(session, "restart")}, ()
        session = self._sessions[header["session"]]
        if kind == "predict":
            masks, scores = session.predict([(int(x), int(y), bool(p)) for x, y, p in header["clicks"]])
            found = plain_array(masks)
            found = found if found.dtype == np.bool_ else np.asarray(found, dtype=np.float32)
            return {"type": "prediction", "scores": _numbers(scores)}, (found,)
        if kind == "keep":
            if hasattr(session, "keep"):
                session.keep(int(header["index"]))
            return {"type": "kept"}, ()
        if kind == "restart":
            session.restart()
            return {"type": "restarted"}, ()
        raise WireError(f"a message of the unknown type {kind!r:.80}")


def plain_array(value: Any) -> Any:
    """Convert an array, image or tensor (any device, with or without gradient), or several of one shape, to NumPy."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        try:
            return value.numpy()
        except TypeError:  # a dtype missing in NumPy, such as bfloat16
            return value.float().numpy()
    if hasattr(value, "__next__"):
        value = list(value)
    if not isinstance(value, (list, tuple)) or all(isinstance(part, (bool, int, float)) for part in value):
        return np.asarray(value)
    parts = [plain_array(part) for part in value]
    if len({part.shape for part in parts}) > 1:
        raise ValueError("arrays of different shapes: " + ", ".join(str(part.shape) for part in parts[:5]))
    return np.stack(parts)


def _numbers(scores: Any) -> list[float] | None:
    if scores is None:
        return None
    found = [float(score) for score in plain_array(scores).reshape(-1)]
    if not all(math.isfinite(score) for score in found):
        raise ValueError(f"scores that are not finite numbers: {found!r:.80}")
    return found


def adapter_load(adapter: str) -> Callable[..., Any]:
    """The `load` function of an adapter: a file (`.py`) or a name in `adapters.py`."""
    is_file = adapter.endswith(".py")
    path = Path(adapter) if is_file else Path(__file__).with_name("adapters.py")
    spec = importlib.util.spec_from_file_location("disbench_adapter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["disbench_adapter"] = module
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.load if is_file else module.LOADERS[adapter]
    return found


def error_of(error: BaseException) -> dict[str, Any]:
    """The error message for an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    words = " ".join(str(error)[: 10 * _ERROR_LENGTH].split())[:_ERROR_LENGTH]
    return {"type": "error", "error": f"{type(error).__name__}: {words}", "where": place}


def versions() -> dict[str, str]:
    """Versions of Python and of the loaded libraries that may affect predictions."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("torch", "torchvision", "cv2", "scipy", "mmcv", "timm"):
        if name in sys.modules and hasattr(sys.modules[name], "__version__"):
            found[name] = str(sys.modules[name].__version__)
    return found


def serve(arguments: argparse.Namespace, read: Callable[[int], Any], write: Callable[[list[Any]], None]) -> int:
    """Load the model, send "ready", and answer messages until the input ends; returns the exit code."""
    try:
        options = json.loads(arguments.options)
        load = adapter_load(arguments.adapter)
        server = Server(load(arguments.repo, arguments.checkpoint, options, arguments.device))
    except BaseException as error:
        traceback.print_exc()
        write(packed(error_of(error)))
        return 3
    allowed = os.environ.get("OMP_NUM_THREADS", "")  # OpenCV ignores it
    if "cv2" in sys.modules and allowed.isdigit():
        sys.modules["cv2"].setNumThreads(int(allowed))
    ready = {"type": "ready", "protocol": PROTOCOL, "granularity": server.takes_granularity, "versions": versions()}
    write(packed(ready))
    while True:
        try:
            header, arrays = read_message(read, MOST_BYTES)
        except EOFError:
            return 0
        try:
            answer, more = server.answer(header, arrays)
            message = packed(answer, more)
        except BaseException as error:
            traceback.print_exc()
            message = packed(error_of(error))
        write(message)


def end_with_parent(parent: int, incoming: int) -> None:
    """End this process soon after its parent (a process id) dies, even if busy.

    `incoming` is the descriptor of messages, whose other end closes when the parent dies.
    """
    if sys.platform.startswith("linux") and os.getppid() == parent:  # no wrapper in between
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes  # noqa: PLC0415  (missing in some builds of Python)

            pr_set_pdeathsig = 1  # fires when the parent's main thread ends
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        poll = select.poll()
        poll.register(incoming, 0)  # wakes only when the other end is closed
        poll.poll()
        time.sleep(_PARTING_SECONDS)  # an idle child ends by itself
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser()
    for name in ("adapter", "repo", "checkpoint", "options", "device"):
        parser.add_argument("--" + name, default="")
    parser.add_argument("--parent", type=int, default=0)
    arguments = parser.parse_args()
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # printed text, from C too, goes to standard error
    sys.stdout = sys.stderr
    here = Path(__file__).resolve().parent  # the peer may have modules with the same names
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    end_with_parent(arguments.parent, incoming)

    def read(count: int) -> bytearray:
        content = bytearray(count)
        view, done = memoryview(content), 0
        while done < count:
            got = os.readv(incoming, [view[done:]])
            if not got:
                raise EOFError
            done += got
        return content

    def write(pieces: list[Any]) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(outgoing, view) :]

    sys.exit(serve(arguments, read, write))


if __name__ == "__main__":
    main()
