"""The embedded photos: a small real dataset available in every installation.

Eight photographs from the wheels of scikit-image and matplotlib, annotated by hand in LVIS's format (`photos.json`):
objects, their parts, and things that stand on or touch each other. The pixels are read from those packages.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from disbench.core.errors import InputError, quote
from disbench.datasets.instances import AnnotationFile, open_annotations
from disbench.io.files import is_inside_folder

ANNOTATIONS = Path(__file__).with_name("photos.json")
_FOLDERS = (("skimage", "data"), ("matplotlib", "mpl-data/sample_data"))


def open_photos() -> AnnotationFile:
    """The annotations of the embedded photos."""
    return open_annotations(ANNOTATIONS, "photos")


def photo_path(file_name: str) -> Path:
    """The path of a photo in the installed packages, found without importing them.

    `InputError` if no installed package has a photo of that name.
    """
    for package, folder in _FOLDERS if is_inside_folder(file_name) else ():
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            path = Path(location) / folder / file_name
            if os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises if a name is too long)
                return path
    raise InputError(f"{quote(file_name)}: no installed package has this photo; install scikit-image and matplotlib")
