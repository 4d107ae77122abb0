"""Frozen splits: what decides a list, what does not, and what is said of shards and files that do not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shard_tools import change_manifest, random_scene, scene_object, write_shards
from split_tools import SIZE, parts_scenes, parts_shards, shuffled

from disbench.core.errors import InputError
from disbench.core.limits import MAX_LIST_BYTES
from disbench.core.masks import decode, ious
from disbench.core.scenes import Links, Scene
from disbench.harness.record import Choice, SplitFacts
from disbench.harness.set_source import IntentSource, SetSource
from disbench.io import definitions
from disbench.sampling.splits import (
    Draw,
    Split,
    check_split,
    draw_sets,
    find_candidates,
    find_split,
    locate_sets,
    make_split,
    read_split,
    standard_draw,
)
from disbench.shards.reader import ShardReader
from tests.refusals import refuses

SCENES = parts_scenes(40)
DRAW = standard_draw("cars", "val", size=60)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts_shards(tmp_path_factory.mktemp("splits") / "shards", SCENES)


@pytest.fixture
def split(shards: Path, tmp_path: Path) -> Split:
    """A split in `tmp_path`, beside which tests damage its files."""
    return make_split(shards, tmp_path / "cars.jsonl", DRAW, "disbench split make")


def test_what_was_made_is_read_again_and_holds(split: Split, shards: Path, tmp_path: Path) -> None:
    for name in ("cars.jsonl", "cars.toml"):
        assert read_split(str(tmp_path / name)) == split
    assert check_split(split, shards) is None
    before = (tmp_path / "cars.jsonl").read_bytes()
    assert make_split(shards, tmp_path / "cars.jsonl", DRAW, "again").sets == split.sets
    with pytest.raises(InputError, match=r"cars\.jsonl: exists with a different list"):
        make_split(shards, tmp_path / "cars.jsonl", standard_draw("cars", "val", size=5), "")
    assert (tmp_path / "cars.jsonl").read_bytes() == before


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_files_decides_nothing(seed: int, split: Split, shards: Path, tmp_path: Path) -> None:
    other = parts_shards(tmp_path / "shards", shuffled(SCENES, seed), ["shard_bytes=9000"])
    assert ShardReader(other).names() != ShardReader(shards).names()
    found = make_split(other, tmp_path / "other.jsonl", DRAW, "")
    assert found.sets == split.sets
    assert found.record.candidates_sha256 == split.record.candidates_sha256
    assert [key.rpartition("/")[2] for key in (one.key for one in split.sets)] == [
        str(sampled.scene.objects[place.center].annotation_id)
        for place in locate_sets(split, ShardReader(other))
        for sampled in [ShardReader(other)[place.scene]]
    ]


@pytest.mark.parametrize("size", [1, 19, 21, 60, 10_000])
def test_shares_of_images_and_names(size: int, shards: Path) -> None:
    reader, draw = ShardReader(shards), standard_draw("cars", "val", size=size)
    assert draw.per_name == -(-size // 20)
    candidates = find_candidates(reader, draw)

    def alike(one: object, other: object) -> bool:
        rles = [reader[c.location.scene].scene.rles[c.location.center] for c in (one, other)]  # type: ignore[attr-defined]
        return bool(ious(rles[0], [rles[1]])[0] > 0.5)

    taken = draw_sets(candidates, draw, alike)
    images = Counter(one.image for one in taken)
    assert len(taken) <= size and max(images.values()) <= 3
    assert max(Counter(one.name for one in taken).values()) <= draw.per_name
    assert not any(alike(a, b) for a in taken for b in taken if a is not b and a.image == b.image)
    assert [draw.rank(one.key) for one in taken] == sorted(draw.rank(one.key) for one in taken)
    assert "wheel" in {one.name for one in candidates} and "wheel 2" not in {one.name for one in candidates}
    if size == 10_000:  # nothing that may be taken is left
        assert len(taken) < len(candidates)
        for one in set(candidates) - set(taken):
            beside = [other for other in taken if other.image == one.image]
            assert len(beside) == 3 or any(alike(one, other) for other in beside)


def test_images_and_names_that_may_be_taken(shards: Path) -> None:
    reader = ShardReader(shards)
    numbers = [int(one.image.rpartition("/")[2]) for one in find_candidates(reader, Draw("cars", "val", "*[05].jpg"))]
    assert numbers and not any(number % 5 for number in numbers)
    with pytest.raises(InputError, match=r"no set of images 'test2017/\*'"):
        find_candidates(reader, Draw("cars", "val", "test2017/*"))
    reader, draw = ShardReader(shards), standard_draw("cars", "val", size=40)
    alone = [dataclasses.replace(one, name="object") for one in find_candidates(reader, draw)]
    assert len(draw_sets(alone, draw, lambda one, other: False)) == 40


def two_scenes(change: Callable[[Scene], Scene]) -> list[Scene]:
    """Two images with a whole and a part; the second is changed."""
    whole, part = np.ones(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    part[:20, :20] = True
    objects = [dataclasses.replace(scene_object(mask), annotation_id=n) for n, mask in enumerate((whole, part))]
    links = Links((-1, 0))
    first = Scene("1", "a/1.jpg", *SIZE, "parts", tuple(objects), links=links)
    return [first, change(dataclasses.replace(first, image_id="2", file_name="a/2.jpg"))]


def nameless(scene: Scene) -> Scene:
    objects = tuple(dataclasses.replace(item, annotation_id=None) for item in scene.objects)
    return dataclasses.replace(scene, objects=objects)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scene: dataclasses.replace(scene, file_name="b/1.jpg"), "two sets have the key 'cars/val/1/1'"),
        (nameless, "image '2': object 1 has no annotation id"),
    ],
)
def test_sets_that_cannot_be_named(change: Callable[[Scene], Scene], words: str, tmp_path: Path) -> None:
    folder = parts_shards(tmp_path / "shards", two_scenes(change))
    refuses(words, make_split, folder, tmp_path / "cars.jsonl", DRAW, "")
    assert not list(tmp_path.glob("cars*"))


def test_what_no_split_is_made_of(shards: Path, tmp_path: Path) -> None:
    flat = write_shards(tmp_path / "flat", [random_scene(np.random.default_rng(0), "1", tree=False)])
    for folder, out, words in (
        (flat, "cars.jsonl", "flat: recipe: the key"),
        (shards, "cars.json", "name the list NAME.jsonl"),
        (tmp_path, "cars.jsonl", "no manifest.json"),
    ):
        refuses(words, make_split, folder, tmp_path / out, DRAW, "")
    refuses("ASCII", Draw, "cars\n", "val")


def test_a_run_takes_the_splits_sets_in_its_order(split: Split, shards: Path, tmp_path: Path) -> None:
    source = SetSource(shards, split=split)
    keys = []
    for index in range(len(source.ids)):
        sampled, chosen = source.place(index)
        stem, item = Path(sampled.scene.file_name).stem, sampled.scene.objects[chosen.center]
        keys.append(f"cars/val/{stem}/{item.annotation_id}")
        assert source.ids[index] == f"{sampled.scene.image_id}/{chosen.center}"
    assert keys == [one.key for one in split.sets]
    assert source.name == "cars"
    assert source.choice.split == SplitFacts("cars", split.record.list_sha256)
    assert source.facts()["choice"] == {
        **{"sets": None, "seed": 0, "min_members": 1},
        "split": {"name": "cars", "list_sha256": split.record.list_sha256},
    }
    assert len(IntentSource(source).ids) == sum(len(one.members) for one in split.sets)
    # A run's record leads back to the split, where its files are.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert SetSource(shards, choice=source.choice).ids == source.ids
        refuses("'cars' with list SHA-256 '0000", find_split, "cars", "0" * 64)
    with pytest.raises(InputError, match="not found"):
        SetSource(shards, choice=Choice(split=SplitFacts("cars", split.record.list_sha256)))


def altered(split: Split, number: int) -> list[Scene]:
    """The scenes, in which the center of a set has a pixel less."""
    *_, image, annotation = split.sets[number].key.split("/")
    scenes = list(SCENES)
    at = next(i for i, scene in enumerate(scenes) if Path(scene.file_name).stem == image)
    objects = list(scenes[at].objects)
    place = next(i for i, item in enumerate(objects) if item.annotation_id == int(annotation))
    mask = decode(objects[place].rle).copy()
    mask[tuple(np.argwhere(mask)[0])] = False
    changed = scene_object(mask, objects[place].kind, objects[place].category)
    objects[place] = dataclasses.replace(changed, annotation_id=int(annotation), synset=None)
    scenes[at] = dataclasses.replace(scenes[at], objects=tuple(objects))
    return scenes


def test_other_masks_stop_a_run_and_a_check(split: Split, shards: Path, tmp_path: Path) -> None:
    other = parts_shards(tmp_path / "other", altered(split, 7))
    key = split.sets[7].key
    with pytest.raises(InputError, match=f"other: set '{key}' of split 'cars': its masks differ") as refusal:
        SetSource(other, split=split)
    assert "cars.toml" in str(refusal.value)
    assert f"set 8, '{key}': the pixels of its center differ" in (check_split(split, other) or "")


def test_other_shards_stop_a_run_and_say_why(split: Split, shards: Path, tmp_path: Path) -> None:
    other = parts_shards(tmp_path / "other", SCENES, ["min_area=400"])
    refuses(r"it is not in the shards.*recipe min_area", SetSource, other, split=split)
    problem = check_split(split, other)
    assert problem and "recipe min_area" in problem and problem.startswith("set 1")
    # The same sets of other candidates are not the same draw.
    fewer = [s for s in SCENES if any(f"/{Path(s.file_name).stem}/" in one.key for one in split.sets)]
    assert len(fewer) < len(SCENES)
    problem = check_split(split, parts_shards(tmp_path / "fewer", fewer))
    assert problem and "the candidates differ" in problem


def test_the_splits_of_this_package() -> None:
    names = definitions.names("datasets/splits")
    assert {"clothing-parts-300", "ade-sample"} <= set(names)
    assert not set(names) & set(definitions.names("datasets"))  # no cards
    for split in map(read_split, names):
        draw = split.record.draw
        assert all(one.key.startswith(f"{draw.dataset}/{draw.split}/") for one in split.sets)
        ranks = [draw.rank(one.key) for one in split.sets]
        assert ranks == sorted(ranks) and len(ranks) == (draw.size or split.record.candidates)


LINE = {"key": "cars/val/1/1", "mask": "0", "members": ["0", "1"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the list is empty"),
        (b"[" * 10_000, "line 1 is not a set"),
        (json.dumps({"key": "a"}).encode(), "line 1: the key 'mask' is missing"),
        (b"\n".join([json.dumps(LINE).encode()] * 2), "has a duplicate key"),
        (json.dumps({**LINE, "key": "x" * MAX_LIST_BYTES}).encode(), f"more than {MAX_LIST_BYTES} bytes"),
    ],
    ids=range(5),
)
def test_lists_that_are_none(content: bytes, words: str, split: Split, tmp_path: Path) -> None:
    path, record = tmp_path / "cars.jsonl", tmp_path / "cars.toml"
    path.write_bytes(content)
    refuses(r"its SHA-256 differs from the one in cars\.toml|more than", read_split, str(path))
    record.write_text(record.read_text().replace(split.record.list_sha256, hashlib.sha256(content).hexdigest()))
    with pytest.raises(InputError, match=words) as refusal:
        read_split(str(path))
    assert str(refusal.value).startswith(str(path)) and len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("parts 1", "parts 2", "unknown value of rule"),
        ("per_image = 3\n", "", "size requires"),
        ('dataset = "cars"', 'dataset = "../cars"', "ASCII"),
    ],
)
def test_records_that_are_none(old: str, new: str, words: str, split: Split, tmp_path: Path) -> None:
    path = tmp_path / "cars.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=words) as refusal:
        read_split(str(path))
    assert str(path) in str(refusal.value)


def test_splits_that_are_not_there(split: Split, tmp_path: Path) -> None:
    (tmp_path / "cars.jsonl").unlink()
    for name, words in (
        ("carts", "unknown split 'carts'"),
        (str(tmp_path / "cars.toml"), "list not found"),
        (str(tmp_path / "none.jsonl"), "no such file"),
    ):
        refuses(words, read_split, name)


def test_texts_of_any_kind_are_written_as_toml(shards: Path, tmp_path: Path) -> None:
    other = shutil.copytree(shards, tmp_path / "shards")
    odd = 'a "quoted" \\ \x7f\x01 \N{GRINNING FACE} é\n'
    change_manifest(other, lambda manifest: manifest.update(sources={odd: "0"}))
    made = make_split(other, tmp_path / "cars.jsonl", DRAW, odd).record
    assert read_split(str(tmp_path / "cars.toml")).record == made
    assert (made.command, dict(made.sources)) == (odd, {odd: "0"})
    assert hashlib.sha256((tmp_path / "cars.jsonl").read_bytes()).hexdigest() == made.list_sha256
