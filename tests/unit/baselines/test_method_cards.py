"""Cards of methods, and methods named by their place."""

from __future__ import annotations

import inspect
import pickle
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from disbench.baselines.bridge.adapters import LOADERS
from disbench.baselines.cards import card_names, load_card, load_class, load_environment, method_spec
from disbench.baselines.listing import list_methods, show_method
from disbench.baselines.weights import fetch
from disbench.core.choices import MethodStatus, Selection
from disbench.core.errors import InputError
from disbench.harness.presets import load_preset
from disbench.io import definitions
from disbench.reports.paper.definitions import read_published
from tests import toy_methods
from tests.refusals import refuses

TOY = str(Path(toy_methods.__file__))
SMALL = 'title = "Toy"\nstatus = "native"\nentry = "tests.toy_methods:Discs"\n'


def card(folder: Path, text: str) -> str:
    path = folder / "toy.toml"
    path.write_text(text)
    return str(path)


PUBLISHED = {
    **{"dos": "DOS w/o GC", "dos-gc": "DOS with GC", "dextr": "DEXTR", "fcanet": "FCANet", "iog": "IOG"},
    **{"multiseg": "MultiSeg", "fbrs": "f-BRS-B", "ld": "LD", "ia-sa": "IA+SA", "focuscut": "FocusCut"},
    **{"cdnet": "CDNet", "ritm": "RITM", "fcfi": "FCFI", "simpleclick": "SimpleClick"},
    **{"emc-click": "EMC-Click", "icmformer": "ICMFormer", "interformer": "InterFormer", "piclick": "PiClick"},
    **{"disnet-paper": "DISNet", "focalclick": "FocalClick"},
}
"""Every method of the published tables -> its card."""
NAMED = ("seem", "cfr-icl", "isegformer", "pseudoclick", "itis", "ifpn", "sam-hq", "sam2", "segnext", "sam")


@pytest.mark.parametrize("name", card_names())
def test_every_card_is_sound_and_shown(name: str) -> None:
    found = load_card(name)
    assert any(line.split()[0] == name for line in list_methods())
    shown = "\n".join(show_method(name))
    assert found.title in shown
    for option, table in found.options.items():
        assert f"--set {option}=" in shown
        assert table.help.endswith("."), f"{name}: {option} has no help"
    status = found.status
    if status == "native":
        spec = method_spec(name)
        assert pickle.loads(pickle.dumps(spec)) == spec
    assert (f"disbench run --method {name}" in shown) == (status != "published-only")
    assert (f"it cannot be run here: {found.reason}" in shown) == (status == "published-only")
    for key in ("citation", "licence", "year", "venue", "authors"):
        assert getattr(found, key), f"{name} has no {key}"
    if found.install:
        assert load_environment(found.install.environment).packages
    for variant in found.variants:
        assert not variant.url or variant.url.startswith("https://")
        assert f"network {variant.name}".rstrip() + f": {variant.backbone} on" in shown
    if found.selection:
        assert found.selection.split()[0].strip(":;,") in get_args(Selection)
    if found.protocol:
        assert load_preset(found.protocol).title
        assert f"--protocol {found.protocol} " in shown or status == "published-only"


def test_cards_are_those_of_the_printed_tables_and_of_the_adapters() -> None:
    assert set(PUBLISHED.values()) == {row.method for row in read_published().rows if row.numbers}
    for card, method in PUBLISHED.items():
        assert load_card(card).published == (method,)
    assert set(NAMED) <= set(card_names())
    bridged = [load_card(name) for name in card_names() if load_card(name).status == "bridge"]
    assert {card.adapter for card in bridged} == set(LOADERS)
    for card in bridged:
        assert card.variants
        assert card.code.startswith("https://github.com/")
        for key in ("threshold", "input_size", "backbone", "training_data", "tricks"):
            assert getattr(card, key) not in (None, "", ()), f"{card.name} has no {key}"
    budgets = {card.name: card.budget for card in bridged if card.budget}
    assert budgets == {"dextr": "extreme-points", "iog": "inside-and-corners"}


def test_rows_of_the_papers_table_are_found_by_the_checkpoints_name(tmp_path: Path) -> None:
    """Backbone and training data of a run are those of the network that it names."""
    for file, expected in (
        ("coco_lvis_h32_itermask.pth", ("HRNet-32", ["COCO+LVIS"])),
        ("sbd_h18_itermask.pth", ("HRNet-18", ["SBD"])),
        ("mine.pth", ("HRNet-18s, HRNet-18, HRNet-32", ["SBD", "COCO+LVIS"])),
    ):
        (tmp_path / file).write_bytes(b"weights")
        python, adapter = tmp_path / "python", tmp_path / "adapter.py"
        python.touch(mode=0o755)
        adapter.write_text("")
        text = Path(definitions.find("baselines", "ritm")).read_text()
        path = tmp_path / "ritm.toml"
        path.write_text(text.replace('adapter = "ritm"', f"adapter = '{adapter}'"))
        where = {"repo": tmp_path, "python": python, "checkpoint": tmp_path / file}
        spec = method_spec(str(path), [f"{key}={value}" for key, value in where.items()])
        assert (spec.card["backbone"], spec.card["training_data"]) == expected


@pytest.mark.parametrize("name", [n for n in card_names() if load_card(n).status == "native"])
def test_a_cards_options_are_the_arguments_of_its_class(name: str) -> None:
    """Names and defaults: a method that is made in Python is the one that its card makes."""
    parameters = inspect.signature(load_class(load_card(name).entry)).parameters
    defaults = {key: p.default for key, p in parameters.items() if p.kind != p.VAR_KEYWORD}
    options = dict(method_spec(name).options)
    assert defaults == {key: options[key] for key in defaults}
    assert len(defaults) == len(options) or len(defaults) < len(parameters), "others are keywords"


def test_a_card_is_recorded_with_the_keys_of_its_file() -> None:
    for name in card_names():
        card = load_card(name)
        content = dict(definitions.load(definitions.find("baselines", name)))
        assert card.table() == {key: value for key, value in content.items() if value != []}


def test_the_list_has_a_column_for_each_fact_and_can_be_filtered() -> None:
    head, *rows = list_methods(width=500)
    assert head.split() == ["name", "year", "status", "backbone", "training", "data", "title"]
    assert len(rows) == len(card_names())
    by_name = {row.split()[0]: row for row in rows}
    assert by_name["mobilesam"][head.index("backbone") :].startswith("TinyViT ")
    assert by_name["fcfi"][head.index("training") :].startswith("SBD, COCO+LVIS ")
    assert by_name["sam"].endswith("Segment Anything (SAM)")
    assert "…" not in "".join(rows)
    counts = {status: len(list(list_methods(status))) - 1 for status in get_args(MethodStatus)}
    assert sum(counts.values()) == len(rows) and min(counts.values()) > 0
    refuses("did you mean 'native'", lambda: list(list_methods("nativ")))


RITM_CODE = "https://github.com/saic-vul/ritm_interactive_segmentation/releases/download/v1.0"
SHOWN = [
    ("mobilesam", "disbench methods fetch mobilesam"),
    ("mobilesam", 'pip install "disbench[onnx]"'),
    ("mobilesam", "one of 1, 3"),
    ("sam", "weights: Hugging Face"),
    ("disk", "weights: none needed"),
    ("dextr", "4 extreme points, given at once"),
    ("ritm", "network h32-cocolvis: HRNet-32 on COCO+LVIS; coco_lvis_h32_itermask.pth"),
    ("ritm", f"{RITM_CODE}/coco_lvis_h32_itermask.pth"),
    ("ritm", "disbench methods install ritm --variant h18-sbd"),
    ("ritm", "disbench run --method ritm --variant h18-sbd --protocol ritm"),
    ("ritm", "--set device=cpu"),
    ("ritm", "published numbers:\n    RITM, of some table"),
]


@pytest.mark.parametrize(("name", "words"), SHOWN)
def test_what_is_shown_of_a_method(name: str, words: str) -> None:
    shown = "\n".join(show_method(name, ["RITM, of some table"]))
    assert words in shown
    assert ("methods fetch" in shown) == (name in ("mobilesam", "sam"))


WEIGHT = "[[weights]]\nfile = 'a'\nsha256 = 'x'\nbytes = 1\n"
VARIANT = "[[variants]]\nbackbone = 'B'\ntraining_data = ['S']\n"
BAD_CARDS = {
    "status = 'native'": "'title' is missing",
    "title = 'T'\nstatus = 'published-only'": "says why it cannot be run: reason",
    "title = 'T'\nstatus = 'bridge'": "names its adapter",
    "title = 'T'\nstatus = 'bridge'\nadapter = 'ritm'\nentry = 'a:B'": "'entry' goes with",
    f"{SMALL}threshold = 'high'": "threshold must be a number",
    f"{SMALL}budget = 'points'": "unknown budget",
    f"{SMALL}[options.size]\nhelp = 'no default'": "no default",
    f"{SMALL}{VARIANT}file = '../a'": "plain file name",
    f"{SMALL}{WEIGHT}npm = 'p@1'\nmember = 'a'".replace("file = 'a'", "file = '../a'"): "plain file name",
    f"{SMALL}{WEIGHT}npm = './folder'\nmember = 'a'": "not a package with a version",
}


@pytest.mark.parametrize(("text", "words"), BAD_CARDS.items())
def test_a_bad_card_is_named(tmp_path: Path, text: str, words: str) -> None:
    said = refuses(words, lambda: method_spec(card(tmp_path, text)))
    assert "toy.toml" in said


def test_cards_that_cannot_be_run_or_fetched(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody has it"):
        method_spec(card(tmp_path, "title = 'T'\nstatus = 'published-only'\nreason = 'nobody has it'\n"))
    refuses("disk", method_spec, "disc")
    refuses("ritm: no SHA-256", lambda: fetch(load_card("ritm")))


def test_a_class_by_its_file() -> None:
    spec = method_spec(f"{TOY}:Discs", ["candidates=3", "scores=false"])
    assert spec.name == "Discs"
    assert spec.options == {"radius": 12.0, "candidates": 3, "scores": False}
    session = spec.build().open(np.zeros((8, 9, 3), dtype=np.uint8))
    from disbench.core.clicks import Click

    assert session.predict([Click(1, 1, True)]).masks.shape == (3, 8, 9)
    assert method_spec("tests.toy_methods:Discs").options == method_spec(f"{TOY}:Discs").options


NO_CLASS: list[tuple[str, list[str], str]] = [
    ("nowhere.py:Discs", [], "nowhere.py"),
    (f"{TOY}:Disks", [], "did you mean 'Discs'"),
    (f"{TOY}:Discs", ["radus=3"], "did you mean 'radius'"),
    ("no.such.module:Name", [], "no.such.module"),
    ("nowhere.py", [], "nowhere.py:Name"),
    ("os:sep", [], "os:sep"),
]


@pytest.mark.parametrize(("name", "overrides", "words"), NO_CLASS)
def test_a_class_that_cannot_be_found_is_named(name: str, overrides: list[str], words: str) -> None:
    refuses(words, method_spec, name, overrides)


WRONG_FILES = [
    ("import numpy\n\nraise RuntimeError('not today')\n", "line 3: RuntimeError: not today"),
    ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
    ("class Needs:\n    def __init__(self, folder): ...\n", "folder"),
    ("class Needs:\n    threshold = 'high'\n", "threshold is 'high'"),
    ("class Near:\n    pass\n", "unknown class 'Needs'"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_FILES)
def test_an_error_in_the_users_file_is_placed(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "own.py").write_text(text)
    said = refuses(words, method_spec, f"{tmp_path / 'own.py'}:Needs")
    assert "own.py" in said


def test_a_users_file_may_import_its_neighbour_and_set_a_threshold(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_own.py").write_text("RADIUS = 3\n")
    own = "from neighbour_of_own import RADIUS\nclass Own:\n    threshold = 0.25\n    radius = RADIUS\n"
    own += "    def open(self, image): ...\n"
    (tmp_path / "own.py").write_text(own)
    spec = method_spec(f"{tmp_path / 'own.py'}:Own")
    assert spec.threshold == 0.25
    assert spec.build().radius == 3  # type: ignore[attr-defined]
    sys.path.remove(str(tmp_path))


def test_a_file_is_loaded_once_and_again_after_it_was_mended(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("raise RuntimeError('not yet')\n")
    refuses("not yet", method_spec, f"{path}:Own")
    path.write_text(
        "class Own:\n    def __init__(self, size=3, names=None, *rest, **more): ...\n    def open(self, image): ...\n"
    )
    assert method_spec(f"{path}:Own", ["size=4"]).options == {"size": 4}
    made = method_spec(f"{path}:Own").build()
    assert type(made) is type(method_spec(f"{path}:Own").build())
    refuses("names", method_spec, f"{path}:Own", ["names=a"])
