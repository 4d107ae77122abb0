"""SAM and systems built on it, in their authors' code: an image is encoded once, and clicks are prompts.

Thresholded at logits of 0 by their own code. The low-resolution logits of the mask that was kept go into the next call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Model, enter


class Session:
    """One image, uint8 (height, width, 3), RGB, with a predictor of the peer's; `more` goes to each prediction.

    Options are `candidates` (masks at click 1: 3 or 1), `later` (masks after it, if there are 3: 3 or 1) and `feedback`
    (whether logits are fed back).
    """

    def __init__(self, make: Any, options: dict[str, Any], more: dict[str, Any], image: Any) -> None:
        self.predictor, self.more = make(), more
        self.first, self.feedback = int(options["candidates"]) == 3, bool(options["feedback"])
        self.later = self.first and int(options["later"]) == 3
        self.logits: Any = None
        self.kept: int | None = None
        self.predictor.set_image(image)

    def predict(self, clicks: Any) -> Any:
        """Masks for all clicks so far, (x, y, positive) each: bool (candidates, height, width), and their scores."""
        points = np.array([(x, y) for x, y, _ in clicks], dtype=np.float64)
        labels = np.array([int(positive) for _, _, positive in clicks])
        again = self.kept is not None and self.feedback
        masks, scores, self.logits = self.predictor.predict(
            point_coords=points,
            point_labels=labels,
            mask_input=self.logits[self.kept : self.kept + 1] if again else None,  # type: ignore[operator]
            multimask_output=self.first if len(clicks) == 1 else self.later,
            **self.more,
        )
        self.kept = int(np.argmax(scores))
        return np.asarray(masks) > 0, scores

    def keep(self, index: int) -> None:
        """Choose the mask whose logits go back; the default is the one of the best score."""
        self.kept = index


def sam(repo: str, checkpoint: str, options: dict[str, Any], device: str, more: Any = lambda options: {}) -> Model:
    """SAM (Kirillov and others 2023), github.com/facebookresearch/segment-anything."""
    peer = enter(repo, "segment_anything")("segment_anything")
    net = peer.sam_model_registry[options["backbone"]](checkpoint=checkpoint).to(device)
    net.eval()
    return Model(Session, lambda: peer.SamPredictor(net), options, more(options))


def sam_hq(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SAM-HQ (Ke and others 2023), github.com/SysCV/sam-hq.

    Its network itself chooses the best of three masks, so there is one candidate.
    """
    return sam(repo, checkpoint, options, device, lambda options: {"hq_token_only": bool(options["hq_only"])})


def sam2(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SAM 2 (Ravi and others 2024) on images, github.com/facebookresearch/sam2."""
    load = enter(repo, "sam2")
    net = load("sam2.build_sam").build_sam2(options["config"], checkpoint, device=device)
    make = load("sam2.sam2_image_predictor").SAM2ImagePredictor
    return Model(Session, lambda: make(net), options, {})


LOADERS = {"sam": sam, "sam_hq": sam_hq, "sam2": sam2}
