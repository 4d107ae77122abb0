"""FocusCut (Lin, Duan, Zhang, Guo, Cheng 2022), github.com/frazerlin/focuscut.

The mask of the clicks so far goes back, and crops around earlier clicks are segmented again. Thresholded at 0.5 by its
own code.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))


class Model:
    """A network, its settings, and the functions that ask it."""

    def __init__(self, asking: Any, net: Any, settings: dict[str, Any]) -> None:
        self.asking, self.net, self.settings = asking, net, settings

    def open(self, image: Any) -> Session:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return Session(self, image)


class Session:
    """One image; clicks grow."""

    def __init__(self, model: Model, image: Any) -> None:
        self.model = model
        self.mask = np.zeros(image.shape[:2], dtype=np.uint8)
        size = np.array([image.shape[1], image.shape[0]])
        self.sample = {"img": image, "pre_pred": self.mask, "meta": {"id": "", "source_size": size}}
        self.focused: list[dict[str, Any]] = []

    def predict(self, clicks: Any) -> Any:
        """The mask for all clicks so far, (x, y, positive) each: bool (1, height, width), and no scores."""
        points = np.array([(x, y, int(positive)) for x, y, positive in clicks], dtype=np.int64)
        whole = (self.model.settings, self.model.net, self.sample, points)
        if len(points) == 1 and self.model.settings["zoom_in"] == 0:
            self.model.asking.predict_wo(*whole)  # the mask that the first zoom-in follows
        mask, values = self.model.asking.predict_wo(*whole)
        if len(points) > 1 and self.model.settings["hr_val"]:
            self._focus(points, mask)
        if self.focused:
            mask = self.model.asking.predict_hr_new_final(*whole, self.focused, pred=mask, result=values)
        self.mask = mask
        return mask[None] == 1, None

    def _focus(self, points: Any, mask: Any) -> None:
        """Look closer at the last click from now on, if the peer's rule says so."""
        click = tuple(points[-1])
        radius, needed = self.model.asking.cal_expand_r_new_final(click, self.mask, mask)
        if not needed:
            return
        names = ("pre_pred_hr", "seq_points_hr", "hr_result_src", "hr_result_count_src", "img_hr", "pred_hr")
        place = {"point_num": len(points), "pt_hr": click, "expand_r": radius, "gt_hr": None}
        self.focused.append({**dict.fromkeys(names), **place})


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """Read a network.

    Args:
        repo: checkout of the code.
        checkpoint: file with the weights by name.
        options: `backbone` (resnet50 or resnet101), `size` (pixels of the network's short side, and of the side of
            a local view), `focus` (look closer at clicks), `rounds` (of each local view), `flip`.
        device: torch's name of it. Its code asks for the GPU everywhere; on the processor that is left unheard.

    Returns:
        The model.
    """
    enter = SHARED["enter"](repo, "inference")
    torch = enter("torch")
    if device == "cpu":
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda this, *given, **more: this
    settings = _settings(enter, checkpoint, options)
    net = enter("model.hrcnet_base.my_net").MyNet(
        output_stride=settings["output_stride"],
        if_sync_bn=settings["sync_bn"],
        special_lr=settings["special_lr"],
        size=abs(settings["ref_size"]),
        aux_parameter=settings["aux_parameter"],
    )
    net.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    net.to(device).eval()
    return Model(enter("inference"), net, settings)


def _settings(enter: Any, checkpoint: str, options: dict[str, Any]) -> dict[str, Any]:
    """What its command line would make of ours."""
    given, size = sys.argv, str(options["size"])
    rounds = f"pfs={int(options['rounds'])}"
    sys.argv = [
        "main.py",
        "-v",
        "-r",
        checkpoint,
        "-ap",
        f"backbone='{options['backbone']}',pretrained=False",
        "-hrvs",
        rounds,
    ]
    sys.argv += [
        "-es",
        size,
        "-hrs",
        size,
        *["-hrv"] * bool(options["focus"]),
        *["-ef"] * bool(options["flip"]),
    ]
    try:
        settings: dict[str, Any] = enter("utils").create_parser()
    finally:
        sys.argv = given
    return settings
