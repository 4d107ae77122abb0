"""DEXTR (Maninis, Caelles, Pont-Tuset, Van Gool 2018), github.com/scaelles/DEXTR-PyTorch: extreme points at once."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from typing import Any

import numpy as np

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with the weights by name.
        options: `pad` (pixels around the points in the crop), `side` (of the square that the crop is stretched to),
            `sigma` (width of the points' Gaussians at half their height, pixels of the square).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter = SHARED["enter"](repo, "networks")
    network = enter("networks.deeplab_resnet").resnet101(1, nInputChannels=4, classifier="psp")
    weights = enter("torch").load(checkpoint, map_location="cpu")
    network.load_state_dict({name.replace("module.", "", 1): value for name, value in weights.items()})
    return SHARED["Once"](network.to(device).eval(), options, device, answer)


def answer(model: Any, image: Any, clicks: Any) -> Any:
    """Probabilities (height, width) of the object with these extreme points."""
    torch, helpers = importlib.import_module("torch"), importlib.import_module("dataloaders.helpers")
    side, pad = model.options["side"], model.options["pad"]
    points = np.array([[x, y] for x, y, _ in clicks])
    box = helpers.get_bbox(image, points=points, pad=pad, zero_pad=True)
    crop = helpers.crop_from_bbox(image, box, zero_pad=True)
    resized = helpers.fixed_resize(crop, (side, side)).astype(np.float32)
    scale = np.array([side / float(crop.shape[1]), side / float(crop.shape[0])])
    placed = ((points - points.min(axis=0) + pad) * scale).astype(int)
    heat = helpers.cstm_normalize(helpers.make_gt(resized, placed, sigma=model.options["sigma"]), 255)
    both = np.concatenate((resized, heat[:, :, None]), axis=2).transpose((2, 0, 1))[None]
    with torch.no_grad():
        found = model.network(torch.from_numpy(both.astype(np.float32)).to(model.device))
        found = torch.nn.functional.interpolate(found, size=(side, side), mode="bilinear", align_corners=True)
    probability = torch.sigmoid(found)[0, 0].cpu().numpy()
    return helpers.crop2fullmask(probability, box, im_size=image.shape[:2], zero_pad=True, relax=pad)
