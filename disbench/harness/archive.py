"""Packed runs: a single file with everything a leaderboard needs of a run.

A packed run is a zip archive of exactly `manifest.json`, `run.json` and `clicks.parquet`, in this order, uncompressed
(Parquet is compressed already). So it cannot expand, is read in place through a memory map, and the same run gives the
same archive on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa
from tqdm import tqdm

from disbench.core.choices import Store
from disbench.core.errors import InputError, quote
from disbench.harness.checks import Problems, RowChecks, check_schema
from disbench.harness.measures import Value, as_claims
from disbench.harness.record import RunRecord
from disbench.harness.store import CLICKS, JOURNAL, RUN, StoredRun, read_run, record_of, write_clicks
from disbench.io.files import atomic_write, file_sha256
from disbench.io.settings import Count, parse_json_table, settings_from

MANIFEST = "manifest.json"
ENDING = ".zip"
LEFT_OUT: Final = "left out"  # value of `Manifest.masks` if the run has masks and the archive does not
_MEMBERS = (MANIFEST, RUN, CLICKS)
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can store
_UNIX, _MODE = 3, stat.S_IFREG | 0o644
_HEADER = struct.Struct("<4s22x2H")  # zip member header: signature, lengths of name and extra field
_AGAIN = "pack the run again with disbench pack"


@dataclass(frozen=True)
class FileFacts:
    """Size and SHA-256 (hex) of a member."""

    bytes: Count
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Contents of `manifest.json`; `figures` as made by `disbench.harness.measures.as_claims`."""

    form: Literal[1]
    files: Mapping[str, FileFacts]
    masks: Literal["none", "kept", "all", "left out"]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class PackedRun:
    """A packed run whose files match its manifest."""

    run: StoredRun
    manifest: Manifest


def pack(run: Path, out: Path | None = None, *, masks: bool = True, progress: bool = False) -> Path:
    """Pack a finished run into one file.

    Args:
        run: folder of the run.
        out: the archive, `*.zip`; by default beside the folder, with its name.
        masks: include stored masks; otherwise their columns are null.
        progress: show a progress bar on standard error.

    Returns:
        Path of the archive. The same run gives the same bytes.

    Raises:
        InputError: no finished run, a damaged or imported one, or rows that contradict each other or `run.json`.
    """
    whole = run.resolve()
    path = whole.with_name(f"{whole.name}{ENDING}") if out is None else out
    if path.suffix != ENDING:
        raise InputError(f"{path}: the name of a packed run must end in {ENDING}")
    stored = read_run(run)
    stored.require_clicks()
    store, figures = _checked(stored, progress)
    leave_out = store != "none" and not masks
    with tempfile.TemporaryDirectory(prefix="disbench-") as scratch:
        clicks = run / CLICKS
        if leave_out:
            clicks = Path(scratch) / CLICKS
            write_clicks(clicks, map(_without_masks, stored.samples()))
        record = (run / RUN).read_bytes()
        files = {
            RUN: FileFacts(len(record), hashlib.sha256(record).hexdigest()),
            CLICKS: FileFacts(clicks.stat().st_size, file_sha256(clicks)),
        }
        manifest = Manifest(1, files, LEFT_OUT if leave_out else store, as_claims(figures))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file, clicks.open("rb") as rows:
            _write(file, manifest, record, rows)
    return path


def open_run(place: Path) -> StoredRun:
    """Read a finished run from its folder or archive; errors as for `read_run` and `read_packed`."""
    return read_packed(place).run if place.is_file() else read_run(place)


def is_run(place: Path) -> bool:
    """True if a path is a run, finished or not: a folder with a run's files, or a file named like an archive."""
    if place.suffix == ENDING and place.is_file():
        return True
    return (place / RUN).exists() or (place / JOURNAL).exists()


def read_packed(archive: Path) -> PackedRun:
    """Read a packed run in place; InputError if it is damaged or does not match its manifest."""
    content = _members(archive)
    with _as_input_error(archive):
        manifest = settings_from(Manifest, parse_json_table(content[MANIFEST].to_pybytes()), f"{archive}: {MANIFEST}")
    for name in (RUN, CLICKS):
        found = FileFacts(content[name].size, hashlib.sha256(content[name]).hexdigest())
        if manifest.files.get(name) != found:
            raise InputError(
                f"{archive}: {name} does not match {MANIFEST} ({found.bytes} bytes, SHA-256 {found.sha256}); get the "
                "archive again, or pack the run again"
            )
    record = record_of(content[RUN].to_pybytes(), f"{archive}: {RUN}", RunRecord)
    return PackedRun(StoredRun(archive.with_suffix(""), record, archive, content[CLICKS]), manifest)


def _checked(run: StoredRun, progress: bool) -> tuple[Store, dict[str, Value]]:
    """Which masks a run has stored, and its measures; InputError unless its rows are consistent."""
    problems = Problems()
    if check_schema(run, problems):
        store = run.record.execution.store
        checks = RowChecks(run, run.protocol, store, problems)
        for table in tqdm(run.samples(), total=run.record.result.samples, unit="sample", disable=not progress):
            checks.add(table)
        figures = checks.end()
        if figures is not None and not len(problems):
            return store, figures
    raise InputError(f"{run.folder}: the run does not hold: {problems.lines()[0]}; see disbench verify; run it again")


def _without_masks(table: pa.Table) -> pa.Table:
    for name in ("mask", "candidate_masks"):
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.nulls(len(table), field.type))
    return table


def _write(file: BinaryIO, manifest: Manifest, record: bytes, rows: BinaryIO) -> None:
    content = (json.dumps(dataclasses.asdict(manifest), indent=1) + "\n").encode()
    sizes = (len(content), len(record), manifest.files[CLICKS].bytes)
    sources = (io.BytesIO(content), io.BytesIO(record), rows)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, size, source in zip(_MEMBERS, sizes, sources, strict=True):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system, info.external_attr, info.file_size = _UNIX, _MODE << 16, size
            with archive.open(info, "w") as member:
                shutil.copyfileobj(source, member)


def _members(archive: Path) -> dict[str, pa.Buffer]:
    """Views of all members in a memory map of the file."""
    if not archive.is_file():
        raise InputError(f"{archive}: no such file; give the folder of a run or a packed run")
    with _as_input_error(archive):
        with zipfile.ZipFile(archive) as packed:
            infos = packed.infolist()
        names = [info.filename for info in infos]
        if names != list(_MEMBERS):
            raise InputError(f"{archive}: contains {quote(names)}, not {', '.join(_MEMBERS)}; {_AGAIN}")
        content = pa.memory_map(str(archive)).read_buffer()
        return {info.filename: _stored_bytes(archive, content, info) for info in infos}


@contextmanager
def _as_input_error(archive: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zipfile raises many types on damaged bytes
        raise InputError(f"{archive}: not a whole packed run ({error}); get it again, or pack the run again") from error


def _stored_bytes(archive: Path, content: pa.Buffer, info: zipfile.ZipInfo) -> pa.Buffer:
    plain = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
    if not plain or not regular or info.flag_bits & 1:
        raise InputError(f"{archive}: {info.filename} is compressed, encrypted or not a plain file; {_AGAIN}")
    if not 0 <= info.header_offset <= content.size - _HEADER.size:
        raise ValueError(f"{info.filename} begins outside the file")
    header = content.slice(info.header_offset, _HEADER.size).to_pybytes()
    signature, name, extra = _HEADER.unpack(header)
    begin = info.header_offset + _HEADER.size + name + extra
    if signature != b"PK\x03\x04" or begin + info.file_size > content.size:
        raise ValueError(f"{info.filename} ends outside the file")
    return content.slice(begin, info.file_size)
