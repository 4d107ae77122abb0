"""What the benchmarks of masks run on, from their command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from disbench.datasets.instances import AnnotationFile, open_annotations
from disbench.datasets.photos import open_photos


def default_annotations() -> Path:
    """The real LVIS file that is there if DISBENCH_DATA is set."""
    return Path(os.environ.get("DISBENCH_DATA", "")) / "lvis" / "lvis_val_100.json"


def annotations_and_rounds(description: str) -> tuple[AnnotationFile, int]:
    """An LVIS file named on the command line, the default one, or the embedded photos; and --rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("annotations", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    path = arguments.annotations or (default_annotations() if default_annotations().is_file() else None)
    return open_annotations(path, "lvis") if path else open_photos(), arguments.rounds
