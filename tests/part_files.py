"""Small datasets with parts, as their publishers lay them out: Pascal-Part, and Panoptic Parts of two datasets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

from disbench.core.arrays import BoolArray
from tests.part_pictures import SIZE, mask, photo

Uids = npt.NDArray[np.int32]


def rows_columns(top: int, bottom: int, left: int, right: int) -> BoolArray:
    """A rectangle, by its first and last row and column."""
    found = np.zeros(SIZE, dtype=bool)
    found[top : bottom + 1, left : right + 1] = True
    return found


EYE = ("leye", rows_columns(6, 15, 8, 17))
COW = ("cow", mask("W"), [("head", mask("T")), EYE, ("lfuleg", mask("L")), ("rfuleg", mask("R"))])
SOFA = ("sofa", rows_columns(0, 3, 0, 59), [])
SHIN = ("lflleg", rows_columns(24, 35, 20, 29))
UIDS: Uids = np.select(
    [mask("T"), mask("LR"), mask("W"), rows_columns(0, 1, 0, 59)], [2600101, 2600102, 26001, 23]
).astype(np.int32)


def struct_array(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> Any:
    """A 1 x N struct of MATLAB."""
    found = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for place, row in enumerate(rows):
        found[0, place] = row
    return found


def anno_file(objects: Sequence[tuple[Any, Any, Sequence[tuple[Any, Any]]]], **options: Any) -> bytes:
    """A file of Pascal-Part: objects of a class, a mask and parts of a name and a mask."""
    rows = []
    for number, (name, found, parts) in enumerate(objects, 1):
        pieces = [(title, np.asarray(piece) * np.uint8(1)) for title, piece in parts]
        inner = struct_array(pieces, ["part_name", "mask"]) if pieces else np.zeros((0, 0))
        rows.append((name, float(number), np.asarray(found) * np.uint8(1), inner))
    within = struct_array(rows, ["class", "class_ind", "mask", "parts"])
    out = io.BytesIO()
    savemat(out, {"anno": struct_array([("a", within)], ["imname", "objects"])}, **{"do_compression": True, **options})
    return out.getvalue()


def write_pascal_part(folder: Path, files: dict[str, bytes], split: str = "train", voc: str = "") -> Path:
    """Annotations, photos and the list of a split."""
    for part in ("Annotations_Part", f"{voc}ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / "Annotations_Part" / f"{name}.mat").write_bytes(data)
        photo(folder / f"{voc}JPEGImages" / f"{name}.jpg")
    (folder / voc / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in files))
    return folder


def write_uids(path: Path, uids: npt.NDArray[Any]) -> Path:
    """A label map of Panoptic Parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(uids).save(path, compression="tiff_lzw")
    return path


def write_city(folder: Path, maps: dict[str, npt.NDArray[Any]], split: str = "train") -> Path:
    """Label maps and images of Cityscapes Panoptic Parts, all of one city."""
    for name, uids in maps.items():
        place = f"{split}/aachen/aachen_{name}"
        write_uids(folder / "gtFinePanopticParts" / f"{place}_gtFinePanopticParts.tif", uids)
        photo(folder / "leftImg8bit" / f"{place}_leftImg8bit.png")
    return folder
