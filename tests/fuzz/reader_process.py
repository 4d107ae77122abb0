"""A process that reads what is hostile: its death, its memory and what it opens are seen from outside.

It reads one file or folder after another, each with so much more address space as its reader is allowed, and
answers what came of it. An audit hook notes every file that is opened elsewhere and every program that is started.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from disbench.core import masks
from disbench.core.errors import InputError
from disbench.core.scenes import SceneSource
from disbench.datasets import images, label_maps, layouts, targets
from disbench.datasets.annotated import open_coco
from disbench.datasets.hannotation import HannotationSource, load_plain_pickle
from disbench.datasets.instances import AnnotatedImages, open_annotations
from disbench.datasets.scene_sources import open_folder_scenes
from disbench.sampling.recipes import Recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.shards.rows import to_batch

DECLARED = Recipe(name="test", description="", method="hierarchy", sources=("ade20k", "sa1b", "spin"), min_area=1)
CONTAINMENT = Recipe(name="test", description="", method="containment", sources=("lvis",), min_area=1)
SPARE = 512 * 2**20
"""Bytes of address space beyond the stated bounds: allocators and their arenas round up."""
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
FORBIDDEN += ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


def all_scenes(source: SceneSource) -> None:
    """Every mask of every scene, which must be what scenes promise."""
    source.fingerprint()
    for scene in source.read(range(len(source))):
        assert 0 < scene.height * scene.width <= 2**27
        for item in scene.objects:
            assert item.rle["size"] == [scene.height, scene.width]
            assert masks.areas([item.rle])[0] == item.area
            x, y, width, height = item.box
            assert x >= 0 and y >= 0 and x + width <= scene.width and y + height <= scene.height
            if scene.height * scene.width <= 2**16:
                assert masks.decode(item.rle).sum() == item.area


def folder_scenes(path: Path, name: Any, bad: Any = "fail") -> None:
    source = open_folder_scenes(name, path, "train", bad)
    all_scenes(source)
    for scene in source.read(range(len(source))):
        sample_scene(scene, DECLARED)


def annotations(path: Path, dialect: Any, bad: Any = "fail", raster: Any = "pycocotools") -> None:
    file = open_annotations(path, dialect, bad=bad)
    all_scenes(AnnotatedImages([file], raster=raster))


def sampled(path: Path) -> None:
    """The shard of an annotation file whose records may be malformed."""
    source = AnnotatedImages([open_annotations(path, "lvis", bad="drop")])
    batch = to_batch([sample_scene(scene, CONTAINMENT) for scene in source.read(range(len(source)))])
    assert batch.num_rows == len(source)


def annotated(path: Path) -> None:
    """The samples of an annotation file with all its images."""
    options = {"annotations": path.name, "images": ["."], "raster": "pycocotools"}
    every_sample(open_coco("coco", path.parent, options, {}))


def every_sample(source: Any) -> None:
    source.content_hash()
    source.facts()
    for index in range(len(source.ids)):
        sample = source.read(index)
        assert sample.image.shape == (*sample.target.shape, 3)
        assert (sample.target == 1).any()


def segmentation(path: Path) -> None:
    """One mask: a file of JSON with height, width, segmentation and raster."""
    said = json.loads(path.read_bytes())
    found, height, width = said["segmentation"], said["height"], said["width"]
    try:
        if isinstance(found, list):
            rle = masks.from_polygons(found, height, width, said.get("raster", "pycocotools"))
        else:
            rle = masks.from_foreign_rle(found, height, width)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    assert masks.decode(rle).shape == (height, width)


def every_rule(path: Path) -> None:
    """A mask file read by each rule; one that is refused by some may suit others."""
    for rule in targets.RULES.values():
        try:
            assert rule(path, 1).ndim == 2
        except InputError as error:
            last = error
    raise last


FOLDERS = ("ade20k", "panoptic-parts", "partimagenet", "pascal-part", "sa1b", "spin")
READERS: Mapping[str, Callable[[Path], object]] = {
    "lvis": partial(annotations, dialect="lvis"),
    "lvis, dropped": partial(annotations, dialect="lvis", bad="drop", raster="fillpoly"),
    "sampled": sampled,
    "coco": partial(annotations, dialect="coco"),
    "panoptic": partial(annotations, dialect="panoptic"),
    "annotated": annotated,
    "segmentation": segmentation,
    "rgb": images.read_rgb,
    "turned": partial(images.read_rgb, exif="apply"),
    "kind": targets.mask_kind,
    "label": label_maps.read_label_png,
    "colours": partial(label_maps.read_label_png, channels=3),
    "map": label_maps.read_label_map,
    "rules": every_rule,
    "matlab": label_maps.read_instances,
    "pickle": load_plain_pickle,
    "hannotation": lambda path: all_scenes(HannotationSource(path)),
    "list": lambda path: list(label_maps.read_lines(path)),
    "sbd": lambda path: all_scenes(label_maps.MapScenes(label_maps.SBD, path)),
    "sbd samples": lambda path: every_sample(layouts.open_sbd("sbd", path, {"split": "train"}, {})),
    "pairs": lambda path: every_sample(
        layouts.open_pairs("pairs", path, {"images": "images", "masks": "masks", "rule": "trimap"}, {})
    ),
    "folder": lambda path: every_sample(
        layouts.open_folder("mine", path, {"images": "", "masks": "", "mode": "instances", "void_255": True}, {})
    ),
    **{name: partial(folder_scenes, name=name) for name in FOLDERS},
    **{f"{name}, dropped": partial(folder_scenes, name=name, bad="drop") for name in FOLDERS},
    "find": lambda path: images.ImageFinder([path.parent])(path.read_text(errors="surrogateescape")),
}


class Watch:
    """Notes what no reader may do while it is on."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.temporary = tempfile.gettempdir()
        self.seen: list[str] = []
        self.libraries = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), "/proc/self")
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        if event in FORBIDDEN:
            self.seen.append(event)
        # Opening the folder of temporary files makes a file without a name.
        elif event == "open" and isinstance(arguments[0], str | bytes) and arguments[0] != self.temporary:
            self._note(os.fsdecode(arguments[0]), arguments[1], arguments[2])

    def _note(self, path: str, mode: str | None, flags: int) -> None:
        assert self.root is not None
        writes = bool(set(mode or "") & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        place = os.path.realpath(path) if "\0" not in path else path
        if writes or not place.startswith((self.root, *self.libraries)):
            self.seen.append(f"open {place!r}{' for writing' if writes else ''}")


def serve(connection: Connection) -> None:
    """Read what is asked for until nobody asks."""
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    to_batch([])  # Arrow opens the system's time zones when it is first used
    watch = Watch()
    while True:
        try:
            name, path, root, allowed = connection.recv()
        except EOFError:
            return
        connection.send(_answer(READERS[name], Path(path), root, allowed, watch))


def _answer(reader: Callable[[Path], object], path: Path, root: str, allowed: int, watch: Watch) -> dict[str, Any]:
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + allowed + SPARE, hard))
    watch.root, watch.seen = os.path.realpath(root), []
    message, fault = None, None
    try:
        reader(path)
    except InputError as error:
        message = str(error)
    except BaseException:
        fault = traceback.format_exc()
    watch.root = None
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    peak = max(0, _status("VmHWM") - before)
    return {"message": message, "fault": fault, "peak": peak, "seen": watch.seen}


def _status(key: str) -> int:
    """Bytes, as Linux tells them of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
