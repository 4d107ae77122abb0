"""IOG (Zhang, Liew, Wei, Wei, Zhao 2020), github.com/shiyinzhang/Inside-Outside-Guidance.

A point inside and two corners of the box at once. The corners' margin is the one that its own points have in the crop.
"""

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
        options: `relax` (pixels around the box in the crop), `side` (of the square that the crop is stretched to),
            `margin` (of the corners outside the box) and `sigma` (width of the points' Gaussians at half their
            height), both pixels of the square.
        device: torch's name of it.

    Returns:
        The model.
    """
    enter = SHARED["enter"](repo, "networks")
    network = enter("networks.mainnetwork").Network(
        nInputChannels=5,
        num_classes=1,
        backbone="resnet101",
        output_stride=16,
        sync_bn=None,
        freeze_bn=False,
    )
    network.load_state_dict(enter("torch").load(checkpoint, map_location="cpu"))
    return SHARED["Once"](network.to(device).eval(), options, device, answer)


def answer(model: Any, image: Any, clicks: Any) -> Any:
    """Probabilities (height, width) of the object with this point inside and these corners."""
    torch, helpers = importlib.import_module("torch"), importlib.import_module("dataloaders.helpers")
    side, linear = model.options["side"], importlib.import_module("cv2").INTER_LINEAR
    (inside_x, inside_y, _), (left, top, _), (right, bottom, _) = clicks
    corners = np.array([[left, top], [right, bottom]])
    box = helpers.get_bbox(image, points=corners, pad=model.options["relax"], zero_pad=True)
    crop = helpers.crop_from_bbox(image.astype(np.float32), box, zero_pad=True)
    resized = helpers.fixed_resize(crop, (side, side), flagval=linear)
    scale = np.array([side / float(crop.shape[1]), side / float(crop.shape[0])])
    inside, first, second = ((np.array(point) - box[:2]) * scale for point in [(inside_x, inside_y), *corners])
    points = marked(inside, first, second, model.options["margin"], side)
    maps = helpers.make_gt(resized[..., 0], points, sigma=model.options["sigma"], one_mask_per_point=False)
    maps = 255.0 * (maps - maps.min()) / (maps.max() - maps.min() + 1e-10)
    both = np.concatenate((resized, maps), axis=2).transpose((2, 0, 1))[None].astype(np.float32)
    with torch.no_grad():
        fine = model.network(torch.from_numpy(both).to(model.device))[-1]
    probability = torch.sigmoid(fine)[0, 0].cpu().numpy()
    return helpers.crop2fullmask(probability, box, im_size=image.shape[:2], zero_pad=True, relax=0, mask_relax=False)


def marked(inside: Any, first: Any, second: Any, margin: int, side: int) -> Any:
    """The inside point and the box's four corners, moved outwards, (x, y) in the square: int (5, 2)."""
    left, top = np.maximum(first - margin, 0)
    right, bottom = np.minimum(second + margin, side)
    return np.array([inside, [left, top], [left, bottom], [right, top], [right, bottom]]).astype(int)
