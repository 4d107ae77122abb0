"""What can be saved: the mask, the clicks, and the command that makes the mask again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from disbench.core import masks
from disbench.core.errors import InputError, unknown_name
from disbench.demo.pictures import Picture, mask_png
from disbench.demo.work import Work
from disbench.io.files import whole_file
from disbench.io.recorded_clicks import Sequenced, add_sequence, as_parquet, check_name

Kind = Literal["mask.png", "mask.json", "clicks.parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RECORDED = "recorded-clicks.parquet"
"""In the folder of `--out`: all clicks of all photos and users, as the policy `replay` reads them."""


def saved(kind: str, work: Work, sample: str, user: str) -> bytes:
    """The bytes of a file to download.

    It has the mask as a PNG of 0 and 255, the mask as COCO compressed run lengths in JSON (`size`, `counts`), or the
    clicks, with the sample's id and the user's name, as Parquet (`disbench.io.recorded_clicks.SCHEMA`).
    """
    if kind not in KINDS:
        raise unknown_name("kind of file", kind, KINDS)
    if kind == "clicks.parquet":
        return as_parquet([_sequence(work, sample, user)])
    _check_begun(work)
    return mask_png(work.mask) if kind == "mask.png" else run_lengths(work)


def run_lengths(work: Work) -> bytes:
    """The mask as JSON that pycocotools reads: `size`, [height, width], and `counts`."""
    rle = masks.encode(work.mask)
    return (json.dumps({"size": rle["size"], "counts": rle["counts"].decode("ascii")}) + "\n").encode()


def save_into(folder: Path, picture: Picture, work: Work, sample: str, user: str) -> list[str]:
    """Write the mask in both forms under new names, add the clicks to the folder's recording; the files' names."""
    recorded = _sequence(work, sample, user)
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while any((folder / f"{picture.stem}-{number}{ending}").exists() for ending in (".png", ".json")):
        number += 1
    for ending, content in ((".png", mask_png(work.mask)), (".json", run_lengths(work))):
        with whole_file(folder / f"{picture.stem}-{number}{ending}") as file:
            file.write(content)
    add_sequence(folder / RECORDED, recorded)
    return [f"{picture.stem}-{number}.png", f"{picture.stem}-{number}.json", RECORDED]


def command(picture: Picture, work: Work, asked: str, overrides: Sequence[str]) -> str:
    """The `disbench predict` command that gives the same mask; an uploaded photo appears by its name only."""
    clicks = [f"{click.x},{click.y},{'+' if click.positive else '-'}" for click in work.clicks]
    keep = [] if work.chosen is None else ["--keep", str(work.chosen)]
    words = ["disbench", "predict", str(picture.path or picture.name), "--method", asked]
    for option, values in (("--set", overrides), ("--click", clicks)):
        words += [word for value in values for word in (option, value)]
    return shlex.join([*words, *keep, "--out", f"{picture.stem}-mask.png"])


def _sequence(work: Work, sample: str, user: str) -> Sequenced:
    _check_begun(work)
    return Sequenced(check_name(sample, "sample"), check_name(user, "user"), tuple(work.clicks))


def _check_begun(work: Work) -> None:
    if not work.clicks:
        raise InputError("nothing to save yet; click on the photo first")
