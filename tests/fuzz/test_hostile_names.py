"""Lists, and names of files that files bring: nothing outside the folder is opened, nothing endless is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from disbench.core.errors import quote
from disbench.datasets.images import ImageFinder
from disbench.io.files import is_inside_folder, relative_path
from tests.annotations import CATEGORIES, annotation, image
from tests.fuzz.dataset_files import MIB
from tests.fuzz.tools import Reader, examples, pytestmark_linux, written

pytestmark = pytestmark_linux
ALLOWED = 96 * MIB
OUTSIDE = ("../a", "a/../../b", "/etc/passwd", "..", "..\\a", "\\a", "C:\\a", "c:a", "a\0b", "a/..", "~/../a")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    assert not is_inside_folder(name)
    (tmp_path / "inside").mkdir()
    for path in (tmp_path / "a", tmp_path / "b"):
        path.write_bytes(b"outside")
    assert ImageFinder([tmp_path / "inside"])(name) is None
    try:
        assert is_inside_folder(relative_path(name))
    except ValueError:
        assert name in ("c:a", "a\0b")


@given(
    value=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner)),
    )
)
@examples(30)
def test_what_a_message_shows_is_short_and_plain(value: object) -> None:
    assert quote(value).isprintable()
    assert len(quote(value)) < 1100


def test_lists_are_bounded(read: Reader, tmp_path: Path) -> None:
    for data in (b"ab\n" * (MIB // 2), b"\n" * MIB, "é\n".encode() * (MIB // 2)):
        read("list", written(tmp_path / "train.txt", data), allowed=16 * MIB + 64 * len(data))
    assert "more than" in str(read("list", written(tmp_path / "train.txt", b"a\n" * 9 * MIB), allowed=40 * MIB))


def test_devices_and_pipes_are_not_waited_for(read: Reader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        for reader in ("lvis", "rgb", "label", "matlab", "pickle", "list"):
            assert "not a file" in str(read(reader, tmp_path / name, allowed=ALLOWED))


@pytest.mark.parametrize("name", OUTSIDE)
def test_annotations_name_images_of_their_folder_only(read: Reader, tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a")
    content = {"annotations": [annotation(1)], "categories": list(CATEGORIES)}
    text = json.dumps({**content, "images": [image(1, file_name=name)]})
    read("lvis", written(inside / "a.json", text.encode()), allowed=ALLOWED)
    assert "a.json: image 1" in str(read("annotated", inside / "a.json", allowed=ALLOWED))
    other = [{"image_id": 1, "file_name": name, "segments_info": []}]
    text = json.dumps({**content, "images": [image(1)], "annotations": other})
    assert str(inside) in str(read("panoptic", written(inside / "a.json", text.encode()), allowed=ALLOWED))
