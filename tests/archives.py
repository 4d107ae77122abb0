"""Archives of files in memory."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable


def archive_bytes(mode: str, content: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """A zip (mode "zip"), or a tar by the mode that tarfile writes it with ("w", "w:gz")."""
    sink = io.BytesIO()
    if mode == "zip":
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in content:
                packed.writestr(name, data)
        return sink.getvalue()
    with tarfile.open(fileobj=sink, mode=mode) as opened:  # type: ignore[call-overload]
        for name, data in content:
            member = tarfile.TarInfo(str(name))
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return sink.getvalue()
