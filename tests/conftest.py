"""What the tests share: the real datasets, and masks that are related to each other."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before what reads it is imported: tests run beside each other

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from disbench.core.masks import Rle
from disbench.io import addresses
from disbench.workers import processes
from tests.forked import SPAWNED, fork_workers

settings.register_profile("disbench", max_examples=100, deadline=None)
settings.register_profile("again", max_examples=25, deadline=None)  # against the wheel, after the checkout
settings.load_profile("again" if os.environ.get("DISBENCH_EXPECTED_SITE") else "disbench")

fork_workers()

Masks = npt.NDArray[np.bool_]

IN_COCO_AND_LVIS = (11813, 223747, 346638, 359937)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests that wait for a cluster, so that other processes have work while they do."""
    items.sort(key=lambda item: "cluster" not in getattr(item, "fixturenames", ()))


def pytest_runtest_teardown() -> None:
    """Forget what a command copied from an address: other machines would be told to copy it again."""
    addresses._copied.clear()


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are started anew, as outside of the tests."""
    monkeypatch.setattr(processes, "CONTEXT", SPAWNED)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real datasets; without it the test is skipped."""
    folder = os.environ.get("DISBENCH_DATA")
    if not folder:
        pytest.skip("DISBENCH_DATA is not set: no real datasets to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def lvis_images(data_root: Path) -> dict[int, list[Rle]]:
    """All masks of each annotated image of lvis_val_100.json, as pycocotools rasterises them."""
    return _masks_by_image(data_root / "lvis" / "lvis_val_100.json")


@pytest.fixture(scope="session")
def coco_images(data_root: Path) -> dict[int, list[Rle]]:
    """All masks of each annotated image of instances_val.json, crowd regions among them."""
    return _masks_by_image(data_root / "coco" / "instances_val.json")


@pytest.fixture(scope="session")
def coco_and_lvis_images(
    coco_images: dict[int, list[Rle]], lvis_images: dict[int, list[Rle]]
) -> dict[int, tuple[list[Rle], list[Rle]]]:
    """COCO's and LVIS's masks of the four images that both annotate."""
    return {image: (coco_images[image], lvis_images[image]) for image in IN_COCO_AND_LVIS}


@pytest.fixture(scope="session")
def related_masks() -> st.SearchStrategy[Masks]:
    """One to eight masks of one image, most of them derived from another: nested, equal, shifted, united."""
    return _related_masks()


@pytest.fixture(scope="session")
def photo_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hierarchy-based diverse sets of the embedded photos, as shards."""
    from disbench.datasets.instances import AnnotatedImages
    from disbench.datasets.photos import open_photos
    from disbench.sampling.job import make_shards
    from disbench.sampling.recipes import load_recipe

    folder = tmp_path_factory.mktemp("photos") / "shards"
    make_shards(AnnotatedImages([open_photos()]), load_recipe("lvis-hierarchy"), folder)
    return folder


def _masks_by_image(path: Path) -> dict[int, list[Rle]]:
    content = json.loads(path.read_text())
    images = {image["id"]: image for image in content["images"]}
    masks: dict[int, list[Rle]] = {}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        segmentation: Any = coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"])
        whole = coco_mask.merge(segmentation) if isinstance(segmentation, list) else segmentation
        masks.setdefault(image["id"], []).append(whole)
    return masks


@st.composite
def _related_masks(draw: st.DrawFn) -> Masks:
    height, width = draw(st.integers(12, 40)), draw(st.integers(14, 40))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks: list[npt.NDArray[np.bool_]] = []
    for _ in range(draw(st.integers(1, 8))):
        how = draw(
            st.sampled_from(
                ("rectangle", "blob", "copy", "exchange", "part", "shift", "grow", "unite") if masks else ("rectangle",)
            )
        )
        base = masks[draw(st.integers(0, len(masks) - 1))] if masks else np.ones((height, width), dtype=bool)
        rectangle = np.zeros((height, width), dtype=bool)
        top, left = draw(st.integers(0, height - 2)), draw(st.integers(0, width - 2))
        bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
        rectangle[top:bottom, left:right] = True
        if how == "rectangle":
            mask = rectangle
        elif how == "blob":
            mask = rectangle & (noise.random((height, width)) < 0.8)
        elif how == "copy":
            mask = base.copy()
        elif how == "exchange":
            mask = _exchange(base, draw(st.integers(1, 4)), noise)
        elif how == "part":
            mask = base & rectangle
        elif how == "shift":
            mask = np.roll(base, (draw(st.integers(-2, 2)), draw(st.integers(-2, 2))), axis=(0, 1))
        elif how == "grow":
            mask = base | np.roll(base, 1, axis=draw(st.integers(0, 1)))
        else:
            mask = base | masks[draw(st.integers(0, len(masks) - 1))]
        masks.append(mask if mask.any() else rectangle)
    return np.stack(masks)


def _exchange(mask: npt.NDArray[np.bool_], count: int, noise: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Another mask of the same area: some pixels are swapped with as many outside."""
    inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
    count = min(count, len(inside), len(outside))
    exchanged = mask.copy()
    exchanged.flat[noise.choice(inside, count, replace=False)] = False
    if count:
        exchanged.flat[noise.choice(outside, count, replace=False)] = True
    return exchanged
