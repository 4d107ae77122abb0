"""A method's candidates: checked, thresholded, and one of them kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from disbench.baselines.bridge.child import plain_array
from disbench.core.arrays import BoolArray
from disbench.core.choices import Selection
from disbench.core.clicks import Click
from disbench.core.errors import shown
from disbench.core.limits import MAX_CANDIDATES
from disbench.core.prediction import MethodError, Prediction, called

ROUNDING = 1e-3  # how far a probability may lie outside [0, 1]: resizing and 16-bit floats round that much


@dataclass(frozen=True, slots=True)
class Candidates:
    """The masks of one click, boolean (n, height, width) with n at least 1, and n finite scores or None.

    The masks are the harness's own, not a view of the method's.
    """

    masks: BoolArray
    scores: tuple[float, ...] | None


def predicted(session: Any, clicks: Sequence[Click]) -> Prediction:
    """What a session predicts for all clicks so far, as NumPy arrays; MethodError if it does not."""
    if not callable(getattr(session, "predict", None)):
        raise MethodError(f"open returned a {type(session).__name__}, which has no predict(clicks)")
    return called("predict", lambda: plain_prediction(session.predict(list(clicks))))


def tell_kept(session: Any, index: int) -> None:
    """Tell a session which candidate was kept, if it wants to know; MethodError if it fails."""
    keep = getattr(session, "keep", None)
    if keep is not None:
        called("keep", lambda: keep(index))


def plain_prediction(prediction: object) -> Prediction:
    """A prediction with NumPy arrays in place of tensors, images, lists and generators; MethodError for none."""
    names = ("masks", "scores")
    masks, scores = called("reading the answer", lambda: [getattr(prediction, name, None) for name in names])
    if masks is None:
        raise MethodError(f"predict returned a {type(prediction).__name__}, not a Prediction with masks")
    plain = called("reading the masks", lambda: plain_array(masks))
    return Prediction(plain, None if scores is None else called("reading the scores", lambda: plain_array(scores)))


def checked_candidates(prediction: object, height: int, width: int, threshold: float) -> Candidates:
    """The masks and scores of a prediction; probabilities above the threshold belong to a mask, booleans stay.

    MethodError for no masks, a wrong shape or dtype, values outside [0, 1] by more than `ROUNDING`, and a score that is
    missing or not finite.
    """
    plain = plain_prediction(prediction)
    masks, scores = plain.masks, plain.scores
    if masks.ndim != 3 or masks.shape[0] == 0 or masks.shape[1:] != (height, width):
        raise MethodError(f"masks of shape {masks.shape} instead of (candidates, {height}, {width})")
    if len(masks) > MAX_CANDIDATES:
        raise MethodError(f"{len(masks)} candidates; at most {MAX_CANDIDATES} are taken")
    if masks.dtype == np.bool_:
        return Candidates(masks.copy(), _checked_scores(scores, len(masks)))
    if masks.dtype.kind != "f":
        raise MethodError(f"masks of dtype {masks.dtype}; give booleans or probabilities")
    low, high = float(masks.min()), float(masks.max())
    if np.isnan(low) or np.isnan(high):
        raise MethodError("masks with NaN in them")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise MethodError(f"mask values from {low:.4g} to {high:.4g}; probabilities lie in [0, 1] (are these logits?)")
    return Candidates(masks > threshold, _checked_scores(scores, len(masks)))


def choose(
    selection: Selection, click: int, candidates: Candidates, target_ious: Sequence[float], previous: BoolArray
) -> int:
    """Index of the candidate that is kept at a click (from 1); ties go to the lowest, nan is the lowest IoU.

    Only oracles use `target_ious`. Without scores, the method's own choice is the candidate nearest to `previous`;
    MethodError where the selection `score` needs them.
    """
    kept = choose_by_numbers(selection, click, target_ious, candidates.scores)
    if kept is not None:
        return kept
    return _first_best([plain_iou(previous, mask) for mask in candidates.masks])


def choose_by_numbers(
    selection: Selection, click: int, target_ious: Sequence[float], scores: Sequence[float] | None
) -> int | None:
    """Like `choose`, from IoUs and scores alone; None where the masks decide."""
    if len(target_ious) == 1:
        return 0
    if selection == "oracle-all" or (selection == "oracle-first" and click == 1):
        return _first_best(target_ious)
    if scores is not None:
        return _first_best(scores)
    if selection == "score":
        raise MethodError(f"{len(target_ious)} candidates without scores; the selection 'score' needs them")
    return None


def plain_iou(first: BoolArray, second: BoolArray) -> float:
    """IoU of two masks over all pixels; 1 for two empty masks."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _first_best(values: Sequence[float]) -> int:
    return int(np.argmax(np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-np.inf)))


def _checked_scores(scores: object, count: int) -> tuple[float, ...] | None:
    if scores is None:
        return None
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise MethodError(f"scores that are not numbers: {shown(np.ravel(np.asarray(scores)).tolist())}") from None
    if found.shape != (count,):
        raise MethodError(f"scores of shape {found.shape} for {count} candidates")
    if not np.isfinite(found).all():
        raise MethodError("scores that are not finite numbers")
    return tuple(found.tolist())
