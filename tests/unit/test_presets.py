"""Presets: published evaluations on their own terms, against what their code is known to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disbench import definitions
from disbench.baselines.cards import MethodSpec
from disbench.datasets.cards import open_dataset
from disbench.errors import InputError
from disbench.harness.presets import departures, figures_line, load_preset, protocol_of
from disbench.harness.problems import Problems
from disbench.harness.protocol import Protocol
from disbench.harness.row_checks import check_description
from disbench.harness.run import run_benchmark
from disbench.reports.entries import read_entries
from disbench.reports.spreadsheet import results_csv
from tests.unit.run_tools import write_run

GRAY = {"pascalvoc": {"split": "val", "ids": "gray"}}
RITM: dict[str, Any] = {"threshold": 0.49, "max_clicks": 20, "policy": "center"}
HALF = {**RITM, "threshold": 0.5}
TERMS: dict[str, tuple[dict[str, Any], str, dict[str, dict[str, str]]]] = {
    "ritm": (RITM, "ritm", GRAY),
    "fbrs": ({**RITM, "policy": "scipy-center"}, "ritm", {}),
    "simpleclick": (RITM, "ritm", GRAY),
    "icmformer": (RITM, "ritm", GRAY),
    "cfr-icl": (RITM, "ritm", GRAY),
    "piclick": ({**RITM, "selection": "oracle-all"}, "ritm", GRAY),
    "focalclick": ({**HALF, "initial_masks": True}, "ritm", GRAY),
    "cdnet": ({**HALF, "initial_masks": True}, "ritm", GRAY),
    "emc-click": (HALF, "ritm", GRAY),
    "fcfi": (RITM, "ritm", {}),
    "fcanet": (
        {**HALF, "policy": "scipy-center"},
        "ritm",
        {"davis": {"rule": "first-channel"}, "pascalvoc": {"split": "val", "ids": "palette"}},
    ),
    "focuscut": ({**HALF, "policy": "scipy-restart"}, "strict", {}),
    "interformer": ({**HALF, "policy": "any-center"}, "strict", {}),
    "segnext": (RITM, "ritm", {**GRAY, "hqseg-44k": {"rule": "any-channel"}}),
    "sam": ({"max_clicks": 20, "policy": "center", "selection": "score"}, "ritm", {}),
    "disnet": ({"max_clicks": 20, "policy": "center", "selection": "oracle-first"}, "ritm", {}),
}
"""Preset -> what it sets of the protocol, its rule of failures, its readings of datasets."""


def preset(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_every_preset_is_stated_here() -> None:
    assert definitions.names("protocols") == sorted(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_what_a_preset_sets(name: str) -> None:
    found = load_preset(name)
    assert (dict(found.values), found.failures, dict(found.datasets)) == TERMS[name]
    content = definitions.load(definitions.find("protocols", name))
    assert content["source"]
    words = (
        (Path(__file__).parents[2] / "docs" / "protocols.md").read_text() if _in_checkout() else f"`{name}`"
    )
    assert f"`{name}`" in words


def _in_checkout() -> bool:
    return (Path(__file__).parents[2] / "docs" / "protocols.md").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("failures = 'ritm'\n", "'title' is missing"),
        ("title = 'T'\n", "'failures' is missing"),
        ("title = 'T'\nfailures = 'lax'\n", "unknown rule of failures 'lax'"),
        ("title = 'T'\nfailures = 'ritm'\ntreshold = 0.5\n", "did you mean 'threshold'"),
        ("title = 'T'\nfailures = 'ritm'\nmax_clicks = true\n", "max_clicks = True is of the wrong kind"),
        ("title = 'T'\nfailures = 'ritm'\ninitial_masks = 1\n", "wrong kind"),
        ("title = 'T'\nfailures = 'ritm'\nmax_clicks = 0\n", "at least 1 click"),
        ("title = 'T'\nfailures = 'ritm'\npolicy = 'centre'\n", "did you mean 'center'"),
        ("title = 'T'\nfailures = 'ritm'\nselection = 'best'\n", "unknown selection 'best'"),
        ("title = 'T'\nfailures = 'ritm'\n[datasets]\ndavis = 'gt'\n", "write the options"),
        ("title = 'T'\nfailures = 'ritm'\n[datasets.voc]\nids = 'gray'\n", "pascalvoc"),
        ("title = 'T'\nfailures = 'ritm'\n[datasets.pascalvoc]\nids = 'grey'\n", "did you mean 'gray'"),
        ("title = ", "not a readable TOML"),
    ],
)
def test_a_bad_preset_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_preset(preset(tmp_path, text))
    assert "mine.toml" in str(caught.value)


def test_an_unknown_preset_has_its_nearest_names() -> None:
    with pytest.raises(InputError, match="unknown protocol 'ritn'; did you mean 'ritm'"):
        load_preset("ritn")


def test_without_a_preset_a_protocol_is_as_it_ever_was() -> None:
    assert protocol_of(None, threshold=0.3, chosen={}) == Protocol(threshold=0.3)
    assert list(Protocol().as_dict()) == [
        *("max_clicks", "threshold", "selection", "policy", "seed", "stop_at", "initial_masks", "name"),
    ]
    chosen = {
        "threshold": 0.7,
        "policy": "random",
        "initial_masks": False,
        "selection": None,
        "max_clicks": None,
    }
    found = protocol_of(None, threshold=0.3, chosen=chosen, seed=4, stop_at=0.9)
    assert found == Protocol(threshold=0.7, policy="random", initial_masks=False, seed=4, stop_at=0.9)
    assert protocol_of(None, threshold=0.3, budget="extreme-points", chosen={"max_clicks": 9}).max_clicks == 1


@pytest.mark.parametrize("name", TERMS)
def test_a_presets_values_are_those_of_the_run_unless_an_option_wins(name: str) -> None:
    terms = load_preset(name)
    found = protocol_of(terms, threshold=0.123, chosen=dict.fromkeys(terms.values))
    expected = dataclasses.replace(Protocol(threshold=0.123), **TERMS[name][0], preset=terms.as_dict())
    assert found == expected
    assert departures(found.as_dict()) == []
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert found.as_dict()["preset"]["name"] == name
    other = protocol_of(
        terms, threshold=0.123, chosen={"max_clicks": 7, "threshold": 0.6, "policy": "jitter"}
    )
    assert (other.max_clicks, other.threshold, other.policy) == (7, 0.6, "jitter")
    assert departures(other.as_dict()) == [
        key for key in ("threshold", "max_clicks", "policy") if key in TERMS[name][0]
    ]


def test_a_budget_has_no_terms_of_a_loop() -> None:
    with pytest.raises(InputError, match="leave --protocol out"):
        protocol_of(load_preset("ritm"), threshold=0.5, budget="extreme-points", chosen={})


def voc(folder: Path) -> Path:
    """Three instances, two of them of palette numbers whose colours have one grey value: 1 and 16."""
    for part in ("JPEGImages", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / "VOC2012" / part).mkdir(parents=True)
    labels = np.zeros((40, 50), dtype=np.uint8)
    labels[5:15, 5:15], labels[20:30, 5:20], labels[5:35, 30:45] = 1, 16, 2
    colours = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    image = Image.fromarray(labels)
    image.putpalette(colours.ravel().tolist())
    image.save(folder / "VOC2012" / "SegmentationObject" / "a.png")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "VOC2012" / "JPEGImages" / "a.jpg")
    (folder / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    return folder


def test_readings_of_pascalvoc(tmp_path: Path) -> None:
    data = voc(tmp_path)
    counts = {
        name: len(open_dataset("pascalvoc", data, load_preset(name).dataset_options("pascalvoc")).ids)
        for name in ("ritm", "fcanet", "focuscut")
    }
    assert counts == {"ritm": 2, "fcanet": 3, "focuscut": 3}
    options = [
        *load_preset("ritm").dataset_options("pascalvoc"),
        "ids=palette",
    ]  # what the user says comes last
    assert len(open_dataset("pascalvoc", data, options).ids) == 3


def test_reading_of_davis(tmp_path: Path) -> None:
    """Coloured masks: FCANet sees red alone, RITM every colour."""
    for part in ("img", "gt"):
        (tmp_path / "DAVIS" / part).mkdir(parents=True)
    mask = np.zeros((20, 30, 3), dtype=np.uint8)
    mask[2:6, 2:6, 0], mask[10:15, 10:20, 1] = 128, 128
    Image.fromarray(mask).save(tmp_path / "DAVIS" / "gt" / "a.png")
    Image.fromarray(mask).save(tmp_path / "DAVIS" / "img" / "a.jpg")
    areas = {
        name: int(
            (
                open_dataset("davis", tmp_path, load_preset(name).dataset_options("davis")).read(0).target
                == 1
            ).sum()
        )
        for name in ("ritm", "fcanet")
    }
    assert areas == {"ritm": 16 + 50, "fcanet": 16}


def test_failures_are_counted_by_the_presets_rule(tmp_path: Path) -> None:
    late = [0.1] * 19 + [0.95]
    run = write_run(tmp_path / "run", [late, [0.95] * 20, [0.1] * 20])
    strict, ritm = (figures_line(run, load_preset(name)) for name in ("focuscut", "ritm"))
    assert "NoC@90 13.67" in strict and "NoC@90 13.67" in ritm
    assert "NoF@90 1," in strict and "'strict'" in strict
    assert "NoF@90 2," in ritm and "'ritm'" in ritm


def test_a_stored_run_of_a_preset(tmp_path: Path) -> None:
    """Its description is sound, and reports say on whose terms it is and what it did otherwise."""
    terms = load_preset("fcanet")
    same = {**RITM, "threshold": 0.5, "policy": "scipy-center", "preset": terms.as_dict()}
    ious = [[0.5] * 20, [0.95] * 20]
    rest: dict[str, dict[str, Any]] = {
        "result": {"failed": [], "model_seconds": 1.0, "harness_seconds": 1.0},
        "execution": {"store": "none"},
    }
    runs = [
        write_run(tmp_path / "whole", ious, protocol=same, **rest),
        write_run(tmp_path / "other", ious, protocol={**same, "threshold": 0.4}),
        write_run(tmp_path / "plain", ious),
    ]
    problems = Problems()
    assert check_description(runs[0], problems) == Protocol(**same), problems
    whole, other, plain = read_entries(runs)
    assert whole.preset == "on the terms of fcanet (NoF ritm)"
    assert other.preset == "on the terms of fcanet (NoF ritm, but its own threshold)"
    assert plain.preset == ""
    assert whole.preset in whole.protocol and "terms" not in plain.protocol
    assert whole.conditions["click policy"] == "scipy-center"
    assert whole.conditions["seed"] == "none"
    assert whole.preset in results_csv([whole, plain])
    broken = write_run(tmp_path / "broken", ious, protocol={**same, "preset": "fcanet"}, **rest)
    assert check_description(broken, problems) is None
    assert read_entries([broken])[0].preset == ""


PERFECT = """
import numpy as np
from disbench.prediction import Prediction
class Perfect:
    def __init__(self, level: float = 1.0):
        self.level = level
    def open(self, image):
        return Session(image, self.level)
class Session:
    def __init__(self, image, level):
        self.mask = (image[..., 0] > 128) * np.float32(level)
    def predict(self, clicks):
        return Prediction(self.mask[None], None)
"""


def test_the_values_act_in_a_run(tmp_path: Path) -> None:
    """A method that is right at once, with a probability between two thresholds: clicks and masks tell the terms."""
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    mask = np.zeros((24, 32), dtype=np.uint8)
    mask[4:15, 6:21] = 255
    Image.fromarray(np.stack([mask] * 3, 2)).save(tmp_path / "set" / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "set" / "masks" / "a.png")
    (tmp_path / "perfect.py").write_text(PERFECT)
    source = open_dataset(str(tmp_path / "set"), None)
    found = {}
    for name, level in (("ritm", 0.495), ("focalclick", 0.495), ("focuscut", 1.0), ("interformer", 1.0)):
        spec = MethodSpec("perfect", f"{tmp_path / 'perfect.py'}:Perfect", {"level": level}, 0.9)
        protocol = protocol_of(load_preset(name), threshold=0.9, chosen={"max_clicks": 3})
        rows = run_benchmark(spec, source, tmp_path / name, protocol).rows().to_pylist()
        found[name] = [(row["x"], row["y"], row["positive"], row["iou"]) for row in rows]
    first = (11, 9, True)
    assert found["ritm"] == [(*first, 1.0), (0, 0, False, 1.0), (0, 0, False, 1.0)]  # 0.495 is above 0.49
    assert [row[3] for row in found["focalclick"]] == [0, 0, 0]  # and not above 0.5
    assert found["focuscut"] == [(*first, 1.0)] * 3  # begins again
    xs = {found["interformer"][0][0]}
    assert xs <= set(range(11, 16))  # one of the centres of a box of 11 x 15
    assert found["interformer"][1:] == [(0, 0, False, 1.0)] * 2
