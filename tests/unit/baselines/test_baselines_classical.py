"""The methods that need no training: seeds, each against an independent statement of its rule, determinism."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.baselines.cards import method_spec
from disbench.baselines.classical import graph_cut, seeds
from disbench.baselines.classical.disk import Disk
from disbench.baselines.classical.geodesic import Geodesic, geodesic_distance, gradient, nearness
from disbench.baselines.classical.grabcut import GrabCut
from disbench.baselines.classical.graph_cut import GraphCut
from disbench.baselines.classical.random_walker import RandomWalker
from disbench.baselines.classical.seeds import BINS, FLOOR, colour_bins, log_likelihood
from disbench.core.clicks import Click
from tests.refusals import refuses

METHODS: dict[str, Callable[..., Any]] = {
    "disk": Disk,
    "geodesic": Geodesic,
    "grabcut": GrabCut,
    "graph-cut": GraphCut,
    "random-walker": RandomWalker,
}
every_method = pytest.mark.parametrize("name", METHODS)
Image = npt.NDArray[np.uint8]


def scene(seed: int = 0, height: int = 48, width: int = 60) -> Image:
    """A reddish rectangle on greenish ground, with noise."""
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    plain = np.full((height, width, 3), (60.0, 140.0, 70.0))
    plain[14:38, 20:44] = (180, 60, 50)
    return np.clip(plain + noise, 0, 255).astype(np.uint8)


CLICKS = [Click(32, 26, True), Click(6, 6, False), Click(24, 18, True), Click(52, 40, False)]


def masks_of(method: Any, image: Image, clicks: list[Click]) -> list[npt.NDArray[Any]]:
    session = method.open(image)
    return [session.predict(clicks[: n + 1]).masks for n in range(len(clicks))]


# Seeds


click_lists = st.lists(st.builds(Click, st.integers(0, 39), st.integers(0, 29), st.booleans()), min_size=1, max_size=8)


@given(click_lists, st.sampled_from([(30, 40), (15, 20), (11, 16), (4, 5)]), st.sampled_from([0, 1, 2.5, 5]))
def test_a_seed_pixel_belongs_to_the_nearest_click_of_equal_ones_to_the_latest(
    clicks: list[Click], working: tuple[int, int], radius: float
) -> None:
    rows, columns = working
    found = seeds.seed_discs(clicks, (30, 40), rows, columns, radius)
    places = [(int((c.y + 0.5) * rows / 30), int((c.x + 0.5) * columns / 40)) for c in clicks]
    for row, column in itertools.product(range(rows), range(columns)):
        order = [((row - y) ** 2 + (column - x) ** 2, -n) for n, (y, x) in enumerate(places)]
        distance, latest = min(order)
        inside = distance <= radius**2
        assert found[row, column] == (0 if not inside else 1 if clicks[-latest].positive else -1)


def test_the_frame_is_background_until_a_negative_click() -> None:
    only_positive = seeds.seed_discs([Click(1, 5, True)], (12, 12), 12, 12, 2)
    framed = seeds.add_frame(only_positive, "until-negative")
    assert framed[5, 0] == 1 and framed[0, 0] == framed[11, 6] == framed[6, 11] == -1
    assert not framed[3:10, 4:-1].any()
    both = seeds.seed_discs([Click(1, 5, True), Click(8, 8, False)], (12, 12), 12, 12, 2)
    assert np.array_equal(seeds.add_frame(both, "until-negative"), both)
    assert seeds.add_frame(both, "always")[0, 0] == -1
    assert np.array_equal(seeds.add_frame(only_positive, "never"), only_positive)


# Every method


@every_method
def test_a_cards_method_gives_one_mask_of_the_images_size(name: str) -> None:
    spec = method_spec(name)
    method = spec.build()
    assert isinstance(method, METHODS[name])  # type: ignore[arg-type]
    assert spec.threshold == 0.5
    for masks in masks_of(method, scene(), CLICKS):
        assert masks.shape == (1, 48, 60)
        assert masks.dtype in (np.bool_, np.float32)
        assert masks.min() >= 0 and masks.max() <= 1
    session = METHODS[name]().open(scene())
    assert not session.predict([]).masks.any()
    assert not session.predict([Click(3, 3, False)]).masks.any()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "disk"])
def test_two_clicks_are_enough_for_an_object_of_its_own_colour(name: str) -> None:
    target = np.zeros((48, 60), dtype=bool)
    target[14:38, 20:44] = True
    mask = masks_of(METHODS[name](), scene(), CLICKS)[-1][0] > 0.5
    assert (mask & target).sum() / (mask | target).sum() > 0.9


@every_method
def test_fresh_instances_give_equal_bytes_whatever_ran_before(name: str) -> None:
    import cv2

    first = masks_of(METHODS[name](), scene(1), CLICKS)
    threads = cv2.getNumThreads()
    try:
        for seed, count in ((1, 1), (77, 2)):
            cv2.setNumThreads(count)
            cv2.setRNGSeed(seed)
            shared = METHODS[name]()
            masks_of(shared, scene(2), CLICKS[:2])
            again = masks_of(shared, scene(1), CLICKS)
            assert [m.tobytes() for m in again] == [m.tobytes() for m in first]
    finally:
        cv2.setNumThreads(threads)


@every_method
def test_sessions_disturb_neither_each_other_nor_themselves(name: str) -> None:
    method = METHODS[name]()
    alone = [masks_of(method, scene(n), CLICKS) for n in (1, 2)]
    sessions = [method.open(scene(n)) for n in (1, 2)]
    for n in range(len(CLICKS)):
        for own, session in enumerate(sessions):
            assert np.array_equal(session.predict(CLICKS[: n + 1]).masks, alone[own][n])
    for count in (2, 2):  # after all four, and again
        assert np.array_equal(sessions[0].predict(CLICKS[:count]).masks, alone[0][count - 1])


@every_method
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (300, 3)])
@pytest.mark.parametrize("content", ["plain", "noise"])
def test_odd_images(name: str, size: tuple[int, int], content: str) -> None:
    height, width = size
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for signs in ((True, False, True), (False, True), (True, True)):
        clicks = [Click(int(rng.integers(width)), int(rng.integers(height)), sign) for sign in signs]
        for masks in masks_of(METHODS[name](), image * 0 if content == "plain" else image, clicks):
            assert masks.shape == (1, *size)
            assert np.isfinite(masks).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("disk", {"radius": 0}),
        ("geodesic", {"step": 0.0}),
        ("grabcut", {"iterations": 0}),
        ("graph-cut", {"solver": "maxflow"}),
        ("random-walker", {"beta": "much"}),
    ],
)
def test_bad_options_are_refused_by_name(name: str, options: dict[str, Any]) -> None:
    refuses(next(iter(options)), lambda: METHODS[name](**options))


# Discs


@given(click_lists, st.sampled_from([0.1, 0.2, 0.5]))
@settings(max_examples=30)
def test_disk_is_what_is_near_a_positive_click_and_nearest_to_it(clicks: list[Click], radius: float) -> None:
    mask = Disk(radius).open(np.zeros((30, 40, 3), dtype=np.uint8)).predict(clicks).masks[0]
    y, x = np.mgrid[:30, :40]
    squares = np.stack([(x - c.x) ** 2 + (y - c.y) ** 2 for c in clicks[::-1]])
    nearest = np.array([c.positive for c in clicks[::-1]])[squares.argmin(axis=0)]
    assert np.array_equal(mask, nearest & (squares.min(axis=0) <= (radius * 30) ** 2))


# Colour models


def test_likelihood_is_a_smoothed_histogram_with_a_uniform_part() -> None:
    bins = colour_bins(scene())
    chosen = np.zeros(bins.shape, dtype=bool)
    chosen[20:30, 25:35] = True
    found = log_likelihood(bins, chosen, 10.0)
    assert found.min() >= np.log(FLOOR / BINS**3) - 1e-9
    assert found[14:38, 20:44].mean() > found[:10].mean() + 3
    every_bin = np.arange(BINS**3).reshape(1, -1)
    only = np.zeros(every_bin.shape, dtype=bool)
    only[0, (16 * BINS + 16) * BINS + 16] = True
    assert np.exp(log_likelihood(every_bin, only, 10.0)).sum() == pytest.approx(1, abs=1e-6)


# Graph cut


def energy(terminals: npt.NDArray[np.int32], links: graph_cut.Links, unit: int, labels: npt.NDArray[np.bool_]) -> int:
    """What a labelling costs: the links between its two parts, and the terminals that it is cut from."""
    flat = labels.ravel()
    capacities = np.rint(links.cost * unit).astype(int)
    between = capacities[flat[links.first] != flat[links.second]].sum()
    values = terminals.ravel().astype(int)
    return int(between + values[~flat & (values > 0)].sum() - values[flat & (values < 0)].sum())


def small_problem(seed: int, height: int, width: int) -> tuple[npt.NDArray[np.int32], graph_cut.Links]:
    rng = np.random.default_rng(seed)
    links = graph_cut.neighbour_links(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), 3.0)
    signs = np.zeros((height, width), dtype=np.int8)
    signs[0, 0], signs[-1, -1] = 1, -1
    return graph_cut.terminal_links(rng.normal(0, 4, (height, width)), signs, 3.0, 10), links


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_is_the_cheapest_of_all_labellings_and_the_smallest_of_those(seed: int) -> None:
    terminals, links = small_problem(seed, 3, 4)
    terminals[1] //= 8  # so that links count, and ties occur
    cut = graph_cut.minimum_cut(terminals, links, 10, "scipy")
    costs = {
        labels: energy(terminals, links, 10, np.array(labels).reshape(3, 4))
        for labels in itertools.product((False, True), repeat=12)
    }
    cheapest = min(costs.values())
    best = [labels for labels, cost in costs.items() if cost == cheapest]
    assert energy(terminals, links, 10, cut) == cheapest
    assert tuple(cut.ravel()) == tuple(np.logical_and.reduce(np.array(best)))


def test_cut_value_agrees_with_networkx() -> None:
    terminals, links = small_problem(11, 8, 9)
    graph = nx.DiGraph()
    for a, b, cost in zip(links.first, links.second, np.rint(links.cost * 10).astype(int), strict=True):
        graph.add_edge(int(a), int(b), capacity=int(cost))
        graph.add_edge(int(b), int(a), capacity=int(cost))
    for pixel, value in enumerate(terminals.ravel().tolist()):
        graph.add_edge("object", pixel, capacity=max(value, 0))
        graph.add_edge(pixel, "background", capacity=max(-value, 0))
    value, _ = nx.minimum_cut(graph, "object", "background")
    cut = graph_cut.minimum_cut(terminals, links, 10, "scipy")
    assert value == energy(terminals, links, 10, cut)


@pytest.mark.parametrize("seed", range(4))
def test_both_solvers_give_the_same_cut(seed: int) -> None:
    pytest.importorskip("maxflow")
    terminals, links = small_problem(seed, 31, 40)
    terminals[10:20] = 0
    one, other = (graph_cut.minimum_cut(terminals, links, 10, solver) for solver in ("scipy", "pymaxflow"))
    assert np.array_equal(one, other)


def test_what_graph_cut_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_cut.capacity_unit(320 * 240, 50.0) == 100
    assert 1 <= graph_cut.capacity_unit(1000 * 1000, 50.0) < 100
    refuses("max_side", graph_cut.capacity_unit, 20_000_000, 50.0)
    monkeypatch.setitem(sys.modules, "maxflow", None)
    refuses(r"disbench\[maxflow\]", GraphCut, solver="pymaxflow")


# Random walker


def test_random_walker_solves_the_dirichlet_problem() -> None:
    image = scene(5, 40, 48)[10:20, 15:27] / 255.0
    height, width = image.shape[:2]
    signs = np.zeros((height, width), dtype=np.int8)
    signs[7, 8], signs[1, 1] = 1, -1
    laplacian = np.zeros((height * width, height * width))
    scale = 130 / (10 * image.std() * np.sqrt(3))
    for y, x in itertools.product(range(height), range(width)):
        for v, u in ((y + 1, x), (y, x + 1)):
            if v < height and u < width:
                weight = np.exp(-scale * ((image[y, x] - image[v, u]) ** 2).sum()) + 1e-10
                a, b = y * width + x, v * width + u
                laplacian[[a, b], [b, a]] -= weight
                laplacian[[a, b], [a, b]] += weight
    free = signs.ravel() == 0
    right = -laplacian[np.ix_(free, ~free)] @ (signs.ravel()[~free] > 0)
    expected = np.linalg.solve(laplacian[np.ix_(free, free)], right)
    assert RandomWalker().probabilities(image, signs).ravel()[free] == pytest.approx(expected, abs=1e-6)


# Geodesic


def test_geodesic_distance_is_the_cheapest_path() -> None:
    rng = np.random.default_rng(6)
    cost, sources = rng.random((9, 11)) + 0.01, rng.random((9, 11)) < 0.05
    sources[4, 4] = True
    graph = nx.Graph()
    for y, x in itertools.product(range(9), range(11)):
        for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1), (y + 1, x - 1)):
            if 0 <= v < 9 and 0 <= u < 11:
                graph.add_edge((y, x), (v, u), weight=np.hypot(v - y, u - x) * (cost[y, x] + cost[v, u]) / 2)
    expected = nx.multi_source_dijkstra_path_length(graph, {tuple(place) for place in np.argwhere(sources)})
    found = geodesic_distance(cost, sources)
    assert all(found[place] == pytest.approx(length) for place, length in expected.items())


def test_crossing_a_step_costs_its_height_and_a_wall_parts_object_from_background() -> None:
    values = np.zeros((5, 20, 1))
    values[:, 8:] = 1
    edges = gradient(values)
    assert geodesic_distance(edges + 1e-9, np.eye(5, 20, dtype=bool))[2, 15] == pytest.approx(1, abs=1e-6)
    signs = np.zeros((5, 20), dtype=np.int8)
    signs[2, 0], signs[2, 9] = 1, -1
    assert np.array_equal(nearness(edges + 1e-3, signs) > 0.5, np.tile(np.arange(20) < 8, (5, 1)))


# GrabCut


def test_grabcut_is_opencv_s_with_the_clicks_as_seeds() -> None:
    import cv2

    image, clicks = scene(7), CLICKS[:2]
    labels = np.full(image.shape[:2], cv2.GC_PR_BGD, dtype=np.uint8)
    y, x = np.mgrid[:48, :60]
    for click in clicks:
        disc = (x - click.x) ** 2 + (y - click.y) ** 2 <= 9
        labels[disc] = cv2.GC_FGD if click.positive else cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(image[..., ::-1].copy(), labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    expected = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    found = GrabCut(continuation="fresh").open(image).predict(clicks).masks[0]
    assert np.array_equal(found, expected)
