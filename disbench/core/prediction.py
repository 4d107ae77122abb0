"""The method interface: `open(image)` returns a session, `session.predict(clicks)` returns candidate masks.

No base class or registration: any object with these methods works.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import ByteArray
from disbench.core.clicks import Click
from disbench.core.errors import describe_error

RgbImage = ByteArray
Result = TypeVar("Result")


class MethodError(Exception):
    """The method failed on a sample; recorded in the sample's row, and the run continues."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Candidate masks for the clicks so far.

    Attributes:
        masks: (candidates, height, width), at the image's size, row-major, y down: booleans, or floating point
            probabilities in [0, 1] that the harness thresholds. At least one candidate.
        scores: one number per candidate, higher is better, or None if the method has none.
    """

    masks: npt.NDArray[Any]
    scores: Sequence[float] | npt.NDArray[np.floating[Any]] | None = None


class Session(Protocol):
    """Interactive segmentation of one image.

    Optional methods:

    - `keep(index: int) -> None`: called after each `predict` with the candidate that was kept.
    - `start(mask: BoolArray) -> None`: called before the first `predict` with the mask (height, width) that the user
      corrects (DAVIS-585's initial masks).
    - `restart() -> None`: forget all clicks and masks, as if just opened on the same image. Without it, a session is
      opened again for each of several runs of clicks on one image (`--policy slices:10`).
    - `undo() -> None`: forget the last `predict`. The policies `worst` and `best` try several clicks in turn; without
      it, a session is restarted or opened again, and brought to the same state.
    """

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """Predict candidates for all clicks so far, in order; each call has one more click than the one before.

        A method with a budget (`budget` of its card or class, one of `disbench.core.click_policies.BUDGETS`) is called
        once, with all its points.
        """


class Method(Protocol):
    """A click-based segmentation method.

    Optional methods and attributes:

    - `predict_batch(sessions, clicks) -> list of Prediction`: `predict` on each session with its clicks, in one call;
      the harness then steps several samples in lockstep.
    - `make_ready() -> None`: called before each `open`, without a time limit, to restore lost resources (such as the
      process that the method runs in).
    - `open(image, granularity=None)`: also takes the size of the wanted mask relative to its whole, in (0, 1], or None
      if unspecified.
    - `versions`: name -> version of software outside this environment that affects results; recorded with the run.
    """

    def open(self, image: RgbImage) -> Session:
        """Open an image: uint8 (height, width, 3), RGB, row-major, y down."""


def call_method(action: str, call: Callable[[], Result], *reraised: type[Exception]) -> Result:
    """Call a method and return its result, undoing its changes to NumPy's error handling.

    MethodError if the call (`action`) raised any error, including `SystemExit`, except Ctrl-C and the types `reraised`.
    """
    try:
        with np.errstate():
            return call()
    except MethodError:
        raise
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if interrupted or isinstance(error, reraised):
            raise
        raise MethodError(f"{action} raised {describe_error(error)}") from error
