"""Names of files as other tools and systems write them: in annotations, for `sample` and for `run` alike."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from disbench.core.samples import SampleSource
from disbench.datasets.annotated import open_coco
from disbench.datasets.cards import open_dataset
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.io.files import relative_path
from tests.annotations import HEIGHT, WIDTH, annotation, image, write_annotations
from tests.refusals import refuses


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a//./b.jpg", "a//./b.jpg"),
        (" my photo .jpg ", " my photo .jpg "),
        ("Screenshot 1.00.00\u202fPM.png", "Screenshot 1.00.00\u202fPM.png"),
        ("12:30.jpg", "12:30.jpg"),
        ("images\\a.jpg", "images/a.jpg"),
        ("/data/images/a.jpg", "data/images/a.jpg"),
        ("C:\\Users\\me\\a.jpg", "Users/me/a.jpg"),
        ("\\\\?\\C:\\x\\a.jpg", "x/a.jpg"),
        ("\\\\server\\share\\a.jpg", "server/share/a.jpg"),
        ("..\\..\\label-studio\\media\\upload\\4\\a.jpg", "label-studio/media/upload/4/a.jpg"),
        ("/data/local-files/?d=set/a.jpg", "set/a.jpg"),
        ("http://images.cocodataset.org/val2017/a.jpg", "val2017/a.jpg"),
        ("https://host/x/a.jpg?X-Amz-Signature=1/2", "x/a.jpg"),
        ("s3://bucket/x/a.jpg", "x/a.jpg"),
        ("file:///home/me/a.jpg", "home/me/a.jpg"),
        ("..", ""),
    ],
)
def test_paths_of_other_tools_become_relative(name: str, expected: str) -> None:
    assert relative_path(name) == expected


@pytest.mark.parametrize(
    "name", ["a\0.jpg", "a\n.jpg", "\x1b[2J.jpg", "a\x9b.jpg", "\udce9.jpg", "c:a.jpg", 1001 * "a"]
)
def test_names_that_no_path_has(name: str) -> None:
    with pytest.raises(ValueError, match="a path"):
        relative_path(name)


def opened(folder: Path, records: list[dict[str, Any]], *, of: tuple[int, ...] = (1,)) -> SampleSource:
    """One annotation of the id 1 for each image; `of` are their ids."""
    annotations = [annotation(1, of=number) for number in of]
    write_annotations(folder / "a.json", annotations, records, [{"id": 1, "name": "cup"}])
    return open_coco("coco", folder, {"annotations": "a.json", "images": ["imgs"], "raster": "pycocotools"}, {})


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, "PNG")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("C:\\set\\images\\001.jpg", "images/001.jpg"),
        ("..\\media\\upload\\4\\001.jpg", "001.jpg"),
        ("x\u00a0y\u200c.jpg", "x\u00a0y\u200c.jpg"),
        ("\u30cf\u309a.jpg", "\u30d1.jpg"),
    ],
)
def test_images_are_found_and_sampled(tmp_path: Path, name: str, file: str) -> None:
    put(tmp_path / "imgs" / file)
    source = opened(tmp_path, [image(1, file_name=name)])
    source.content_hash()
    assert source.read(0).target.any()
    (scene,) = AnnotatedImages([open_annotations(tmp_path / "a.json", "coco")]).read([0])
    assert scene.file_name == relative_path(name)


@pytest.mark.parametrize("name", ["none.jpg", "", None])
def test_an_image_without_a_file_is_named_by_its_record(tmp_path: Path, name: str | None) -> None:
    source = opened(tmp_path, [image(7, file_name=name)], of=(7,))
    for read in (lambda: source.read(0), source.content_hash):
        refuses(r"a\.json: image 7", read)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a\\1.png", "b/1.png"], None),
        (["/x/a/1.png", "/x/b/1.PNG"], None),
        (["a/1.png", "c/2.png"], "2.png"),
        (["c/a/1.png", "d/a/1.png"], "image 0 .*image 1"),
        (["a/1.png", ""], "image 1"),
    ],
)
def test_pngs_of_panoptic_annotations(tmp_path: Path, names: list[str], problem: str | None) -> None:
    for number, name in enumerate(("a/1.png", "b/1.png"), 1):
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(path)
    records = [
        {"image_id": n, "file_name": name, "segments_info": [{"id": n + 1, "category_id": 1}]}
        for n, name in enumerate(names)
    ]
    write_annotations(tmp_path / "p.json", records, [image(n) for n in range(len(names))])
    file = pickle.loads(pickle.dumps(open_annotations(tmp_path / "p.json", "panoptic")))
    source = AnnotatedImages([file], coco_masks="panoptic")
    if problem is None:
        assert [scene.objects[0].area for scene in source.read([0, 1])] == [HEIGHT * WIDTH] * 2
    else:
        refuses(problem, lambda: list(source.read([0, 1])))


@pytest.mark.parametrize(
    ("names", "numbers", "expected"),
    [
        (("v1/a.jpg", "v2/a.jpg"), (1, 2), ["a/1", "a/2"]),
        (("v1/a.jpg", "v2/a.jpg", "b.jpg"), (1, 1, 1), ["v1/a.jpg/1", "v2/a.jpg/1", "b/1"]),
        (("a.jpg", "a.png"), (1, 1), ["a.jpg/1", "a.png/1"]),
        (
            ("v1/a.jpg", "v2/a.jpg", "v1/b.jpg", "v2/b.jpg"),
            (1, 1, 2, 3),
            ["v1/a.jpg/1", "v2/a.jpg/1", "v1/b.jpg/2", "v2/b.jpg/3"],
        ),
        (("a.jpg", "a.jpg"), (1, 1), None),
    ],
)
def test_sample_ids(
    tmp_path: Path, names: tuple[str, ...], numbers: tuple[int, ...], expected: list[str] | None
) -> None:
    records = [image(of, file_name=name) for of, name in enumerate(names)]
    path = write_annotations(
        tmp_path / "a.json", [annotation(number, of=of) for of, number in enumerate(numbers)], records
    )
    options = {"annotations": path.name, "images": ["."], "raster": "pycocotools"}
    if expected:
        assert list(open_coco("coco", tmp_path, options, {}).ids) == expected
    else:
        refuses(r"a\.json: .*a.jpg/1", open_coco, "coco", tmp_path, options, {})


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        (["\u00e9.png", "z.png"], ["e\u0301.png", "z.png"], ["z", "\u00e9"]),
        (["e\u0301.png", "z.png"], ["\u00e9.png", "z.png"], ["e\u0301", "z"]),
        (["\u5199\u771f\u30001.png", " a.png"], ["\u5199\u771f\u30001.png", " a.png"], [" a", "\u5199\u771f\u30001"]),
        (["a.PNG", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini"], ["a.png", "._a.png"], ["a"]),
        (["\u00e9.png", "e\u0301.png"], ["\u00e9.png", "e\u0301.png"], "same stem"),
        (["caf\udce9.png"], ["caf\udce9.png"], "UTF-8"),
        (["a.png"], ["A.png"], "no mask"),
        (["a.rf.1f.jpg", "b.jpg", "c-gt.jpg"], ["a.rf.1f_mask.png", "b.JPG.png", "c-gt.png"], ["a.rf.1f", "b", "c-gt"]),
        (["a.jpg", "a_mask.jpg"], ["a_mask.png"], "no mask"),
        (["a.jpg"], ["a.png", "a_mask.png"], "no image"),
        (["a.jpg"], ["a_gt.png", "a_mask.png"], "no image"),
    ],
)
def test_images_with_masks(tmp_path: Path, images: list[str], masks: list[str], expected: list[str] | str) -> None:
    for folder, names in (("images", images), ("masks", masks)):
        for name in names:
            put(tmp_path / folder / name)
    if isinstance(expected, list):
        source = open_dataset(str(tmp_path), None)
        assert source.ids == expected
        source.content_hash()
    else:
        refuses(expected, lambda: open_dataset(str(tmp_path), None))
