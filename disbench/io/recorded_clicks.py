"""Recorded clicks: where people really clicked, as Parquet (docs/clicks.md); the demo writes it, `replay` reads it."""

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
from disbench.core.errors import InputError, shown, unknown_name
from disbench.core.limits import MAX_NAME, MAX_RECORDED_CLICKS
from disbench.io.files import has_control, open_regular, whole_file
from disbench.io.parquet import complaining, open_parquet, weigh

FORMAT = 1
_COLUMNS = {"sample": "string", "click": "int16", "x": "int32", "y": "int32", "positive": "bool", "user": "string"}
# One row a click: the sample's id, the click's number from 1, whole pixels from the top left corner, on the object or
# not, and who clicked. The rows of a (sample, user) are one sequence, wherever in the file they are.
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()],
    metadata={"disbench.clicks": str(FORMAT)},
)
_VERSION = b"disbench.clicks"
_USERS_SHOWN = 8
_DIGITS = 16  # hexadecimal digits of a digest that are kept


class Sequenced(NamedTuple):
    """What one user clicked on one sample: one click or more, in their order."""

    sample: str
    user: str
    clicks: tuple[Click, ...]


class FirstClicks(NamedTuple):
    """Several users' first clicks on each sample, and the user of each: sample -> users."""

    recording: Recording
    users: Mapping[str, Sequence[str]]


def check_name(name: str, what: str) -> str:
    """A sample's id, or a user's name without spaces around it (`what`), if a recording may have it.

    `InputError` if empty, too long, with a control character or, of a user, a comma (which separates options).
    """
    found = name.strip() if what == "user" else name
    if not found.strip() or len(found) > MAX_NAME or has_control(found) or (what == "user" and "," in found):
        comma = ", without a comma" if what == "user" else ""
        raise InputError(f"the {what} {shown(name)}: give a name of 1 to {MAX_NAME} printable characters{comma}")
    return found


def as_parquet(sequences: Sequence[Sequenced], facts: Mapping[str, str] | None = None) -> bytes:
    """Recorded clicks as the bytes of a Parquet file of `SCHEMA`; `facts` are further metadata."""
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


def add_sequence(path: Path, added: Sequenced) -> None:
    """Add what a user clicked on a sample to a file, made if missing, in place of the user's earlier clicks."""
    there = read_sequences(path) if path.exists() else []
    kept = [one for one in there if one[:2] != added[:2]]
    with whole_file(path) as file:
        file.write(as_parquet([*kept, added]))


def read_sequences(path: Path) -> list[Sequenced]:
    """All sequences of a file, in the order of their first rows; `InputError` if it holds no recorded clicks.

    Metadata may be missing, columns may be of other integer types, and there may be more of them, as in a table that
    other software wrote. The clicks of a sequence are numbered 1, 2, 3, ...
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
            raise InputError(f"{path}, row {row}: another click {number} of the same sample and user")
        found[key][number] = Click(x, y, positive)
    return in_order(found, path)


def in_order(found: Mapping[tuple[str, str], Mapping[int, Click]], where: object) -> list[Sequenced]:
    """Sequences from the numbered clicks of each (sample, user); `InputError` if they are not 1, 2, 3, ..."""
    for (sample, user), clicks in found.items():
        if sorted(clicks) != list(range(1, len(clicks) + 1)):
            whose = f"the {len(clicks)} clicks on the sample {shown(sample)} by the user {shown(user)}"
            raise InputError(f"{where}: {whose} are not numbered 1, 2, 3, ...; correct them")
    return [Sequenced(*key, tuple(clicks[number] for number in sorted(clicks))) for key, clicks in found.items()]


def read_recording(path: Path, user: str = "", digest: str = "") -> Recording:
    """What one user clicked, sample by sample; `user` may be "" where the file has one, `digest` "" takes any clicks.

    `InputError` as `read_sequences`, or an unknown user, several users and none named, or another digest.
    """
    sequences = read_sequences(path)
    users = sorted({one.user for one in sequences})
    if not users:
        raise InputError(f"{path}: there are no clicks in it; record some (disbench demo)")
    if not user and len(users) > 1:
        some = ", ".join(users[:_USERS_SHOWN]) + (", ..." if len(users) > _USERS_SHOWN else "")
        raise InputError(f"{path}: clicks of {len(users)} users ({some}); name one: replay:{path},user=NAME")
    if user and user not in users:
        raise unknown_name("user", user, users, str(path))
    clicks = {one.sample: one.clicks for one in sequences if one.user == (user or users[0])}
    found = Recording(path.name, user or users[0], digest_of(clicks), clicks)
    if digest not in ("", found.digest):
        raise _another(path, f"the clicks of {found.user}", found.digest, digest)
    return found


def read_first_clicks(path: Path, user: str = "", digest: str = "") -> FirstClicks:
    """Every user's first click on each sample, in the file's order; with `user` those of one.

    `InputError` as `read_recording`, but that several users need no name.
    """
    sequences = read_sequences(path)
    if user and user not in (users := sorted({one.user for one in sequences})):
        raise unknown_name("user", user, users, str(path))
    found: dict[str, list[Sequenced]] = {}
    for one in sequences:
        if user in ("", one.user):
            found.setdefault(one.sample, []).append(one)
    if not found:
        raise InputError(f"{path}: there are no clicks in it; record some (disbench demo)")
    clicks = {sample: tuple(one.clicks[0] for one in of_sample) for sample, of_sample in found.items()}
    users_of = {sample: tuple(one.user for one in of_sample) for sample, of_sample in found.items()}
    own = digest_of({f"{one.sample}\n{one.user}": one.clicks[:1] for of_sample in found.values() for one in of_sample})
    if digest not in ("", own):
        raise _another(path, "its first clicks", own, digest)
    return FirstClicks(Recording(path.name, user, own, clicks), users_of)


def _another(path: Path, whose: str, found: str, digest: str) -> InputError:
    fix = "name the file that was meant, or leave the digest out"
    return InputError(f"{path}: {whose} have the digest {found}, not {digest}; {fix}")


def digest_of(clicks: Mapping[str, Sequence[Click]]) -> str:
    """What identifies clicks in any file: digits of a SHA-256 over all of them."""
    lines = [json.dumps([sample, *map(list, clicks[sample])]) for sample in sorted(clicks)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    open_regular(path, "there is no such file of recorded clicks; check the path").close()
    with complaining(path, "not a whole Parquet file of recorded clicks", "check the file"):
        file, groups = open_parquet(path, SCHEMA)
        version = (file.schema_arrow.metadata or {}).get(_VERSION)
        if version not in (None, SCHEMA.metadata[_VERSION]):
            raise InputError(f"{path}: recorded clicks of form {shown(version)}, not {FORMAT}; update disbench")
        if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
            raise InputError(f"{path}: no column {', '.join(missing)}; recorded clicks have {', '.join(SCHEMA.names)}")
        if sum(group.rows for group in groups) > MAX_RECORDED_CLICKS:
            raise InputError(f"{path}: more than {MAX_RECORDED_CLICKS:,} clicks; split the file by users")
        for batch in file.iter_batches(columns=SCHEMA.names):
            table = pa.Table.from_batches([batch]).select(SCHEMA.names)
            weigh(table)
            yield from zip(*(_values(table[field.name], field, path) for field in SCHEMA), strict=True)


def _values(column: pa.ChunkedArray, field: pa.Field, path: Path) -> list[Any]:
    if column.null_count:
        raise InputError(f"{path}: an empty field in the column {field.name!r}; every click has all of them")
    try:
        if pa.types.is_boolean(field.type) != pa.types.is_boolean(column.type):
            raise pa.ArrowInvalid(f"{column.type}")
        return list(column.cast(field.type).to_pylist())
    except (pa.ArrowException, UnicodeDecodeError):
        raise InputError(
            f"{path}: the column {field.name!r} ({column.type}) has values that are not {field.type}; correct them"
        ) from None
