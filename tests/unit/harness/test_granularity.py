"""Methods that can be told the size of the wanted mask, and the numbers of runs on each intent of a part."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image
from run_tools import run_diverse

from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.prediction import Prediction
from disbench.core.scenes import Kind, SampledScene, Scene, SetOfObjects
from disbench.harness import Execution, Protocol, StoredRun, evaluate, run_benchmark, verify_run
from disbench.harness.protocol import SetProtocol
from disbench.harness.sample_loop import GRANULARITIES
from disbench.harness.set_source import IntentSource, SetSource
from disbench.harness.set_task import SetTask
from disbench.harness.store import CLICKS, RUN
from disbench.reports.ambiguity.intents import read_intents
from disbench.reports.ambiguity.numbers import read_numbers
from disbench.reports.ambiguity.pictures import PictureOptions
from disbench.reports.ambiguity.report import make_ambiguity_report
from disbench.reports.report import make_report
from tests.refusals import refuses
from tests.unit.shard_tools import scene_object, write_shards

SIZE = 90
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
Mask = npt.NDArray[np.bool_]


def disc(share: float, shift: float = 0) -> Mask:
    """A disc in the middle with a share of the whole's area."""
    return (ROWS - 45) ** 2 + (COLUMNS - 45 - shift) ** 2 <= 40**2 * share


PARTS = (disc(0.3), disc(0.6), disc(1))
KINDS: tuple[Kind, ...] = ("thing", "group", "thing")
LOOSE = (disc(0.3, 16), disc(0.6, -14))
"""Its part lies in the whole in part only."""


class Told:
    """Answers by the granularity alone: with the disc of this share, the whole if it is told nothing."""

    def __init__(self, answers: str = "discs") -> None:
        self.answers = answers

    def open(self, image: npt.NDArray[np.uint8], granularity: float | None = None) -> ToldSession:
        if self.answers == "opens twice" and granularity == 0.3:
            raise RuntimeError("no more")
        return ToldSession(self.answers, granularity or 1.0)

    def predict_batch(self, sessions: Sequence[ToldSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        return [session.predict(of_session) for session, of_session in zip(sessions, clicks, strict=True)]


@dataclass
class ToldSession:
    answers: str
    share: float

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        part, whole = LOOSE
        mask = {
            "truth": part if self.share < 1 else whole,
            "no whole": part & (self.share < 1),
            "one": part,
        }.get(self.answers, disc(self.share))
        return Prediction(mask[None])


class Around:
    """Discs around clicks; told more, the discs are larger."""

    def __init__(self, told: float = 1.0) -> None:
        self.told = told

    def open(self, image: npt.NDArray[np.uint8], granularity: float | None = None) -> Around:
        self.radius = 30 * (self.told if granularity is None else granularity)
        return self

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        for click in clicks:
            here = (ROWS - click.y) ** 2 + (COLUMNS - click.x) ** 2 <= self.radius**2
            mask = mask | here if click.positive else mask & ~here
        return Prediction(mask[None])


def intents(folder: Path, masks: Sequence[Mask], members: tuple[tuple[int, ...], ...]) -> IntentSource:
    """The targets of one set on each of two images."""
    scenes = []
    for name in ("a", "b"):
        objects = tuple(
            map(scene_object, masks, KINDS if len(masks) == 3 else KINDS[::2], ("car:wheel_2", *["car"] * len(masks)))
        )
        scene = Scene(name, f"{name}.png", SIZE, SIZE, source="by-hand", objects=objects)
        count = len(objects)
        parents = (*range(1, count), -1)
        levels = tuple(range(count - 1, -1, -1))
        scenes.append(SampledScene(scene, parents, levels, ((),) * count, (SetOfObjects(0, members),)))
        Image.new("RGB", (SIZE, SIZE)).save(folder / f"{name}.png")
    return IntentSource(SetSource(write_shards(folder / "shards", scenes), folder))


@pytest.fixture
def nested(tmp_path: Path) -> IntentSource:
    return intents(tmp_path, PARTS, ((0,), (0, 1), (0, 1, 2)))


def told(run: StoredRun) -> dict[str, float | None]:
    return {row["sample"]: row["granularity"] for row in pq.read_table(run.folder / GRANULARITIES).to_pylist()}


def method(name: str, *options: str) -> Any:
    return method_spec(f"{__file__}:{name}", list(options))


@pytest.mark.parametrize(("granularity", "batch"), [("truth", 1), ("truth", 4), ("oracle", 4), ("oracle-85", 1)])
def test_the_targets_share_is_told_and_found(
    tmp_path: Path, nested: IntentSource, granularity: Any, batch: int
) -> None:
    protocol = Protocol(max_clicks=3, granularity=granularity)
    run = run_benchmark(method("Told"), nested, tmp_path / "run", protocol, Execution(store="kept", batch=batch))
    assert list(told(run).values()) == [0.3, 0.6, 1.0] * 2
    assert {row["iou"] for row in run.rows(["iou"]).to_pylist()} == {1.0}
    assert run.record.result.clicks == run.rows().num_rows == 18
    assert json.loads((run.folder / RUN).read_text())["protocol"]["granularity"] == granularity
    assert verify_run(run.folder, source=nested).holds


BRIDGED = """
import numpy as np
SIZE = 90
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
def load(repo, checkpoint, options, device): return Model()
class Model:
    def open(self, image, granularity=None): return Session(1.0 if granularity is None else granularity)
class Session:
    def __init__(self, share): self.share = share
    def predict(self, clicks): return ((ROWS - 45) ** 2 + (COLUMNS - 45) ** 2 <= 40**2 * self.share)[None], None
"""


def test_over_the_bridge(tmp_path: Path, nested: IntentSource) -> None:
    """A child is told as a method in this process is; one whose `open` takes nothing refuses."""
    told_nothing = BRIDGED.replace(
        "image, granularity=None): return Session(", "image): granularity = None; return Session("
    )
    (tmp_path / "told.py").write_text(BRIDGED)
    (tmp_path / "deaf.py").write_text(told_nothing)
    specs = {}
    for name in ("told", "deaf"):
        card = tmp_path / f"{name}.toml"
        card.write_text(f'title = "Mine"\nstatus = "bridge"\nadapter = "{tmp_path}/{name}.py"\n')
        specs[name] = method_spec(str(card), [f"repo={tmp_path}", f"python={sys.executable}"])
    for granularity, shares in (("none", [0.3, 0.6, 1.0]), ("truth", [1.0] * 3), ("oracle", [1.0] * 3)):
        protocol = Protocol(max_clicks=1, granularity=granularity)  # type: ignore[arg-type]
        run = run_benchmark(specs["told"], nested, tmp_path / granularity, protocol)
        assert [row["iou"] for row in run.rows(["iou"]).to_pylist()] == pytest.approx(shares * 2, abs=0.01)
    with pytest.raises(InputError, match="takes no granularity"):
        run_benchmark(specs["deaf"], nested, tmp_path / "deaf", Protocol(granularity="truth"))
    run_benchmark(specs["deaf"], nested, tmp_path / "deaf", Protocol(max_clicks=1))


@pytest.mark.parametrize(("granularity", "goal"), [("oracle", 0.90), ("oracle-85", 0.85)])
def test_the_oracle_stores_the_best_of_ten_whole_loops(
    tmp_path: Path, nested: IntentSource, granularity: Any, goal: float
) -> None:
    run = run_benchmark(method("Around"), nested, tmp_path / "run", Protocol(max_clicks=6, granularity=granularity))
    samples = [nested.read(number) for number in range(len(nested.ids))]
    loops = [evaluate(Around(number / 10), samples, max_clicks=6).ious for number in range(1, 11)]
    found = {name: values.astype(np.float32).tolist() for name, values in run.by_sample().items()}
    for name in nested.ids:
        best, chosen = (99, 0.0), 0
        for number, loop in enumerate(loops):
            reached = [click for click, iou in enumerate(loop[name], start=1) if iou >= np.float32(goal)]
            clicks, first = min([*reached, 6]), float(loop[name][0])
            if clicks < best[0] or (clicks == best[0] and first > best[1]):
                best, chosen = (clicks, first), number
        assert told(run)[name] == (chosen + 1) / 10
        assert found[name] == loops[chosen][name].tolist()


def test_a_failing_method_ends_its_target(tmp_path: Path, nested: IntentSource) -> None:
    spec, protocol = method("Told", "answers=opens twice"), Protocol(max_clicks=2, granularity="oracle")
    run = run_benchmark(spec, nested, tmp_path / "run", protocol)
    assert len(run.record.result.failed) == 6
    assert set(told(run).values()) == {0.3}
    assert run.rows().num_rows == 6


def test_who_cannot_be_told(tmp_path: Path, nested: IntentSource) -> None:
    with pytest.raises(InputError, match="takes no granularity"):
        run_benchmark(method_spec("disk", []), nested, tmp_path / "a", Protocol(granularity="truth"))
    sample = nested.read(0)
    refuses("stop_at", Protocol, granularity="oracle", stop_at=0.9)
    with pytest.raises(InputError, match="granularity"):
        Protocol(granularity="all")  # type: ignore[arg-type]
    assert sample.granularity == 0.3
    run = run_benchmark(method("Told"), nested, tmp_path / "b", Protocol(max_clicks=1, granularity="truth"))
    with pytest.raises(InputError, match=r"protocol\.granularity"):
        run_benchmark(method("Told"), nested, run.folder, Protocol(max_clicks=1))


def test_numbers_by_what_is_meant(tmp_path: Path, nested: IntentSource) -> None:
    """The whole is answered for all three masks, of shares 0.3, 0.6 and 1."""
    protocol = Protocol(max_clicks=4)
    found = read_intents(run_benchmark(method("Told"), nested, tmp_path / "run", protocol))
    shares = [mask.sum() / PARTS[2].sum() for mask in PARTS]
    assert found.value("iou_1", "any") == pytest.approx(np.mean(shares))
    for place, (family, size) in enumerate((("self", "0.2 to 0.5"), ("group", "0.5 to 1"), ("parent", "0.5 to 1"))):
        assert found.value("iou_1", family) == pytest.approx(shares[place])
        assert found.value("iou_2_by_level", str(place + 1)) == pytest.approx(shares[place])
        assert size in found.of("iou_1_by_relative_size")
    assert found.value("iou_1_by_relative_size", "0.5 to 1") == pytest.approx(np.mean(shares[1:]))
    assert found.of("noc_85_by_part").keys() == {"wheel"}
    assert found.value("noc_85_by_part", "wheel") == 4
    assert found.of("all_within_85").keys() == {"1", "2", "3"}
    assert set(found.of("all_within_85").values()) == {found.of("all_within_90")["3"]}
    assert found.value("all_within_85", "3") == 0
    assert found.value("gap_85") == 3
    assert "containment_truth" not in {measure for measure, _ in found.values}
    whole = read_intents(
        run_benchmark(method("Told"), nested, tmp_path / "told", Protocol(max_clicks=2, granularity="truth"))
    )
    assert whole.value("all_within_90", "1") == 1
    assert whole.value("gap_90") == 0


@pytest.mark.parametrize(
    ("answers", "containment", "iou"),
    [("truth", None, 1.0), ("no whole", 0.0, 0.5), ("one", 1.0, None)],
)
def test_containment_of_answers(tmp_path: Path, answers: str, containment: float | None, iou: float | None) -> None:
    source = intents(tmp_path, LOOSE, ((0,), (1,)))
    truth = (LOOSE[0] & LOOSE[1]).sum() / LOOSE[0].sum()
    assert 0.3 < truth < 0.8
    spec, protocol = method("Told", f"answers={answers}"), Protocol(max_clicks=2, granularity="truth")
    run = run_benchmark(spec, source, tmp_path / "run", protocol, Execution(store="kept"))
    found = read_intents(run)
    wanted = truth if containment is None else containment
    for name in ("first", "last"):
        for group in ("any", "self in parent"):
            assert found.value(f"containment_{name}", group) == pytest.approx(wanted)
        assert found.value(f"containment_{name}_of_truth", "any") == pytest.approx(min(1, wanted / truth))
        if iou is not None:
            assert found.value(f"containment_{name}_iou", "any") == iou
    assert found.value("containment_truth", "any") == pytest.approx(truth)


def test_who_was_told_is_in_a_table_of_its_own(tmp_path: Path, nested: IntentSource) -> None:
    for granularity in ("none", "truth", "oracle"):
        protocol = Protocol(max_clicks=2, granularity=granularity)  # type: ignore[arg-type]
        run_benchmark(method("Told"), nested, tmp_path / "runs" / granularity, protocol, Execution(store="kept"))
    pictures = PictureOptions((tmp_path / "shards",), tmp_path)
    make_ambiguity_report([tmp_path / "runs"], tmp_path / "ambiguity", pictures)
    drawn = {path.name for path in (tmp_path / "ambiguity").glob("pictures-*")}
    assert drawn == {f"pictures-intents-{number}.png" for number in (1, 2, 3)}
    text = (tmp_path / "ambiguity" / "ambiguity.md").read_text()
    for ending in ("", ", told the granularity", ", knows the answer"):
        assert f"{ending}: clicks to reach the intended mask" in text
        assert f"{ending}: containment of predictions" in text
    (table,) = [part for part in text.split("\n## ") if ", told the granularity: by relative size" in part]
    assert "(told the granularity) |" in table
    assert "knows" not in table
    assert "granularity truth" in table
    make_report([tmp_path / "runs"], tmp_path / "report", page=True)
    report = (tmp_path / "report" / "report.md").read_text()
    assert report.count("told the granularity: clicks") == report.count("knows the answer: clicks") == 1
    assert (tmp_path / "runs" / "none" / CLICKS).is_file()


def test_groups_in_the_diverse_task(tmp_path: Path, nested: IntentSource) -> None:
    numbers = read_numbers(run_diverse(method("Told"), nested.sets, tmp_path / "run", SetTask(SetProtocol())))
    assert list(numbers.of("coverage_by_relation")) == ["self", "group", "parent"]
    assert numbers.value("own_choice_means", "parent") == 1
