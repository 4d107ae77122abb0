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

RULE: Final = "disbench parts 1"  # version of the rule for candidates, rank and draw; increment it with the rule
MIN_AREA, MIN_CLICK_AREA, MAX_PARENT_IOU = 80, 20, 0.90  # pixels of a center and of its click region; IoU with parent
MAX_PER_IMAGE, SETS_PER_NAME, MAX_CENTER_IOU = 3, 20, 0.50  # at most 1 in 20 sets, rounded up, has the same part key
_MANIFEST_FIELDS = ("source", "limit", "recipe", "sources", "versions")  # recorded by a split
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

    def image_key(self, file_name: str) -> str | None:
        """`dataset/split/stem` of an image file; None if it does not match `images`."""
        stem = PurePosixPath(file_name).stem
        return f"{self.dataset}/{self.split}/{stem}" if fnmatchcase(file_name, self.images) else None

    def rank(self, key: str) -> str:
        """SHA-256 (hex) by which keys are sorted for the draw."""
        return _sha256(f"{RULE}\n{self.dataset}\n{key}")


def standard_draw(dataset: str, split: str, images: str = "*", size: int | None = None) -> Draw:
    """Draw `size` sets, at most 3 per image and 5 % (rounded up) per part key; without a size, all candidates."""
    return Draw(dataset, split, images, *(() if size is None else (size, MAX_PER_IMAGE, -(-size // SETS_PER_NAME))))


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A line of a list: SHA-256 (hex) of the RLE counts of the center (`mask`) and of each member, inner to outer."""

    key: str
    mask: str
    members: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
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
        return Job(**{name: getattr(self, name) for name in _MANIFEST_FIELDS}).differences(manifest)


@dataclass(frozen=True)
class Split:
    """A frozen split: its name (the stem of its files), how it was made, and its sets by rank."""

    name: str
    record: SplitRecord
    sets: tuple[ListedSet, ...]


@dataclass(frozen=True, slots=True)
class SetLocation:
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
    location: SetLocation

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

    candidates: dict[str, Candidate] = {}
    for scene, sampled in tqdm(enumerate(reader), total=len(reader), unit="scene", disable=not progress):
        for key, number, chosen in _keys(sampled, draw):
            if not _is_candidate(sampled, chosen):
                continue
            if key is None:
                raise InputError(
                    f"{reader.folder}: image {quote(sampled.scene.image_id)}: object {chosen.center} has no annotation "
                    "id, which a split needs; sample a dataset whose annotations have ids"
                )
            if key in candidates:
                raise InputError(
                    f"{reader.folder}: two sets have the key {quote(key)}; image names and annotation ids must be "
                    "unique"
                )
            name = part_key(sampled.scene.objects[chosen.center].category)
            candidates[key] = Candidate(key, name, SetLocation(scene, number, chosen.center, len(chosen.members)))
    if not candidates:
        raise InputError(
            f"{reader.folder}: no set of images {draw.images!r} can be drawn; give shards of parts and wholes (method "
            "hierarchy) or other images"
        )
    return sorted(candidates.values(), key=lambda candidate: draw.rank(candidate.key))


def draw_sets(
    candidates: Sequence[Candidate], draw: Draw, is_similar: Callable[[Candidate, Candidate], bool]
) -> list[Candidate]:
    """Draw candidates by rank, skipping those whose image or part key is at its limit or that are `is_similar`.

    Args:
        candidates: sorted by rank.
        draw: the limits.
        is_similar: returns True if two centers of one image have an IoU above 0.50.
    """
    if draw.size is None or draw.per_image is None or draw.per_name is None:
        return list(candidates)
    per_name = draw.per_name if len({candidate.name for candidate in candidates}) > 1 else draw.size
    drawn: list[Candidate] = []
    drawn_by_image: dict[str, list[Candidate]] = {}
    name_counts: Counter[str] = Counter()
    for candidate in candidates:
        if len(drawn) == draw.size:
            break
        same_image = drawn_by_image.setdefault(candidate.image, [])
        is_full = len(same_image) >= draw.per_image or name_counts[candidate.name] >= per_name
        if is_full or any(is_similar(candidate, other) for other in same_image):
            continue
        drawn.append(candidate)
        same_image.append(candidate)
        name_counts[candidate.name] += 1
    return drawn


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
    candidates, sets = _drawn_sets(reader, draw, progress)
    content = "".join(json.dumps(table_from(listed), ensure_ascii=False) + "\n" for listed in sets).encode()
    if out.exists() and out.read_bytes() != content:
        raise InputError(f"{out}: exists with a different list, and lists are never changed; choose a new name")
    record = SplitRecord(
        rule=RULE,
        draw=draw,
        candidates=len(candidates),
        candidates_sha256=_keys_sha256(candidates),
        list_sha256=_sha256(content),
        command=command,
        **{name: getattr(manifest, name) for name in _MANIFEST_FIELDS} | {"recipe": recipe.as_dict()},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, data in ((out, content), (out.with_suffix(".toml"), _toml(table_from(record)))):
        with atomic_write(path) as file:
            file.write(data)
    return Split(out.stem, record, sets)


def read_split(name: str) -> Split:
    """Read a split of this package by name, or the user's own by the path of its list or TOML file.

    Raises:
        InputError: no such split, a damaged file, or a list whose SHA-256 differs from the TOML file.
    """
    path = definitions.find("datasets/splits", re.sub(r"\.jsonl$", ".toml", name))
    record = settings_from(SplitRecord, definitions.load(path), str(path))
    list_path = path.with_suffix(".jsonl")
    missing = f"list not found; put it next to {path.name}"
    content = read_bounded(list_path, MAX_LIST_BYTES, "give the list of a split", missing)
    if _sha256(content) != record.list_sha256:
        raise InputError(f"{list_path}: its SHA-256 differs from the one in {path.name}; get both files again")
    sets = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            sets.append(settings_from(ListedSet, parse_json_table(line), f"{list_path}: line {number}"))
        except ValueError as error:
            raise InputError(f"{list_path}: line {number} is not a set ({error}); get the list again") from error
    if len({listed.key for listed in sets}) < max(1, len(sets)):
        raise InputError(f"{list_path}: the list is empty or has a duplicate key; get the list again")
    return Split(path.stem, record, tuple(sets))


def find_split(name: str, sha256: str) -> Split:
    """The split with a run's recorded name and list hash, from this package or the current folder.

    Raises:
        InputError: the split is not found, has a different list or is damaged.
    """
    folders = (definitions.folder("datasets/splits"), Path())
    for path in (path for folder in folders for path in folder.glob("*.toml") if path.stem == name):
        split = read_split(str(path))
        if split.record.list_sha256 == sha256:
            return split
    raise InputError(
        f"split {quote(name)} with list SHA-256 {quote(sha256[:16])} not found; put its two files into the current "
        "folder"
    )


def locate_sets(split: Split, reader: ShardReader) -> list[SetLocation]:
    """Find the sets of a split in shards, in the split's order.

    Raises:
        InputError: a set is missing or its masks differ from the list; names the first such set.
    """
    wanted = {listed.key: listed for listed in split.sets}
    images = {key.rpartition("/")[0] for key in wanted}
    found: dict[str, tuple[ListedSet, SetLocation]] = {}
    for scene, file_name in enumerate(reader.names()[1]):
        if split.record.draw.image_key(file_name) not in images:
            continue
        sampled = reader[scene]
        for key, number, chosen in _keys(sampled, split.record.draw):
            if key is not None and key in wanted:
                location = SetLocation(scene, number, chosen.center, len(chosen.members))
                found[key] = _listed_set(key, sampled, chosen), location
    for listed in split.sets:
        if listed.key not in found or found[listed.key][0] != listed:
            problem = "its masks differ" if listed.key in found else "it is not in the shards"
            raise InputError(
                f"{reader.folder}: set {quote(listed.key)} of split {quote(split.name)}: {problem}; make the shards as "
                f"in {split.name}.toml (likely cause: {split.record.differences(reader.manifest)})"
            )
    return [found[listed.key][1] for listed in split.sets]


def check_split(split: Split, shards: Path, *, progress: bool = False) -> str | None:
    """Redraw a split from shards; return the first difference from its list, or None if equal.

    Raises:
        InputError: as `find_candidates`.
    """
    reader = ShardReader(shards)
    candidates, sets = _drawn_sets(reader, split.record.draw, progress)
    cause = f"likely cause: {split.record.differences(reader.manifest)}"
    for number, (listed, redrawn) in enumerate(zip_longest(split.sets, sets), 1):
        if listed == redrawn:
            continue
        if listed is None or redrawn is None or listed.key != redrawn.key:
            names = ["no set" if item is None else quote(item.key) for item in (listed, redrawn)]
            return f"set {number} is {names[0]} in the list, {names[1]} in these shards; {cause}"
        part = "center" if listed.mask != redrawn.mask else "members"
        return f"set {number}, {quote(listed.key)}: the pixels of its {part} differ; {cause}"
    if _keys_sha256(candidates) != split.record.candidates_sha256:
        counts = f"{split.record.candidates:,} when the list was made, {len(candidates):,} here"
        return f"the sets are the same, but the candidates differ ({counts}); {cause}"
    return None


def _drawn_sets(reader: ShardReader, draw: Draw, progress: bool) -> tuple[list[Candidate], tuple[ListedSet, ...]]:
    """All candidates by rank, and the lines of the drawn sets."""

    def is_similar(*pair: Candidate) -> bool:
        rle, other = (reader[at.scene].scene.objects[at.center].rle for at in (pair[0].location, pair[1].location))
        return float(ious(rle, [other])[0]) > MAX_CENTER_IOU

    candidates = find_candidates(reader, draw, progress=progress)
    drawn, lines = draw_sets(candidates, draw, is_similar), {}
    for candidate in sorted(drawn, key=lambda candidate: candidate.location.scene):  # row groups are read once
        sampled = reader[candidate.location.scene]
        lines[candidate.key] = _listed_set(candidate.key, sampled, sampled.sets[candidate.location.number])
    return candidates, tuple(lines[candidate.key] for candidate in drawn)


def _keys(sampled: SampledScene, draw: Draw) -> Iterator[tuple[str | None, int, SetOfObjects]]:
    """(key, index, set) for each set of a scene if `draw` takes its image; the key is None without an annotation id."""
    image = draw.image_key(sampled.scene.file_name)
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
    is_other = ious(center.rle, [parent.rle])[0] <= MAX_PARENT_IOU
    return bool(is_other and areas([region])[0] >= MIN_CLICK_AREA)


def _listed_set(key: str, sampled: SampledScene, chosen: SetOfObjects) -> ListedSet:
    rles = sampled.scene.rles
    members = tuple(_sha256(rle["counts"]) for rle in set_masks(rles, chosen))
    return ListedSet(key, _sha256(rles[chosen.center]["counts"]), members)


def _keys_sha256(candidates: Sequence[Candidate]) -> str:
    return _sha256("".join(f"{key}\n" for key in sorted(candidate.key for candidate in candidates)))


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
