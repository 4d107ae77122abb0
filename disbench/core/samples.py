"""A sample: one image with one target; and where samples come from."""

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
        id: unique within its dataset; made of the image's name, and of the object's where there are several.
        image: uint8 (height, width, 3), RGB, row-major, y down.
        target: int8 (height, width): 1 object, 0 background, -1 ignored; at least one pixel is 1.
        initial: boolean (height, width), the mask that the user corrects from, or None to start from nothing.
        first_click: where the user clicks first; None leaves it to the click policy.
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
    """What identifies samples: a SHA-256 (hex) of all, and one of each, which changes with its files and id only."""

    whole: str
    samples: Sequence[str]


class Source(Protocol):
    """The samples of a run. Picklable: worker processes read samples by number.

    Optional, looked for by name:

    - `write_tables(folder)`: writes tables of its own into the run's folder.
    - `content() -> Content`: as `content_hash`, and each sample's; of a file that is missing nothing is hashed.
    """

    @property
    def name(self) -> str:
        """The name of the dataset's card."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of every sample, in the dataset's order; known without reading images."""

    def read(self, index: int) -> Any:
        """The sample with this number, as the run's task takes it; InputError for a file that is missing or damaged."""

    def content_hash(self) -> str:
        """SHA-256 (hex) of everything that decides the samples: ids, images' and masks' bytes, options."""

    def facts(self) -> dict[str, object]:
        """JSON-ready facts that a result records beside name and hash: title, options of the card."""


class SampleSource(Source, Protocol):
    """A dataset of samples with one target each."""

    def read(self, index: int) -> Sample:
        """The sample with this number; errors as for `Source.read`."""


def content_of(source: Source) -> Content:
    """The content of a source; without `content()`, every sample changes with any of them."""
    if (content := getattr(source, "content", None)) is not None:
        return content()  # type: ignore[no-any-return]
    whole = source.content_hash()
    return Content(whole, [whole] * len(source.ids))
