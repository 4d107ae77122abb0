"""The simulated click, the click policies and the points of fixed budgets: examples, determinism, refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from disbench.core.click_policies import BUDGETS, POLICIES, ClickPolicy, budget_points, draw_from_slice, parse_series
from disbench.core.clicks import NO_ERROR, Click, next_click, opencv_version
from tests.refusals import refuses

Array = npt.NDArray[Any]


def two_errors() -> tuple[Array, Array]:
    """A missed block of 7 x 9 and a longer, thinner one in excess, of more pixels."""
    target = np.zeros((40, 60), dtype=np.int8)
    target[5:12, 10:19] = 1
    prediction = np.zeros((40, 60), dtype=bool)
    prediction[30:33, 5:55] = True
    return target, prediction


def test_the_centre_of_the_widest_error() -> None:
    """Inputs that cannot be written to stay as they were; the click's numbers are Python's own."""
    target, prediction = two_errors()
    for array in (target, prediction):
        array.setflags(write=False)
    click = next_click(target, prediction)
    assert click == Click(13, 8, True)
    assert [type(value) for value in click] == [int, int, bool]
    assert next_click(target, prediction, [click]) == Click(14, 8, True)


def test_ties_and_nothing_left_to_click() -> None:
    target = np.array([[1, 0, 0, 1], [0, 0, 0, 0]])
    assert next_click(target, [[False, False, True, False], [True, False, False, False]]) == Click(2, 0, False)
    assert next_click(target, np.zeros((2, 4), dtype=bool)) == Click(0, 0, True)
    target = np.array([[1, 0, -1]])
    assert next_click(target, [[True, False, True]]) == NO_ERROR == Click(0, 0, False)
    assert next_click(target, [[False, False, True]], [Click(0, 0, True)]) == NO_ERROR


@pytest.mark.parametrize(
    ("target", "prediction", "clicks", "part"),
    [
        ([[1, 0]], [[0.0, 1.0]], [], "float64"),
        ([[1, 0]], [[np.nan, 1.0]], [], "threshold it first"),
        *(([[1, 0]], [[0, value]], [], "0 and 1 only") for value in (2, -1)),
        ([[1, 255]], [[0, 1]], [], "1, 0 and -1 only"),
        (np.array([[1, 255]], dtype=np.uint8), [[0, 0]], [], "1, 0 and -1 only"),  # not taken for ignored
        ([[1.0, 0.0]], [[0, 1]], [], "integers"),
        ([[1, 0]], [[0], [1]], [], "2 x 1 pixels"),
        ([1, 0], [0, 1], [], "two axes"),
        ([[]], [[]], [], "at least one pixel"),
        *(([[1, 0]], [[0, 0]], [Click(x, y, True)], "outside") for x, y in ((2, 0), (0, 1), (-1, 0))),
    ],
)
def test_refusals(target: Any, prediction: Any, clicks: list[Click], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        next_click(target, prediction, clicks)


def test_opencv_or_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opencv_version() == cv2.__version__
    monkeypatch.setitem(sys.modules, "cv2", None)
    refuses("libgl1", next_click, [[1, 0]], [[False, False]])


# Policies


def test_names_and_texts() -> None:
    assert set(POLICIES) == {"center", "random", "jitter", "scipy-center", "scipy-restart", "removed-center"} | {
        "slice",
        "worst",
        "best",
    }
    for text in ("center", "random", "jitter:sigma=0.3", "jitter:sigma=0.123456789"):
        assert str(ClickPolicy.parse(text)) == text
    assert str(ClickPolicy.parse("jitter")) == str(ClickPolicy("jitter")) == "jitter:sigma=0.3"
    assert ClickPolicy.parse(" jitter: sigma = 0.50 ") == ClickPolicy("jitter", {"sigma": 0.5})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("centre", "'centre'; did you mean 'center'"),
        ("jitter:sigm=1", "'sigm'; did you mean 'sigma'"),
        *((f"jitter:sigma{value}", "sigma") for value in ("=wide", "=0", "=inf", "")),
        ("center:sigma=1", "no options"),
        *((f"slice:{options}", "group") for options in ("group=0", "group=11", "group=1.5", "group=3,of=2")),
        ("slice:power=-1", "power"),
    ],
)
def test_refused_policies(text: str, part: str) -> None:
    refuses(part, ClickPolicy.parse, text)


@pytest.mark.parametrize("text", ["center", "random", "jitter", "slice"])
def test_policies_agree_where_nothing_is_wrong(text: str) -> None:
    policy = ClickPolicy.parse(text)
    assert policy.simulate([[1, 0, -1]], [[True, False, True]]) == NO_ERROR
    assert policy.simulate([[1, 0]], [[False, False]], [Click(0, 0, True)]) == NO_ERROR


def test_what_center_does_and_jitter_falls_back_to() -> None:
    assert ClickPolicy().simulate(*two_errors(), seed=9, sample="x") == next_click(*two_errors())
    target = np.zeros((500, 500), dtype=np.int8)
    target[250, 250] = 1
    nothing = np.zeros(target.shape, dtype=bool)
    assert ClickPolicy("jitter", {"sigma": 1e6}).simulate(target, nothing) == Click(250, 250, True)


def test_random_is_uniform_on_the_component_with_most_pixels() -> None:
    target, prediction = two_errors()
    policy, clicked = ClickPolicy("random"), Click(20, 31, False)
    found = [policy.simulate(target, prediction, [clicked], seed=0, sample=str(n)) for n in range(3000)]
    assert not any(click.positive for click in found)
    counts = np.bincount([(click.y - 30) * 50 + click.x - 5 for click in found], minlength=150)
    assert counts[65] == 0 and counts.sum() == 3000  # 65 is the pixel clicked before
    expected = 3000 / 149
    chi_square = float(((np.delete(counts, 65) - expected) ** 2 / expected).sum())
    assert 90 < chi_square < 220


def test_random_counts_diagonal_neighbours_and_settles_ties() -> None:
    target = np.zeros((6, 6), dtype=np.int8)
    target[0, 0] = target[1, 1] = target[0, 4] = target[5, 5] = 1  # two joined by a corner, and two alone
    found = {ClickPolicy("random").simulate(target, np.zeros((6, 6), bool), sample=str(n)) for n in range(40)}
    assert found == {Click(0, 0, True), Click(1, 1, True)}
    one_each = np.zeros((6, 6), bool)
    one_each[3, 2:4] = True
    found = {ClickPolicy("random").simulate(target, one_each, sample=str(n)) for n in range(40)}
    assert found == {Click(2, 3, False), Click(3, 3, False)}


def test_jitter_moves_by_its_sigma_within_the_component() -> None:
    target = np.zeros((201, 401), dtype=np.int8)
    y, x = np.mgrid[:201, :401]
    target[(y - 100) ** 2 + (x - 100) ** 2 <= 80**2] = 1
    target[80:120, 300:340] = 1  # another component, within reach
    nothing = np.zeros(target.shape, dtype=bool)
    center = next_click(target, nothing)
    policy = ClickPolicy("jitter", {"sigma": 0.1})
    found = [policy.simulate(target, nothing, seed=1, sample=str(n)) for n in range(1500)]
    offsets = np.array([(click.x - center.x, click.y - center.y) for click in found])
    assert np.allclose(offsets.std(axis=0), 8.1, atol=0.5)  # a tenth of the inscribed radius, about 81
    assert np.allclose(offsets.mean(axis=0), 0, atol=0.7)
    wide = ClickPolicy("jitter", {"sigma": 3.0})
    for number in range(300):
        click = wide.simulate(target, nothing, seed=1, sample=str(number))
        assert click.positive and (click.y - 100) ** 2 + (click.x - 100) ** 2 <= 80**2


@given(data=st.data(), text=st.sampled_from(["random", "jitter", "jitter:sigma=2"]))
def test_policies_click_on_errors_not_clicked_before(data: st.DataObject, text: str) -> None:
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    noise = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    target, prediction = noise.integers(-1, 2, (height, width)), noise.random((height, width)) < 0.5
    clicks: list[Click] = []
    for _ in range(4):
        click = ClickPolicy.parse(text).simulate(target, prediction, clicks, seed=1, sample="a")
        if click == NO_ERROR and next_click(target, prediction, clicks) == NO_ERROR:
            break
        assert (click.x, click.y) not in {(x, y) for x, y, _ in clicks}
        assert target[click.y, click.x] == int(click.positive)
        assert prediction[click.y, click.x] != click.positive
        clicks.append(click)


def test_draws_depend_on_seed_sample_and_click_alone() -> None:
    target, prediction = two_errors()
    policy = ClickPolicy("random")

    def click(seed: int = 0, sample: str = "a", clicks: tuple[Click, ...] = ()) -> Click:
        return policy.simulate(target, prediction, clicks, seed=seed, sample=sample)

    first = click()
    others = {click(seed=1), click(sample="b"), click(clicks=(Click(0, 0, False),))}
    assert click() == first and len(others | {first}) == 4
    program = (
        "import numpy as np; from disbench.core.click_policies import ClickPolicy\n"
        "target = np.zeros((40, 60), np.int8); target[5:12, 10:19] = 1\n"
        "prediction = np.zeros((40, 60), bool); prediction[30:33, 5:55] = True\n"
        "print(tuple(ClickPolicy('random').simulate(target, prediction, seed=0, sample='a')))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == str(tuple(first))


# Slices


class Evenly:
    """In place of a generator: u at a given share of its range, and the pixel at another share of its class."""

    def __init__(self, share: float, pixel: float = 0.0) -> None:
        self.share, self.pixel = share, pixel

    def uniform(self, low: float, high: float) -> float:
        return low + self.share * (high - low)

    def integers(self, count: int) -> int:
        return int(self.pixel * count)


def drawn(weights: Array, group: int, of: int, share: float, pixel: float = 0.0) -> tuple[int, int]:
    return draw_from_slice(weights.astype(np.float32), group, of, Evenly(share, pixel))  # type: ignore[arg-type]


def test_slices_of_a_square() -> None:
    """7 x 7, distances 1 to 4 of masses 24, 32, 24 and 4: how much of each slice lies in each class."""
    side = np.minimum(np.arange(7), np.arange(7)[::-1]) + 1
    square = np.minimum.outer(side, side)
    shares = np.zeros((10, 5))
    for group in range(1, 11):
        for share in (np.arange(2000) + 0.5) / 2000:
            x, y = drawn(square, group, 10, share)
            shares[group - 1, square[y, x]] += 1 / 2000
    expected = np.zeros((10, 5))
    expected[:3, 1], expected[2:7, 2], expected[6:, 3], expected[9, 4] = (
        (1, 1, 0.8571),
        (0.1429, 1, 1, 1, 0.6667),
        (0.3333, 1, 1, 0.5238),
        0.4762,
    )
    assert np.allclose(shares, expected, atol=1e-3)
    assert np.allclose(8.4 * shares.sum(axis=0), [0, 24, 32, 24, 4], atol=0.02)
    # Every pixel of a class is drawn, row by row.
    ring = [tuple(map(int, at)) for at in np.argwhere(square == 3)]
    assert [drawn(square, 8, 10, 0.5, (n + 0.5) / 8)[::-1] for n in range(8)] == ring


def test_slices_of_a_disc() -> None:
    y, x = np.mgrid[-101:102, -101:102]
    disc = x * x + y * y <= 100 * 100
    assert disc.sum() == 31417
    distances = cv2.distanceTransform(disc.astype(np.uint8), cv2.DIST_L2, 0)
    assert distances.sum(dtype=np.float64) == pytest.approx(1_053_153.16, rel=1e-6)
    borders = [distances[drawn(distances, group, 10, 0)[::-1]] for group in range(2, 11)]
    assert np.allclose(borders, [19.65, 28.64, 36.24, 43.27, 50.0, 56.73, 63.78, 71.28, 80.41], atol=0.02)
    shares = np.array([0.1958, 0.2871, 0.3633, 0.4329, 0.5, 0.5671, 0.6367, 0.7129, 0.8042])  # 3 u^2 - 2 u^3
    assert np.allclose(borders, 100 * shares, atol=0.75)


def test_a_slice_clicks_the_kind_of_the_standard_click_once_a_pixel() -> None:
    target, prediction = two_errors()
    depths = np.zeros(target.shape)
    depths[5:12, 10:19] = cv2.distanceTransform(np.pad(target[5:12, 10:19], 1).astype(np.uint8), cv2.DIST_L2, 0)[
        1:-1, 1:-1
    ]
    found = []
    for group in range(1, 11):
        policy = ClickPolicy("slice", {"group": group})
        clicks = [policy.simulate(target, prediction, seed=seed, sample="x") for seed in range(30)]
        assert all(click.positive for click in clicks)
        assert clicks == [policy.simulate(target, prediction, seed=seed, sample="x") for seed in range(30)]
        found.append(np.mean([depths[click.y, click.x] for click in clicks]))
    assert found[0] < 2 and found[-1] > 3 and sorted(found) == found
    everywhere = ClickPolicy.parse("slice:group=1,of=1,power=0")
    made: list[Click] = []
    while (click := everywhere.simulate(target, np.zeros_like(prediction), made)) != NO_ERROR:
        assert click not in made and target[click.y, click.x] == 1
        made.append(click)
    assert len(made) == 63
    labels = [policy.label for policy in parse_series("slices:10")]
    assert labels == ["center", *(f"D{group}" for group in range(1, 11))]
    assert all(ClickPolicy.parse(str(policy)) == policy for policy in parse_series("slices:4"))
    assert parse_series("slice:group=2") == []
    refuses("slices:10", parse_series, "slices")


targets = hnp.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 1)).filter(
    lambda target: bool((target == 1).any())
)


def pixels(target: np.ndarray) -> list[tuple[int, int]]:
    """(x, y) of the object's pixels."""
    return [(int(x), int(y)) for y, x in zip(*np.nonzero(target == 1), strict=True)]


@given(targets)
def test_extreme_points_are_extreme_and_in_the_middle_of_their_side(target: np.ndarray) -> None:
    found, own = budget_points("extreme-points", target), pixels(target)
    assert len(found) == BUDGETS["extreme-points"].count
    for click, axis, pick in zip(found, (0, 1, 0, 1), (min, min, max, max), strict=True):
        side = sorted(pixel for pixel in own if pixel[axis] == pick(other[axis] for other in own))
        before = side.index((click.x, click.y))
        assert click.positive and 0 <= len(side) - 1 - 2 * before <= 1


@given(targets)
def test_an_inside_point_and_the_corners_of_the_box(target: np.ndarray) -> None:
    inside, first, second = budget_points("inside-and-corners", target)
    assert inside == next_click(target, np.zeros(target.shape, dtype=bool))
    assert target[inside.y, inside.x] == 1
    xs, ys = zip(*pixels(target), strict=True)
    assert (first, second) == (Click(min(xs), min(ys), False), Click(max(xs), max(ys), False))
