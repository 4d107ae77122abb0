"""ADE20K's full release: scenes of objects, parts and parts of parts, with one PNG per object.

B. Zhou et al. Semantic understanding of scenes through the ADE20K dataset. IJCV 2019.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from disbench.core import masks
from disbench.core.errors import InputError, quote
from disbench.core.masks import Rle, as_integer
from disbench.core.scenes import LINK, KeyedScenes, Links, Scene, resolve_links, scene_objects
from disbench.datasets.json_index import read_json_file
from disbench.datasets.label_maps import joint_sha256, open_mask, read_label_png
from disbench.datasets.scene_sources import BadAnnotations, check_count, image_size, refuse
from disbench.io.files import has_control_character, relative_path

RELEASE = "ADE20K_2021_17_01"  # the folder in the release's archive
_SPLITS = {"train": "training", "val": "validation"}
_VISIBLE = 255  # visible pixels in an instance PNG; 128 is occluded


class _Entry(NamedTuple):
    """An object in the JSON; `whole` and `parts` are ids, `png` is relative to the JSON's folder."""

    id: int
    name: str
    whole: int | None
    parts: list[int]
    level: int | None
    png: str


class Ade20kScenes(KeyedScenes):
    """Scenes of a split of ADE20K's 2021 release (a `SceneSource`), sorted by path, which is the key.

    Masks contain only visible pixels. Parts are linked by `parts.ispartof`; contradictions in `hasparts` and
    `part_level` are counted.

    `folder` is `ADE20K_2021_17_01` or its parent; `split` is "train", "val", or the name of a folder in images/ADE. If
    `bad` is "drop", an object with a malformed link only loses the link. `InputError` if the folder or split does not
    exist or has no images.
    """

    name = "ade20k"

    def __init__(self, folder: Path, split: str, bad: BadAnnotations = "fail") -> None:
        self.folder, self._bad = folder, bad
        places = (folder / "images/ADE", folder / RELEASE / "images/ADE")
        root = next(filter(Path.is_dir, places), None)
        if root is None:
            raise InputError(f"{folder}: no images/ADE in it; give the folder {RELEASE} or its parent")
        known = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        self.split = _SPLITS.get(split, split)
        if self.split not in known:
            raise InputError(f"{root}: no split {quote(split)}; splits here: {', '.join(known) or 'none'}")
        self.keys = sorted(_stems(root / self.split, folder))
        if not self.keys:
            raise InputError(f"{root / self.split}: no image JSON in it; unpack the release again")
        repeated, times = Counter(map(_name, self.keys)).most_common(1)[0]
        if times > 1:
            raise InputError(f"{root / self.split}: two images are named {quote(repeated)}; remove one of them")

    def fingerprint(self) -> dict[str, str]:
        """One SHA-256 over all JSON files and their PNGs; reads them all (half a minute for training)."""
        return {f"{self.name}:{self.split}": joint_sha256(self._files())}

    def _files(self) -> Iterator[Path]:
        for stem in self.keys:
            path = self.folder / f"{stem}.json"
            yield path
            for found in _record(path)[2]:
                with suppress(ValueError):
                    if (png := path.parent / _entry(found).png).is_file():
                        yield png

    def _scene(self, key: str) -> Scene:
        path = self.folder / f"{key}.json"
        height, width, listed = _record(path)
        dropped: Counter[str] = Counter()
        entries: dict[int, _Entry] = {}
        rles: list[Rle] = []
        size = 0
        for found in listed:
            try:
                entry = _entry(found)
                if entry.id in entries:
                    raise ValueError("another object in the image has the same id")
                rle = _visible(path.parent / entry.png, height, width)
                size += len(rle["counts"])
                masks.check_mask_bytes(size)
            except ValueError as error:
                refuse(self._bad, _problem(path, found, error), dropped, "fix it")
                continue
            entries[entry.id] = entry
            rles.append(rle)
        objects = scene_objects(rles, ((entry.name, None, entry.id, self.name) for entry in entries.values()))
        links = self._links(path, entries, dropped)
        return Scene(_name(key), f"{key}.jpg", height, width, self.name, objects, dropped=dropped, links=links)

    def _links(self, path: Path, entries: dict[int, _Entry], dropped: Counter[str]) -> Links:
        def odd(number: int, problem: str) -> None:
            found = {"id": list(entries)[number]}
            refuse(self._bad, _problem(path, found, f"parts.ispartof: {problem}"), Counter(), "fix it")

        links = resolve_links(list(entries), [entry.whole for entry in entries.values()], odd, dropped)
        by_part = {(entry.whole, entry.id) for entry in entries.values() if entry.whole is not None}
        by_whole = {(entry.id, part) for entry in entries.values() for part in entry.parts}
        if unlike := len(by_part ^ by_whole):
            dropped[f"{LINK}ispartof and hasparts differ"] += unlike
        levels = {entry.id: entry.level for entry in entries.values()}
        for entry in entries.values():
            above = -1 if entry.whole is None else levels.get(entry.whole)
            if entry.level is not None and above is not None and entry.level != above + 1:
                dropped[f"{LINK}level odd"] += 1
        return links


def _stems(split: Path, folder: Path) -> Iterator[str]:
    """Paths of all images of a split relative to a folder, without suffix; skips hidden files."""
    for place, folders, files in os.walk(split):
        stems = {file[:-5] for file in files if file.endswith(".json") and not file.startswith(".")}
        folders[:] = [name for name in folders if name not in stems and not name.startswith(".")]
        for stem in stems:
            path = Path(place, stem).relative_to(folder).as_posix()
            if has_control_character(path):
                raise InputError(f"{folder}: the path {quote(path)} is not plain text; rename the file or its folder")
            yield path


def _name(stem: str) -> str:
    return stem.rpartition("/")[2]


def _record(path: Path) -> tuple[int, int, list[Any]]:
    annotation = read_json_file(path).get("annotation")
    annotation = annotation if isinstance(annotation, dict) else {}
    sides = [*_listed(annotation.get("imsize")), None, None][:2]
    found = _listed(annotation.get("object"))
    check_count(path, len(found))
    return *image_size(f"{path}: annotation.imsize", *sides), found


def _entry(found: Any) -> _Entry:
    """Parse an object of the JSON; ValueError if it is malformed."""
    if not isinstance(found, dict):
        raise ValueError(f"{quote(found)} is not a JSON object")
    number, parts = as_integer(found.get("id")), found.get("parts")
    parts = parts if isinstance(parts, dict) else {}
    if number is None:
        raise ValueError("its id is not an integer")
    wholes = _numbers(parts, "ispartof")
    if len(wholes) > 1:
        raise ValueError(f"parts.ispartof has {len(wholes)} wholes, not one")
    name, png = found.get("name"), found.get("instance_mask")
    if not isinstance(name, str) or not isinstance(png, str):
        raise ValueError("its name or instance_mask is not a string")
    level = as_integer(parts.get("part_level"))
    return _Entry(number, name, wholes[0] if wholes else None, _numbers(parts, "hasparts"), level, relative_path(png))


def _numbers(parts: dict[str, Any], key: str) -> list[int]:
    numbers = [number for value in _listed(parts.get(key)) if (number := as_integer(value)) is not None]
    if len(numbers) != len(_listed(parts.get(key))):
        raise ValueError(f"parts.{key} is {quote(parts.get(key))}, not a list of ids")
    return numbers


def _listed(value: Any) -> list[Any]:
    """A list exported from MATLAB, which writes a list of length 1 as its value."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _visible(path: Path, height: int, width: int) -> Rle:
    """The visible mask of an object, from its PNG."""
    with open_mask(path, ("L",), (height, width)):
        pass
    try:
        with path.open("rb") as file:
            return masks.from_grey_png(file.read(2 * height * width + 2**16), _VISIBLE)
    except ValueError:  # interlaced, fewer bits, or damaged; this reader names the damage
        return masks.encode(read_label_png(path) == _VISIBLE)


def _problem(path: Path, found: Any, problem: object) -> str:
    return f"{path}: object {quote(found.get('id') if isinstance(found, dict) else None)}: {problem}"
