"""Cards, recipes, protocols, trainings, ablations and tables from strangers: values of their kinds, or a refusal."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbench.baselines import weights
from disbench.baselines.cards import load_card as load_method_card
from disbench.datasets.cards import load_card as load_dataset_card
from disbench.datasets.fetch import fetch
from disbench.harness.presets import load_preset
from disbench.io import definitions
from disbench.reports.ablation.plans import load_plan
from disbench.reports.paper.definitions import PaperTable, read_definition
from disbench.sampling.recipes import load_recipe
from disbench.sampling.splits import read_split
from tests.fuzz.stored_forms import NASTY_TEXTS, changed, damaged, result_or_refusal
from tests.fuzz.tools import examples
from tests.refusals import refuses


def _training(path: str) -> object:
    from disbench.disnet.training.settings import load_training

    return load_training(path)


def _dataset(path: str) -> object:
    card = load_dataset_card(path)
    return card.marks(card.values()), card.places(Path("data"))


def _fetch(path: str) -> object:
    return next(fetch(path, Path(path).parent / "data"), None)


def _method(path: str) -> object:
    card = load_method_card(path)
    return [weights.weights_folder(card.name) / weight.file for weight in card.weights]


def _table(path: str) -> object:
    return read_definition(PaperTable, path)


READERS: dict[str, tuple[definitions.Kind, Callable[[str], object]]] = {
    "recipe": ("sampling", load_recipe),
    "dataset": ("datasets", _dataset),
    "fetch": ("datasets", _fetch),
    "method": ("baselines", _method),
    "preset": ("baselines/protocols", lambda path: load_preset(path).line()),
    "training": ("baselines/configs", _training),
    "ablation": ("baselines/configs/ablations", load_plan),
    "table": ("reports", _table),
    "split": ("datasets/splits", read_split),
}
KINDS = sorted(READERS)


@contextmanager
def file_of(content: bytes, name: str = "mine.toml") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(content)
        yield Path(place) / name


def own(kind: str) -> list[Path]:
    """The package's own definitions of a kind, the shorter ones first."""
    found = definitions.folder(READERS[kind][0]).glob("*.toml")
    texts = sorted(found, key=lambda path: (path.stat().st_size, path.name))
    return [path for path in texts if kind != "table" or path.stem.startswith("table")]


def as_toml(value: Any) -> str:
    """A table of plain data as TOML, all of it in inline tables; nothing stands for null."""
    return "".join(f"{_key(key)} = {_inline(item)}\n" for key, item in value.items() if item is not None)


def _key(key: str) -> str:
    return json.dumps(key.encode("utf-8", "replace").decode()).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) for item in value if item is not None) + "]"
    if isinstance(value, str):
        return _key(value)
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("kind", KINDS)
@examples(45)
@given(data=st.data())
def test_spoilt_definitions(kind: str, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(own(kind))).read_bytes()
    table = changed(tomllib.loads(content.decode())).map(lambda table: as_toml(table).encode())
    with file_of(data.draw(st.one_of(damaged(content), table, table))) as mine:
        result_or_refusal(lambda: READERS[kind][1](str(mine)))
        assert {entry.name for entry in mine.parent.iterdir()} <= {"mine.toml", "data"}


CARD = 'title = "x"\nloader = "folder"\n'


@pytest.mark.parametrize(
    "marker", ["{images:>999999999}", "{images.__class__}", "{images[0]}", "{images!r}", "{", "{}", "{0}", "{other}"]
)
def test_markers_hold_names_alone(marker: str) -> None:
    text = f'{CARD}marker = ["{marker}"]\noptions = {{ images = {{ default = "a" }} }}\n'
    with file_of(text.encode()) as mine:
        assert result_or_refusal(lambda: _dataset(str(mine)), mine) is None


@pytest.mark.parametrize("key", ["folder", "to", "file", "holds"])
@pytest.mark.parametrize(
    "text", ["../outside", "/absolute/outside", "a/../../b", "a\x01b", "C:/x", "a\\..\\b", "/".join("a" * 99)]
)
def test_a_card_fetches_into_the_root_alone(key: str, text: str) -> None:
    remote = {"url": "http://127.0.0.1:9/x", "file": "x", "holds": ["y"], "sha256": "0" * 64}
    content: dict[str, Any] = {"title": "x", "loader": "folder", "folder": "mine", "files": [remote]}
    if key == "folder":
        content[key] = text
    else:
        remote[key] = [text] if key == "holds" else text
    with file_of(as_toml(content).encode()) as mine:
        refuses(str(mine), lambda: list(fetch(str(mine), mine.parent / "data")))
        assert not (mine.parent / "data").exists()


@pytest.mark.parametrize(
    "package",
    (
        *("--registry=http://127.0.0.1:9", "git+ssh://x/y", "../folder", "/absolute", "x/y", "file:x"),
        *("http://x/y.tgz", "x@latest", "x", "x@npm:y@1.0.0", "x@1.0.0 --foo", "X@1.0.0\n"),
    ),
)
def test_npm_is_given_packages_of_its_registry_alone(package: str) -> None:
    """npm runs the scripts of folders and of git repositories."""
    table = {"file": "w", "npm": package, "member": "m", "bytes": 1, "sha256": "0" * 64}
    content = {"title": "x", "status": "native", "entry": "a:B", "weights": [table]}
    with file_of(as_toml(content).encode()) as mine:
        assert result_or_refusal(lambda: _method(str(mine)), mine) is None


def test_looking_at_a_card_runs_nothing_of_it(tmp_path: Path) -> None:
    """What a card names is imported when its method or dataset is opened, not before."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Method: pass\n")
    card = {"title": "x", "status": "native", "entry": f"{tmp_path / 'evil.py'}:Method"}
    with file_of(as_toml(card).encode()) as mine:
        _method(str(mine))
    with file_of(as_toml({"title": "x", "loader": "evil:open"}).encode()) as mine:
        _dataset(str(mine))
    assert not (tmp_path / "ran").exists()


@examples(30)
@given(options=st.lists(st.tuples(st.text(max_size=12), st.sampled_from(NASTY_TEXTS)), max_size=3))
def test_overrides(options: list[tuple[str, str]]) -> None:
    overrides = [f"{name}={text}" for name, text in [*options, ("cap", options[0][1] if options else "x")]]
    result_or_refusal(lambda: load_recipe("lvis-hierarchy", overrides))
