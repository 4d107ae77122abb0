"""Small valid files of every format that datasets have, and a folder with all of them."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_array

from disbench.core.limits import MAX_RECORD_BYTES
from disbench.core.masks import encode
from tests.annotations import CATEGORIES, HEIGHT, WIDTH, annotation, image
from tests.part_files import COW, SOFA, UIDS, anno_file, write_uids

MIB = 2**20


def json_bound(size: int) -> int:
    """Bytes of memory for a JSON file: chunks, an index of 32 per byte, and 64 per byte of a record."""
    return 144 * MIB + 32 * size + 64 * min(size, MAX_RECORD_BYTES)


def pickle_bound(size: int) -> int:
    return 8 * MIB + 128 * size


CROWD_COUNTS = encode(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5)["counts"].decode()
COCO: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [image(1), image(2, coco_url="http://images.cocodataset.org/val2017/000000000002.jpg")],
    "annotations": [
        annotation(1),
        annotation(2, 2, segmentation={"size": [HEIGHT, WIDTH], "counts": CROWD_COUNTS}, iscrowd=1, area=50),
        annotation(3, area=99.5),
        annotation(4, segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]}, area=1),
    ],
    "categories": list(CATEGORIES),
}
SEGMENTS = [{"id": 7, "category_id": 1, "iscrowd": 0}, {"id": 300, "category_id": 2}]
PANOPTIC = {
    **COCO,
    "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": SEGMENTS} for n in (1, 2)],
    "categories": [{"id": 1, "name": "cup", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
}


def mat(labels: Any = None, numbers: Any = ((3,), (15,), (7,)), *, compressed: bool = True, **more: Any) -> bytes:
    """An instance file of SBD with three instances."""
    usual = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7) % 4
    boundaries = np.empty((3, 1), dtype=object)
    for k in range(3):
        boundaries[k, 0] = csc_array(np.asarray(k + 1 == usual, dtype=bool))
    labels = usual if labels is None else labels
    truth = {"Boundaries": boundaries, "Segmentation": labels, "Categories": np.array(numbers)}
    out = io.BytesIO()
    savemat(out, {"before": "text", "GTinst": truth, **more}, do_compression=compressed)
    return out.getvalue()


MAT_HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM"


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(kind: int, sides: tuple[int, ...], body: bytes = b"", name: bytes = b"GTinst") -> bytes:
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(sides)}i", *sides))
    return element(14, head + element(1, name) + body)


def saved(pixels: Any, kind: str, **options: Any) -> bytes:
    """An image as the bytes of its file."""
    out = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, kind, **options)
    return out.getvalue()


def layer(side: int = 8) -> Any:
    """An encoded layer of two masks, as RITM's pickles hold it."""
    labels = np.zeros((side, side), dtype=np.uint8)
    labels[1:5, 1:5], labels[2:4, 2:4] = 1, 2
    return np.frombuffer(saved(labels, "PNG"), dtype=np.uint8)


NODES = {0: {"children": [1], "parent": None, "node_level": 0}, 1: {"children": [], "parent": 0, "node_level": 1}}
TREE = {9: {"num_instance_masks": 2, "hierarchy": NODES}}
PACKED = ([layer()], [(0, 1), (0, 2)])
PROTOCOLS = (0, 2, 4, 5)

PICTURE = np.random.default_rng(0).integers(0, 256, (13, 17, 4)).astype(np.uint8)


def picture(mode: str, kind: str, size: tuple[int, int] = (17, 13), **options: Any) -> bytes:
    noise = Image.fromarray(PICTURE, "RGBA").resize(size, Image.Resampling.NEAREST)
    if mode in ("I;16", "I"):
        values = np.asarray(noise)[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 200
        return saved(values, kind, **options)
    return saved(noise.convert("RGB").convert(mode), kind, **options)


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(PICTURE[..., :3], k, axis=1)) for k in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


PICTURES = {
    **{f"png {mode}": picture(mode, "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")},
    **{f"jpeg {mode}": picture(mode, "JPEG") for mode in ("L", "RGB", "CMYK")},
    "progressive jpeg": picture("RGB", "JPEG", progressive=True),
    **{f"tiff {how}": picture("RGB", "TIFF", compression=how) for how in ("raw", "tiff_lzw", "tiff_deflate", "jpeg")},
    "tiff of 16 bits": picture("I;16", "TIFF"),
    "tiff of 32 bits": picture("I", "TIFF"),
    "cmyk tiff": picture("CMYK", "TIFF"),
    "gif": picture("P", "GIF"),
    "bmp": picture("RGB", "BMP"),
    "ppm": picture("RGB", "PPM"),
    "webp": picture("RGB", "WEBP"),
    **{f"animated {kind}": animation(kind) for kind in ("GIF", "PNG", "WEBP", "MPO", "TIFF")},
}


ADE, SA = "ade/images/ADE/training/s/ADE_1", "sa/sa_000000/sa_1"
ADE_OBJECTS = [
    {"id": k, "name": "a, b", "instance_mask": f"ADE_1/{k}.png", "parts": {"ispartof": above, "hasparts": below}}
    for k, above, below in ((0, [], [1, 2]), (1, 0, []), (2, [0], 4), (4, 2, []))
]
ADE_JSON = {"annotation": {"imsize": [6, 7, 3], "object": ADE_OBJECTS}}
SA_JSON = {
    "image": {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "sa_1.jpg"},
    "annotations": [
        annotation(number, segmentation={"size": [HEIGHT, WIDTH], "counts": counts})
        for number, counts in enumerate([CROWD_COUNTS, [5, 10, HEIGHT * WIDTH - 15], [HEIGHT * WIDTH]])
    ],
}


SPIN_FILES = {level: f"spin_train_{level}.json" for level in ("wholes", "parts", "subparts")}
SPIN_JSON = {**COCO, "categories": [{"id": 1, "name": "Car-Tire-Rim"}, {"id": 2, "name": "Car"}]}


def class_png(values: tuple[int, ...]) -> bytes:
    return saved(np.array(values, dtype=np.uint8)[np.arange(42).reshape(6, 7) // 9], "PNG")


def ade_png(number: int, **options: Any) -> bytes:
    values = np.array([0, 128, 255], dtype=np.uint8)[np.arange(42).reshape(6, 7) // (number + 1) % 3]
    return saved(values, "PNG", **options)


def write_all(root: Path) -> Path:
    """A folder that every reader of `reader_process` accepts."""
    colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    colours[2:9, 3:20], colours[20:, 5:] = (7, 0, 0), (44, 1, 0)
    values = np.array([[0, 1, 1, 255], [2, 2, 0, 0]], dtype=np.uint8)
    labels = Image.fromarray(values)
    labels.putpalette(bytes(range(256)) * 3)
    coco, black = json.dumps(COCO).encode(), saved(np.zeros((2, 4, 3), dtype=np.uint8), "JPEG")
    splits = ("train.txt", "ImageSets/Segmentation/train.txt", "ImageSets/Main/train.txt")
    files = {
        **{f"a/{number}.png": saved(colours, "PNG") for number in (1, 2)},
        **{f"{number:012d}.jpg": saved(colours, "JPEG") for number in (1, 2)},
        **dict.fromkeys(("a.json", "ood/train.json"), coco),
        **{"hannotation.pickle": pickle.dumps(TREE), "masks/9.pickle": pickle.dumps(PACKED)},
        **dict.fromkeys(("SegmentationObject/a.png", "SegmentationClass/a.png"), saved(labels, "PNG")),
        **dict.fromkeys(("JPEGImages/a.jpg", "img/a.jpg"), black),
        "inst/a.mat": mat(values % 255, ((1,), (2,))),
        **{f"{ADE}.json": json.dumps(ADE_JSON).encode(), f"{SA}.json": json.dumps(SA_JSON).encode()},
        **{f"{ADE}/{number}.png": ade_png(number) for number in (0, 1, 2, 4)},
        "pin/annotations/train/n01440764_1.png": class_png((40, 0, 24, 39, 40)),
        "pin/annotations/train_whole/n01440764_1.png": class_png((158, 17, 17, 17, 158)),
        **{f"spin/{file}": json.dumps(SPIN_JSON).encode() for file in SPIN_FILES.values()},
        "Annotations_Part/a.mat": anno_file([COW, SOFA]),
        **dict.fromkeys(splits, b"a\n"),
        **dict.fromkeys(("images/a.ppm", "masks/a.ppm"), b"P5\n4 2\n255\n\0\1\1\xff\x90\2\0\0"),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    write_uids(root / "training" / "a.tif", UIDS)
    return root
