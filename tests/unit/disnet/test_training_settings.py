"""A training's settings, its log, and the images that it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from disnet_tools import tiny_training
from shard_tools import random_scene, write_shards

from disbench.core.errors import InputError
from disbench.disnet.options import DisnetOptions
from disbench.disnet.training.examples import refuse_measured_images
from disbench.disnet.training.log import TrainingLog
from disbench.disnet.training.settings import Shards, Training, load_training, resolved
from disbench.disnet.training.train import dry_run
from disbench.io import definitions
from disbench.io.settings import settings_from
from tests.refusals import refuses


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_there_as_added_also_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = TrainingLog(tmp_path, "log", 0)
    assert not log.path.exists()
    log.add(10, {"loss": 1.23456789, "rate": 5e-5})
    assert (tmp_path / "log.csv").read_text() == "step,loss,rate\n10,1.23457,5e-05\n"
    log.add(20, {"loss": 1.0, "rate": 0.0})
    assert [row["step"] for row in rows(log.path)] == ["10", "20"]
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"], "no partial file, no folder without TensorBoard"


def test_a_resumed_training_drops_what_comes_again(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "log", 0)
    for step in (10, 20, 30):
        log.add(step, {"loss": float(step)})
    resumed = TrainingLog(tmp_path, "log", 20)
    assert len(rows(log.path)) == 3, "until there is something new"
    resumed.add(20, {"loss": -1.0})
    assert [(row["step"], row["loss"]) for row in rows(log.path)] == [("10", "10"), ("20", "-1")]


def test_columns_that_come_later_are_empty_before(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "validation", 0)
    log.add(1, {"miou@1": 0.5})
    log.add(2, {"noc@90": 3.0})
    assert rows(tmp_path / "validation.csv") == [
        {"step": "1", "miou@1": "0.5", "noc@90": ""},
        {"step": "2", "miou@1": "", "noc@90": "3"},
    ]
    again = TrainingLog(tmp_path, "validation", 3)
    again.add(3, {"miou@1": 0.25, "noc@90": 2.0})
    assert len(rows(again.path)) == 3


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path, "log", 0)
    for step in (1, 2):
        log.add(step, {"loss": step / 2})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("log/loss")] == [(1, 0.5), (2, 1.0)]


NAMES = definitions.names("baselines/configs")


@pytest.mark.parametrize("name", NAMES)
def test_every_training_loads_and_is_the_same_after_json(name: str) -> None:
    training = load_training(name)
    assert training.name == name and training.description and training.shards
    for source in training.shards:
        assert source.folder.startswith("shards/") and source.images
    assert settings_from(Training, json.loads(json.dumps(training.as_dict())), "") == training


def test_the_defaults_and_both_trainings_are_the_papers() -> None:
    """Section 4.2: Adam, 0.9 and 0.99, 5e-5 and 5e-6, warm-up of 2 epochs from 5e-8, batch 32."""
    training = Training("a")
    assert (training.batch, training.proposal_rate, training.refinement_rate) == (32, 5e-5, 5e-6)
    assert (training.betas, training.warmup_epochs, training.first_rate) == ((0.9, 0.99), 2.0, 5e-8)
    assert (training.network.options.candidates, training.corrective_clicks) == (7, 3)
    loss = training.refinement
    assert (loss.normalized_focal, loss.bce, loss.dice) == (1.0, 0.0, 0.0)
    coco, sbd = load_training("disnet-coco-lvis"), load_training("disnet-sbd")
    assert (coco.epochs, coco.sampling, sbd.epochs, sbd.sampling) == (70, "hierarchy", 55, "proximity")
    for training in (coco, sbd):
        assert training.batch * 4 == 32 and training.network.options == DisnetOptions()
        assert training.network.vit.weights == "facebook/vit-mae-base"


@pytest.mark.parametrize(
    "override",
    [
        *("batch=0", "accumulate=0", "steps=-1", "seed=-1", "proposal_rate=-1", "checkpoint_every=0", "log_every=0"),
        *("ema=1", "betas=0.9", "betas=0.9,1.0", "augmentation.views=-1", "augmentation.smallest_crop=1.5"),
        *("augmentation.smallest_crop=0", "augmentation.brightness=-0.1", "network.options.candidates=0"),
        "network.options.attention.first_click_radius=0",
    ],
)
def test_a_value_out_of_range_is_named(override: str) -> None:
    option = override.partition("=")[0].rpartition(".")[2]
    refuses(rf"disnet-small\.toml: .*{option} = ", load_training, "disnet-small", [override])


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("disnet-small", ["validate_every=5"], "validate_every needs validation"),
        ("disnet-small", ["precision=bf8"], "precision 'bf8'; did you mean 'bf16'"),
        ("disnet-small", ["augmentation.views=0"], "augmentation.views"),
        ("disnet-small", ["network.architecture=cnn"], "architecture 'cnn'"),
        ("disnet-small", ["epochs=0", "steps=0"], "epochs and steps are both 0"),
        ("none.toml", [], "none.toml"),
    ],
)
def test_what_a_user_gets_wrong_is_named(name: str, overrides: list[str], words: str) -> None:
    refuses(words, load_training, name, overrides)


def test_folders_are_found_here_first_and_then_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, root = tmp_path / "here", tmp_path / "root"
    for folder in (here / "shards", root / "shards", root / "images"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    training = Training("a", (Shards("shards", "images"), Shards("shards"), Shards(str(root / "shards"))))
    assert resolved(training, root).shards == (
        Shards("shards", str(root / "images")),
        Shards("shards", ""),
        Shards(str(root / "shards")),
    )
    for source, words in (
        (Shards("shards", "images"), "images: no such folder of images"),
        (Shards("none"), "none: no such folder of shards"),
        (Shards(str(tmp_path), "none"), "none: no such folder of images"),
    ):
        with pytest.raises(InputError, match=words):
            resolved(Training("a", (source,)), None)


def shards_of(folder: Path, *file_names: str) -> Shards:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, f"i{number}", things=2) for number in range(len(file_names))]
    pairs = zip(scenes, file_names, strict=True)
    named = [replace(one, scene=replace(one.scene, file_name=name)) for one, name in pairs]
    return Shards(str(write_shards(folder / "shards", named)), str(folder))


@pytest.mark.parametrize("name", ["000000303818.jpg", "train2017/000000456496.jpg", "COCO_train2014_000000001675.jpg"])
def test_coco_images_by_number(tmp_path: Path, name: str) -> None:
    refuses(name, lambda: refuse_measured_images([shards_of(tmp_path, "000000000009.jpg", name)]))


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["GrabCut/data_GT", "Berkeley/images", "DAVIS/img", "clothing/images"])
def test_files_of_the_benchmarks(tmp_path: Path, data_root: Path, folder: str) -> None:
    images = sorted((data_root / folder).iterdir())
    if folder.startswith("clothing"):  # the others are for training
        images = [path for path in images if int(path.stem) % 5 < 2]
    lines = (definitions.folder("datasets") / "measured-images.txt").read_text().splitlines()
    assert {f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in images} <= set(lines)
    shutil.copy(images[3], tmp_path)
    refuses(images[3].name, lambda: refuse_measured_images([shards_of(tmp_path, images[3].name)]))


def test_images_that_a_training_does_not_take(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, "000000000009.jpg", "train2017/000000456496.jpg")
    refuse_measured_images([replace(shards, only="0*")])
    refuses("456496", lambda: refuse_measured_images([replace(shards, only="*6.jpg")]))


def test_another_image_of_the_same_name_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "000.jpg").write_bytes(b"one's own first frame")
    refuse_measured_images([shards_of(tmp_path, "000.jpg", "missing.jpg", "12.jpg")])


def test_a_training_refuses_them_unless_told(tmp_path: Path) -> None:
    training = tiny_training(shards_of(tmp_path, "000000303818.jpg").folder)
    refuses("allow_measured", dry_run, training, tmp_path / "out")
    assert load_training("disnet-coco-lvis").allow_measured
    assert not load_training("disnet-small").allow_measured
