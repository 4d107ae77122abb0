"""Import recorded clicks: RClicks' table, any CSV, Parquet from other tools, or scribbles."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.depths import transform
from disbench.core.errors import InputError, opencv, quote, unknown_name
from disbench.core.limits import MAX_RECORDED_CLICKS
from disbench.core.samples import SampleSource
from disbench.datasets.label_maps import read_label_png
from disbench.datasets.layouts import private_id
from disbench.io.files import atomic_write, file_sha256
from disbench.io.recorded_clicks import ClickSequence, check_name, read_sequences, to_parquet, to_sequences

# Card of a dataset -> its name in RClicks' table.
RCLICKS = {"grabcut": "GrabCut", "berkeley": "Berkeley", "davis": "DAVIS", "coco-mval": "COCO", "tetris": "TETRIS"}
_RCLICKS_COLUMNS = ("dataset", "image_stem", "click_type", "object_stem", "x", "y", "w", "h", "device")
_LATER = ("fn", "fp")
_OBJECT, _BACKGROUND = 1, 2
_SCRIBBLE = re.compile(r"[-_]anno$")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_NAMED = 3

ClickFormat = Literal["rclicks", "csv", "recording", "scribbles"]


@dataclass(frozen=True, slots=True)
class RawClick:
    """A click as stored in a file at `where`.

    x and y are pixels from the top left corner of an image of `size` (width, height); None means the sample's own size,
    and the click must be inside it.
    """

    where: str
    sample: str
    user: str
    number: int
    x: float
    y: float
    positive: bool = True
    size: tuple[float, float] | None = None


def import_clicks(
    form: ClickFormat, file: Path, source: SampleSource, out: Path, *, drop_missing: bool = False, rescale: bool = True
) -> list[str]:
    """Convert clicks on the samples of a dataset to recorded clicks (`disbench.io.recorded_clicks`).

    Args:
        form: a key of `FORMATS`.
        file: the table; for `scribbles`, a folder of PNGs or of folders of PNGs.
        source: the dataset; each image with clicks is read for its size and to count clicks off the target.
        out: the Parquet file to write.
        drop_missing: skip clicks on samples that are not in the dataset.
        rescale: False keeps x and y unchanged if another size is given (RClicks' benchmark).

    Returns lines that account for every row. `InputError` for a malformed file, missing samples (lists the first
    three), or nothing to import.
    """
    left_out: Counter[str] = Counter()
    by_sample: dict[str, list[RawClick]] = {}
    for count, click in enumerate(FORMATS[form](file, source, left_out), 1):
        if count > MAX_RECORDED_CLICKS:
            raise InputError(f"{file}: more than {MAX_RECORDED_CLICKS:,} clicks; split the file")
        by_sample.setdefault(click.sample, []).append(click)
    known = set(source.ids)
    if lacking := [sample for sample in by_sample if sample not in known]:
        some = ", ".join(map(quote, lacking[:_NAMED])) + (", ..." if len(lacking) > _NAMED else "")
        if not drop_missing:
            what = f"clicks on {len(lacking)} samples that {source.name} does not have ({some})"
            raise InputError(f"{file}: {what}; use their dataset, or skip them with --missing drop")
        gone = sum(len(by_sample.pop(sample)) for sample in lacking)
        left_out[f"on {len(lacking)} samples that {source.name} does not have"] = gone
    if not by_sample:
        raise InputError(f"{file}: no click on a sample of {source.name}{_in_brackets(left_out)}")
    notes: Counter[str] = Counter()
    sequences: list[ClickSequence] = []
    for number, name in enumerate(source.ids):
        if name in by_sample:
            sequences += _sequences(by_sample[name], source.read(number).target == 1, notes, rescale)
    facts = {"disbench.source": _digest(file), **({"disbench.synthetic-users": "rows"} if form == "rclicks" else {})}
    with atomic_write(out) as to:
        to.write(to_parquet(sequences, facts))
    clicks, samples = sum(len(one.clicks) for one in sequences), {one.sample for one in sequences}
    rows, what = clicks + left_out.total(), "strokes" if form == "scribbles" else "rows"
    users = len({one.user for one in sequences})
    return [
        f"{file}: {rows:,} {what}{_in_brackets(left_out)}",
        f"{out}: {clicks:,} clicks of {users:,} users on {len(samples):,} samples{_in_brackets(notes)}",
    ]


def _in_brackets(counts: Counter[str]) -> str:
    text = "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f" ({text})" if text else ""


def _sequences(given: Sequence[RawClick], mask: BoolArray, notes: Counter[str], rescale: bool) -> list[ClickSequence]:
    """The clicks of one sample, grouped by user; `mask` is bool (height, width)."""
    found: dict[tuple[str, str], dict[int, Click]] = {}
    for one in given:
        click = _to_pixel(one, (mask.shape[1], mask.shape[0]), notes, rescale)
        notes["off the target, kept"] += click.positive != bool(mask[click.y, click.x])
        if one.number in found.setdefault((one.sample, one.user), {}):
            raise InputError(f"{one.where}: another click {one.number} of the same sample and user; correct the file")
        found[one.sample, one.user][one.number] = click
    return to_sequences(found, given[0].where)


def _to_pixel(given: RawClick, own: tuple[int, int], notes: Counter[str], rescale: bool) -> Click:
    """Map a click to a pixel of a sample of size `own` (width, height): clip, rescale, truncate and clip."""
    outside = not all(0 <= value < side for value, side in zip((given.x, given.y), given.size or own, strict=True))
    if outside and given.size is None:
        where = f"x = {given.x:g}, y = {given.y:g} is outside the sample's {own[0]} x {own[1]} pixels"
        raise InputError(f"{given.where}: {where}; correct it, or give the image size it refers to (columns w, h)")
    size = given.size or own
    notes["clipped to the image"] += outside
    notes["measured on another size"] += size != own
    x, y = (
        min(max(int(min(max(value, 0.0), stated - 1) * side / stated if rescale else value), 0), side - 1)
        for value, stated, side in zip((given.x, given.y), size, own, strict=True)
    )
    return Click(x, y, given.positive)


def _rclicks(file: Path, source: SampleSource, left_out: Counter[str]) -> Iterator[RawClick]:
    """First clicks of RClicks' `clicks.csv`; users are numbered by row within sample and device."""
    if source.name not in RCLICKS:
        raise unknown_name("dataset", source.name, RCLICKS, f"{file}: RClicks has no clicks on it")
    known, users, others = set(source.ids), Counter[tuple[str, str]](), set[str]()
    found = False
    for where, row in _rows(file, _RCLICKS_COLUMNS):
        if row["dataset"] != RCLICKS[source.name]:
            left_out["of other datasets"] += 1
            others.add(row["dataset"])
            continue
        found = True
        if row["click_type"] in _LATER:
            left_out["later clicks (fn, fp), which belong to a shown mask"] += 1
            continue
        if row["click_type"] != "first" or row["device"] not in ("pc", "mobile"):
            known_are = "known are first, fn, fp, and pc, mobile; correct the row"
            raise InputError(f"{where}: {quote(row['click_type'])}, {quote(row['device'])}: {known_are}")
        stem, code = row["image_stem"], row["object_stem"]
        names = (f"{stem}/{code}", stem, f"{private_id(stem)}/{code}", private_id(stem))
        sample = next((name for name in names if name in known), names[0] if code else stem)
        users[sample, row["device"]] += 1
        user = f"{row['device']}-{users[sample, row['device']]:04}"
        x, y = _numbers(row, where, "x", "y")
        yield RawClick(where, sample, user, 1, x, y, size=_size(row, where))
    if not found:
        datasets = ", ".join(map(quote, sorted(others)))
        raise InputError(f"{file}: no row of {RCLICKS[source.name]}; its column dataset has {datasets}")


def _table(file: Path, _: SampleSource, __: Counter[str]) -> Iterator[RawClick]:
    """Any CSV with columns sample, x, y; optional: click, positive, user, and w, h.

    Without `user`, every row is the first click of a different user; without `click`, file order counts.
    """
    users, clicks = Counter[str](), Counter[tuple[str, str]]()
    for where, row in _rows(file, ("sample", "x", "y")):
        sample = row["sample"]
        users[sample] += 1
        user = row.get("user", f"row-{users[sample]:04}")
        clicks[sample, user] += 1
        (number,) = _numbers(row, where, "click") if "click" in row else (clicks[sample, user],)
        positive = _BOOLEANS.get(row.get("positive", "true").lower())
        if positive is None or number != int(number):
            raise InputError(f"{where}: click must be an integer, positive true or false; correct the row")
        x, y = _numbers(row, where, "x", "y")
        yield RawClick(where, sample, user, int(number), x, y, positive, _size(row, where) if "w" in row else None)


def _recording(file: Path, _: SampleSource, __: Counter[str]) -> Iterator[RawClick]:
    """A Parquet file of recorded clicks, as written by the demo and other tools."""
    for one in read_sequences(file):
        for number, click in enumerate(one.clicks, 1):
            where = f"{file}: sample {quote(one.sample)}, click {number}"
            yield RawClick(where, one.sample, one.user, number, click.x, click.y, click.positive)


def _scribbles(file: Path, source: SampleSource, left_out: Counter[str]) -> Iterator[RawClick]:
    """PNGs STEM.png or STEM-anno.png of strokes: 1 is object, 2 is background; the folder's name is the user."""
    if not file.is_dir():
        raise InputError(f"{file}: no such folder of scribbles; give one with PNGs, or with folders of PNGs")
    for path in sorted([*file.glob("*.png"), *file.glob("*/*.png")]):
        values = read_label_png(path)
        if odd := set(np.unique(values).tolist()) - {0, _OBJECT, _BACKGROUND}:
            raise InputError(f"{path}: values {sorted(odd)}; a scribble has 0, 1 (object) and 2 (background)")
        strokes = opencv().connectedComponents((values == _OBJECT).astype(np.uint8), connectivity=8)[0] - 1
        if not strokes:
            raise InputError(f"{path}: no stroke on the object (value 1); leave the file out")
        left_out["smaller strokes on the object"] += strokes - 1
        background = opencv().connectedComponents((values == _BACKGROUND).astype(np.uint8), connectivity=8)[0] - 1
        left_out["strokes on the background"] += background
        x, y = stroke_click(values == _OBJECT)
        size = (float(values.shape[1]), float(values.shape[0]))
        user = check_name(path.parent.name, "user")
        yield RawClick(str(path), _SCRIBBLE.sub("", path.stem), user, 1, x, y, size=size)


def stroke_click(strokes: BoolArray) -> tuple[int, int]:
    """The first click (x, y) for a scribble, non-empty bool (height, width).

    Takes the largest 8-connected stroke and in it the pixel farthest from the outside. Many pixels of a brush stroke
    are equally deep, so the one nearest to their mean is used, which puts the click in the middle of the stroke. Ties
    go to the first in row-major order.
    """
    _, labels = opencv().connectedComponents(strokes.astype(np.uint8), connectivity=8)
    sizes = np.bincount(labels.ravel())[1:]
    largest = np.flatnonzero(sizes == sizes.max()) + 1
    first = labels.ravel()[np.isin(labels.ravel(), largest).argmax()]
    depth = transform(np.pad(labels == first, 1).astype(np.uint8))[1:-1, 1:-1]
    deepest = np.argwhere(depth == depth.max())
    y, x = deepest[((deepest - deepest.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return x, y


# Format -> reader, which counts skipped rows.
FORMATS: Mapping[ClickFormat, Callable[[Path, SampleSource, Counter[str]], Iterator[RawClick]]] = {
    "rclicks": _rclicks,
    "csv": _table,
    "recording": _recording,
    "scribbles": _scribbles,
}


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(location, cells) of each row of a CSV."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise InputError(f"{file}: no column {', '.join(lacking)}; required are {', '.join(columns)}")
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{where}: more or fewer cells than the header; correct the row")
                try:
                    check_name(row.get("sample", row.get("image_stem", "")), "sample")
                    check_name(row.get("user", "row"), "user")
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
                yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file in UTF-8 ({error}); export it again") from error


def _numbers(row: Mapping[str, str], where: str, *columns: str) -> tuple[float, ...]:
    found = []
    for column in columns:
        try:
            found.append(float(row[column]))
        except ValueError:
            found.append(math.nan)
        if not math.isfinite(found[-1]):
            raise InputError(f"{where}: {column} is {quote(row[column])}, not a number; correct the row")
    return tuple(found)


def _size(row: Mapping[str, str], where: str) -> tuple[float, float]:
    width, height = _numbers({"h": "", **row}, where, "w", "h")
    if width < 1 or height < 1:
        raise InputError(f"{where}: w = {width:g}, h = {height:g}, but both must be at least 1; correct the row")
    return width, height


def _digest(file: Path) -> str:
    """SHA-256 (hex) of a file, or of the names and hashes of a folder's PNGs."""
    if not file.is_dir():
        return file_sha256(file)
    found = hashlib.sha256()
    for path in sorted(file.rglob("*.png")):
        found.update(f"{path.relative_to(file).as_posix()}\n{file_sha256(path)}\n".encode())
    return found.hexdigest()
