"""Diverse sets from a folder of shards as the samples of a run: whole sets, or each of their masks as a target."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from disbench.core import masks
from disbench.core.ambiguity import granularity_of
from disbench.core.errors import InputError, quote
from disbench.core.masks import areas, contained_shares
from disbench.core.prediction import RgbImage
from disbench.core.samples import Content, Sample
from disbench.core.scenes import SampledScene, SetOfObjects, click_region, relation, set_masks
from disbench.datasets.file_samples import or_none
from disbench.datasets.photos import photo_path
from disbench.harness.record import Choice, SplitFacts
from disbench.harness.set_task import SETS, SetSample, first_click, write_sets
from disbench.io.files import file_sha256
from disbench.sampling.splits import SetLocation, Split, find_split, locate_sets
from disbench.shards.reader import FindImage, ShardReader, image_lookup, read_scene_image

EMBEDDED = "embedded"  # value of `images` for the embedded photos


@dataclass
class SetSource:
    """Selected diverse sets of a folder of shards, one per sample (`disbench.core.samples.Source`). Picklable.

    `images` is their folder, or `EMBEDDED`; None searches the usual places and below `data`, the root of the datasets.
    `split`, or the split named by `choice`, selects exactly its sets, in its order, provided their masks match its
    list. InputError for an unfinished folder of shards, or if no set matches.
    """

    folder: Path
    images: Path | str | None = None
    data: Path | None = None
    choice: Choice = field(default_factory=Choice)
    split: Split | None = None

    def __post_init__(self) -> None:
        self.reader = ShardReader(self.folder)
        self._names = self.reader.names()
        if self.split is None and self.choice.split is not None:
            self.split = find_split(self.choice.split.name, self.choice.split.list_sha256)
        if self.split is None:
            self.chosen = self._drawn()
        else:
            facts = SplitFacts(self.split.name, self.split.record.list_sha256)
            self.choice = dataclasses.replace(self.choice, split=facts)
            self.chosen = locate_sets(self.split, self.reader)
        self.ids: Sequence[str] = [f"{self._names[0][one.scene]}/{one.center}" for one in self.chosen]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_find", "_image")}

    @cached_property
    def _find(self) -> FindImage:
        if self.images == EMBEDDED:
            return photo_path
        return image_lookup(self.folder, None if self.images is None else Path(self.images), self.data)

    @cached_property
    def _image(self) -> Callable[..., RgbImage]:
        return lru_cache(maxsize=2)(read_scene_image)

    @property
    def name(self) -> str:
        """Name of the split, or of the folder."""
        return self.folder.resolve().name if self.split is None else self.split.name

    def place(self, index: int) -> tuple[SampledScene, SetOfObjects]:
        """Scene and set of a sample."""
        chosen = self.chosen[index]
        sampled = self.reader[chosen.scene]
        return sampled, sampled.sets[chosen.number]

    def read(self, index: int) -> SetSample:
        """Set at an index, with its image; InputError if the image is missing, damaged or of another size."""
        sampled, chosen = self.place(index)
        scene, rles = sampled.scene, sampled.scene.rles
        return SetSample(
            id=self.ids[index],
            image_id=scene.image_id,
            center=chosen.center,
            image=self._image(self._path(scene.file_name), scene.image_id, (scene.height, scene.width)),
            members=tuple(set_masks(rles, chosen)),
            click_region=click_region(rles, chosen),
        )

    def content_hash(self) -> str:
        """SHA-256 (hex) of shards (or the split's list), choice and images."""
        return self._content(self._image_digest).whole

    def content(self) -> Content:
        """The content hash, and a hash per set; unreadable images are hashed as None."""
        return self._content(or_none(self._image_digest))

    def _image_digest(self, name: str) -> str:
        return file_sha256(self._path(name))

    def _content(self, digest: Callable[[str], str | None]) -> Content:
        shards = self.reader.manifest.content_hash if self.split is None else self.split.record.list_sha256
        names = [self._names[1][one.scene] for one in self.chosen]
        images = {name: f"\n{name} {digest(name)}" for name in dict.fromkeys(names)}
        return Content(
            _sha256("disbench sets 1\n", shards, "\n", "\n".join(self.ids), *images.values()),
            [_sha256(shards, "\n", number, images[name]) for number, name in zip(self.ids, names, strict=True)],
        )

    def facts(self) -> dict[str, object]:
        """Facts for a run's record (`disbench.harness.record.SetFacts`)."""
        manifest, split = self.reader.manifest, self.choice.split
        title = f"Diverse sets, recipe {manifest.recipe_name or 'unknown'}, of {manifest.source or 'shards'}"
        choice = {key: value for key, value in dataclasses.asdict(self.choice).items() if key != "split" or split}
        sets = int(self.reader.sets_per_scene().sum())
        return {
            "title": title if split is None else f"{title}: frozen split {split}",
            "shards": {"content_hash": manifest.content_hash, "recipe": manifest.recipe, "sets": sets},
            "choice": choice,
        }

    def write_tables(self, folder: Path) -> None:
        """Write `sets.parquet` into a run's folder."""
        write_sets(folder / SETS, [self._row(index) for index in range(len(self.ids))])

    def _row(self, index: int) -> dict[str, Any]:
        sampled, chosen = self.place(index)
        scene, rles = sampled.scene, sampled.scene.rles
        found = set_masks(rles, chosen)
        within = [float(contained_shares(inner, [outer])[0]) for inner, outer in pairwise(found)]
        return {
            "sample": self.ids[index],
            "image_id": scene.image_id,
            "center": chosen.center,
            "file_name": scene.file_name,
            "height": scene.height,
            "width": scene.width,
            "category": scene.objects[chosen.center].category,
            "members": len(chosen.members),
            "relations": [relation(sampled, chosen.center, member) for member in chosen.members],
            "areas": areas(found).tolist(),
            "click_area": int(areas([click_region(rles, chosen)])[0]),
            "contained": [*within, 1.0],
        }

    def _drawn(self) -> list[SetLocation]:
        """The sets selected by `choice`, in the shards' order."""
        choice = self.choice
        sets = [
            SetLocation(scene, number, center, size)
            for scene, row in enumerate(self.reader.centers_and_sizes())
            for number, (center, size) in enumerate(row)
            if size >= choice.min_members
        ]
        if not sets:
            raise InputError(f"{self.folder}: no set of {choice.min_members} masks or more; name other shards")
        if choice.sets is None or choice.sets >= len(sets):
            return sets
        drawn = np.random.default_rng(choice.seed).choice(len(sets), choice.sets, replace=False)
        return [sets[index] for index in sorted(drawn.tolist())]

    def _path(self, file_name: str) -> Path:
        path = self._find(file_name)
        if path is None:
            raise InputError(f"{self.folder}: its image {quote(file_name)} is missing; give its folder with --images")
        return path


class IntentSource:
    """Each mask of each selected set as a target, `image/center/member` (a `SampleSource`).

    All targets of a set have the same first click: click 1 of the diverse task with the same seed.
    """

    def __init__(self, sets: SetSource) -> None:
        self.sets = sets
        self._members = [(index, member) for index, one in enumerate(sets.chosen) for member in range(one.members)]
        self.ids: Sequence[str] = [f"{sets.ids[index]}/{member}" for index, member in self._members]

    @property
    def name(self) -> str:
        """Name of the sets followed by `-intents`."""
        return f"{self.sets.name}-intents"

    def read(self, index: int) -> Sample:
        """Target at an index; errors as for `SetSource.read`."""
        number, member = self._members[index]
        found = self.sets.read(number)
        area, whole = areas([found.members[member], found.members[-1]]).tolist()
        return Sample(
            self.ids[index],
            found.image,
            masks.decode(found.members[member], order="C").astype(np.int8),
            first_click=first_click(found.click_region, self.sets.choice.seed, found.image_id, found.center),
            granularity=granularity_of(area, whole),
        )

    def content_hash(self) -> str:
        """SHA-256 (hex) of the sets, and of the rule that turns them into targets and clicks."""
        return self._hashed(self.sets.content_hash())

    def content(self) -> Content:
        """The content hash, and a hash per target."""
        sets = self.sets.content()
        samples = [self._hashed(f"{sets.samples[index]}\n{member}") for index, member in self._members]
        return Content(self._hashed(sets.whole), samples)

    def _hashed(self, text: str) -> str:
        return _sha256(f"disbench intents 1\n{self.sets.choice.seed}\n{text}")

    def facts(self) -> dict[str, object]:
        """Facts of the sets, with another title."""
        facts = self.sets.facts()
        return {**facts, "title": f"Each intent of a first click: {facts['title']}"}

    def write_tables(self, folder: Path) -> None:
        """Write `sets.parquet`, with the relation of each target, into a run's folder."""
        self.sets.write_tables(folder)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()
