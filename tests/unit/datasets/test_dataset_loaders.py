"""Datasets on disk, made by hand in each layout: ids, targets, errors, hashes."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from disbench.core.samples import SampleSource
from disbench.datasets.cards import open_dataset
from disbench.datasets.layouts import HQSEG_SETS
from tests.annotations import HEIGHT, WIDTH, annotation, image, square, write_annotations
from tests.refusals import refuses

Pixels = npt.NDArray[np.uint8]
MASK: Pixels = np.array([[0, 0, 0], [0, 255, 255]], dtype=np.uint8)


def write(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photo(path: Path, size: tuple[int, int] = (2, 3), shade: int = 90) -> Path:
    return write(path, np.full((*size, 3), shade, dtype=np.uint8))


def pair(folder: Path, images: str, masks: str, stems: Sequence[str], mask: Pixels = MASK) -> None:
    for number, stem in enumerate(stems):
        photo(folder / images / f"{stem}.jpg", shade=50 + number)
        write(folder / masks / f"{stem}.png", mask)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:45])


def everything(source: SampleSource) -> list[object]:
    samples = [source.read(index) for index in range(len(source.ids))]
    for sample, name in zip(samples, source.ids, strict=True):
        assert sample.id == name
        assert sample.image.dtype == np.uint8
        assert sample.target.dtype == np.int8
        assert sample.target.shape == sample.image.shape[:2]
    return [
        (s.id, s.image.tobytes(), s.target.tobytes(), None if s.initial is None else s.initial.tobytes())
        for s in samples
    ] + [source.name, source.content_hash(), source.facts()]


class TestPairs:
    @pytest.mark.parametrize(
        ("spoil", "named"),
        [
            (lambda root: (root / "gt/b.png").unlink(), r"gt: no mask for 1 of 3 images \(b\.jpg\)"),
            (lambda root: photo(root / "img/a.png"), r"a\.jpg and a\.png"),
            (lambda root: photo(root / "img/a.jpg", size=(3, 3)), r"a\.png: "),
            (lambda root: write(root / "gt/a.png", np.zeros_like(MASK)), r"a\.png: "),
            (lambda root: cut_off(root / "gt/a.png"), r"a\.png: "),
            (lambda root: [path.unlink() for path in root.glob("*/*")], "img: "),
        ],
    )
    def test_bad_files_are_named(self, tmp_path: Path, spoil: Callable[[Path], object], named: str) -> None:
        pair(tmp_path, "img", "gt", ["a", "b", "c"])
        spoil(tmp_path)
        refuses(named, lambda: everything(open_dataset("davis", tmp_path)))


class TestContentHash:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        pair(tmp_path / "DAVIS", "img", "gt", ["a", "b"])
        return tmp_path

    def test_it_depends_on_every_byte_name_and_option_and_not_on_the_place(self, folder: Path, tmp_path: Path) -> None:
        moved = tmp_path / "elsewhere" / "deep"
        shutil.copytree(folder / "DAVIS", moved)
        assert open_dataset("davis", folder).content_hash() == open_dataset("davis", moved).content_hash()
        seen = [open_dataset("davis", folder, options).content_hash() for options in ([], ["rule=bright"])]
        for path in (folder / "DAVIS/img/a.jpg", folder / "DAVIS/gt/b.png"):
            path.write_bytes(path.read_bytes() + b"\0")
            seen.append(open_dataset("davis", folder).content_hash())
        for part in ("img/b.jpg", "gt/b.png"):
            path = folder / "DAVIS" / part
            path.rename(path.with_stem("c"))
        seen.append(open_dataset("davis", folder).content_hash())
        assert len(set(seen)) == len(seen)

    def test_the_rule_in_other_words(self, folder: Path) -> None:
        """Lines of JSON, as the documentation states them."""
        from hashlib import sha256

        root = folder / "DAVIS"
        lines = ['["disbench samples 1","any-channel"]']
        for stem in ("a", "b"):
            files = [sha256((root / part).read_bytes()).hexdigest() for part in (f"img/{stem}.jpg", f"gt/{stem}.png")]
            lines.append(f'["{stem}",0,"{files[0]}","{files[1]}"]')
        expected = sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
        assert open_dataset("davis", folder).content_hash() == expected


class TestDavis585:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for sequence in ("camel", "bear"):
            folder = tmp_path / "DAVIS585" / sequence
            photo(folder / "00009.jpg")
            photo(folder / "00010.jpg")
            for item in ("object1_00009", "object1_00010", "object2_00009"):
                write(folder / f"{item}.png", MASK)
                write(folder / f"init_sp_{item}.png", MASK[::-1].copy())
                write(folder / f"init_stm_{item}.png", np.full_like(MASK, 129))
        return tmp_path

    def test_objects_by_sequence_with_the_initial_mask_asked_for(self, root: Path) -> None:
        source = open_dataset("davis-585", root)
        assert list(source.ids) == [
            f"{sequence}/{item}"
            for sequence in ("bear", "camel")
            for item in ("object1_00009", "object1_00010", "object2_00009")
        ]
        sample = source.read(2)
        assert sample.target.tolist() == [[0, 0, 0], [0, 1, 1]]
        assert sample.initial is not None
        assert sample.initial.tolist() == [[False, True, True], [False, False, False]]
        other, none = (open_dataset("davis-585", root, [f"initial={name}"]) for name in ("stm", "none"))
        assert (other.read(2).initial == True).all()  # noqa: E712
        assert none.read(2).initial is None
        assert len({each.content_hash() for each in (source, other, none)}) == 3
        assert source.facts()["images"] == 4
        assert everything(pickle.loads(pickle.dumps(source))) == everything(source)


class TestHqSeg:
    def test_set_by_set(self, tmp_path: Path) -> None:
        root = tmp_path
        for images, masks in HQSEG_SETS.values():
            pair(root / "HQSeg-44K", images, masks, ["b", "a"])
        source = open_dataset("hqseg-44k", root)
        assert list(source.ids) == [f"{part}/{stem}" for part in HQSEG_SETS for stem in "ab"]
        write(root / "HQSeg-44K/DIS5K/DIS-VD/gt/a.png", np.array([[0, 128, 0], [0, 0, 129]], dtype=np.uint8))
        assert source.read(0).target.tolist() == [[0, 0, 0], [0, 0, 1]]
        shutil.rmtree(root / "HQSeg-44K/thin_object_detection/COIFT")
        assert list(open_dataset("hqseg-44k", root, ["sets=HRSOD,DIS"]).ids) == ["HRSOD/a", "HRSOD/b", "DIS/a", "DIS/b"]
        refuses(r"COIFT.images: ", open_dataset, "hqseg-44k", root)


class TestAnnotated:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "coco" / "annotations").mkdir(parents=True)
        write_annotations(
            tmp_path / "coco" / "annotations" / "instances_val2017.json",
            [
                annotation(7, of=2),
                annotation(3, of=1),
                annotation(4, of=1, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 2400]}),
                annotation(5, of=1, area=0.2, segmentation=[[1.1, 1.1, 1.2, 1.1, 1.1, 1.2]]),
                annotation(2, of=1, area=1, segmentation=square(20, 20, 1)),
            ],
            images=[image(2), image(1), image(9)],
        )
        for number in (1, 2):
            photo(tmp_path / "coco" / "val2017" / f"{number:012d}.jpg", size=(HEIGHT, WIDTH), shade=number)
        return tmp_path

    def test_every_annotation_but_crowds_and_empty_ones(self, root: Path) -> None:
        source = open_dataset("coco", root)
        assert list(source.ids) == ["000000000001/3", "000000000001/2", "000000000002/7"]
        assert source.facts()["images"] == 2
        assert source.facts()["left_out"] == {"crowd region": 1, "empty mask": 1}
        target = source.read(0).target
        expected = np.zeros((HEIGHT, WIDTH), dtype=np.int8)
        expected[3:13, 6:16] = 1
        assert np.array_equal(target, expected)
        assert source.read(1).target.sum() == 1
        assert everything(pickle.loads(pickle.dumps(source))) == everything(source)

    def test_the_hash_sees_segmentations_and_images_not_how_the_json_is_written(self, root: Path) -> None:
        path = root / "coco/annotations/instances_val2017.json"
        before = open_dataset("coco", root).content_hash()
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content, indent=3))
        assert open_dataset("coco", root).content_hash() == before
        assert open_dataset("coco", root, ["raster=fillpoly"]).content_hash() != before
        content["annotations"][0]["segmentation"][0][0] += 0.01
        path.write_text(json.dumps(content))
        after = open_dataset("coco", root).content_hash()
        assert after != before
        photo(root / "coco/val2017/000000000002.jpg", size=(HEIGHT, WIDTH), shade=200)
        assert open_dataset("coco", root).content_hash() not in (before, after)

    def test_an_image_of_another_size(self, root: Path) -> None:
        source = open_dataset("coco", root)
        photo(root / "coco/val2017/000000000001.jpg", size=(5, 5))
        refuses("000000000001/3", source.read, 0)
        assert source.read(2).id == "000000000002/7"


class TestFolder:
    @pytest.mark.parametrize("number", [3, 6])
    def test_photographs_are_turned_if_wanted(self, tmp_path: Path, number: int) -> None:
        """As OpenCV and viewers show them; without a difference in size, too, it is said that they are not."""
        pair(tmp_path, "images", "masks", ["a", "b"])
        stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * np.uint8(10)
        exif = Image.Exif()
        exif[0x0112] = number
        Image.fromarray(stored).save(tmp_path / "images" / "a.jpg", exif=exif, quality=100)
        shown = cv2.imread(str(tmp_path / "images" / "a.jpg"))[..., ::-1]
        write(tmp_path / "masks" / "a.png", np.full(shown.shape[:2], 255, dtype=np.uint8))
        applied, ignored = (open_dataset(str(tmp_path), None, [f"exif={word}"]) for word in ("apply", "ignore"))
        assert np.allclose(applied.read(0).image, shown.astype(int), atol=3)
        assert applied.content_hash() != ignored.content_hash()
        assert ["1 photo with" in str(source.facts()["notes"]) for source in (applied, ignored)] == [False, True]
        assert np.array_equal(applied.read(1).image, ignored.read(1).image)

    @pytest.mark.parametrize(
        ("images", "masks", "options"),
        [
            ("img", "gt", []),
            ("pictures", "truth/masks", ["images=pictures", "masks=truth/masks"]),
            (".", ".", ["images=.", "masks=."]),
        ],
    )
    def test_where_images_and_masks_are(self, tmp_path: Path, images: str, masks: str, options: list[str]) -> None:
        pair(tmp_path, images, masks, ["a"])
        source = open_dataset("folder", tmp_path, options)
        assert list(source.ids) == ["a"]
        assert source.read(0).target.sum() == 2

    def test_instances(self, tmp_path: Path) -> None:
        photo(tmp_path / "images" / "a.jpg")
        photo(tmp_path / "images" / "b.jpg")
        write(tmp_path / "masks" / "a.png", np.array([[0, 300, 300], [7, 255, 0]], dtype=np.uint16))
        write(tmp_path / "masks" / "b.png", np.zeros((2, 3), dtype=np.uint8))
        source = open_dataset(str(tmp_path), None, ["mode=instances"])
        assert (source.name, list(source.ids)) == (tmp_path.name, ["a/7", "a/255", "a/300"])
        assert source.read(2).target.tolist() == [[0, 1, 1], [0, 0, 0]]
        void = open_dataset(str(tmp_path), None, ["mode=instances", "void_255=true"])
        assert list(void.ids) == ["a/7", "a/300"]
        assert void.read(1).target.tolist() == [[0, 1, 1], [0, -1, 0]]

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ([], "images/ and masks/ or img/ and gt/"),
            (["images=a"], "masks="),
            (["images=a", "masks=b"], "/a: "),
            (["mode=trimap", "void_255=true"], "void_255"),
            (["mode=instance"], "did you mean 'instances'"),
        ],
    )
    def test_bad_options_are_refused(self, tmp_path: Path, options: list[str], named: str) -> None:
        refuses(named, lambda: open_dataset(str(tmp_path), None, options))
