"""The evaluation loop, against a loop written out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from disbench.core.clicks import Click, next_click
from disbench.core.errors import InputError
from disbench.core.masks import decode
from disbench.core.metrics import iou
from disbench.core.prediction import Prediction
from disbench.core.samples import Sample
from disbench.harness import Results, evaluate
from disbench.harness.predict import predict
from tests.toy_methods import Answers, Discs, DiscsSession, Misbehaves, NoBatch
from tests.toy_samples import make_samples


def by_hand(method: Discs, sample: Sample, max_clicks: int) -> list[tuple[Click, float]]:
    """Oracle at the first click, the highest score after it."""
    session = method.open(sample.image)
    mask = np.zeros(sample.target.shape, dtype=bool)
    clicks: list[Click] = []
    found = []
    for number in range(max_clicks):
        clicks.append(next_click(sample.target, mask, clicks))
        prediction = session.predict(clicks)
        ious = [iou(sample.target, candidate) for candidate in prediction.masks]
        best = ious.index(max(ious)) if number == 0 else int(np.argmax(np.asarray(prediction.scores)))
        mask = prediction.masks[best]
        found.append((clicks[-1], ious[best]))
    return found


def plain(results: Results) -> list[tuple[object, ...]]:
    """The rows without their seconds."""
    names = [n for n in type(results.rows[0]).__slots__ if not n.endswith("seconds")]
    return [tuple(getattr(row, name) for name in names) for row in results.rows]


@pytest.mark.parametrize("candidates", [1, 3])
def test_the_loop_is_the_protocols(candidates: int) -> None:
    samples = make_samples()
    method = Discs(candidates=candidates)
    results = evaluate(method, samples, max_clicks=8)
    for sample in samples:
        rows = [row for row in results.rows if row.sample == sample.id]
        assert [row.click for row in rows] == list(range(1, 9))
        assert [(Click(row.x, row.y, row.positive), row.iou) for row in rows] == by_hand(method, sample, 8)
        assert all(row.candidates == candidates == len(row.candidate_ious) for row in rows)
        assert all(row.candidate_ious[row.kept] == row.iou for row in rows)
        assert all(0 <= row.boundary_iou <= 1 for row in rows)
    assert results.noc(0.5) == np.mean(
        [next((i + 1 for i, v in enumerate(x) if v >= 0.5), 8) for x in results.ious.values()]
    )
    assert len(results.miou_curve()) == 8


def test_the_method_is_told_what_was_kept() -> None:
    method = Answers(candidates=3)
    results = evaluate(method, make_samples(2), max_clicks=4, selection="oracle-all")
    assert [found for found in method.told if "keep" in str(found)] == [f"keep {row.kept}" for row in results.rows]


def test_batches_give_the_same_rows_whole_or_broken() -> None:
    samples = make_samples(5)
    assert plain(evaluate(Discs(), samples, batch=3)) == plain(evaluate(Discs(), samples))
    alone = evaluate(Misbehaves(), make_samples(3, faults=(0, 7, 2)), max_clicks=5)
    together = evaluate(Misbehaves(), make_samples(3, faults=(0, 7, 2)), max_clicks=5, batch=3)
    assert plain(alone) == plain(together)
    assert set(together.failures) == {"s2"}


def test_stop_at_ends_a_sample_at_the_first_iou_that_reaches_it() -> None:
    full, stopped = evaluate(Discs(20), make_samples()), evaluate(Discs(20), make_samples(), stop_at=0.6)
    for sample, ious in stopped.ious.items():
        whole = full.ious[sample]
        assert np.array_equal(whole[: len(ious)], ious)
        assert not (ious[:-1] >= np.float32(0.6)).any()
        assert len(ious) == 20 or ious[-1] >= np.float32(0.6)
    assert stopped.noc(0.6) == full.noc(0.6)
    with pytest.raises(ValueError, match=r"shorter|click"):
        stopped.miou_curve()


def test_initial_masks_are_corrected_from() -> None:
    sample = make_samples(1)[0]
    initial = sample.target == 1
    initial[20:30, 20:35] ^= True
    begun = Sample(sample.id, sample.image, sample.target, initial)
    used = evaluate(Discs(2), [begun], max_clicks=1)
    ignored = evaluate(Discs(2), [begun], max_clicks=1, initial_masks=False)
    assert (used.rows[0].x, used.rows[0].y) == next_click(sample.target, initial)[:2]
    assert used.rows[0].iou > 0.5 > ignored.rows[0].iou

    class NoStart:
        def open(self, image: np.ndarray) -> NoStart:
            return self

        def predict(self, clicks: object) -> Prediction:
            return Prediction(np.zeros((1, *sample.target.shape), dtype=bool))

    with pytest.raises(InputError, match="initial-masks ignore"):
        evaluate(NoStart(), [begun])


def test_a_method_changes_nothing_that_is_not_its_own() -> None:
    class Writes(Discs):
        def open(self, image: np.ndarray) -> DiscsSession:
            image[:] = 0
            return WritingSession(self, image)

    class WritingSession(DiscsSession):
        def start(self, mask: np.ndarray) -> None:
            mask[:] = True

        def predict(self, clicks: Any) -> Prediction:
            found = super().predict(clicks)
            clicks.clear()
            return found

    sample = make_samples(1)[0]
    begun = Sample(sample.id, sample.image, sample.target, sample.target == 1)
    image = sample.image.copy()
    results = evaluate(Writes(), [begun, replace(begun, id="again")], max_clicks=3)
    assert np.array_equal(sample.image, image)
    assert np.array_equal(begun.initial, sample.target == 1)
    rows = plain(results)
    assert [row[1:] for row in rows[:3]] == [row[1:] for row in rows[3:]]
    assert predict(Writes(), sample.image, [Click(20, 20, True)] * 3).mask.any()
    assert np.array_equal(sample.image, image)


def test_store_all_holds_every_candidate() -> None:
    sample = make_samples(1)[0]
    row = evaluate(Discs(candidates=3), [sample], max_clicks=1, store="all").rows[0]
    assert row.mask is not None and row.candidate_masks is not None
    shown = [decode({"size": [row.height, row.width], "counts": counts}) for counts in row.candidate_masks]
    assert [iou(sample.target, mask) for mask in shown] == list(row.candidate_ious)
    assert row.candidate_masks[row.kept] == row.mask


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        (Discs(), {"samples": make_samples(1) * 2}, "two samples"),
        (NoBatch(), {"batch": 2}, "predict_batch"),
        (Discs(), {"selection": "oracle-fist"}, "oracle-first"),
        (Discs(), {"policy": "centre"}, "center"),
    ],
)
def test_input_that_cannot_be_evaluated(method: Discs, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(method, **{"samples": make_samples(2), **options})
