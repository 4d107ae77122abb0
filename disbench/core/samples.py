"""Samples (one image with one target), and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, ByteArray
from disbench.core.clicks import Click

Target = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with one target.

    Attributes:
        id: unique within its dataset; made of the image's name, and the object's if there are several.
        image: uint8 (height, width, 3), RGB, row-major, y down.
        target: int8 (height, width): 1 object, 0 background, -1 ignored; at least one pixel is 1.
        initial: boolean (height, width), the mask that the user corrects, or None to start from nothing.
        first_click: the user's first click; None leaves it to the click policy.
        granularity: size of the target relative to its whole (`disbench.core.ambiguity.granularity_of`), or None.
    """

    id: str
    image: ByteArray
    target: Target
    initial: BoolArray | None = None
    first_click: Click | None = None
    granularity: float | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """Identity of samples: SHA-256 (hex) of all, and one per sample, which depends only on its files and id."""

    whole: str
    samples: Sequence[str]


class Source(Protocol):
    """The samples of a run. Picklable: worker processes read samples by index.

    Optional methods:

    - `write_tables(folder)`: write additional tables into the run's folder.
    - `content() -> Content`: like `content_hash`, plus a hash per sample; missing files are skipped.
    """

    @property
    def name(self) -> str:
        """Name of the dataset card."""

    @property
    def ids(self) -> Sequence[str]:
        """Ids of all samples, in the dataset's order; available without reading images."""

    def read(self, index: int) -> Any:
        """Sample at an index, in the form the run's task expects; InputError for a missing or damaged file."""

    def content_hash(self) -> str:
        """SHA-256 (hex) of everything that determines the samples: ids, bytes of images and masks, options."""

    def facts(self) -> dict[str, object]:
        """JSON-ready facts recorded with a result besides name and hash: title, card options."""


class SampleSource(Source, Protocol):
    """A dataset with one target per sample."""

    def read(self, index: int) -> Sample:
        """Sample at an index; errors as for `Source.read`."""


def content_of(source: Source) -> Content:
    """Content of a source; without `content()`, all samples share the hash of the whole."""
    if (content := getattr(source, "content", None)) is not None:
        return content()  # type: ignore[no-any-return]
    whole = source.content_hash()
    return Content(whole, [whole] * len(source.ids))
