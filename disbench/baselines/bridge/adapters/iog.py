"""IOG (Zhang et al. 2020), its own code: a point inside and two corners of the box at once.

The margin of the corners is the one that its own points have in the crop.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Options: relax (pixels around the box in the crop), margin (of the corners, pixels of the crop), side, sigma."""
    sys.path.insert(0, repo)
    torch, networks = importlib.import_module("torch"), importlib.import_module("networks.mainnetwork")
    network = networks.Network(
        nInputChannels=5,
        num_classes=1,
        backbone="resnet101",
        output_stride=16,
        sync_bn=None,
        freeze_bn=False,
    )
    network.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    return Model(network.to(device).eval(), options, device)


class Model:
    """Opens images."""

    def __init__(self, network: Any, options: dict[str, Any], device: str) -> None:
        self.network, self.options, self.device = network, options, device

    def open(self, image: Any) -> Session:
        """A session."""
        return Session(self, image)


class Session:
    """One image."""

    def __init__(self, model: Model, image: Any) -> None:
        self.model, self.image = model, image

    def predict(self, clicks: list[tuple[int, int, bool]]) -> tuple[Any, None]:
        """One mask of the inside point and the box's corners."""
        torch, helpers = importlib.import_module("torch"), importlib.import_module("dataloaders.helpers")

        options = self.model.options
        side, relax = options["side"], options["relax"]
        (inside_x, inside_y, _), (left, top, _), (right, bottom, _) = clicks
        corners = np.array([[left, top], [right, bottom]])
        box = helpers.get_bbox(self.image, points=corners, pad=relax, zero_pad=True)
        crop = helpers.crop_from_bbox(self.image.astype(np.float32), box, zero_pad=True)
        resized = helpers.fixed_resize(
            crop, (side, side), flagval=importlib.import_module("cv2").INTER_LINEAR
        )
        scale = np.array([side / float(crop.shape[1]), side / float(crop.shape[0])])
        inside = (np.array([inside_x, inside_y]) - box[:2]) * scale
        first, second = ((corner - box[:2]) * scale for corner in corners)
        points = self._points(inside, first, second)
        maps = helpers.make_gt(resized[..., 0], points, sigma=options["sigma"], one_mask_per_point=False)
        maps = 255.0 * (maps - maps.min()) / (maps.max() - maps.min() + 1e-10)
        both = np.concatenate((resized, maps), axis=2).transpose((2, 0, 1))[None].astype(np.float32)
        with torch.no_grad():
            fine = self.model.network(torch.from_numpy(both).to(self.model.device))[-1]
        probability = torch.sigmoid(fine)[0, 0].cpu().numpy()
        full = helpers.crop2fullmask(
            probability, box, im_size=self.image.shape[:2], zero_pad=True, relax=0, mask_relax=False
        )
        return np.clip(full, 0, 1).astype(np.float32)[None], None

    def _points(self, inside: Any, first: Any, second: Any) -> Any:
        """The inside point and the box's four corners, moved outwards by the margin, in the crop."""
        margin, last = self.model.options["margin"], self.model.options["side"]
        left, top = np.maximum(first - margin, 0)
        right, bottom = np.minimum(second + margin, last)
        return np.array([inside, [left, top], [left, bottom], [right, top], [right, bottom]]).astype(int)
