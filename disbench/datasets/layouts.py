"""Loaders for the layouts of benchmark datasets on disk: from a folder and the card's options to samples."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any
from unicodedata import normalize

import numpy as np

from disbench.core.errors import InputError, opencv
from disbench.core.samples import Sample, SampleSource
from disbench.datasets.file_samples import FileSamples, Record, check_target, map_in_threads
from disbench.datasets.images import read_rgb
from disbench.datasets.label_maps import SBD, VOC, Labels, MapLayout, distinct, read_displayed
from disbench.datasets.targets import (
    LOSSY,
    MASK_RULES,
    MaskKind,
    check_kinds,
    detect_rule,
    instance_numbers,
    mask_kind,
)
from disbench.io.files import is_utf8

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")  # lossless formats
USUAL = (("images", "masks"), ("img", "gt"))  # subfolders of images and masks that `open_folder` detects
HQSEG_SETS = {  # image and mask folders of the four sets of HQ-SAM's evaluation
    "DIS": ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
    "COIFT": ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
    "HRSOD": ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    "ThinObject": ("thin_object_detection/ThinObject5K/images_test", "thin_object_detection/ThinObject5K/masks_test"),
}
# Suffixes that tools add to an image's stem to name its mask.
_MASK_OF = re.compile(r"([_-](mask|gt|seg|label)|\.(jpe?g|png|bmp|tiff?|webp))$", re.IGNORECASE)
_INITIAL = "init_"
_NAMES_SHOWN = 5


def open_pairs(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """GrabCut, Berkeley, DAVIS, COCO_MVal: one sample per image, with the mask of the same stem.

    Options: `images` and `masks`, subfolders; `rule`, a key of `targets.RULES`.
    """
    return FileSamples(name, folder, options["rule"], pairs(folder, options["images"], options["masks"]), facts)


def open_hqseg(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """HQSeg-44K: one sample per image of the chosen sets, with id SET/STEM.

    Options: `sets`, keys of `HQSEG_SETS`, in order; `rule`, a key of `targets.RULES`.
    """
    records = [record for part in options["sets"] for record in pairs(folder, *HQSEG_SETS[part], prefix=f"{part}/")]
    return FileSamples(name, folder, options["rule"], records, facts)


def open_folder(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """Any folder of images and masks: one sample per image, or per nonzero value of an instance map.

    Options: `images` and `masks`, subfolders (both empty: one of `USUAL`); `mode`: `binary`, `trimap` (128 is ignored,
    more is object) or `instances` (each nonzero value is an object); `mask`: how to read `binary` masks, a key of
    `targets.MASK_RULES`, or `auto` to detect it; `void_255`: ignore 255 (`binary` and `instances`; other nonzero values
    are objects); `exif`: `ignore` or `apply` the orientation. `InputError` for ambiguous masks or incompatible options.
    """
    mode, void, mask = options["mode"], options["void_255"], options.get("mask", "auto")
    if mode == "trimap" and void:
        raise InputError(f"{name}: void_255 needs mode=binary or mode=instances; in a trimap 128 is void")
    if mask != "auto" and (mode != "binary" or void):
        raise InputError(f"{name}: mask={mask} needs mode=binary without void_255; leave it out")
    endings = MASKS if mode != "binary" or void else (*MASKS, *LOSSY)
    records = pairs(folder, *_subfolders(folder, options["images"], options["masks"]), masks_as=endings)
    rule = {"binary": "any-value", "trimap": "trimap", "instances": "one-value"}[mode]
    rule, note = f"{rule}-void-255" if void else MASK_RULES.get(mask, rule), ""
    paths = [folder / record.mask for record in records]
    kinds = [kind for found in map_in_threads(_readable_kind, paths) for kind in found] if mask == "auto" else []
    if mode != "binary" or void:
        check_kinds(kinds, "instances" if void else mode)
    elif kinds:
        rule, note = detect_rule(kinds)
        unambiguous = {kind.path for kind in kinds if len(kind.rules) > 1}
        records = [replace(record, unambiguous=folder / record.mask in unambiguous) for record in records]
    if mode == "instances":
        records = _each_instance(folder, rule, records)
        note = f"{len(records)} instances in {len(paths)} maps: each number but 0 is one"
    return FileSamples(name, folder, rule, records, facts, [note] if note else [], options.get("exif", "ignore"))


def _readable_kind(path: Path) -> list[MaskKind]:
    """The kind of a mask, or [] if it is unreadable, which is reported when its sample is read."""
    with suppress(InputError):
        return [mask_kind(path)]
    return []


def open_davis585(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """DAVIS-585: one sample per mask `SEQUENCE/OBJECT_FRAME.png`, with the initial mask that FocalClick corrects.

    For example, `bear/object1_00009.png` has the image `bear/00009.jpg` and the initial masks
    `bear/init_sp_object1_00009.png` and `bear/init_stm_object1_00009.png`. Option `initial`: `sp`, `stm` or `none`.
    """
    masks = sorted(path for path in folder.glob("*/*.png") if not path.name.startswith((_INITIAL, ".")))
    records = [_davis_record(folder, mask, options["initial"]) for mask in masks]
    return FileSamples(name, folder, "bright", records, facts)


def _open_maps(
    layout: MapLayout, name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]
) -> SampleSource:
    """SBD and PascalVOC: one sample per non-empty instance, in list order, then by number.

    Opening the dataset reads every map. Options: `split`, the name of a list; for PascalVOC `ids`, how instances are
    numbered: `palette` index, or `gray` value of the palette's colour (as in RITM; merges some instances).
    """
    rule = f"voc-{options['ids']}" if layout is VOC else "sbd-instance"
    names, left_out = layout.names(folder, options["split"])
    records = [Record(stem, layout.image_of(folder, stem), layout.maps[0].format(stem)) for stem in names]
    known = {**facts, "left_out": dict(left_out)} if left_out else facts
    return FileSamples(name, folder, rule, _each_instance(folder, rule, records), known)


open_sbd = partial(_open_maps, SBD)
open_voc = partial(_open_maps, VOC)


def pairs(root: Path, images: str, masks: str, prefix: str = "", masks_as: Sequence[str] = MASKS) -> list[Record]:
    """One record per image of a folder, with the mask of the same stem in any Unicode form, sorted by stem.

    Masks may also be named STEM_mask, STEM_gt, STEM_seg or STEM.jpg. `images` and `masks` may be the same subfolder;
    `prefix` is prepended to the stem in sample ids; `masks_as` are suffixes of masks. `InputError` for a missing or
    empty folder, an image without a mask or vice versa, or two files with the same stem.
    """
    pictures = _files_by_stem(root / images, set(IMAGES) - set(MASKS if images == masks else ()), "image")
    labels = _files_by_stem(root / masks, set(MASKS if images == masks else masks_as), "mask")
    for stem in [stem for stem in labels if stem not in pictures]:
        if (plain := _MASK_OF.sub("", stem)) in pictures and plain not in labels:
            labels[plain] = labels.pop(stem)
    _check_partners(pictures, labels, root / masks, "image", "mask")
    _check_partners(labels, pictures, root / images, "mask", "image")
    records = [
        Record(f"{prefix}{PurePath(name).stem}", _relative(images, name), _relative(masks, labels[stem]))
        for stem, name in pictures.items()
    ]
    return sorted(records, key=lambda record: record.id)


def _files_by_stem(folder: Path, endings: set[str], kind: str) -> dict[str, str]:
    """NFC stem -> name of the files in a folder with one of the suffixes (in any case); skips hidden files."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of {kind}s; check the dataset's layout")
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in endings:
            continue
        if not is_utf8(path.name):
            raise InputError(f"{folder}: the name of {path.name!a} is not UTF-8; rename the file")
        stem = normalize("NFC", path.stem)
        if stem in found:
            raise InputError(f"{folder}: {found[stem]} and {path.name} have the same stem; keep one of them")
        found[stem] = path.name
    if not found:
        raise InputError(f"{folder}: no {kind} found; put files of a known format there ({', '.join(sorted(endings))})")
    return found


def _check_partners(
    found: Mapping[str, str], partners: Mapping[str, str], folder: Path, kind: str, partner: str
) -> None:
    if alone := sorted(name for stem, name in found.items() if stem not in partners):
        named = ", ".join(alone[:_NAMES_SHOWN]) + (", ..." if len(alone) > _NAMES_SHOWN else "")
        lacking = f"no {partner} for {len(alone)} of {len(found)} {kind}s ({named})"
        raise InputError(f"{folder}: {lacking}; add the {partner}s or move these {kind}s away")


def _relative(folder: str, name: str) -> str:
    return name if folder in ("", ".") else f"{folder}/{name}"


def _subfolders(folder: Path, images: str, masks: str) -> tuple[str, str]:
    if images and masks:
        return images, masks
    found = [pair for pair in USUAL if all((folder / part).is_dir() for part in pair)]
    if images or masks or not found:
        usual = " or ".join(f"{first}/ and {second}/" for first, second in USUAL)
        raise InputError(f"{folder}: no {usual} found; give the two folders with images=... and masks=...")
    return found[0]


def _each_instance(folder: Path, rule: str, records: Iterable[Record]) -> list[Record]:
    """One record per instance number of each map, with id STEM/NUMBER."""
    records = list(records)
    found = map_in_threads(lambda record: instance_numbers(folder / record.mask, rule), records)
    return [
        Record(f"{record.id}/{number}", record.image, record.mask, number)
        for record, numbers in zip(records, found, strict=True)
        for number in numbers
    ]


def _davis_record(folder: Path, mask: Path, initial: str) -> Record:
    sequence = mask.parent.name
    item, underscore, frame = mask.stem.rpartition("_")
    if not (item and underscore and frame):
        raise InputError(f"{mask}: not a name such as object1_00009.png; give the folder of DAVIS-585's sequences")
    image = f"{sequence}/{frame}.jpg"
    first = None if initial == "none" else f"{sequence}/{_INITIAL}{initial}_{mask.name}"
    for needed in (image, first):
        if needed and not (folder / needed).is_file():
            raise InputError(f"{folder / needed}: no such file, but {sequence}/{mask.name} needs it; get it again")
    return Record(f"{sequence}/{mask.stem}", image, f"{sequence}/{mask.name}", initial=first)


PRIVATE = "private"  # fact of a dataset whose images must not appear in reports
_DIGITS = 16


def private_id(stem: str) -> str:
    """Replacement for a file's stem that describes the person: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(stem.encode()).hexdigest()[:_DIGITS]


def open_tetris(name: str, folder: Path, options: Mapping[str, Any], facts: Mapping[str, object]) -> SampleSource:
    """TETRIS, `images/STEM.*` and `masks/STEM.png`: one sample per colour except black.

    Options: `longest_side`, to which larger images are downscaled (0: as stored); `ids`, `sha256` or `stem`.
    """
    photos = pairs(folder, "images", "masks")
    codes = map_in_threads(lambda photo: distinct(colour_codes(folder / photo.mask)), photos)
    records = []
    for photo, of_photo in zip(photos, codes, strict=True):
        stem = private_id(photo.id) if options["ids"] == "sha256" else photo.id
        objects = [int(code) for code in of_photo if code]
        records += [
            Record(stem if len(objects) == 1 else f"{stem}/{code}", photo.image, photo.mask, code) for code in objects
        ]
    return TetrisSamples(name, folder, records, {**facts, PRIVATE: True}, options["longest_side"])


def colour_codes(path: Path) -> Labels:
    """Colour code of each pixel, int64 (height, width): blue x 65,536 + green x 256 + red; 0 is background."""
    colours = read_displayed(path)[0]
    channels = colours if colours.ndim == 3 else np.repeat(colours[..., None], 3, axis=2)
    return np.asarray(channels.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16]))


class TetrisSamples(FileSamples):
    """Samples downscaled as in RClicks; error messages do not reveal file names."""

    def __init__(
        self, name: str, folder: Path, records: list[Record], facts: Mapping[str, object], longest_side: int
    ) -> None:
        super().__init__(name, folder, f"colour-code-{longest_side}", records, facts)
        self._longest = longest_side

    def read(self, index: int) -> Sample:
        """One sample; raises as `FileSamples.read`, with the sample's id in place of the stem."""
        record = self._records[index]
        photo, mask = self.folder / record.image, self.folder / record.mask
        try:
            image, codes = read_rgb(photo), colour_codes(mask)
            height, width = image.shape[:2]
            if codes.shape == (height, width) and 0 < self._longest < max(height, width):
                height, width = (_scaled_side(side, max(height, width), self._longest) for side in (height, width))
                codes = downscale_codes(codes, (height, width))
                image = opencv().resize(image, (width, height), interpolation=opencv().INTER_LINEAR)
            target = (codes == record.instance).astype(np.int8)
            check_target(target, image, mask, record.id, photo)
        except InputError as error:
            raise InputError(str(error).replace(PurePath(record.image).stem, record.id)) from None
        return Sample(record.id, image, target)


def downscale_codes(codes: Labels, size: tuple[int, int]) -> Labels:
    """Downscale codes to a size (height, width), int64, resizing each object bilinearly as 8-bit zeros and ones.

    A pixel belongs to an object if the interpolated value rounds to 1; the larger code wins where objects overlap.
    """
    found = np.zeros(size, dtype=np.int64)
    for code in distinct(codes):
        if code:
            mask = opencv().resize((codes == code).astype(np.uint8), size[::-1], interpolation=opencv().INTER_LINEAR)
            found[mask > 0] = code
    return found


def _scaled_side(side: int, longest: int, to: int) -> int:
    """A side length after downscaling `longest` to `to`, rounded half up."""
    return to if side == longest else int(side / longest * to + 0.5)
