"""The diverse task: clicks that depend on nothing but the set, candidates held against it, rows that stay the same."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image
from run_tools import run_diverse

from disbench.baselines.cards import method_spec
from disbench.core import ambiguity
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.masks import decode, encode
from disbench.core.prediction import Prediction
from disbench.core.scenes import SampledScene, Scene, SetOfObjects, relation
from disbench.harness import Execution, Protocol, run_benchmark, verify_run
from disbench.harness.protocol import SetProtocol
from disbench.harness.record import DIVERSE, Choice
from disbench.harness.set_source import EMBEDDED, IntentSource, SetSource
from disbench.harness.set_task import (
    ANSWERS,
    SETS,
    AnswerRow,
    SetSample,
    SetTask,
    StoredAnswers,
    first_click,
    moved_clicks,
    read_answers,
)
from disbench.harness.store import JOURNAL, RUN, read_run, task_of
from disbench.harness.tasks import Reader, RowFinished, run_chunk
from disbench.reports.ambiguity.numbers import read_numbers
from tests import toy_methods
from tests.refusals import refuses
from tests.unit.shard_tools import scene_object, without_hierarchy

DISCS = method_spec(f"{toy_methods.__file__}:Discs", ["candidates=3"])
Mask = npt.NDArray[np.bool_]


def nested(seed: int, count: int = 3) -> list[Mask]:
    """Squares in each other."""
    noise = np.random.default_rng(seed)
    masks = []
    for number in range(count):
        mask = np.zeros((40, 46), dtype=bool)
        side = 4 + 5 * number + int(noise.integers(0, 3))
        mask[20 - side : 20 + side, 22 - side : 22 + side] = True
        masks.append(mask)
    return masks


def sample_of(masks: list[Mask]) -> SetSample:
    image = np.zeros((*masks[0].shape, 3), dtype=np.uint8)
    rles = tuple(encode(mask) for mask in masks)
    return SetSample("a/0", "a", 0, image, rles, rles[0])


class Offers:
    """A method that always offers these masks."""

    def __init__(self, masks: list[Mask], scores: list[float] | None = None) -> None:
        self.prediction = Prediction(np.stack(masks), scores)
        self.opened = 0

    def open(self, image: object) -> Offers:
        self.opened += 1
        return self

    def predict(self, clicks: list[Click]) -> Prediction:
        assert len(clicks) == 1
        return self.prediction


def answers(method: Offers, sample: SetSample, task: SetTask) -> list[AnswerRow]:
    events = run_chunk(method, [Reader(0, sample.id, lambda: sample)], task)  # type: ignore[arg-type]
    return [e.row for e in events if isinstance(e, RowFinished) and isinstance(e.row, AnswerRow)]


def ious(row: AnswerRow) -> npt.NDArray[np.float64]:
    return np.array(row.ious).reshape(row.members, row.candidates)


@pytest.mark.parametrize("seed", range(5))
def test_a_method_that_returns_the_set_itself(seed: int) -> None:
    masks = nested(seed)
    rows = answers(Offers(masks, [0.2, 0.9, 0.4]), sample_of(masks), SetTask(SetProtocol(clicks=2)))
    assert {row.click for row in rows} == {1, 2}
    for row in rows:
        found = ious(row)
        assert ambiguity.coverage(found) == 1
        assert ambiguity.recall(found, 0.9) == 1
        assert ambiguity.waste(found) == 0
        assert ambiguity.coverage_by_oracle(found)[-1] == 1
        pairs = [(a & b).sum() / (a | b).sum() for a, b in ((masks[0], masks[1]), (masks[0], masks[2]))]
        assert row.agreement[:2] == pytest.approx(pairs)
        if row.dx or row.dy:  # the answer does not depend on the click
            between = np.array(row.unmoved).reshape(3, 3)
            assert ambiguity.held_best(found, found, between) == 1
            assert ambiguity.held_top1(row.scores, row.scores, between) == 1


def test_each_click_has_a_session_of_its_own() -> None:
    masks = nested(0)
    method = Offers(masks)
    rows = answers(method, sample_of(masks), SetTask(SetProtocol(clicks=2, move=3)))
    assert method.opened == len(rows)
    assert [(row.click, row.dx, row.dy) for row in rows[:2]] == [(1, 0, 0), (2, 0, 0)]
    assert all(row.unmoved is not None and row.candidate_masks is None for row in rows[2:])


def test_where_first_and_moved_clicks_fall() -> None:
    region = np.zeros((4, 5), dtype=bool)
    region[1:3, 1:4] = True
    rle = encode(region)
    drawn = [first_click(rle, 0, "image", 3, number) for number in range(1, 1201)]
    assert drawn[4] == first_click(rle, 0, "image", 3, 5)
    assert len(Counter(drawn)) == 6
    assert min(Counter(drawn).values()) > 140
    assert all(region[click.y, click.x] for click in drawn)
    others = [first_click(rle, *key) for key in ((1, "image", 3), (0, "b", 3), (0, "image", 4))]
    assert len({*others, drawn[0]}) > 1
    region = np.zeros((10, 12), dtype=bool)
    region[2:9, 3:10] = True

    def around(x: int, y: int, move: int) -> list[tuple[int, int, bool]]:
        return [tuple(click) for click in moved_clicks(Click(x, y, True), move, region)]

    ring = [(9, 5), (8, 7), (6, 8), (4, 7), (3, 5), (4, 3), (6, 2), (8, 3)]
    assert around(6, 5, 3) == [(x, y, True) for x, y in ring]
    assert around(9, 8, 3) == [(x, y, True) for x, y in ((6, 8), (7, 6), (9, 5))]
    assert around(6, 5, 0) == []


def test_relations() -> None:
    objects = tuple(scene_object(mask) for mask in nested(0, 5))
    scene = Scene("a", "a.jpg", 40, 46, source="by-hand", objects=objects)
    tree = SampledScene(scene, (1, 2, 3, -1, -1), (3, 2, 1, 0, 0), ((4,), (), (), (), (0,)), ())
    for member, expected in (
        ((0,), "self"),
        ((1,), "parent"),
        ((0, 1), "parent"),
        ((2,), "grandparent"),
        ((0, 1, 2, 3), "ancestor-3"),
        ((0, 4), "with-1-neighbour"),
        ((4,), "container"),
        ((0, 2, 4), "with-2-others"),
        ((0, 1, 4), "with-2-others"),
    ):
        assert relation(tree, 0, member) == expected
    without = without_hierarchy(scene, [SetOfObjects(0, ((0,), (0, 1)))])
    assert relation(without, 0, (0, 1)) == "with-1-other"


def small(photo_shards: Path, sets: int = 3, **how: int) -> SetSource:
    return SetSource(photo_shards, "embedded", choice=Choice(sets, min_members=2, **how))


def rows_of(run: StoredAnswers) -> list[list[dict[str, object]]]:
    table = run.answers().drop_columns(["model_seconds", "harness_seconds"])
    return [table.to_pylist(), run.sets().to_pylist()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, photo_shards: Path) -> StoredAnswers:
    """Two clicks on each of three sets, with the candidates."""
    folder = tmp_path_factory.mktemp("diverse") / "whole"
    return run_diverse(DISCS, small(photo_shards), folder, SetTask(SetProtocol(clicks=2), store="all"))


def test_rows_do_not_depend_on_workers_or_interruptions(
    tmp_path: Path, photo_shards: Path, whole: StoredAnswers
) -> None:
    source, task = small(photo_shards), SetTask(SetProtocol(clicks=2), store="all")
    assert sorted(path.name for path in whole.folder.iterdir()) == sorted([RUN, SETS, ANSWERS])
    two = run_diverse(DISCS, source, tmp_path / "two", task, Execution(2, batch=2))
    broken = Broken(photo_shards, "embedded", choice=source.choice)
    part = run_diverse(DISCS, broken, tmp_path / "part", task)
    assert [(failure.sample, failure.click) for failure in part.record.result.unread] == [(source.ids[2], 1)]
    assert read_numbers(part).value("failed") == 1
    assert read_numbers(part).value("coverage") < read_numbers(whole).value("coverage")
    assert (tmp_path / "part" / JOURNAL).is_file()
    resumed = run_diverse(DISCS, source, tmp_path / "part", task)
    assert rows_of(whole) == rows_of(two) == rows_of(resumed)
    assert whole.record.task == "diverse"
    assert whole.record.protocol.clicks == 2
    before = (whole.folder / ANSWERS).stat().st_mtime_ns
    run_diverse(DISCS, source, whole.folder, task)
    assert (whole.folder / ANSWERS).stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"protocol\.seed: 0, now 1"):
        run_diverse(DISCS, source, whole.folder, SetTask(SetProtocol(clicks=2, seed=1), store="all"))


class Broken(SetSource):
    def read(self, index: int) -> SetSample:
        if index == 2:
            raise InputError("gone")
        return super().read(index)


def test_a_run_of_several_row_groups_is_read_with_its_masks(tmp_path: Path, whole: StoredAnswers) -> None:
    """A few hundred sets with stored candidates are written in several."""
    table = whole.answers()
    copy = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    pq.write_table(table, copy / ANSWERS, row_group_size=2)
    assert pq.read_metadata(copy / ANSWERS).num_row_groups > 2
    assert read_answers(copy).answers().equals(table)


def test_stored_rows_are_what_masks_say(photo_shards: Path, whole: StoredAnswers) -> None:
    source, run = small(photo_shards), whole
    table = run.answers()
    place = {name: number for number, name in enumerate(source.ids)}
    for row, found in zip(table.to_pylist(), run.ious(table), strict=True):
        assert found.shape == (row["members"], 3)
        if row["candidate_masks"] is None:
            continue
        sample = source.read(place[row["sample"]])
        size = list(sample.image.shape[:2])
        offered = [decode({"size": size, "counts": counts}) for counts in row["candidate_masks"]]
        for member, values in zip(sample.members, found, strict=True):
            target = decode(member)
            for mask, value in zip(offered, values, strict=True):
                assert value == np.float32((target & mask).sum() / (target | mask).sum())
        pairs = [(offered[0] & b).sum() / (offered[0] | b).sum() for b in offered[1:]]
        assert row["agreement"][:2] == pytest.approx(pairs)
        assert row["scores"] == [1.0, 0.5, 1 / 3]


def test_a_method_that_fails_ends_its_set(tmp_path: Path, photo_shards: Path) -> None:
    spec = method_spec(f"{__file__}:Fails")
    run = run_diverse(spec, small(photo_shards), tmp_path / "run", SetTask(SetProtocol(clicks=2)))
    assert len(run.record.result.failed) == 3
    rows = run.answers().to_pylist()
    assert [(row["click"], row["candidates"]) for row in rows[:2]] == [(1, 1), (2, 0)]
    assert "predict raised RuntimeError: the second time" in rows[1]["failure"]
    assert len(rows) == 6


class Fails:
    """Answers a set's first click only."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, image: npt.NDArray[np.uint8]) -> Fails:
        self.shape = image.shape[:2]
        self.opened += 1
        return self

    def predict(self, clicks: list[Click]) -> Prediction:
        if self.opened % 2 == 0:
            raise RuntimeError("the second time")
        return Prediction(np.zeros((1, *self.shape), dtype=bool))


def test_which_sets_are_taken(photo_shards: Path) -> None:
    def source(**choice: int) -> SetSource:
        return SetSource(photo_shards, "embedded", choice=Choice(**choice))

    whole, several = source(), source(min_members=2)
    assert len(whole.ids) == whole.facts()["shards"]["sets"]  # type: ignore[index]
    lots = [source(sets=5, seed=seed).ids for seed in (0, 0, 1)]
    assert lots[0] == lots[1] != lots[2]
    assert len(set(lots[0])) == 5
    assert 0 < len(several.ids) < len(whole.ids)
    assert all(len(several.place(i)[1].members) > 1 for i in range(len(several.ids)))
    assert whole.content_hash() != several.content_hash()
    refuses("no set of 99 masks", source, min_members=99)
    for wrong in (lambda: Choice(0), lambda: SetTask(SetProtocol(clicks=0))):
        refuses("starts at 1", wrong)


def test_images_of_another_size(photo_shards: Path, tmp_path: Path) -> None:
    source = SetSource(photo_shards, tmp_path)
    refuses("--images", source.read, 0)
    Image.new("RGB", (7, 8)).save(tmp_path / source.place(0)[0].scene.file_name)
    with pytest.raises(InputError, match="7 x 8 pixels"):
        SetSource(photo_shards, tmp_path).read(0)


def test_each_intent_has_the_same_first_click(tmp_path: Path, photo_shards: Path, whole: StoredAnswers) -> None:
    sets = small(photo_shards)
    source = IntentSource(sets)
    run = run_benchmark(DISCS, source, tmp_path / "intents", Protocol(max_clicks=3), Execution(store="kept"))
    rows = run.rows().to_pylist()
    drawn = [row for row in whole.answers().to_pylist() if row["click"] == 1 and row["unmoved"] is None]
    first = {row["sample"]: (row["x"], row["y"]) for row in drawn}
    found = {row["sample"]: (row["x"], row["y"]) for row in rows if row["click"] == 1}
    assert {name: first[name.rpartition("/")[0]] for name in found} == found
    assert list(found) == list(source.ids)
    assert verify_run(run.folder, source=source).holds
    assert verify_run(run.folder, dataset=str(photo_shards)).clicks == len(rows)
    assert verify_run(run.folder, dataset=str(photo_shards), images=EMBEDDED).clicks == len(rows)
    elsewhere = verify_run(run.folder, dataset=str(photo_shards), images=tmp_path)
    assert elsewhere.clicks == 0 and "--images" in elsewhere.unchecked[0]
    assert task_of(run.folder) == ""
    assert task_of(whole.folder) == DIVERSE
    refuses("disbench ambiguity reads it", read_run, whole.folder)
    refuses("a run of --task targets", read_answers, run.folder)


def test_a_first_click_that_is_not_the_samples_own(tmp_path: Path, photo_shards: Path) -> None:
    source, other = IntentSource(small(photo_shards)), IntentSource(small(photo_shards))
    run = run_benchmark(DISCS, source, tmp_path / "run", Protocol(max_clicks=1))
    other.sets.choice = Choice(3, seed=7, min_members=2)
    other.content = source.content  # type: ignore[method-assign]
    problems = verify_run(run.folder, source=other).problems
    assert any("first click that is not the sample's own" in line for line in problems)
