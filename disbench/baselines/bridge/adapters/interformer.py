"""InterFormer (Huang and others 2023), github.com/YouHuang67/InterFormer; needs its mmcv-full and mmsegmentation.

The image is encoded once. Each click marks pixels of a map beside the mask that came before. Which class is larger
decides, which is a threshold of 0.5, so masks are booleans.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))
MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


class Model:
    """A network with what it takes to ask it."""

    def __init__(self, enter: Any, net: Any, options: dict[str, Any], device: str) -> None:
        self.torch, self.mmcv = enter("torch"), enter("mmcv")
        self.unknown = enter("interformer.utils").REF_UNKNOWN
        self.net, self.options, self.device = net, options, device

    def open(self, image: Any) -> Session:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return Session(self, image)

    def tensor(self, image: Any) -> Any:
        """Normalised and padded with zeros to a multiple of some pixels: (1, 3, height, width)."""
        normal = self.mmcv.imnormalize(image, MEAN, DEVIATION, to_rgb=False)
        padded = self.mmcv.impad_to_multiple(normal, int(self.options["divisor"]), pad_val=0)
        return self.torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].to(self.device)


class Session:
    """One image; clicks grow."""

    def __init__(self, model: Model, image: Any) -> None:
        self.model, self.size = model, image.shape[:2]
        with model.torch.no_grad():
            self.image = model.tensor(image)
            self.encoded = model.net.backbone(self.image)
        shape = (1, 1, *self.image.shape[2:])
        self.marks = model.torch.full(shape, model.unknown, dtype=model.torch.int64, device=model.device)

    def predict(self, clicks: Any) -> Any:
        """The mask for all clicks so far, (x, y, positive) each: bool (1, height, width), and no scores."""
        x, y, positive = clicks[-1]
        net, options = self.model.net, self.model.options
        points = [[(y, x, "positive" if positive else "negative")]]
        with self.model.torch.no_grad():
            marks = net.update_ref_label_by_point_lists(
                self.marks, points, float(options["inner_radius"]), float(options["outer_radius"])
            )
            answer = net.encode_decode(self.image, None, x=self.encoded, ref_label=marks)
            mask = answer.argmax(dim=1, keepdim=True)
            self.marks = net.update_ref_label_by_prediction(marks, mask)
        height, width = self.size
        return mask[0, :, :height, :width].cpu().numpy() == 1, None


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with `state_dict`, in a folder with its configuration (`.py`), as its tools expect it.
        options: `inner_radius` and `outer_radius` (of a click's marks, pixels), `divisor` (the image is padded to
            a multiple of it).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter = SHARED["enter"](repo, "interformer")
    mmcv = enter("mmcv")
    enter("interformer.segmentors")
    files = sorted(Path(checkpoint).parent.glob("*.py"))
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} files of Python beside {checkpoint}; put its configuration alone there")
    config = mmcv.Config.fromfile(str(files[0]))
    config.model.pretrained = None
    config.model.train_cfg = None
    net = enter("mmseg.models").build_segmentor(config.model, test_cfg=config.get("test_cfg"))
    enter("mmcv.runner").load_checkpoint(net, checkpoint, map_location="cpu")
    net = enter("mmcv.cnn.utils").revert_sync_batchnorm(net).to(device)
    net.eval()
    return Model(enter, net, options, device)
