"""What a method is: `open(image)` gives a session, `session.predict(clicks)` gives candidate masks.

No base class and no registration: any object of this shape is a method.
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
from disbench.core.errors import told

RgbImage = ByteArray
Result = TypeVar("Result")


class MethodError(Exception):
    """The method failed on a sample; this is recorded in its row, and the run continues."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The candidate masks that a method offers for the clicks so far.

    Attributes:
        masks: (candidates, height, width) of the image's size, row-major, y down: booleans, or floating
            point probabilities in [0, 1] that the harness thresholds. At least one candidate.
        scores: one number a candidate, the higher the better, or None where the method has none.
    """

    masks: npt.NDArray[Any]
    scores: Sequence[float] | npt.NDArray[np.floating[Any]] | None = None


class Session(Protocol):
    """One image being segmented.

    Optional, looked for by name:

    - `keep(index: int) -> None`: told, after each `predict`, which candidate was kept.
    - `start(mask: BoolArray) -> None`: told, before the first `predict`, the mask (height, width) that the
      user corrects from (DAVIS-585's initial masks).
    - `restart() -> None`: forget all clicks and masks, as if just opened on the same image. Where several loops run on
      one image (`--policy slices:10`), a session without it is opened again for each.
    - `undo() -> None`: forget the last `predict`, as if it had not been called. The policies `worst` and `best` try
      several clicks in turn; a session without it is restarted, or opened again, and led to the same state.
    """

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """Candidates for all clicks so far, in order; each call has one click more than the one before.

        A method with a budget (`budget` of its card or class, one of `disbench.core.click_policies.BUDGETS`) is called
        once, with all its points.
        """


class Method(Protocol):
    """A click-based segmentation method.

    Optional, looked for by name:

    - `predict_batch(sessions, clicks) -> list of Prediction`: the same as `predict` on each session with its
      clicks, in one go; the harness then steps several samples in lockstep.
    - `make_ready() -> None`: called before each `open`, without a time limit, to restore what the method lost
      (such as the process that it runs in).
    - `open(image, granularity=None)`: also takes the size of the wanted mask relative to its whole, in (0, 1], or None
      where the user says nothing of it.
    - `versions`: name -> version of what it computes with outside this environment; a run records it.
    """

    def open(self, image: RgbImage) -> Session:
        """Begin with an image: uint8 (height, width, 3), RGB, row-major, y down."""


def called(what: str, call: Callable[[], Result], *passing: type[Exception]) -> Result:
    """The result of a call of a method, whose changes of NumPy's error handling are taken back.

    MethodError if the call (`what`) raised an error of any kind, `SystemExit` among them, but not Ctrl-C, nor one of
    `passing`, which is raised as it is.
    """
    try:
        with np.errstate():
            return call()
    except MethodError:
        raise
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if interrupted or isinstance(error, passing):
            raise
        raise MethodError(f"{what} raised {told(error)}") from error
