"""Protocols of papers: every value acts, against statements of them that share nothing with the code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import distance_transform_edt

from disbench.baselines.cards import load_card as load_method_card
from disbench.core.click_policies import ClickPolicy
from disbench.core.clicks import NO_ERROR, Click
from disbench.core.errors import InputError
from disbench.datasets.cards import load_card
from disbench.datasets.targets import RULES
from disbench.harness import presets
from disbench.harness.presets import list_presets, load_preset
from disbench.harness.protocol import Protocol
from disbench.io import definitions
from tests import toy_methods
from tests.commands import disbench

TOY = f"{toy_methods.__file__}:Discs"
sizes = st.tuples(st.integers(1, 8), st.integers(1, 8))
scenes = sizes.flatmap(
    lambda size: st.tuples(
        hnp.arrays(np.int8, size, elements=st.integers(-1, 1)),
        hnp.arrays(np.bool_, size),
        st.lists(st.tuples(st.integers(0, size[1] - 1), st.integers(0, size[0] - 1)), max_size=4, unique=True),
    )
)


def nearest(errors: list[list[bool]], y: int, x: int) -> float:
    """Distance from an error to the nearest pixel that is none; beyond the border all are none."""
    height, width = len(errors), len(errors[0])
    others = [
        (v, u)
        for v in range(-1, height + 1)
        for u in range(-1, width + 1)
        if not (0 <= v < height and 0 <= u < width and errors[v][u])
    ]
    return min(math.hypot(v - y, u - x) for v, u in others)


def distances(wrong: np.ndarray) -> dict[tuple[int, int], float]:
    errors = wrong.tolist()
    return {(int(y), int(x)): nearest(errors, int(y), int(x)) for y, x in np.argwhere(wrong)}


@settings(max_examples=60)
@given(scenes)
def test_removed_center_in_words(scene: tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]) -> None:
    target, prediction, places = scene
    clicks = [Click(x, y, True) for x, y in places]
    missed, excess = (target == 1) & ~prediction, (target != 1) & prediction
    for x, y in places:
        missed[y, x] = excess[y, x] = False
    found = ClickPolicy("removed-center").simulate(target, prediction, clicks, seed=3, sample="s")
    of_missed, of_excess = distances(missed), distances(excess)
    deepest_missed, deepest_excess = max(of_missed.values(), default=0), max(of_excess.values(), default=0)
    if not of_missed and not of_excess:
        assert found == NO_ERROR
        return
    positive = deepest_missed > deepest_excess + 1e-9
    kind, depth = (of_missed, deepest_missed) if positive else (of_excess, deepest_excess)
    assert found.positive == positive
    assert kind[found.y, found.x] == pytest.approx(depth, abs=1e-6)


def test_removed_center_draws_among_ties_by_the_seed() -> None:
    target = np.ones((1, 9), dtype=np.int8)

    def x_of(seed: int) -> int:
        return ClickPolicy("removed-center").simulate(target, target == 0, seed=seed, sample="s").x

    assert {x_of(seed) for seed in range(60)} == set(range(9)), "a row of one pixel's height: all are as deep"
    assert x_of(1) == x_of(1)


@settings(max_examples=60)
@given(scenes)
def test_scipy_center_in_words(scene: tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]) -> None:
    """As f-BRS, FCANet and FocusCut write it: SciPy's own transform decides, to the last bit."""
    target, prediction, places = scene
    best: list[tuple[float, int, int]] = []
    for wrong in ((target == 1) & ~prediction, (target == 0) & prediction):
        depth = distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        for x, y in places:
            depth[y, x] = 0
        ys, xs = np.where(depth == depth.max())
        best.append((depth.max(), int(xs[0]), int(ys[0])))
    positive = best[0][0] > best[1][0]
    expected = Click(best[0][1], best[0][2], True) if positive else Click(best[1][1], best[1][2], False)
    clicks = [Click(x, y, True) for x, y in places]
    found = ClickPolicy("scipy-center").simulate(target, prediction, clicks)
    assert found == (expected if max(best)[0] > 0 else NO_ERROR)


def test_fcanets_masks(tmp_path: Path) -> None:
    colours = np.zeros((2, 3, 3), dtype=np.uint8)
    colours[0] = [[1, 0, 0], [0, 200, 0], [130, 0, 0]]
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    palette = Image.fromarray(np.array([[0, 1, 128]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 0, 9, 0] + [7, 7, 7] * 254)
    palette.save(tmp_path / "palette.png")
    for name, rgb, own in (
        ("first-value", [[1, 0, 1], [0, 0, 0]], [[0, 1, 1]]),
        ("first-value-128", [[0, 0, 1], [0, 0, 0]], [[0, 0, 1]]),
    ):
        assert RULES[name](tmp_path / "rgb.png", 0).tolist() == rgb
        assert RULES[name](tmp_path / "palette.png", 0).tolist() == own


@pytest.mark.parametrize("name", definitions.names("baselines/protocols"))
def test_every_preset_is_whole(name: str) -> None:
    """Its values are a protocol's, and its datasets have the options that it sets."""
    preset = load_preset(name)
    assert preset.title and preset.source
    Protocol(preset.max_clicks, preset.threshold or 0.49, preset.selection, preset.policy)
    for dataset in preset.datasets:
        load_card(dataset).values(preset.reading(dataset))


def test_what_peers_do_otherwise() -> None:
    """A second statement of PROTOCOL's table."""
    of = {name: load_preset(name) for name in definitions.names("baselines/protocols")}
    half = {"focalclick", "cdnet", "fcanet", "focuscut", "emc-click", "interformer", "graco"}
    assert {name for name, one in of.items() if one.threshold == 0.5} == half
    assert {name: one.policy for name, one in of.items() if one.policy != "center"} == {
        **{"fbrs": "scipy-center", "fcanet": "scipy-center"},
        **{"focuscut": "scipy-restart", "interformer": "removed-center"},
    }
    others = {name: one.selection for name, one in of.items() if one.selection != "oracle-first"}
    assert set(others) == {"piclick", "sam"} and others["piclick"] == "oracle-all"
    assert of["focuscut"].failures == "strict"
    assert of["fcanet"].datasets["davis"] == {"rule": "first-value"}
    protocols = {load_method_card(name).protocol for name in definitions.names("baselines")}
    assert protocols <= {"", None, *definitions.names("baselines/protocols")}
    standard, protocol = load_preset(presets.STANDARD), Protocol()
    assert (standard.threshold, standard.datasets) == (None, {})
    for name in ("max_clicks", "selection", "policy"):
        assert getattr(standard, name) == getattr(protocol, name)


@pytest.mark.parametrize(
    "text",
    [
        "threshold = 0.5",
        *(
            f'title = "T"\n{line}'
            for line in (
                *("threshold = true", "threshold = nan", "treshold = 0.5", "max_clicks = 0", "max_clicks = 32768"),
                *('selection = "oracle"', 'policy = "centre"', '[datasets]\ndavis = "x"'),
            )
        ),
    ],
)
def test_what_is_wrong_with_ones_own(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=r"mine\.toml: "):
        load_preset(str(tmp_path / "mine.toml"))


def test_typed_options_come_before_a_presets(tmp_path: Path) -> None:
    options = "--protocol focuscut --threshold 0.4 --policy center --max-clicks 2 --every 120 --workers 1 --out own"
    done = disbench("run", "--method", TOY, "--dataset", "photos", *options.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert disbench("verify", "own", cwd=tmp_path).returncode == 0
    found = json.loads((tmp_path / "own" / "run.json").read_text())["protocol"]
    assert (found["preset"], found["threshold"], found["policy"], found["max_clicks"]) == ("focuscut", 0.4, "center", 2)


def test_the_list() -> None:
    done = disbench("run", "--list-protocols")
    assert done.returncode == 0 and done.stdout.splitlines() == list_presets()
    assert any(line.startswith("piclick ") and "oracle-all" in line for line in list_presets())
    with pytest.raises(InputError, match="did you mean 'focuscut'"):
        load_preset("focuscat")
