"""Networks that get all points of a fixed budget at once: DEXTR and IOG."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from . import Model, enter


class Session:
    """One image; `answer` makes the mask from an image and its points: float32 (height, width) in [0, 1]."""

    def __init__(self, answer: Any, network: Any, options: dict[str, Any], device: str, image: Any) -> None:
        self.answer, self.network, self.options, self.device, self.image = answer, network, options, device, image

    def predict(self, clicks: Any) -> Any:
        """The one mask of all points, (x, y, positive) each: float32 (1, height, width), and no scores."""
        mask = np.clip(self.answer(self, self.image, clicks), 0, 1)
        return mask.astype(np.float32)[None], None


def dextr(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """DEXTR (Maninis, Caelles, Pont-Tuset, Van Gool 2018), github.com/scaelles/DEXTR-PyTorch: extreme points."""
    load = enter(repo, "networks")
    network = load("networks.deeplab_resnet").resnet101(1, nInputChannels=4, classifier="psp")
    weights = load("torch").load(checkpoint, map_location="cpu")
    network.load_state_dict({name.replace("module.", "", 1): value for name, value in weights.items()})
    return Model(Session, answer_of_dextr, network.to(device).eval(), options, device)


def answer_of_dextr(model: Session, image: Any, clicks: Any) -> Any:
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


def iog(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """IOG (Zhang, Liew, Wei, Wei, Zhao 2020), github.com/shiyinzhang/Inside-Outside-Guidance.

    A point inside and two corners of the box. The corners' margin is the one that its own points have in the crop.
    """
    load = enter(repo, "networks")
    network = load("networks.mainnetwork").Network(
        nInputChannels=5, num_classes=1, backbone="resnet101", output_stride=16, sync_bn=None, freeze_bn=False
    )
    network.load_state_dict(load("torch").load(checkpoint, map_location="cpu"))
    return Model(Session, answer_of_iog, network.to(device).eval(), options, device)


def answer_of_iog(model: Session, image: Any, clicks: Any) -> Any:
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


LOADERS = {"dextr": dextr, "iog": iog}
