"""The manifest of a folder of shards: the job that made them, totals, and the SHA-256 of each file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson

from disbench.core.errors import InputError, quote
from disbench.core.limits import MAX_ROWS
from disbench.io.files import atomic_write, file_sha256
from disbench.io.settings import Bounds, Count, parse_json_table, settings_from

MANIFEST = "manifest.json"
SCHEMA_VERSION = "1"
Rows = Annotated[int, Bounds(0, MAX_ROWS)]


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard's manifest entry; `sha256` is None only in manifests written by hand."""

    name: str
    rows: Rows
    bytes: Rows
    sha256: str | None = None

    def problem(self, folder: Path, *, hashed: bool = True) -> str | None:
        """How the file in the folder differs from this entry: missing, wrong size or, if `hashed`, wrong SHA-256."""
        path = folder / self.name
        try:
            exists = path.name == self.name and path.is_file()
        except OSError:  # a name that no file can have
            exists = False
        if not exists:
            return f"{quote(self.name)}: file not found"
        if (size := path.stat().st_size) != self.bytes:
            return f"{self.name}: {size} bytes, but the manifest says {self.bytes}"
        if hashed and file_sha256(path) != self.sha256:
            return f"{self.name}: its SHA-256 differs from the manifest"
        return None


@dataclass(slots=True)
class Tally:
    """Counts of images, scenes, objects and sets, and of dropped annotations by reason."""

    images: Count = 0
    scenes: Count = 0
    objects: Count = 0
    sets: Count = 0
    dropped: dict[str, Count] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.images += other.images
        self.scenes += other.scenes
        self.objects += other.objects
        self.sets += other.sets
        self.drop(other.dropped)

    def drop(self, dropped: Mapping[str, int]) -> None:
        """Add counts of dropped annotations."""
        for reason, count in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in a fixed order."""
        return {**dataclasses.asdict(self), "dropped": dict(sorted(self.dropped.items()))}


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` (from 1) of `of` of a dataset: images `first` to `next` - 1 of the source."""

    number: Count
    of: Count
    first: Count
    next: Count
    of_images: Count


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that determines the bytes of shards.

    `recipe` has the recipe's fields, JSON-ready; `sources` the SHA-256 of each dataset file; `versions` the package
    versions. `limit` reads only the first images of the source; `part` is None for an undivided job.
    """

    schema: str = SCHEMA_VERSION
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: Count = 0
    source: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    limit: Count | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    part: Part | None = None

    def job_json(self) -> dict[str, Any]:
        """The manifest's job keys, in order."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(Job) if item.name != "part"}
        return plain if self.part is None else {**plain, "part": dataclasses.asdict(self.part)}

    def job_hash(self) -> str:
        """SHA-256 (hex) of the job, stored as the fingerprint of its manifest and shards."""
        return hashlib.sha256(json.dumps(self.job_json(), sort_keys=True).encode()).hexdigest()

    def undivided(self) -> Job:
        """This job without its `part`."""
        return Job(**{**self.job_json(), "part": None})

    def differences(self, other: Job) -> str:
        """How two jobs differ, in words."""
        own, others = self.job_json(), other.job_json()
        names = ("schema", "source", "sources", "limit", "versions", "part")
        parts = [f"other {name}" for name in names if own.get(name) != others.get(name)]
        options = {**self.recipe, **other.recipe}
        parts += [f"recipe {name}" for name in options if self.recipe.get(name) != other.recipe.get(name)]
        return ", ".join(parts) or "another program"


@dataclass(frozen=True, kw_only=True)
class ShardManifest(Job):
    """The content of `manifest.json`. In a manifest written by hand, only `schema` and `files` are required.

    Attributes:
        fingerprint: `Job.job_hash`.
        images: number of images read; `scenes` counts those with objects, one row each.
        dropped: reason -> number of dropped annotations.
        trailing: parts only: tally of the images without a scene after the last row.
        source_dropped: parts only: annotations the source dropped before making scenes; merging counts them once.
    """

    fingerprint: str = ""
    images: Rows | None = None
    scenes: Rows | None = None
    objects: Count | None = None
    sets: Count | None = None
    dropped: Mapping[str, Rows] | None = None
    trailing: Tally | None = None
    source_dropped: Mapping[str, Count] | None = None
    files: tuple[ShardFile, ...] = ()

    def __post_init__(self) -> None:
        is_part = self.part is not None
        if is_part != (self.trailing is not None) or is_part != (self.source_dropped is not None):
            raise InputError("part, trailing and source_dropped are not all there; make this part again")

    @property
    def rows(self) -> int:
        """Number of scenes in all files."""
        return sum(file.rows for file in self.files)

    @property
    def recipe_name(self) -> str:
        """The recipe's name, "" if unknown."""
        return str(self.recipe.get("name", ""))

    @property
    def method(self) -> str:
        """The recipe's method, "" if unknown."""
        return str(self.recipe.get("method", ""))

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the concatenated shard hashes."""
        return hashlib.sha256("".join(str(file.sha256) for file in self.files).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The content of `manifest.json`, in file order."""
        trailing = None if self.trailing is None else self.trailing.as_dict()
        table = {**dataclasses.asdict(self), "trailing": trailing}
        table["files"] = list(table["files"])
        part_fields = ("part", "trailing", "source_dropped")
        return {name: value for name, value in table.items() if value is not None or name not in part_fields}


def read_manifest(folder: Path) -> ShardManifest:
    """Read and validate the manifest of a finished folder of shards.

    Raises:
        InputError: the manifest is missing or not JSON, a value has the wrong type, or its schema is newer.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST}; name a finished folder of shards, or run sample to the end")
    try:
        table = parse_json_table(path.read_bytes())
        orjson.dumps(table)  # rejects lone surrogates and integers beyond 64 bits, which exports cannot hold
        schema, _ = table["schema"], table["files"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a manifest of shards ({error}); sample again") from error
    if schema != SCHEMA_VERSION:
        raise InputError(f"{path}: schema {schema!r:.80}, this disbench reads {SCHEMA_VERSION!r}; update disbench")
    return settings_from(ShardManifest, table, str(path), unknown="skip")


def write_manifest(folder: Path, manifest: ShardManifest) -> ShardManifest:
    """Write the manifest, which marks the folder as finished, and return it as read back."""
    with atomic_write(folder / MANIFEST) as file:
        file.write(json.dumps(manifest.as_json(), indent=1).encode() + b"\n")
    return read_manifest(folder)
