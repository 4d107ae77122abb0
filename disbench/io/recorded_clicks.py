"""Clicks recorded from people, stored as Parquet (docs/clicks.md): written by the demo, read by the policy `replay`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from disbench.core.click_policies import Recording
from disbench.core.clicks import Click
from disbench.core.errors import InputError, quote, unknown_name
from disbench.core.limits import MAX_NAME, MAX_RECORDED_CLICKS
from disbench.io.files import atomic_write, has_control_character, open_regular
from disbench.io.parquet import as_input_error, check_decoded_size, open_parquet

FORMAT = 1
_COLUMNS = {"sample": "string", "click": "int16", "x": "int32", "y": "int32", "positive": "bool", "user": "string"}
# One row per click: sample id, click number from 1, pixel column and row from the top left corner, whether it is
# positive, and who clicked. All rows of a (sample, user) are one sequence, in any order.
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()],
    metadata={"disbench.clicks": str(FORMAT)},
)
_VERSION = b"disbench.clicks"
_USERS_SHOWN = 8
_DIGITS = 16  # hexadecimal digits kept of a digest


class ClickSequence(NamedTuple):
    """The clicks of one user on one sample, at least one, in order."""

    sample: str
    user: str
    clicks: tuple[Click, ...]


class FirstClicks(NamedTuple):
    """First clicks of several users on each sample, and the user of each: sample -> users."""

    recording: Recording
    users: Mapping[str, Sequence[str]]


def check_name(name: str, what: str) -> str:
    """Check a sample id, or a user name (`what` is "user"), which is stripped of spaces.

    `InputError` if empty, too long, with a control character or, in a user name, a comma (commas separate options).
    """
    found = name.strip() if what == "user" else name
    if not found.strip() or len(found) > MAX_NAME or has_control_character(found) or (what == "user" and "," in found):
        comma = ", without a comma" if what == "user" else ""
        raise InputError(f"the {what} {quote(name)}: give a name of 1 to {MAX_NAME} printable characters{comma}")
    return found


def to_parquet(sequences: Sequence[ClickSequence], facts: Mapping[str, str] | None = None) -> bytes:
    """Encode recorded clicks as a Parquet file of `SCHEMA`; `facts` are added to its metadata."""
    rows = [
        (one.sample, number, click.x, click.y, click.positive, one.user)
        for one in sequences
        for number, click in enumerate(one.clicks, 1)
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, **(facts or {})})
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def add_sequence(path: Path, added: ClickSequence) -> None:
    """Add a sequence to a file, creating it if missing; replaces the user's earlier clicks on the sample."""
    existing = read_sequences(path) if path.exists() else []
    others = [one for one in existing if one[:2] != added[:2]]
    with atomic_write(path) as file:
        file.write(to_parquet([*others, added]))


def read_sequences(path: Path) -> list[ClickSequence]:
    """Read all sequences of a file, ordered by their first rows; `InputError` if it has no recorded clicks.

    Files of other software may lack the metadata, use other integer types and have more columns. The clicks of a
    sequence must be numbered 1, 2, 3, ...
    """
    found: dict[tuple[str, str], dict[int, Click]] = {}
    for row, (sample, number, x, y, positive, user) in enumerate(_rows(path), 1):
        try:
            key = check_name(sample, "sample"), check_name(user, "user")
        except InputError as error:
            raise InputError(f"{path}, row {row}: {error}") from None
        if x < 0 or y < 0:
            raise InputError(f"{path}, row {row}: x = {x}, y = {y}; pixels count from 0 at the top left corner")
        if number in found.setdefault(key, {}):
            raise InputError(f"{path}, row {row}: duplicate click {number} of the same sample and user")
        found[key][number] = Click(x, y, positive)
    return to_sequences(found, path)


def to_sequences(found: Mapping[tuple[str, str], Mapping[int, Click]], where: object) -> list[ClickSequence]:
    """Sequences from the numbered clicks of each (sample, user); `InputError` unless they are numbered 1, 2, 3, ..."""
    for (sample, user), clicks in found.items():
        if sorted(clicks) != list(range(1, len(clicks) + 1)):
            subject = f"the {len(clicks)} clicks on the sample {quote(sample)} by the user {quote(user)}"
            raise InputError(f"{where}: {subject} are not numbered 1, 2, 3, ...; correct them")
    return [ClickSequence(*key, tuple(clicks[number] for number in sorted(clicks))) for key, clicks in found.items()]


def read_recording(path: Path, user: str = "", digest: str = "") -> Recording:
    """Read the clicks of one user; `user` may be "" if the file has only one, and `digest` "" accepts any clicks.

    `InputError` as `read_sequences`, or for an unknown user, several users if none is given, or another digest.
    """
    sequences = read_sequences(path)
    users = sorted({one.user for one in sequences})
    if not users:
        raise InputError(f"{path}: has no clicks; record some (disbench demo)")
    if not user and len(users) > 1:
        some = ", ".join(users[:_USERS_SHOWN]) + (", ..." if len(users) > _USERS_SHOWN else "")
        raise InputError(f"{path}: clicks of {len(users)} users ({some}); name one: replay:{path},user=NAME")
    if user and user not in users:
        raise unknown_name("user", user, users, str(path))
    clicks = {one.sample: one.clicks for one in sequences if one.user == (user or users[0])}
    found = Recording(path.name, user or users[0], digest_of(clicks), clicks)
    if digest not in ("", found.digest):
        raise _digest_error(path, f"the clicks of {found.user}", found.digest, digest)
    return found


def read_first_clicks(path: Path, user: str = "", digest: str = "") -> FirstClicks:
    """Read every user's first click on each sample, in the file's order, or only those of `user`.

    `InputError` as `read_recording`, except that several users are allowed.
    """
    sequences = read_sequences(path)
    if user and user not in (users := sorted({one.user for one in sequences})):
        raise unknown_name("user", user, users, str(path))
    found: dict[str, list[ClickSequence]] = {}
    for one in sequences:
        if user in ("", one.user):
            found.setdefault(one.sample, []).append(one)
    if not found:
        raise InputError(f"{path}: has no clicks; record some (disbench demo)")
    clicks = {sample: tuple(one.clicks[0] for one in of_sample) for sample, of_sample in found.items()}
    users_of = {sample: tuple(one.user for one in of_sample) for sample, of_sample in found.items()}
    own = digest_of({f"{one.sample}\n{one.user}": one.clicks[:1] for of_sample in found.values() for one in of_sample})
    if digest not in ("", own):
        raise _digest_error(path, "its first clicks", own, digest)
    return FirstClicks(Recording(path.name, user, own, clicks), users_of)


def _digest_error(path: Path, subject: str, found: str, digest: str) -> InputError:
    fix = "name the file that was meant, or leave the digest out"
    return InputError(f"{path}: {subject} have the digest {found}, not {digest}; {fix}")


def digest_of(clicks: Mapping[str, Sequence[Click]]) -> str:
    """Identifies clicks independent of the file: leading digits of a SHA-256 over all of them."""
    lines = [json.dumps([sample, *map(list, clicks[sample])]) for sample in sorted(clicks)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    open_regular(path, "there is no such file of recorded clicks; check the path").close()
    with as_input_error(path, "not a whole Parquet file of recorded clicks", "check the file"):
        file, groups = open_parquet(path, SCHEMA)
        version = (file.schema_arrow.metadata or {}).get(_VERSION)
        if version not in (None, SCHEMA.metadata[_VERSION]):
            raise InputError(f"{path}: recorded clicks of format {quote(version)}, not {FORMAT}; update disbench")
        if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
            raise InputError(f"{path}: no column {', '.join(missing)}; recorded clicks have {', '.join(SCHEMA.names)}")
        if sum(group.rows for group in groups) > MAX_RECORDED_CLICKS:
            raise InputError(f"{path}: more than {MAX_RECORDED_CLICKS:,} clicks; split the file by users")
        for batch in file.iter_batches(columns=SCHEMA.names):
            table = pa.Table.from_batches([batch]).select(SCHEMA.names)
            check_decoded_size(table)
            yield from zip(*(_values(table[field.name], field, path) for field in SCHEMA), strict=True)


def _values(column: pa.ChunkedArray, field: pa.Field, path: Path) -> list[Any]:
    if column.null_count:
        raise InputError(f"{path}: the column {field.name!r} has empty fields; fill them in for every click")
    try:
        if pa.types.is_boolean(field.type) != pa.types.is_boolean(column.type):
            raise pa.ArrowInvalid(f"{column.type}")
        return list(column.cast(field.type).to_pylist())
    except (pa.ArrowException, UnicodeDecodeError):
        raise InputError(
            f"{path}: the column {field.name!r} ({column.type}) has values that are not {field.type}; correct them"
        ) from None
