"""Protocols of papers: every value acts, against statements of them that share nothing with the code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.baselines.cards import load_card as load_method_card
from disbench.datasets.cards import load_card
from disbench.datasets.targets import RULES
from disbench.harness import presets
from disbench.harness.presets import list_presets, load_preset
from disbench.harness.protocol import Protocol
from disbench.io import definitions
from tests import toy_methods
from tests.commands import printed
from tests.refusals import refuses

TOY = f"{toy_methods.__file__}:Discs"


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
    "line",
    ["", "threshold = nan", "treshold = 0.5", "max_clicks = 0", 'policy = "centre"', '[datasets]\ndavis = "x"'],
)
def test_what_is_wrong_with_ones_own(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.toml").write_text(f'title = "T"\n{line}' if line else "threshold = 0.5")
    refuses(r"mine\.toml: ", load_preset, str(tmp_path / "mine.toml"))


def test_typed_options_come_before_a_presets(tmp_path: Path) -> None:
    options = "--protocol focuscut --threshold 0.4 --policy center --max-clicks 2 --every 120 --workers 1 --out own"
    printed("run", "--method", TOY, "--dataset", "photos", *options.split(), cwd=tmp_path)
    printed("verify", "own", cwd=tmp_path)
    found = json.loads((tmp_path / "own" / "run.json").read_text())["protocol"]
    assert (found["preset"], found["threshold"], found["policy"], found["max_clicks"]) == ("focuscut", 0.4, "center", 2)


def test_the_list() -> None:
    done = printed("run", "--list-protocols")
    assert done.splitlines() == list_presets()
    assert any(line.startswith("piclick ") and "oracle-all" in line for line in list_presets())
    refuses("did you mean 'focuscut'", load_preset, "focuscat")
