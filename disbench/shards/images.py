"""Where the images of a folder of shards are, and the image of a scene."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from disbench.core.errors import InputError
from disbench.datasets.images import ImageFinder, RgbImage, read_rgb, size_hint, turned
from disbench.io import addresses
from disbench.shards.reader import ShardReader

_logger = logging.getLogger("disbench.shards")
_SAID: set[Path] = set()
"""Folders with a photograph to be turned, each said once in a process."""
FindImage = Callable[[str], Path | None]
"""A function from a scene's `file_name` to its image, None where there is none."""
Images = str | Path | FindImage | None
"""A folder of images, or a function that finds them; None: the embedded photos."""

DEFAULT_IMAGES = {
    "lvis": ("lvis", "coco"),
    "coco": ("coco",),
    "coco+lvis": ("coco", "lvis"),
    "sbd": ("SBD",),
    "voc": ("VOC2012", "VOC2007"),
}
"""Folders under the data root in which a source's images are looked for."""


def finder(reader: ShardReader, *folders: Path) -> ImageFinder:
    """What finds the images of shards in some folders, in this order."""
    return ImageFinder(folders, partial(_names, reader), reader.folder)


def _names(reader: ShardReader) -> Iterable[tuple[str, str]]:
    return zip(*reader.names(), strict=True)


def finder_of(reader: ShardReader, images: Images) -> FindImage:
    """A function that finds the images of shards, from what the user said of them."""
    if callable(images):
        return images
    if images is not None:
        return finder(reader, Path(images))
    from disbench.datasets.photos import photo_path  # noqa: PLC0415

    return photo_path


def lookup(folder: Path, images: Path | None, data: Path | None) -> FindImage:
    """A function that finds the images of shards.

    They are in `images`, the folder that the user named (`InputError` for no folder); else the embedded photos for
    their own shards, and otherwise in the usual folders under the root of the datasets, `data`.
    """
    reader = ShardReader(folder)
    if images is None and (source := reader.manifest.source) != "photos":
        return finder(reader, *image_folders(source, data))
    if images is not None and addresses.address_of(images) is None and not images.is_dir():
        raise InputError(f"{images}: not a folder; name the folder of the images")
    return finder_of(reader, images)


def image_folders(source: str, data: Path | None) -> list[Path]:
    """Existing folders under the data root that may hold a source's images."""
    if data is None:
        return []
    return [data / name for name in DEFAULT_IMAGES.get(source, ()) if addresses.there(data / name)]


def read_scene_image(path: Path, image_id: str, size: tuple[int, int]) -> RgbImage:
    """The image of a scene: uint8 (height, width, 3), RGB; `size` is (height, width) of its masks.

    Raises:
        InputError: the image is damaged, or not of the size of its masks.
    """
    image = read_rgb(path)
    if path.parent not in _SAID and (note := turned([path], "if the masks were drawn so, save it turned")):
        _SAID.add(path.parent)
        _logger.warning("%s: %s", path.parent, note)
    if image.shape[:2] != size:
        raise InputError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the masks of image {image_id} have {size[1]} x "
            f"{size[0]}; name the folder of the images that the shards were made for"
            f"{size_hint(path)}"
        )
    return image
