"""DEXTR (Maninis et al. 2018), its own code: four extreme points at once (budget extreme-points)."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Options: pad (pixels around the points in the crop), side, sigma."""
    sys.path.insert(0, repo)
    torch, networks = importlib.import_module("torch"), importlib.import_module("networks.deeplab_resnet")
    network = networks.resnet101(1, nInputChannels=4, classifier="psp")
    weights = torch.load(checkpoint, map_location="cpu")
    network.load_state_dict({name.replace("module.", "", 1): value for name, value in weights.items()})
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
        """One mask of the extreme points."""
        torch, helpers = importlib.import_module("torch"), importlib.import_module("dataloaders.helpers")

        options = self.model.options
        side, pad = options["side"], options["pad"]
        points = np.array([[x, y] for x, y, _ in clicks])
        box = helpers.get_bbox(self.image, points=points, pad=pad, zero_pad=True)
        crop = helpers.crop_from_bbox(self.image, box, zero_pad=True)
        resized = helpers.fixed_resize(crop, (side, side)).astype(np.float32)
        scale = np.array([side / float(crop.shape[1]), side / float(crop.shape[0])])
        placed = ((points - points.min(axis=0) + pad) * scale).astype(int)
        heat = helpers.cstm_normalize(helpers.make_gt(resized, placed, sigma=options["sigma"]), 255)
        both = np.concatenate((resized, heat[:, :, None]), axis=2).transpose((2, 0, 1))[None]
        with torch.no_grad():
            found = self.model.network(torch.from_numpy(both.astype(np.float32)).to(self.model.device))
            found = torch.nn.functional.interpolate(
                found, size=(side, side), mode="bilinear", align_corners=True
            )
        probability = torch.sigmoid(found)[0, 0].cpu().numpy()
        full = helpers.crop2fullmask(probability, box, im_size=self.image.shape[:2], zero_pad=True, relax=pad)
        return np.clip(full, 0, 1).astype(np.float32)[None], None
