"""Frozen splits: diverse sets drawn by a hash of their keys and listed with hashes of their masks (docs/splits.md)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_COUNT, MAX_LIST_BYTES
from disbench.core.masks import areas, ious
from disbench.core.scenes import SampledScene, SetOfObjects, ancestors, click_region, set_masks
from disbench.io import definitions
from disbench.io.files import atomic_write, read_bounded
from disbench.io.settings import Bounds, Count, parse_json_table, settings_from, table_from
from disbench.sampling.links import part_key
from disbench.sampling.recipes import Recipe
from disbench.shards.manifest import Job, ShardManifest
from disbench.shards.reader import ShardReader

RULE: Final = "disbench parts 1"
"""Version of the rule for candidates, rank and draw; increment it when the rule changes."""
MIN_AREA, MIN_CLICK_AREA, SAME_AS_PARENT = 80, 20, 0.90
"""Minimum areas of a candidate's center and click region in pixels; maximum IoU with its parent."""
PER_IMAGE, NAME_SHARE, ALIKE = 3, 20, 0.50
"""Maximum sets per image; at most 1 in `NAME_SHARE` sets (rounded up) per part key; maximum IoU of centers in an
image."""
_OF_SHARDS = ("source", "limit", "recipe", "sources", "versions")
"""Manifest fields that a split records."""
Positive = Annotated[int, Bounds(1, MAX_COUNT)]


@dataclass(frozen=True, slots=True)
class Draw:
    """Which sets of the shards a split lists.

    Attributes:
        dataset: first part of the keys; like `split`, of ASCII letters, digits, dots, hyphens and underscores.
        split: subset of the dataset, second part of the keys.
        images: pattern for an image's `file_name`, with `*` (also matches slashes), `?` and `[...]`.
        size: number of sets to draw; None lists every candidate.
        per_image: maximum number of sets per image.
        per_name: maximum number of sets per part key; ignored if all candidates have the same key.
    """

    dataset: str
    split: str
    images: str = "*"
    size: Positive | None = None
    per_image: Positive | None = None
    per_name: Positive | None = None

    def __post_init__(self) -> None:
        for text in (self.dataset, self.split):
            if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
                raise InputError(
                    f"{quote(text)}: dataset and split must be ASCII letters, digits, dots, hyphens and underscores"
                )
        if self.size is not None and None in (self.per_image, self.per_name):
            raise InputError("size requires per_image and per_name")

    def image(self, file_name: str) -> str | None:
        """`dataset/split/stem` of an image file; None if it does not match `images`."""
        stem = PurePosixPath(file_name).stem
        return f"{self.dataset}/{self.split}/{stem}" if fnmatchcase(file_name, self.images) else None

    def rank(self, key: str) -> str:
        """SHA-256 (hex) by which keys are sorted for the draw."""
        return _sha256(f"{RULE}\n{self.dataset}\n{key}")


def standard_draw(dataset: str, split: str, images: str = "*", size: int | None = None) -> Draw:
    """Draw `size` sets, at most 3 per image and 5 % (rounded up) per part key; without a size, all candidates."""
    return Draw(dataset, split, images, *(() if size is None else (size, PER_IMAGE, -(-size // NAME_SHARE))))


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A line of a list: SHA-256 (hex) of the RLE counts of the center (`mask`) and of each member, inner to outer."""

    key: str
    mask: str
    members: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a list was made, the content of `NAME.toml`; `source` and later fields are from the manifest of the shards.

    Attributes:
        candidates: number of candidates.
        candidates_sha256: SHA-256 (hex) of their keys, sorted by code point, each followed by a line feed.
        list_sha256: SHA-256 (hex) of `NAME.jsonl`.
        command: the command that made it.
    """

    rule: Literal["disbench parts 1"]
    draw: Draw
    candidates: Count
    candidates_sha256: str
    list_sha256: str
    command: str = ""
    source: str = ""
    limit: Count | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def differences(self, manifest: ShardManifest) -> str:
        """How a manifest's shards differ from those the list was made from, in words."""
        return Job(**{name: getattr(self, name) for name in _OF_SHARDS}).differences(manifest)


@dataclass(frozen=True)
class Split:
    """A frozen split: its name (the stem of its files), how it was made, and its sets by rank."""

    name: str
    made: Made
    sets: tuple[ListedSet, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A set in a folder of shards: index of its scene, of the set in the scene and of its center; number of masks."""

    scene: int
    number: int
    center: int
    members: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A set that can be drawn; `name` is its part key."""

    key: str
    name: str
    place: Place

    @property
    def image(self) -> str:
        """The key without the annotation id."""
        return self.key.rpartition("/")[0]


def find_candidates(reader: ShardReader, draw: Draw, *, progress: bool = False) -> list[Candidate]:
    """The sets that can be drawn, sorted by rank.

    A candidate has at least two masks; its center is not a crowd, has at least 80 pixels and a click region of at least
    20, and an IoU of at most 0.90 with its nearest ancestor that is not a group.

    Raises:
        InputError: no candidates, a center without an annotation id, or two sets with the same key.
    """
    from tqdm import tqdm  # noqa: PLC0415

    found: dict[str, Candidate] = {}
    for scene, sampled in tqdm(enumerate(reader), total=len(reader), unit="scene", disable=not progress):
        for key, number, chosen in _keys(sampled, draw):
            if not _is_candidate(sampled, chosen):
                continue
            if key is None:
                raise InputError(
                    f"{reader.folder}: image {quote(sampled.scene.image_id)}: object {chosen.center} has no annotation "
                    "id, which a split needs; sample a dataset whose annotations have ids"
                )
            if key in found:
                raise InputError(
                    f"{reader.folder}: two sets have the key {quote(key)}; image names and annotation ids must be "
                    "unique"
                )
            name = part_key(sampled.scene.objects[chosen.center].category)
            found[key] = Candidate(key, name, Place(scene, number, chosen.center, len(chosen.members)))
    if not found:
        raise InputError(
            f"{reader.folder}: no set of images {draw.images!r} can be drawn; give shards of parts and wholes (method "
            "hierarchy) or other images"
        )
    return sorted(found.values(), key=lambda one: draw.rank(one.key))


def drawn_of(
    candidates: Sequence[Candidate], draw: Draw, alike: Callable[[Candidate, Candidate], bool]
) -> list[Candidate]:
    """Draw candidates by rank, skipping those whose image or part key is at its limit or that are `alike`.

    Args:
        candidates: sorted by rank.
        draw: the limits.
        alike: returns True if two centers of one image have an IoU above 0.50.
    """
    if draw.size is None or draw.per_image is None or draw.per_name is None:
        return list(candidates)
    per_name = draw.per_name if len({one.name for one in candidates}) > 1 else draw.size
    taken: list[Candidate] = []
    of_image: dict[str, list[Candidate]] = {}
    of_name: Counter[str] = Counter()
    for one in candidates:
        if len(taken) == draw.size:
            break
        beside = of_image.setdefault(one.image, [])
        is_full = len(beside) >= draw.per_image or of_name[one.name] >= per_name
        if is_full or any(alike(one, other) for other in beside):
            continue
        taken.append(one)
        beside.append(one)
        of_name[one.name] += 1
    return taken


def make_split(shards: Path, out: Path, draw: Draw, command: str, *, progress: bool = False) -> Split:
    """Draw a split from shards; write its list to `out` (`.jsonl`) and how it was made to a `.toml` next to it.

    Raises:
        InputError: as `find_candidates`; `out` has another suffix or exists with different content.
    """
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: not a .jsonl file; name the list NAME.jsonl")
    reader = ShardReader(shards)
    manifest = reader.manifest
    recipe = settings_from(Recipe, manifest.recipe, f"{shards}: recipe")
    candidates, sets = _list(reader, draw, progress)
    content = "".join(json.dumps(table_from(one), ensure_ascii=False) + "\n" for one in sets).encode()
    if out.exists() and out.read_bytes() != content:
        raise InputError(f"{out}: exists with a different list, and lists are never changed; choose a new name")
    made = Made(
        rule=RULE,
        draw=draw,
        candidates=len(candidates),
        candidates_sha256=_keys_sha256(candidates),
        list_sha256=_sha256(content),
        command=command,
        **{name: getattr(manifest, name) for name in _OF_SHARDS} | {"recipe": recipe.as_dict()},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, written in ((out, content), (out.with_suffix(".toml"), _toml(table_from(made)))):
        with atomic_write(path) as file:
            file.write(written)
    return Split(out.stem, made, sets)


def read_split(name: str) -> Split:
    """Read a split of this package by name, or the user's own by the path of its list or TOML file.

    Raises:
        InputError: no such split, a damaged file, or a list whose SHA-256 differs from the TOML file.
    """
    path = definitions.find("datasets/splits", re.sub(r"\.jsonl$", ".toml", name))
    made = settings_from(Made, definitions.load(path), str(path))
    listed = path.with_suffix(".jsonl")
    missing = f"list not found; put it next to {path.name}"
    content = read_bounded(listed, MAX_LIST_BYTES, "give the list of a split", missing)
    if _sha256(content) != made.list_sha256:
        raise InputError(f"{listed}: its SHA-256 differs from the one in {path.name}; get both files again")
    sets = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            sets.append(settings_from(ListedSet, parse_json_table(line), f"{listed}: line {number}"))
        except ValueError as error:
            raise InputError(f"{listed}: line {number} is not a set ({error}); get the list again") from error
    if len({one.key for one in sets}) < max(1, len(sets)):
        raise InputError(f"{listed}: the list is empty or has a duplicate key; get the list again")
    return Split(path.stem, made, tuple(sets))


def recorded_split(name: str, sha256: str) -> Split:
    """The split with a run's recorded name and list hash, from this package or the current folder.

    Raises:
        InputError: the split is not found, has a different list or is damaged.
    """
    folders = (definitions.folder("datasets/splits"), Path())
    for path in (path for folder in folders for path in folder.glob("*.toml") if path.stem == name):
        split = read_split(str(path))
        if split.made.list_sha256 == sha256:
            return split
    raise InputError(
        f"split {quote(name)} with list SHA-256 {quote(sha256[:16])} not found; put its two files into the current "
        "folder"
    )


def places_of(split: Split, reader: ShardReader) -> list[Place]:
    """Places of a split's sets in shards, in the split's order.

    Raises:
        InputError: a set is missing or its masks differ from the list; names the first such set.
    """
    wanted = {one.key: one for one in split.sets}
    images = {key.rpartition("/")[0] for key in wanted}
    found: dict[str, tuple[ListedSet, Place]] = {}
    for scene, file_name in enumerate(reader.names()[1]):
        if split.made.draw.image(file_name) not in images:
            continue
        sampled = reader[scene]
        for key, number, chosen in _keys(sampled, split.made.draw):
            if key is not None and key in wanted:
                place = Place(scene, number, chosen.center, len(chosen.members))
                found[key] = _listed(key, sampled, chosen), place
    for one in split.sets:
        here = found.get(one.key)
        if here is None or here[0] != one:
            what = "it is not in the shards" if here is None else "its masks differ"
            raise InputError(
                f"{reader.folder}: set {quote(one.key)} of split {quote(split.name)}: {what}; make the shards as in "
                f"{split.name}.toml (likely cause: {split.made.differences(reader.manifest)})"
            )
    return [found[one.key][1] for one in split.sets]


def check_split(split: Split, shards: Path, *, progress: bool = False) -> str | None:
    """Redraw a split from shards; return the first difference from its list, or None if equal.

    Raises:
        InputError: as `find_candidates`.
    """
    reader = ShardReader(shards)
    candidates, sets = _list(reader, split.made.draw, progress)
    why = f"likely cause: {split.made.differences(reader.manifest)}"
    for number, (listed, here) in enumerate(zip_longest(split.sets, sets), 1):
        if listed == here:
            continue
        if listed is None or here is None or listed.key != here.key:
            names = ["no set" if one is None else quote(one.key) for one in (listed, here)]
            return f"set {number} is {names[0]} in the list, {names[1]} in these shards; {why}"
        part = "center" if listed.mask != here.mask else "members"
        return f"set {number}, {quote(listed.key)}: the pixels of its {part} differ; {why}"
    if _keys_sha256(candidates) != split.made.candidates_sha256:
        counts = f"{split.made.candidates:,} when the list was made, {len(candidates):,} here"
        return f"the sets are the same, but the candidates differ ({counts}); {why}"
    return None


def _list(reader: ShardReader, draw: Draw, progress: bool) -> tuple[list[Candidate], tuple[ListedSet, ...]]:
    """All candidates by rank, and the lines of the drawn sets."""

    def alike(*pair: Candidate) -> bool:
        one, other = (reader[item.place.scene].scene.objects[item.place.center].rle for item in pair)
        return float(ious(one, [other])[0]) > ALIKE

    candidates = find_candidates(reader, draw, progress=progress)
    taken, lines = drawn_of(candidates, draw, alike), {}
    for one in sorted(taken, key=lambda one: one.place.scene):  # row groups are read once
        sampled = reader[one.place.scene]
        lines[one.key] = _listed(one.key, sampled, sampled.sets[one.place.number])
    return candidates, tuple(lines[one.key] for one in taken)


def _keys(sampled: SampledScene, draw: Draw) -> Iterator[tuple[str | None, int, SetOfObjects]]:
    """(key, index, set) for each set of a scene if `draw` takes its image; the key is None without an annotation id."""
    image = draw.image(sampled.scene.file_name)
    for number, chosen in enumerate(sampled.sets if image else ()):
        annotation = sampled.scene.objects[chosen.center].annotation_id
        yield None if annotation is None else f"{image}/{annotation}", number, chosen


def _is_candidate(sampled: SampledScene, chosen: SetOfObjects) -> bool:
    objects = sampled.scene.objects
    center, above = objects[chosen.center], map(objects.__getitem__, ancestors(sampled.parents, chosen.center))
    parent = next((item for item in above if item.kind != "group"), None)
    if parent is None or center.kind == "crowd" or len(chosen.members) < 2 or center.area < MIN_AREA:
        return False
    region = click_region(sampled.scene.rles, chosen)
    is_other = ious(center.rle, [parent.rle])[0] <= SAME_AS_PARENT
    return bool(is_other and areas([region])[0] >= MIN_CLICK_AREA)


def _listed(key: str, sampled: SampledScene, chosen: SetOfObjects) -> ListedSet:
    rles = sampled.scene.rles
    members = tuple(_sha256(rle["counts"]) for rle in set_masks(rles, chosen))
    return ListedSet(key, _sha256(rles[chosen.center]["counts"]), members)


def _keys_sha256(candidates: Sequence[Candidate]) -> str:
    return _sha256("".join(f"{key}\n" for key in sorted(one.key for one in candidates)))


def _toml(table: Mapping[str, Any]) -> bytes:
    """Write TOML of values and tables of values; JSON literals are valid TOML except for DEL."""

    def line(key: str, value: Any) -> str:
        name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
        return f"{name} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")

    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [line(key, value) for key, value in table.items() if key not in tables]
    for name, content in tables.items():
        lines += [f"\n[{name}]\n", *(line(key, value) for key, value in content.items())]
    return "".join(lines).encode()


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
