"""Parts of a dataset, put together: the bytes of the undivided job, or a sentence that says what is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.core.errors import InputError
from disbench.sampling import make_shards, merge_parts
from disbench.sampling.job import parse_part, part_range
from disbench.sampling.recipes import Recipe
from disbench.sampling.verify import verify_shards
from disbench.shards.manifest import MANIFEST, Part, read_manifest
from disbench.shards.reader import ShardReader
from tests.commands import contents
from tests.refusals import refuses
from tests.unit.shard_tools import Scenes, change_manifest, random_scene

RECIPE = Recipe("test", "", "hierarchy", ("lvis",), min_area=1, shard_bytes=6000)


def some_scenes(empty: Sequence[bool], seed: int = 0) -> Scenes:
    """A scene an entry, without an object where it is True; each left something out."""
    rng = np.random.default_rng(seed)
    scenes = []
    for number, hollow in enumerate(empty):
        made = random_scene(rng, str(number), things=int(rng.integers(1, 9)), stuff=0).scene
        dropped = Counter({"too small": int(rng.integers(0, 3)), f"kind {number % 3}": 1})
        scenes.append(dataclasses.replace(made, source="lvis", objects=() if hollow else made.objects, dropped=dropped))
    return Scenes(scenes)


def make_parts(source: Any, folder: Path, parts: int, recipe: Recipe = RECIPE, **options: Any) -> list[Path]:
    """All parts, made in any order."""
    folders = [folder / f"part-{number}" for number in range(1, parts + 1)]
    for number in reversed(range(1, parts + 1)):
        make_shards(source, recipe, folders[number - 1], part=(number, parts), **options)
    return folders


@settings(max_examples=15, deadline=None)
@given(
    empty=st.lists(st.booleans(), max_size=60),
    parts=st.integers(1, 9),
    shard_bytes=st.integers(300, 20_000),
    group=st.integers(1, 9),
    limit=st.none() | st.integers(1, 70),
    method=st.sampled_from(("hierarchy", "proximity", "containment", "random-merge")),
    seed=st.integers(0, 2**32),
    shuffled=st.randoms(),
)
def test_merged_bytes_equal_undivided_bytes(
    empty: list[bool],
    parts: int,
    shard_bytes: int,
    group: int,
    limit: int | None,
    method: Any,
    seed: int,
    shuffled: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    recipe = dataclasses.replace(RECIPE, method=method, shard_bytes=shard_bytes, cap=4)
    source = some_scenes(empty, seed)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("reader", "rows"):
            patch.setattr(f"disbench.shards.{module}.ROWS_PER_GROUP", group)
        whole = make_shards(source, recipe, folder / "whole", limit=limit)
        folders = make_parts(source, folder, parts, recipe, limit=limit)
        shuffled.shuffle(folders)
        assert merge_parts(folders, folder / "merged") == whole
    assert contents(folder / "merged") == contents(folder / "whole")


@pytest.fixture(scope="module")
def source() -> Scenes:
    rng = np.random.default_rng(5)
    # Images without a scene at the start, at the end, and in the midst.
    return some_scenes([True, *(rng.random(148) < 0.2), True])


@pytest.fixture(scope="module")
def whole(source: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_shards(source, RECIPE, folder)
    return folder


@pytest.fixture
def parts(source: Scenes, tmp_path: Path) -> list[Path]:
    return make_parts(source, tmp_path, 4)


def test_parts_and_their_slices() -> None:
    for images in (0, 1, 5, 16, 97):
        for count in (1, 2, 5, 16):
            slices = [part_range(images, (number, count)) for number in range(1, count + 1)]
            assert [image for part in slices for image in part] == list(range(images))
            assert max(map(len, slices)) - min(map(len, slices)) <= 1
    assert parse_part("3/16") == (3, 16)
    for text in ("", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1 / 4", "²/4", "1/" + "9" * 5000):
        refuses("3/16", parse_part, text)
    refuses("part 5 of 4", part_range, 9, (5, 4))


def test_a_part_tells_its_slice_and_is_a_folder_of_shards_of_its_own(source: Scenes, parts: list[Path]) -> None:
    manifest = read_manifest(parts[1])
    assert manifest.part == Part(number=2, of=4, first=37, next=75, of_images=150)
    assert manifest.images == 38
    assert manifest.source_dropped == {"of no image": 7}
    assert "of no image" not in (manifest.dropped or {})
    inside = [str(i) for i in range(37, 75) if source.scenes[i].objects]
    assert [item.scene.image_id for item in ShardReader(parts[1])] == inside
    assert verify_shards(parts[1]).ok


def test_parts_made_by_several_workers_and_resumed(source: Scenes, whole: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    make_shards(source, RECIPE, folders[0], part=(1, 2))
    make_shards(source, RECIPE, folders[1], part=(2, 2), workers=2)
    failing = dataclasses.replace(source, fails_at=140)
    with pytest.raises(OSError, match="gone"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("disbench.sampling.job.scenes_per_chunk", lambda images, workers: 5)
        make_shards(failing, RECIPE, tmp_path / "again", part=(2, 2))
    assert list((tmp_path / "again").iterdir())
    with pytest.raises(InputError, match=r"again: no manifest\.json.*run sample to the end"):
        merge_parts([folders[0], tmp_path / "again"], tmp_path / "merged")
    make_shards(source, RECIPE, tmp_path / "again", part=(2, 2))
    assert contents(tmp_path / "again") == contents(folders[1])
    merge_parts([folders[0], tmp_path / "again"], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(whole)


def test_a_merge_that_is_stopped_anywhere_resumes(
    source: Scenes, whole: Path, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "merged"
    seen: list[int] = []
    from disbench.shards.rows import ShardWriter

    add = ShardWriter.add
    for stop in range(1, 30):
        calls = iter(range(1, stop + 1))

        def failing(self: ShardWriter, chunk: Any) -> None:
            add(self, chunk)
            if next(calls) == stop:  # noqa: B023  (called before the next round)
                raise KeyboardInterrupt

        monkeypatch.setattr(ShardWriter, "add", failing)
        try:
            merge_parts(parts, out)
            break
        except KeyboardInterrupt:
            assert not (out / MANIFEST).exists()
            assert not list(out.glob("*.partial"))
            assert contents(out).items() <= contents(whole).items()
            seen.append(len(list(out.iterdir())))
    else:
        raise AssertionError("it never came to its end")
    assert contents(out) == contents(whole)
    assert len(set(seen)) > 2
    monkeypatch.undo()
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    merge_parts(parts, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    refuses("already has shards", merge_parts, parts, out, existing="fail")


def test_the_folder_of_another_part_is_not_resumed(source: Scenes, parts: list[Path]) -> None:
    refuses("other part", make_shards, source, RECIPE, parts[0], part=(2, 4))
    (parts[1] / MANIFEST).unlink()
    for part in ((3, 4), None):
        refuses(r"different input, recipe, part or versions", make_shards, source, RECIPE, parts[1], part=part)


def check_refused(parts: Sequence[Path], out: Path, words: str) -> None:
    """In one sentence that names the folder and the fix; `out` stays as it was."""
    refuses(words, merge_parts, parts, out)
    assert not (out / MANIFEST).exists()
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no parts"),
        (["part-1", "part-3"], r"part-1: .* part 2, 4 is missing.*--shard-of 2/4"),
        (["part-1", "part-2", "part-3", "part-4", "part-3"], r"part-3: part 3 of 4, like .*part-3"),
        (["part-1", "nowhere"], r"nowhere: no manifest\.json"),
        (["part-1", "whole"], r"whole\d*: not a part; .* sample --shard-of"),
        (["part-1", "of five", "part-3", "part-4"], "one of 5 parts of 150 images, but .*part-1 is one of 4"),
        (["part-1", "other recipe", "part-3", "part-4"], r"other recipe: .*part-1 \(recipe min_area\)"),
    ],
)
def test_parts_that_do_not_make_up_the_whole(
    source: Scenes, parts: list[Path], whole: Path, tmp_path: Path, given: list[str], words: str
) -> None:
    if "of five" in given:
        make_shards(source, RECIPE, tmp_path / "of five", part=(2, 5))
    if "other recipe" in given:
        make_shards(source, dataclasses.replace(RECIPE, min_area=5), tmp_path / "other recipe", part=(2, 4))
    check_refused([whole if name == "whole" else tmp_path / name for name in given], tmp_path / "out", words)


def test_another_version(source: Scenes, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disbench.sampling.job.__version__", "0.0.9")
    check_refused(parts, tmp_path / "out", r"part-1: made by disbench .*, here 0\.0\.9")
    make_shards(source, RECIPE, tmp_path / "other", part=(2, 4))
    check_refused([parts[0], tmp_path / "other", *parts[2:]], tmp_path / "out", r"other: .*\(other versions\)")


def test_into_a_part_or_another_job(parts: list[Path], source: Scenes, tmp_path: Path) -> None:
    before = contents(parts[2])
    for existing in ("resume", "overwrite"):
        with pytest.raises(InputError, match=r"part-3: is one of the parts; use another folder"):
            merge_parts(parts, parts[2].parent / "x" / ".." / "part-3", existing=existing)
    assert contents(parts[2]) == before
    make_shards(source, dataclasses.replace(RECIPE, seed=9), tmp_path / "out")
    before = contents(tmp_path / "out")
    refuses(r"recipe seed.*--existing overwrite", merge_parts, parts, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_damaged_then_made_again(source: Scenes, parts: list[Path], whole: Path, tmp_path: Path) -> None:
    shard = sorted(parts[2].glob("shard-*"))[-1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    check_refused(parts, tmp_path / "out", rf"part-3: {shard.name}: .*--shard-of 3/4 --existing overwrite")
    finished = contents(tmp_path / "out")
    assert finished
    assert finished.items() <= contents(whole).items()
    make_shards(source, RECIPE, parts[2], part=(3, 4), existing="overwrite")
    merge_parts(parts, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: manifest["part"].update(first=30), "part-2"),
        (lambda manifest: manifest["part"].update(number="two"), "part-2"),
        (lambda manifest: manifest.update(trailing=None), "part-2"),
        (lambda manifest: manifest["files"].pop(), r"part-2: its shards do not cover all its images"),
    ],
)
def test_a_manifest_that_was_changed(
    parts: list[Path], tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    change_manifest(parts[1], change)
    check_refused(parts, tmp_path / "out", words)


def test_shards_of_another_part(parts: list[Path], tmp_path: Path) -> None:
    other = json.loads((parts[1] / MANIFEST).read_text())
    change_manifest(parts[0], lambda manifest: manifest.update(files=other["files"]))
    for path in parts[1].glob("shard-*"):
        (parts[0] / path.name).write_bytes(path.read_bytes())
    check_refused(parts, tmp_path / "out", r"part-1: shard-00000.parquet is not a shard of this part")
