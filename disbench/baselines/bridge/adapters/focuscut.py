"""FCANet (Lin, Zhang, Chen, Cheng, Lu 2020) and FocusCut (Lin, Duan, Zhang, Guo, Cheng 2022), github.com/frazerlin.

Both are thresholded at 0.5 by their own code.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import Model, enter


class FcanetSession:
    """One image, without state: every prediction is made from all clicks, and the first one weighs more."""

    def __init__(self, core: Any, net: Any, integrity: bool, on_gpu: bool, image: Any) -> None:
        self.core, self.net, self.integrity, self.on_gpu, self.image = core, net, integrity, on_gpu, image

    def predict(self, clicks: Any) -> Any:
        """The mask for all clicks so far, (x, y, positive) each: bool (1, height, width), and no scores."""
        points = np.array([(x, y, int(positive)) for x, y, positive in clicks], dtype=np.int64)
        mask = self.core.predict(self.net, self.image, points, if_sis=self.integrity, if_cuda=self.on_gpu)
        return mask[None] == 1, None


def fcanet(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """Its code supports the CPU and the first GPU."""
    core = enter(repo, "core")("core")
    on_gpu = device != "cpu"
    net = core.init_model("fcanet", options["backbone"], checkpoint, if_cuda=on_gpu)
    return Model(FcanetSession, core, net, bool(options["integrity"]), on_gpu)


class FocusCutSession:
    """One image: the mask of the clicks so far goes back, and crops around earlier clicks are segmented again."""

    def __init__(self, asking: Any, net: Any, settings: dict[str, Any], image: Any) -> None:
        self.asking, self.net, self.settings = asking, net, settings
        self.mask = np.zeros(image.shape[:2], dtype=np.uint8)
        size = np.array([image.shape[1], image.shape[0]])
        self.sample = {"img": image, "pre_pred": self.mask, "meta": {"id": "", "source_size": size}}
        self.focused: list[dict[str, Any]] = []

    def predict(self, clicks: Any) -> Any:
        """The mask for all clicks so far, (x, y, positive) each: bool (1, height, width), and no scores."""
        points = np.array([(x, y, int(positive)) for x, y, positive in clicks], dtype=np.int64)
        whole = (self.settings, self.net, self.sample, points)
        if len(points) == 1 and self.settings["zoom_in"] == 0:
            self.asking.predict_wo(*whole)  # the mask that the first zoom-in follows
        mask, values = self.asking.predict_wo(*whole)
        if len(points) > 1 and self.settings["hr_val"]:
            self._focus(points, mask)
        if self.focused:
            mask = self.asking.predict_hr_new_final(*whole, self.focused, pred=mask, result=values)
        self.mask = mask
        return mask[None] == 1, None

    def _focus(self, points: Any, mask: Any) -> None:
        """Segment a crop around the last click from now on, if the peer's rule says so."""
        click = tuple(points[-1])
        radius, needed = self.asking.cal_expand_r_new_final(click, self.mask, mask)
        if not needed:
            return
        names = ("pre_pred_hr", "seq_points_hr", "hr_result_src", "hr_result_count_src", "img_hr", "pred_hr")
        place = {"point_num": len(points), "pt_hr": click, "expand_r": radius, "gt_hr": None}
        self.focused.append({**dict.fromkeys(names), **place})


def focuscut(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """Its code asks for the GPU everywhere; on the CPU that is ignored."""
    load = enter(repo, "inference")
    torch = load("torch")
    if device == "cpu":
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda this, *given, **more: this
    settings = _settings(load, checkpoint, options)
    net = load("model.hrcnet_base.my_net").MyNet(
        output_stride=settings["output_stride"],
        if_sync_bn=settings["sync_bn"],
        special_lr=settings["special_lr"],
        size=abs(settings["ref_size"]),
        aux_parameter=settings["aux_parameter"],
    )
    net.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    net.to(device).eval()
    return Model(FocusCutSession, load("inference"), net, settings)


def _settings(load: Any, checkpoint: str, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that its command line makes of our options."""
    given, size = sys.argv, str(options["size"])
    arguments = ["-v", "-r", checkpoint, "-ap", f"backbone='{options['backbone']}',pretrained=False"]
    arguments += ["-hrvs", f"pfs={int(options['rounds'])}", "-es", size, "-hrs", size]
    arguments += ["-hrv"] * bool(options["focus"]) + ["-ef"] * bool(options["flip"])
    sys.argv = ["main.py", *arguments]
    try:
        settings: dict[str, Any] = load("utils").create_parser()
    finally:
        sys.argv = given
    return settings


LOADERS = {"fcanet": fcanet, "focuscut": focuscut}
