"""The embedded photos: what their annotations promise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from disbench.core.errors import InputError
from disbench.core.scenes import Scene
from disbench.datasets.images import read_rgb
from disbench.datasets.instances import AnnotatedImages
from disbench.datasets.photos import ANNOTATIONS, open_photos, photo_path
from disbench.sampling.hierarchy import build_hierarchy, containment_matrix
from disbench.sampling.proximity import proximity_graph


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    source = AnnotatedImages([open_photos()])
    return list(source.read(range(len(source))))


def test_size_and_depth(scenes: list[Scene]) -> None:
    assert len(scenes) == 8
    assert sum(len(scene.objects) for scene in scenes) == 257
    depths = {
        scene.file_name: 1 + max(dict(build_hierarchy(scene.rles).nodes(data="level")).values()) for scene in scenes
    }
    assert depths == {
        "astronaut.png": 5,
        "camera.png": 4,
        "chelsea.png": 5,
        "coffee.png": 6,
        "coins.png": 2,
        "grace_hopper.jpg": 6,
        "motorcycle_left.png": 5,
        "rocket.jpg": 3,
    }


def test_objects_that_touch_beside_each_other(scenes: list[Scene]) -> None:
    """Pairs that touch although neither contains the other."""
    pairs = 0
    for scene in scenes:
        contains = containment_matrix(scene.rles)
        edges = proximity_graph(scene.rles).edges
        pairs += sum(not (contains[i, j] or contains[j, i]) for i, j in edges)
    assert pairs >= 10


def test_masks_belong_to_the_installed_photos(scenes: list[Scene]) -> None:
    for scene in scenes:
        pixels = read_rgb(photo_path(scene.file_name))
        assert pixels.shape == (scene.height, scene.width, 3)
        assert pixels.std() > 10


def test_the_file_is_consistent(scenes: list[Scene]) -> None:
    content = json.loads(ANNOTATIONS.read_text())
    areas = [annotation["area"] for annotation in content["annotations"]]
    boxes = [annotation["bbox"] for annotation in content["annotations"]]
    objects = [item for scene in scenes for item in scene.objects]
    assert [item.area for item in objects] == areas
    assert np.array_equal([item.box for item in objects], boxes)
    assert min(areas) >= 80
    for scene in scenes:
        for annotation in (a for a in content["annotations"] if str(a["image_id"]) == scene.image_id):
            for ring in annotation["segmentation"]:
                assert min(ring) >= 0
                assert max(ring[::2]) <= scene.width
                assert max(ring[1::2]) <= scene.height
    assert not any("data" in image for image in content["images"])


def test_an_unknown_photo() -> None:
    with pytest.raises(InputError, match=r"nobody\.png.: no installed package has this photo"):
        photo_path("nobody.png")
