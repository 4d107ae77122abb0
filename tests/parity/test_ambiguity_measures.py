"""The measures of ambiguity against their definitions, written down as loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.core import ambiguity
from disbench.core.masks import encode

Ious = npt.NDArray[np.float32]
Offer = tuple[Ious, list[float] | None]


@st.composite
def offers(draw: st.DrawFn, least: int = 0) -> Offer:
    """IoUs of 1 to 5 members with up to 6 candidates, many of them equal, and scores with ties and nan."""
    members, candidates = draw(st.integers(1, 5)), draw(st.integers(least, 6))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans())
    ious = noise.random((members, candidates)).astype(np.float32)
    ious = np.round(ious * 4) / 4 if coarse else ious
    if draw(st.booleans()) and ious.size:
        ious.flat[int(noise.integers(ious.size))] = np.nan
    kind = draw(st.sampled_from(("none", "some", "nan")))
    scores = [float(value) for value in np.round(noise.random(candidates) * 3) / 3]
    if kind == "nan" and scores:
        scores[int(noise.integers(candidates))] = math.nan
    return ious.astype(np.float32), None if kind == "none" else scores


def number(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)


def covered(ious: Ious, kept: list[int]) -> float:
    total = 0.0
    for row in ious.tolist():
        total += max([number(row[candidate]) for candidate in kept], default=0.0)
    return total / len(ious)


def ranked(scores: list[float] | None, candidates: int) -> list[int] | None:
    if scores is None:
        return list(range(candidates)) if candidates < 2 else None
    left, order = list(range(candidates)), []
    while left:
        best = left[0]
        for other in left[1:]:
            known, better = not math.isnan(scores[other]), scores[other] > scores[best]
            if known and (math.isnan(scores[best]) or better):
                best = other
        order.append(best)
        left.remove(best)
    return order


@given(offers())
def test_coverage_and_recall(offer: Offer) -> None:
    ious, _ = offer
    everything = list(range(ious.shape[1]))
    assert ambiguity.coverage(ious) == pytest.approx(covered(ious, everything), abs=1e-12)
    for threshold in ambiguity.THRESHOLDS:
        found = [row for row in ious.tolist() if any(np.float32(v) >= np.float32(threshold) for v in row)]
        assert ambiguity.recall(ious, threshold) == pytest.approx(len(found) / len(ious))


@given(offers())
def test_coverage_by_candidates_kept(offer: Offer) -> None:
    ious, scores = offer
    count = ious.shape[1]
    order = ranked(scores, count)
    found = ambiguity.score_order(scores, count)
    assert (None if found is None else found.tolist()) == order
    own = ambiguity.coverage_by_score(ious, scores)
    if order is None:
        assert own is None
    else:
        assert own is not None
        assert own.tolist() == pytest.approx([covered(ious, order[:k]) for k in range(1, count + 1)], abs=1e-12)
    best = [
        max(covered(ious, list(chosen)) for chosen in itertools.combinations(range(count), size))
        for size in range(1, count + 1)
    ]
    exact = ambiguity.coverage_by_oracle(ious)
    assert exact.tolist() == pytest.approx(best, abs=1e-12)
    greedy = ambiguity.coverage_by_oracle(ious, max_exact=0)
    assert len(greedy) == count
    assert all((1 - 1 / math.e) * e - 1e-12 <= g <= e + 1e-12 for g, e in zip(greedy, exact, strict=True))
    if count:
        assert greedy[0] == pytest.approx(exact[0])
        assert greedy[-1] == pytest.approx(ambiguity.coverage(ious))


@given(offers(least=1))
def test_waste_and_what_one_answer_means(offer: Offer) -> None:
    ious, scores = offer
    columns = [[number(value) for value in column] for column in ious.T.tolist()]
    wasted = [column for column in columns if max(column) < 0.5]
    assert ambiguity.waste(ious) == pytest.approx(len(wasted) / len(columns))
    order = ranked(scores, len(columns))
    chosen = ambiguity.top1(scores, len(columns))
    assert chosen == (None if order is None else order[0])
    for candidate, column in enumerate(columns):
        nearest = column.index(max(column))
        assert ambiguity.intended_member(ious, candidate) == (nearest if column[nearest] >= 0.5 else None)


@given(st.lists(st.tuples(st.floats(-0.5, 1.5) | st.just(math.nan), st.floats(0, 1)), max_size=40))
def test_calibration(pairs: list[tuple[float, float]]) -> None:
    sums = ambiguity.calibration_sums([score for score, _ in pairs], [iou for _, iou in pairs])
    known = [(min(1.0, max(0.0, score)), iou) for score, iou in pairs if not math.isnan(score)]
    error = 0.0
    for place in range(10):
        own = [(s, i) for s, i in known if min(9, int(s * 10)) == place]
        if own:
            gap = abs(sum(s for s, _ in own) / len(own) - sum(i for _, i in own) / len(own))
            error += gap * len(own) / len(known)
    found = float(ambiguity.calibration_error(sums))
    assert math.isnan(found) if not known else found == pytest.approx(error, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_rank_correlation(pairs: list[tuple[int, int]]) -> None:
    def ranks(values: list[int]) -> list[float]:
        return [
            sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
            for value in values
        ]

    a, b = ranks([p for p, _ in pairs]), ranks([q for _, q in pairs])
    found = ambiguity.rank_correlation([p / 4 for p, _ in pairs], [q / 4 for _, q in pairs])
    if len(pairs) < 2 or len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found)
        return
    mean = (len(pairs) + 1) / 2
    upper = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    lower = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    assert found == pytest.approx(upper / lower)


@given(offers(least=1), offers(least=1), st.integers(0, 2**32 - 1))
def test_stability(before: Offer, after: Offer, seed: int) -> None:
    members = min(len(before[0]), len(after[0]))
    a, b = before[0][:members], after[0][:members]
    between = np.random.default_rng(seed).random((a.shape[1], b.shape[1]))
    total = 0.0
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        first = [number(value) for value in one]
        second = [number(value) for value in other]
        total += between[first.index(max(first)), second.index(max(second))]
    assert ambiguity.held_best(a, b, between) == pytest.approx(total / members)
    orders = ranked(before[1], a.shape[1]), ranked(after[1], b.shape[1])
    found = ambiguity.held_top1(before[1], after[1], between)
    if None in orders:
        assert math.isnan(found)
    else:
        assert found == between[orders[0][0], orders[1][0]]  # type: ignore[index]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=30), st.integers(0, 3))
def test_an_interval_over_images(pairs: list[tuple[float, int]], seed: int) -> None:
    values, images = np.array([v for v, _ in pairs]), np.array([f"i{i}" for _, i in pairs])
    names = sorted(set(images.tolist()))
    groups = [values[images == name] for name in names]
    draws = np.random.Generator(np.random.PCG64(seed)).integers(0, len(names), (50, len(names)))
    means = [np.concatenate([groups[i] for i in drawn]).mean() for drawn in draws]
    sums = np.stack([values, np.ones_like(values)], axis=1)
    found = ambiguity.grouped_interval(sums, images, lambda total: total[:, 0] / total[:, 1], resamples=50, seed=seed)
    assert found == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-9)


COARSE = st.sampled_from([0.0, 0.4, 0.8, 0.85, 0.9, 1.0])


@given(st.lists(st.lists(COARSE, min_size=4, max_size=4), min_size=1, max_size=10), st.sampled_from([0.85, 0.9]))
def test_the_best_of_several_loops(loops: list[list[float]], goal: float) -> None:
    """As GraCo goes through them, which ends a loop as soon as it has more clicks than the best so far."""
    best, most, first = 0, 99, -1.0
    for number, loop in enumerate(loops):
        clicks = 0
        for iou in loop:
            clicks += 1
            if iou >= goal or clicks > most:
                break
        if clicks < most or (clicks == most and loop[0] > first):
            best, most, first = number, clicks, loop[0]
    assert ambiguity.best_loop(np.array(loops), goal, max_clicks=4) == best


@given(st.lists(st.lists(COARSE, min_size=4, max_size=4), min_size=1, max_size=5), st.integers(1, 6))
def test_all_of_a_set_found(ious: list[list[float]], clicks: int) -> None:
    found = [[iou >= 0.85 for iou in row[:clicks]] for row in ious]
    assert ambiguity.all_within(ious, clicks, 0.85) == all(map(any, found))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=20))
def test_the_gap_of_granularity(targets: list[tuple[int, int]]) -> None:
    levels: dict[int, list[int]] = {}
    sums = np.zeros((4, 2))
    for level, clicks in targets:
        levels.setdefault(level, []).append(clicks)
        sums[level] += clicks, 1
    means = [sum(own) / len(own) for own in levels.values()]
    assert float(ambiguity.granularity_gap(sums)) == pytest.approx(max(means) - min(means))
    both = ambiguity.granularity_gap(np.stack([sums, 2 * sums]))
    assert both.tolist() == pytest.approx([max(means) - min(means)] * 2)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_containment(pixels: list[tuple[bool, bool]]) -> None:
    inner, outer = map(list, zip(*pixels, strict=True))
    inside = [other for own, other in pixels if own]
    found = ambiguity.containment(*(encode(np.array([mask])) for mask in (inner, outer)))
    assert found == (sum(inside) / len(inside) if inside else 0)


@pytest.mark.parametrize(
    ("area", "expected"), [(1, 0.1), (149, 0.1), (151, 0.2), (500, 0.5), (949, 0.9), (951, 1), (1000, 1), (1200, 1)]
)
def test_a_granularity_has_one_decimal(area: int, expected: float) -> None:
    assert ambiguity.granularity_of(area, 1000) == expected
    assert expected in ambiguity.GRANULARITIES


def test_without_candidates() -> None:
    nothing = np.zeros((3, 0))
    assert ambiguity.coverage(nothing) == 0
    assert ambiguity.recall(nothing, 0.5) == 0
    assert ambiguity.coverage_by_oracle(nothing).size == 0
    assert ambiguity.top1(None, 0) is None
    assert math.isnan(ambiguity.waste(nothing))
    assert math.isnan(ambiguity.redundancy([]))
    assert math.isnan(ambiguity.held_best(nothing, nothing, np.zeros((0, 0))))


@pytest.mark.parametrize(
    ("ious", "words"),
    [([0.5], "shape"), (np.zeros((0, 2)), "at least one member"), ([[1.5]], "lies in"), ([[-0.1]], "lies in")],
)
def test_what_are_no_ious(ious: npt.ArrayLike, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ambiguity.coverage(ious)


def test_containment_in_a_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match="sizes"):
        ambiguity.containment(encode(np.ones((2, 3), dtype=bool)), encode(np.ones((3, 2), dtype=bool)))


def test_another_number_of_scores() -> None:
    with pytest.raises(ValueError, match="2 candidates"):
        ambiguity.score_order([0.5], 2)
