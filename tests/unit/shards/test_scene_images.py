"""The image of a scene, for sheets, training and runs of sets."""

from pathlib import Path

import pytest
from PIL import Image

from disbench.core.errors import InputError
from disbench.shards.reader import read_scene_image


def test_a_photograph_to_be_turned_is_said_once_for_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (4, 3)).save(tmp_path / name, exif=exif)
        assert read_scene_image(tmp_path / name, "1", (3, 4)).shape == (3, 4, 3)
    assert [record.message.count("a.jpg: 6") for record in caplog.records] == [1]
    with pytest.raises(InputError, match=r"a\.jpg: .*stored 4 x 3, in viewers 3 x 4"):
        read_scene_image(tmp_path / "a.jpg", "1", (4, 3))
