"""Cards of methods, and methods named by their place."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from disbench.baselines.cards import _load_class, card_names, load_card, method_spec
from disbench.baselines.listing import list_methods, show_method
from disbench.errors import InputError
from tests import toy_methods

TOY = str(Path(toy_methods.__file__))
HASHED = "file = 'a'\nsha256 = 'x'\nbytes = 1\n"
SMALL = 'title = "Toy"\nstatus = "native"\nentry = "tests.toy_methods:Discs"\n'


def card(folder: Path, text: str) -> str:
    path = folder / "toy.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", card_names())
def test_every_card_is_sound_and_shown(name: str) -> None:
    found = load_card(name)
    assert any(line.startswith(name) for line in list_methods())
    shown = "\n".join(show_method(name))
    assert found.text("title") in shown
    for option in found.content.get("options", {}):
        assert f"--set {option}=" in shown
    if found.text("status") == "native":
        spec = method_spec(name)
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert f"disbench run --method {name}" in shown
    for key in ("citation", "licence", "year", "venue"):
        assert found.content.get(key), f"{name} has no {key}"


@pytest.mark.parametrize("name", [n for n in card_names() if load_card(n).text("status") == "native"])
def test_a_cards_options_are_the_arguments_of_its_class(name: str) -> None:
    """Names and defaults: a method that is made in Python is the one that its card makes."""
    found = load_card(name)
    parameters = inspect.signature(_load_class(found.text("entry"))).parameters
    assert {key: p.default for key, p in parameters.items()} == dict(method_spec(name).options)
    for option, table in found.content.get("options", {}).items():
        assert table.get("help", "").endswith("."), f"{name}: {option} has no help"


def test_the_list_has_a_column_for_each_fact() -> None:
    head, *rows = list_methods()
    assert head.split() == ["name", "year", "status", "backbone", "weights", "title"]
    assert len(rows) == len(card_names())
    by_name = {row.split()[0]: row for row in rows}
    assert by_name["disk"][head.index("weights") :].startswith("none needed ")
    assert by_name["mobilesam"][head.index("backbone") :].startswith("TinyViT ")
    assert by_name["mobilesam"][head.index("weights") :].startswith(("here ", "to be fetched "))
    assert by_name["sam"][head.index("weights") :].startswith("Hugging Face ")
    assert by_name["sam"].endswith("Segment Anything (SAM)")


def test_what_is_shown_of_a_method_with_weights() -> None:
    shown = "\n".join(show_method("mobilesam"))
    for words in ("disbench methods fetch mobilesam", 'pip install "disbench[onnx]"', "one of 1, 3", "MIT"):
        assert words in shown
    assert "methods fetch" not in "\n".join(show_method("disk"))


def test_a_card_sets_options_and_threshold(tmp_path: Path) -> None:
    path = card(tmp_path, f'{SMALL}threshold = 0.3\n[options.radius]\ndefault = 5.0\nhelp = "pixels"\n')
    spec = method_spec(path, ["radius=7"])
    assert (spec.name, spec.threshold, dict(spec.options)) == ("toy", 0.3, {"radius": 7.0})
    made = spec.build()
    assert isinstance(made, toy_methods.Discs)
    assert made.radius == 7.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("status = 'native'\n", "'title' is missing"),
        ("title = 'T'\nstatus = 'natve'\n", "did you mean 'native'"),
        ("title = 'T'\nstatus = 'native'\n", "names its class"),
        (f"{SMALL}thresold = 0.5\n", "did you mean 'threshold'"),
        (f"{SMALL}threshold = 'high'\n", "wrong kind"),
        (f"{SMALL}threshold = nan\n", "finite"),
        (f"{SMALL}[options.radius]\nhelp = 'no default'\n", "no default"),
        (f"{SMALL}[[weights]]\nfile = 'a'\n", "needs file, sha256, bytes"),
        (
            f"{SMALL}[[weights]]\nfile = '../a'\nsha256 = 'x'\nbytes = 1\nurl = 'https://x'\n",
            "plain file name",
        ),
        (f"{SMALL}[[weights]]\n{HASHED}npm = 'p@1'\nurl = 'https://x'\n", "either npm or url"),
        (f"{SMALL}[[weights]]\n{HASHED}npm = 'p@1'\n", "needs member"),
        (f"{SMALL}[[weights]]\n{HASHED}url = 'https://x'\nmember = 'a'\n", "needs member"),
        (f"{SMALL}weights = ['a']\n", r"table \[\[weights\]\]"),
        (f"{SMALL}[options.radius]\ndefault = 1\nmin = 0\n", "did you mean 'minimum'|unknown key 'min'"),
        ("title = ", "not a readable TOML"),
    ],
)
def test_a_bad_card_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        method_spec(card(tmp_path, text))
    assert "toy.toml" in str(caught.value)


def test_a_card_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="published-only"):
        method_spec(card(tmp_path, "title = 'T'\nstatus = 'published-only'\n"))
    with pytest.raises(InputError, match="disk"):
        method_spec("disc")


def test_a_class_by_its_file() -> None:
    spec = method_spec(f"{TOY}:Discs", ["candidates=3", "scores=false"])
    assert spec.name == "Discs"
    assert spec.options == {"radius": 12.0, "candidates": 3, "scores": False}
    session = spec.build().open(np.zeros((8, 9, 3), dtype=np.uint8))
    from disbench.clicks import Click

    assert session.predict([Click(1, 1, True)]).masks.shape == (3, 8, 9)
    assert method_spec("tests.toy_methods:Discs").options == method_spec(f"{TOY}:Discs").options


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("nowhere.py:Discs", [], "no such file"),
        (f"{TOY}:Disks", [], "did you mean 'Discs'"),
        (f"{TOY}:Discs", ["radus=3"], "did you mean 'radius'"),
        (f"{TOY}:Discs", ["radius=wide"], "a number"),
        ("no.such.module:Name", [], "cannot be imported"),
        ("nowhere.py", [], "name the class in it, too: nowhere.py:Name"),
        ("os:sep", [], "not a class"),
    ],
)
def test_a_class_that_cannot_be_had(name: str, overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        method_spec(name, overrides)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import numpy\n\nraise RuntimeError('not today')\n", r"own.py, line 3: RuntimeError: not today"),
        ("class Broken(:\n    pass\n", r"own.py, line 1: SyntaxError"),
        ("import nothing_of_this_name\n", r"own.py, line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit(4)\n", r"own.py, line 2: SystemExit: 4"),
        ("def fail():\n    raise KeyError\n\nfail()\n", r"own.py, line 2: KeyError; mend"),
        ("class Needs:\n    def __init__(self, folder): ...\n", "has no default"),
        ("class Needs:\n    threshold = 'high'\n", "threshold is 'high'"),
        ("class Needs:\n    threshold = float('nan')\n", "threshold is nan"),
        ("class Near:\n    pass\n", "unknown class 'Needs'"),
    ],
)
def test_an_error_in_the_users_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(InputError, match=words):
        method_spec(f"{tmp_path / 'own.py'}:Needs")


def test_a_users_file_may_import_its_neighbour_and_set_a_threshold(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_own.py").write_text("RADIUS = 3\n")
    (tmp_path / "own.py").write_text(
        "from neighbour_of_own import RADIUS\nclass Own:\n    threshold = 0.25\n    radius = RADIUS\n"
    )
    spec = method_spec(f"{tmp_path / 'own.py'}:Own")
    assert spec.threshold == 0.25
    assert spec.build().radius == 3  # type: ignore[attr-defined]
    sys.path.remove(str(tmp_path))


def test_an_error_in_the_users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_a_user.py").write_text("\nraise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"module_of_a_user:Own: RuntimeError: not today \(module_of_a"):
        method_spec("module_of_a_user:Own")


def test_a_file_is_loaded_once_and_again_after_it_was_mended(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("raise RuntimeError('not yet')\n")
    with pytest.raises(InputError, match="not yet"):
        method_spec(f"{path}:Own")
    path.write_text("class Own:\n    def __init__(self, size=3, names=None, *rest, **more): ...\n")
    assert method_spec(f"{path}:Own", ["size=4"]).options == {"size": 4}
    made = method_spec(f"{path}:Own").build()
    assert type(made) is type(method_spec(f"{path}:Own").build())
    with pytest.raises(InputError, match="names"):
        method_spec(f"{path}:Own", ["names=a"])


def test_a_spec_makes_its_method_in_another_process(tmp_path: Path) -> None:
    """As in a worker: from another folder, by what was pickled alone."""
    (tmp_path / "beside_own.py").write_text("SIZE = 5\n")
    (tmp_path / "own.py").write_text(
        "class Own:\n"
        "    def __init__(self, size=3):\n"
        "        from beside_own import SIZE\n"
        "        self.sum = size + SIZE\n"
    )
    (tmp_path / "elsewhere").mkdir()
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        spec = method_spec("own.py:Own", ["size=4"])
    finally:
        os.chdir(before)
    (tmp_path / "spec.pickle").write_bytes(pickle.dumps(spec))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).build().sum)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spec.pickle")],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "9", done.stderr
