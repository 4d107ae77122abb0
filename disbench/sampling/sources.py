"""Open the source of scenes for a recipe from the paths given by the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from disbench.core.errors import InputError
from disbench.core.scenes import SceneSource
from disbench.datasets.instances import AnnotatedImages, AnnotationFile, Dialect, open_annotations
from disbench.datasets.scene_sources import READERS, FolderName, open_folder_scenes
from disbench.io import addresses
from disbench.sampling.recipes import Recipe, SourceName

DEFAULT_PATHS = {  # under the data root
    "lvis": "lvis/lvis_v1_train.json",
    "coco": "coco/annotations/instances_train2017.json",
    "sbd": "SBD",
    "voc": "VOC2012",
}
_FOLDER_RECIPES = ("ade-parts", "pascal-parts", "sa1b-hierarchy")


@dataclass(frozen=True, slots=True)
class SourcePaths:
    """Paths of annotations given by the user; None or empty if not given.

    Attributes:
        panoptic: COCO panoptic JSON files, for stuff (and things, with `coco_masks=panoptic`).
        panoptic_masks: folder of their PNGs; next to each JSON by default.
        hannotation: RITM's folder with `hannotation.pickle` and `masks/`.
        folder, split: the recipe's dataset, for datasets opened by folder.
        data: root to which relative paths may also refer.
    """

    lvis: Sequence[Path] = ()
    coco: Sequence[Path] = ()
    panoptic: Sequence[Path] = ()
    panoptic_masks: Path | None = None
    sbd: Path | None = None
    voc: Path | None = None
    hannotation: Path | None = None
    photos: bool = False
    folder: Path | None = None
    split: str = "train"
    data: Path | None = None

    def chosen(self) -> SourceName | None:
        """The kind of source the paths describe, None if none; `InputError` if they cannot be combined."""
        if self.panoptic_masks and not self.panoptic:
            raise InputError("--panoptic-masks requires --panoptic; give the JSON of the PNGs too")
        annotations = "+".join(name for name in ("coco", "lvis") if getattr(self, name))
        if self.panoptic and not self.coco:
            annotations = "coco+lvis" if self.lvis else "coco"
        others = [name for name in ("sbd", "voc", "hannotation", "photos") if getattr(self, name)]
        kinds = [*([annotations] if annotations else []), *others]
        if len(kinds) > 1:
            given = [name for name in ("lvis", "coco", "panoptic", *others) if getattr(self, name)]
            raise InputError(f"--{' and --'.join(given)} cannot be combined; give one source")
        return next((name for name in get_args(SourceName) if kinds == [name]), None)

    def find(self, path: Path) -> Path:
        """The path itself, or under the data root if it exists only there; remote files are copied.

        Raises:
            InputError: a remote file cannot be copied (`disbench.io.addresses`).
        """
        if self.data is not None and not path.is_absolute() and not path.exists():
            return addresses.local_copy(self.data / path)
        return addresses.local_copy(path)


def open_source(recipe: Recipe, paths: SourcePaths) -> SceneSource:
    """Open the scenes for a recipe; without a path, the recipe's first source under the data root.

    Raises:
        InputError: the recipe does not accept the source, no source is given, or a file is damaged.
    """
    chosen = paths.chosen()
    if paths.folder is not None:
        own = next((name for name in recipe.sources if name in READERS), None)
        if own is None or chosen:
            raise InputError(
                f"--folder is only for recipes such as {', '.join(_FOLDER_RECIPES)}; recipe {recipe.name!r} takes "
                f"{' or '.join(recipe.sources)}"
            )
        chosen = own
    elif chosen is None:
        chosen, paths = recipe.sources[0], _default_paths(recipe, paths)
    if chosen not in recipe.sources:
        raise InputError(
            f"recipe {recipe.name!r} takes {' or '.join(recipe.sources)}, not {chosen}; use another recipe or paths"
        )
    return _open(chosen, recipe, paths)


def _default_paths(recipe: Recipe, paths: SourcePaths) -> SourcePaths:
    needed = recipe.sources[0].split("+")
    if paths.data is None or not all(name in DEFAULT_PATHS for name in needed):
        options = " or ".join(
            "--folder" if name in READERS else " and ".join(f"--{part}" for part in name.split("+"))
            for name in recipe.sources
        )
        raise InputError(f"recipe {recipe.name!r} needs a dataset; give {options}")
    found: dict[str, Any] = {name: paths.data / DEFAULT_PATHS[name] for name in needed}
    found |= {name: [found[name]] for name in ("lvis", "coco") if name in found}
    return dataclasses.replace(paths, **found)


def _open(chosen: SourceName, recipe: Recipe, paths: SourcePaths) -> SceneSource:
    if paths.folder is not None:
        folder = paths.find(paths.folder)
        return open_folder_scenes(cast(FolderName, chosen), folder, paths.split, recipe.bad_annotations)
    if chosen == "hannotation":
        from disbench.datasets.hannotation import HannotationSource  # noqa: PLC0415

        return HannotationSource(paths.find(paths.hannotation or Path()))
    if chosen in ("sbd", "voc"):
        from disbench.datasets.label_maps import SBD, VOC, MapScenes  # noqa: PLC0415

        layout, given = (SBD, paths.sbd) if chosen == "sbd" else (VOC, paths.voc)
        return MapScenes(layout, paths.find(given or Path()), paths.split)
    from disbench.datasets.photos import open_photos  # noqa: PLC0415

    files = [open_photos()] if chosen == "photos" else list(_annotation_files(recipe, paths))
    return AnnotatedImages(files, raster=recipe.raster, coco_masks=recipe.coco_masks, join=recipe.join)


def _annotation_files(recipe: Recipe, paths: SourcePaths) -> Iterator[AnnotationFile]:
    dialects: tuple[Dialect, ...] = ("lvis", "coco", "panoptic")
    for dialect in dialects:
        for path in getattr(paths, dialect):
            found = paths.find(path)
            masks = paths.find(paths.panoptic_masks) if paths.panoptic_masks else None
            if dialect == "panoptic" and masks is None:
                addresses.local_copy(found.with_suffix(""), optional=True)
            yield open_annotations(found, dialect, bad=recipe.bad_annotations, png_folder=masks)
