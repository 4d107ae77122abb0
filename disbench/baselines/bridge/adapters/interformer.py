"""InterFormer (Huang and others 2023), github.com/YouHuang67/InterFormer; needs its mmcv-full and mmsegmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import Model, enter

MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


class Session:
    """One image, encoded once. Each click marks pixels of a map beside the mask that came before.

    Which class is larger decides, which is a threshold of 0.5, so masks are booleans.
    """

    def __init__(self, load: Any, net: Any, options: dict[str, Any], device: str, image: Any) -> None:
        self.torch, self.net, self.options, self.size = load("torch"), net, options, image.shape[:2]
        mmcv = load("mmcv")
        normal = mmcv.imnormalize(image, MEAN, DEVIATION, to_rgb=False)
        padded = mmcv.impad_to_multiple(normal, int(options["divisor"]), pad_val=0)
        with self.torch.no_grad():
            self.image = self.torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].to(device)
            self.encoded = net.backbone(self.image)
        unknown = load("interformer.utils").REF_UNKNOWN
        shape = (1, 1, *self.image.shape[2:])
        self.marks = self.torch.full(shape, unknown, dtype=self.torch.int64, device=device)

    def predict(self, clicks: Any) -> Any:
        """The mask for all clicks so far, (x, y, positive) each: bool (1, height, width), and no scores."""
        x, y, positive = clicks[-1]
        net, options = self.net, self.options
        points = [[(y, x, "positive" if positive else "negative")]]
        with self.torch.no_grad():
            marks = net.update_ref_label_by_point_lists(
                self.marks, points, float(options["inner_radius"]), float(options["outer_radius"])
            )
            answer = net.encode_decode(self.image, None, x=self.encoded, ref_label=marks)
            mask = answer.argmax(dim=1, keepdim=True)
            self.marks = net.update_ref_label_by_prediction(marks, mask)
        height, width = self.size
        return mask[0, :, :height, :width].cpu().numpy() == 1, None


def interformer(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """The checkpoint's folder has its configuration too (`.py`), as its tools expect it."""
    load = enter(repo, "interformer")
    mmcv = load("mmcv")
    load("interformer.segmentors")
    files = sorted(Path(checkpoint).parent.glob("*.py"))
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} files of Python beside {checkpoint}; put its configuration alone there")
    config = mmcv.Config.fromfile(str(files[0]))
    config.model.pretrained = None
    config.model.train_cfg = None
    net = load("mmseg.models").build_segmentor(config.model, test_cfg=config.get("test_cfg"))
    load("mmcv.runner").load_checkpoint(net, checkpoint, map_location="cpu")
    net = load("mmcv.cnn.utils").revert_sync_batchnorm(net).to(device)
    net.eval()
    return Model(Session, load, net, options, device)


LOADERS = {"interformer": interformer}
