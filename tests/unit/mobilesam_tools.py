"""MobileSAM's weights, where they are here, and its exported decoder asked for all four masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from disbench.baselines.cards import load_card
from disbench.baselines.weights import is_right, weights_folder

DECODER = weights_folder("mobilesam") / "sam.onnx"
needs_weights = pytest.mark.skipif(
    not all(is_right(weights_folder("mobilesam") / w.file, w) for w in load_card("mobilesam").weights),
    reason="the weights are not here; get them with: disbench methods fetch mobilesam",
)


def decoded(session: Any, features: Any, points: Any, labels: Any, mask: Any = None) -> Any:
    """Masks (1, 4, 256, 256) and scores (1, 4) by ONNX Runtime.

    Args:
        session: of the decoder's graph.
        features: (1, 256, 64, 64).
        points: (1, n + 1, 2), x before y, pixels of the input; the last one is padding.
        labels: (1, n + 1).
        mask: logits (1, 1, 256, 256) that are fed back, or None.
    """
    given = {
        "image_embeddings": features,
        "point_coords": np.asarray(points, dtype=np.float32),
        "point_labels": np.asarray(labels, dtype=np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32) if mask is None else mask,
        "has_mask_input": np.full((1, 1, 1, 1), mask is not None, dtype=np.float32),
    }
    return session.run(None, given)
