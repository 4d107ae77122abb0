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

pytest.importorskip("cv2", exc_type=ImportError)
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
    nothing = np.zeros((1, 9), dtype=bool)
    policy = ClickPolicy("removed-center")
    found = {policy.simulate(target, nothing, seed=seed, sample="s").x for seed in range(60)}
    assert found == set(range(9)), "a row of one pixel's height: all are as deep"
    assert policy.simulate(target, nothing, seed=1, sample="s") == policy.simulate(target, nothing, seed=1, sample="s")


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


@pytest.mark.parametrize("name", definitions.names("baselines"))
def test_a_cards_protocol_is_one_of_them(name: str) -> None:
    protocol = load_method_card(name).protocol
    assert not protocol or protocol in definitions.names("baselines/protocols")


def test_the_default_changes_nothing() -> None:
    standard, protocol = load_preset(presets.STANDARD), Protocol()
    assert (standard.threshold, standard.datasets) == (None, {})
    for name in ("max_clicks", "selection", "policy"):
        assert getattr(standard, name) == getattr(protocol, name)


def test_what_peers_do_otherwise() -> None:
    """A second statement of PROTOCOL's table."""
    of = {name: load_preset(name) for name in definitions.names("baselines/protocols")}
    assert {name for name, one in of.items() if one.threshold == 0.5} == {
        "focalclick",
        "cdnet",
        "fcanet",
        "focuscut",
        "emc-click",
        "interformer",
    }
    assert {name for name, one in of.items() if one.policy == "scipy-center"} == {"fbrs", "fcanet"}
    assert {name for name, one in of.items() if one.policy == "scipy-restart"} == {"focuscut"}
    assert {name for name, one in of.items() if one.policy == "removed-center"} == {"interformer"}
    assert {name for name, one in of.items() if one.selection != "oracle-first"} == {"piclick", "sam"}
    assert of["piclick"].selection == "oracle-all" and of["focuscut"].failures == "strict"
    assert of["fcanet"].datasets["davis"] == {"rule": "first-value"}


@pytest.mark.parametrize(
    "text",
    [
        "threshold = 0.5",
        'title = "T"\nthreshold = true',
        'title = "T"\nthreshold = nan',
        'title = "T"\nmax_clicks = 0',
        'title = "T"\nmax_clicks = 32768',
        'title = "T"\ntreshold = 0.5',
        'title = "T"\nselection = "oracle"',
        'title = "T"\npolicy = "centre"',
        'title = "T"\n[datasets]\ndavis = "x"',
    ],
)
def test_what_is_wrong_with_ones_own(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=r"mine\.toml: "):
        load_preset(str(tmp_path / "mine.toml"))


def test_a_run_records_its_preset_and_what_it_set(tmp_path: Path) -> None:
    common = ("run", "--method", TOY, "--dataset", "photos", "--every", "120", "--workers", "1")

    def protocol(out: str, *more: str) -> dict[str, object]:
        done = disbench(*common, *more, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert disbench("verify", out, cwd=tmp_path).returncode == 0
        content = json.loads((tmp_path / out / "run.json").read_text())
        return dict(content["protocol"])

    standard = protocol("standard", "--max-clicks", "2")
    assert "preset" not in standard
    found = protocol("focuscut", "--protocol", "focuscut", "--max-clicks", "3")
    assert (found["preset"], found["threshold"], found["policy"]) == ("focuscut", 0.5, "scipy-restart")
    assert found["max_clicks"] == 3, "an option that is typed comes first"
    found = protocol("own", "--protocol", "focuscut", "--threshold", "0.4", "--policy", "center", "--max-clicks", "2")
    assert (found["threshold"], found["policy"]) == (0.4, "center")
    done = disbench("report", "standard", "focuscut", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0 and "protocol of focuscut" in (tmp_path / "report" / "report.md").read_text()
    done = disbench(*common, "--protocol", "focuscat", "--out", "no", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'focuscut'" in done.stderr


def test_the_list() -> None:
    done = disbench("run", "--list-protocols")
    assert done.returncode == 0 and done.stdout.splitlines() == list_presets()
    assert any(line.startswith("piclick ") and "oracle-all" in line for line in list_presets())
