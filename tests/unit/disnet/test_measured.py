"""Images that methods are measured on are refused by a training."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from disnet_tools import tiny_training
from shard_tools import random_scene, write_shards

from disbench.core.errors import InputError
from disbench.disnet.training.examples import refuse_measured
from disbench.disnet.training.settings import Shards, load_training
from disbench.disnet.training.train import dry_run
from disbench.io import definitions


def shards_of(folder: Path, *file_names: str) -> Shards:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, f"i{number}", things=2) for number in range(len(file_names))]
    named = [
        replace(one, scene=replace(one.scene, file_name=name)) for one, name in zip(scenes, file_names, strict=True)
    ]
    return Shards(str(write_shards(folder / "shards", named)), str(folder))


@pytest.mark.parametrize("name", ["000000303818.jpg", "train2017/000000456496.jpg", "COCO_train2014_000000001675.jpg"])
def test_coco_images_by_number(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        refuse_measured([shards_of(tmp_path, "000000000009.jpg", name)])


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["GrabCut/data_GT", "Berkeley/images", "DAVIS/img", "clothing/images"])
def test_files_of_the_benchmarks(tmp_path: Path, data_root: Path, folder: str) -> None:
    images = sorted((data_root / folder).iterdir())
    if folder.startswith("clothing"):  # the others are for training
        images = [path for path in images if int(path.stem) % 5 < 2]
    lines = (definitions.folder("datasets") / "measured-images.txt").read_text().splitlines()
    assert {f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in images} <= set(lines)
    shutil.copy(images[3], tmp_path)
    with pytest.raises(InputError, match=images[3].name):
        refuse_measured([shards_of(tmp_path, images[3].name)])


def test_images_that_a_training_does_not_take(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, "000000000009.jpg", "train2017/000000456496.jpg")
    refuse_measured([replace(shards, only="0*")])
    with pytest.raises(InputError, match="456496"):
        refuse_measured([replace(shards, only="*6.jpg")])


def test_another_image_of_the_same_name_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "000.jpg").write_bytes(b"one's own first frame")
    refuse_measured([shards_of(tmp_path, "000.jpg", "missing.jpg", "12.jpg")])


def test_a_training_refuses_them_unless_told(tmp_path: Path) -> None:
    training = tiny_training(shards_of(tmp_path, "000000303818.jpg").folder)
    with pytest.raises(InputError, match="allow_measured"):
        dry_run(training, tmp_path / "out")
    assert load_training("disnet-coco-lvis").allow_measured
    assert not load_training("disnet-small").allow_measured
