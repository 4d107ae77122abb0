"""No training on what is measured: images of the benchmarks are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from disbench.core.errors import InputError, shown
from disbench.disnet.training.settings import Shards
from disbench.io import definitions
from disbench.io.files import file_sha256
from disbench.shards.images import finder_of
from disbench.shards.reader import ShardReader

_COCO = re.compile(r"(?:COCO_(?:train|val)201[47]_)?(\d{12})")


def refuse_measured(sources: Sequence[Shards]) -> None:
    """Check that a training has no image that methods are measured on, or that is kept for validation.

    These are GrabCut's, Berkeley's, DAVIS's, COCO_MVal's, those of `instances_val.json`, and those of the splits
    clothing-parts-300 and clothing-parts-validation. COCO's images are known by their number, the others by name and
    content.

    Raises:
        InputError: names the shards and the first such image.
    """
    lines = (definitions.folder("datasets") / "measured-images.txt").read_text(encoding="utf-8").splitlines()
    measured: dict[str, set[str]] = {}
    for name, *digest in (line.split() for line in lines if not line.startswith("#")):
        measured.setdefault(name, set()).update(digest)
    for source in sources:
        reader = ShardReader(Path(source.folder))
        find = finder_of(reader, source.images or None)
        for file_name in dict.fromkeys(reader.names()[1]):
            if not fnmatchcase(file_name, source.only):
                continue
            stem = PurePosixPath(file_name).stem
            found = _COCO.fullmatch(stem)
            name = found[1] if found else stem
            if name not in measured:
                continue
            path = None if found else find(file_name)
            if found or (path is not None and file_sha256(path) in measured[name]):
                raise InputError(
                    f"{source.folder}: its image {shown(file_name)} is one that methods are measured on (all are in "
                    "datasets/measured-images.txt); leave it out of the shards or by `only`, or set allow_measured"
                )
