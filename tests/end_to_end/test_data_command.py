"""`disbench data list|verify|fetch`, as typed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from disbench.io import definitions
from tests.commands import Result, disbench
from tests.published_system import serving
from tests.synthetic import write_pairs

CARD = """
title = "Mine"
loader = "folder"
folder = "mine"
marker = ["images", "masks"]
samples = 2
[options.images]
default = "images"
[options.masks]
default = "masks"
[options.mode]
default = "binary"
choices = ["binary", "instances", "trimap"]
[options.void_255]
default = false
[[files]]
url = "URL/mine.zip"
file = "mine.zip"
holds = ["images", "masks"]
"""


def data(*arguments: str | Path, root: Path | None = None) -> Result:
    where = {} if root is None else {"DISBENCH_DATA": str(root)}
    return disbench("data", *arguments, **where, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the dataset's archive is served."""
    folder = write_pairs(tmp_path / "packed", (0, 0))
    archive = shutil.make_archive(str(tmp_path / "mine-1.0"), "zip", folder.parent, folder.name)
    with serving({"/mine.zip": Path(archive).read_bytes()}) as host:
        yield host.url


def test_list(tmp_path: Path) -> None:
    result = data("list", root=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert set(lines) >= set(definitions.names("datasets"))
    assert " here " in lines["photos"]
    assert " can be fetched " in lines["grabcut"]


def test_fetch_then_verify(tmp_path: Path, url: str) -> None:
    card, root = tmp_path / "mine.toml", tmp_path / "root"
    card.write_text(CARD.replace("URL", url))
    root.mkdir()
    refused = data("fetch", card, "--data", root)
    assert refused.returncode == 2
    assert re.fullmatch(r"error: mine: the card has no SHA-256 for mine\.zip, .*--no-hash.*\n", refused.stderr)
    fetched = data("fetch", card, "--no-hash", root=root)
    assert fetched.returncode == 0, fetched.stderr
    assert re.search(r"SHA-256 [0-9a-f]{64} \(NOT CHECKED", fetched.stdout)
    again = data("fetch", card, "--no-hash", root=root)
    assert again.stdout == "mine.zip: what it holds is here already\n"
    whole = data("verify", card, root=root)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.startswith("mine: 2 samples on 2 images: whole\n")


def test_check_links(tmp_path: Path, url: str) -> None:
    card = tmp_path / "mine.toml"
    copy = f'[[files.copies]]\nurl = "{url}/gone.zip"\n'
    card.write_text(CARD.replace("URL", url) + copy)
    alive = data("check-links", card)
    assert alive.returncode == 0, alive.stderr
    assert [line.split()[:2] for line in alive.stdout.splitlines()] == [["mine", "alive"], ["mine", "DEAD"]]
    card.write_text(CARD.replace("URL/mine", f"{url}/lost") + copy)
    dead = data("check-links", card)
    assert dead.returncode == 1
    assert dead.stderr == "no living address: mine.zip of mine\n"


def test_verify_tells_everything_that_is_wrong(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "mine", (0, 0))
    for path in (folder / "masks").iterdir():
        Image.new("L", Image.open(path).size).save(path)
    result = data("verify", folder)
    assert result.returncode == 2
    assert "mine: 2 samples on 2 images: not whole, 2 problems\n" in result.stderr
    assert all(f"{stem}.png: the target of sample '{stem}' is empty" in result.stderr for stem in ("i0", "i1"))
    result = data("verify", "grabcut", root=tmp_path)
    assert result.returncode == 2
    assert "disbench data fetch grabcut" in result.stdout + result.stderr


@pytest.mark.real_data
def test_verify_real_data(data_root: Path) -> None:
    result = data("verify", "grabcut", root=data_root)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "(as on the card)" in result.stdout
