"""Cards: what a name means, where a dataset is looked for, and what is said when it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.datasets.cards import LOADERS, load_card, open_dataset
from disbench.datasets.fetch import list_datasets, verify
from disbench.io import definitions
from tests.refusals import refuses

CARD = """
title = "Mine"
loader = "folder"
folder = "mine"
[options.images]
default = "a"
[options.masks]
default = "b"
[options.mode]
default = "binary"
[options.void_255]
default = false
"""


def pictures(folder: Path, count: int = 2) -> Path:
    for number in range(count):
        for part, pixels in (("a", np.full((4, 5, 3), 30 * number)), ("b", np.eye(4, 5))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", definitions.names("datasets"))
def test_every_card_is_complete(name: str) -> None:
    card = load_card(name)
    assert card.loader in LOADERS
    for key in ("title", "layout", "target", "get"):
        assert getattr(card, key), key
    if name != "folder":
        assert card.citation
        assert card.terms
    for option in card.options.values():
        assert option.help
    for file in card.files:
        assert file.holds
        assert len({address.url for address in file.addresses}) == len(file.addresses)
        for address in file.addresses:
            assert address.url.startswith(("https://", "http://"))
            assert not address.sha256 or (len(address.sha256) == 64 and int(address.sha256, 16))
            assert len(address.holds) == len(file.holds)
    assert not card.content_hash or len(card.content_hash) == 64


def test_a_dataset_that_is_not_here_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    for name, data, words in (
        ("grabcat", tmp_path, "unknown dataset 'grabcat'; did you mean 'grabcut'"),
        (str(tmp_path / "nowhere.toml"), tmp_path, r"nowhere\.toml: "),
        ("grabcut", None, r"grabcut: .*--data or DISBENCH_DATA"),
        ("grabcut", tmp_path, f"data_GT and boundary_GT in {tmp_path}/GrabCut or {tmp_path};"),
        ("davis-585", tmp_path, r"drive\.google\.com/drive/folders"),
    ):
        refuses(words, open_dataset, name, data)


class TestOnesOwnCard:
    @pytest.fixture
    def card(self, tmp_path: Path) -> Path:
        path = tmp_path / "cards" / "mine.toml"
        path.parent.mkdir()
        path.write_text(CARD)
        return path

    def test_where_its_folder_is(self, card: Path, tmp_path: Path) -> None:
        pictures(tmp_path / "data" / "mine")
        source = open_dataset(str(card), tmp_path / "data")
        assert (source.name, list(source.ids)) == ("mine", ["0", "1"])
        refuses(r"mine: .*cards/mine", lambda: open_dataset(str(card), None))
        pictures(card.parent / "mine", 1)
        assert list(open_dataset(str(card), None).ids) == ["0"]
        place = pictures(tmp_path / "far away")
        card.write_text(CARD.replace('"mine"', f'"{place}"'))
        for data in (None, tmp_path):
            assert len(open_dataset(str(card), data).ids) == 2

    def test_a_loader_of_ones_own(self, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my_loader.py").write_text(
            "from disbench.datasets.layouts import open_pairs\n"
            "def load(name, folder, options, facts):\n"
            "    return open_pairs(name, folder, {'images': 'a', 'masks': 'b', 'rule': 'any-channel'}, facts)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        pictures(card.parent / "mine")
        card.write_text('title = "x"\nloader = "my_loader:load"\nfolder = "mine"')
        assert open_dataset(str(card), None).read(0).target.sum() == 4
        card.write_text('title = "x"\nloader = "my_loader:lod"\nfolder = "mine"')
        refuses("'my_loader:lod' cannot be imported", lambda: open_dataset(str(card), None))
        sys.modules.pop("my_loader")

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ('title = "x"\nloader = "floder"', "did you mean 'folder'"),
            ('title = "x"\nloader = "folder"\n[[files]]\nurl = "u"', "files[0]: the key 'file'"),
            ('title = "x"\nloader = "folder"\n[options.a]\nhelp = "y"', "'a'"),
            ('title = "x"\nloader = "folder"\nfolder = "."\nmarker = ["{b}"]', "'b'"),
            ('title = "x"\nloader = "pairs"\nfolder = "."', "'rule'"),
        ],
    )
    def test_bad_cards_are_refused(self, card: Path, content: str, named: str) -> None:
        card.write_text(content)
        said = refuses(r"mine\.toml: ", lambda: open_dataset(str(card), card.parent))
        assert named in said


class TestVerify:
    @pytest.fixture
    def card(self, tmp_path: Path) -> Path:
        pictures(tmp_path / "mine", 3)
        path = tmp_path / "mine.toml"
        path.write_text(CARD)
        found = open_dataset(str(path), None).content_hash()
        path.write_text(f'images = 3\nsamples = 3\ncontent_hash = "{found}"\n{CARD}')
        return path

    def test_whole(self, card: Path) -> None:
        found = verify(str(card), None)
        assert found.ok
        assert (found.samples, found.images, found.checked_hash) == (3, 3, True)
        assert found.lines() == [
            "mine: 3 samples on 3 images: whole",
            f"  content hash {found.content_hash} (as on the card)",
            "  values 0, 1 in 3 masks: object above 0, 20.0% of the pixels",
        ]
        other = verify(str(card), None, ["mode=instances"])  # other options are not compared with the card
        assert (other.ok, other.checked_hash) == (True, False)
        card.write_text(CARD)
        assert verify(str(card), None).lines()[1].endswith("(the card has none to compare)")
        assert verify(str(card.parent / "mine"), None, ["images=a", "masks=b"]).ok
        refuses("did you mean", verify, "grabcut", None, ["rul=x"])

    def test_all_problems_are_reported(self, card: Path) -> None:
        folder = card.parent / "mine"
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(folder / "b" / "0.png")
        (folder / "a" / "1.png").write_bytes(b"no image")
        Image.fromarray(np.ones((4, 4), np.uint8)).save(folder / "b" / "2.png")
        card.write_text(card.read_text().replace("samples = 3", "samples = 4"))
        found = verify(str(card), None)
        assert not found.ok
        reported = "\n".join(found.problems)
        assert len(found.problems) == 5
        for part in ("b/0.png: ", "a/1.png: ", "b/2.png: ", "3 samples"):
            assert part in reported
        assert f"content hash {found.content_hash}" in reported
        assert found.lines()[0] == "mine: 3 samples on 3 images: not whole, 5 problems"

    def test_a_dataset_that_does_not_open(self, card: Path, tmp_path: Path) -> None:
        (tmp_path / "mine" / "b" / "0.png").unlink()
        first, problem = verify(str(card), None).lines()
        assert first == "mine: 0 samples on 0 images: not whole, 1 problem"
        assert problem.startswith(f"  {tmp_path}/mine/b: ")


def test_the_list(tmp_path: Path) -> None:
    for part in ("data_GT", "boundary_GT"):
        (tmp_path / "GrabCut" / part).mkdir(parents=True)
    found = {item.name: item for item in list_datasets(tmp_path)}
    assert (found["grabcut"].state, found["grabcut"].folder) == ("here", tmp_path / "GrabCut")
    states = {name: found[name].state for name in ("davis", "davis-585", "photos", "folder")}
    assert states == {"davis": "can be fetched", "davis-585": "not here", "photos": "here", "folder": "your own"}
    assert found["grabcut"].line().split()[:3] == ["grabcut", "50", "here"]
    assert all(item.state != "here" for item in list_datasets(None) if item.name != "photos")
