"""RITM's package `isegm`, and systems built on it.

A predictor keeps the image, the region that it zooms into and the previous mask, so each session makes its own; the
network is shared. Clicks go in as (row, column), to a list of theirs that counts them.

Cards describe the options. Checkpoints hold `config` and `state_dict`, those of f-BRS the weights alone.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import Model, enter

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Session:
    """One image; clicks grow. Subclasses say what differs in a system's predictor."""

    def __init__(self, load: Any, make: Any, options: dict[str, Any], image: Any) -> None:
        self.load, self.options = load, options
        self.torch, self.clicks = load("torch"), load("isegm.inference.clicker")
        self.predictor, self.clicker = make(), self.clicks.Clicker()
        self.masks: Any = None
        with self.torch.no_grad():
            self.begin(image)

    def predict(self, clicks: Any) -> Any:
        """Masks for all clicks so far, (x, y, positive) each: (candidates, height, width), and no scores."""
        for x, y, positive in clicks[len(self.clicker) :]:
            # NumPy's numbers, as the peers' own clicks have: torch makes float64 of them where Python's give float32,
            # and what f-BRS optimises follows the last bits.
            place = (np.int64(y), np.int64(x))
            self.clicker.add_click(self.clicks.Click(is_positive=bool(positive), coords=place))
        with self.torch.no_grad():
            masks = self.ask()
        self.masks = masks if masks.ndim == 3 else masks[None]
        return self.masks, None

    def begin(self, image: Any) -> None:
        """Hand an image, uint8 (height, width, 3), RGB, to the predictor."""
        self.predictor.set_input_image(image)

    def ask(self) -> Any:
        """The predictor's answer: float32 or bool (height, width) or (candidates, height, width)."""
        return self.predictor.get_prediction(self.clicker)

    def keep(self, index: int) -> None:
        """Ignored: there is one candidate."""


def network(repo: str, checkpoint: str, device: str, *given: Any, **named: Any) -> tuple[Any, Any, Any]:
    """The peer's importing function, torch's device, and a network; `given` and `named` go to `load_is_model`."""
    load = enter(repo)
    where = load("torch").device(device)
    return load, where, load("isegm.inference.utils").load_is_model(checkpoint, where, *given, **named)


def model(load: Any, where: Any, net: Any, arguments: Any, options: dict[str, Any], session: Any = Session) -> Model:
    """A model of a network; `arguments` makes its predictor's mode and other arguments from the options."""
    get_predictor = load("isegm.inference.predictors").get_predictor

    def make() -> Any:
        mode, more = arguments(options)
        return get_predictor(net, mode, where, **more)

    return Model(session, load, make, options)


def plain(
    arguments: Any, repo: str, checkpoint: str, options: dict[str, Any], device: str, session: Any = Session
) -> Model:
    """A system whose network is loaded as RITM's."""
    return model(*network(repo, checkpoint, device), arguments, options, session)


def zoom(size: object, **more: Any) -> dict[str, Any] | None:
    """RITM's options of the zoom-in: the object's region at `size` pixels, from click 2 on; None for 0."""
    return dict(more, target_size=int(size)) if int(size) else None  # type: ignore[call-overload]


def fixed_zoom(size: object) -> dict[str, Any]:
    """The zoom-in of systems with one input size, `size` pixels square: aspect not kept, from the first click."""
    return {"skip_clicks": -1, "target_size": (int(size), int(size))}  # type: ignore[call-overload]


def ritm(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """RITM (Sofiiuk, Petrov, Konushin 2021), github.com/SamsungLabs/ritm_interactive_segmentation."""
    limit = int(options["clicks_limit"])
    return options["mode"], {
        "with_flip": bool(options["flip"]),
        "zoom_in_params": fixed_zoom(options["crop"]) if options["fixed"] else zoom(options["crop"]),
        "predictor_params": {"net_clicks_limit": limit} if limit else {},
    }


def focalclick(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """FocalClick (Chen, Zhao, Zhang and others 2022), github.com/XavierCHEN34/ClickSEG."""
    return options["mode"], {
        "infer_size": int(options["size"]),
        "focus_crop_r": float(options["focus_ratio"]),
        "with_flip": bool(options["flip"]),
        "zoom_in_params": zoom(options["crop"], expansion_ratio=float(options["target_ratio"])),
        "predictor_params": {},
    }


def cdnet(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """CDNet (Chen, Zhao, Yu and others 2021), github.com/XavierCHEN34/ClickSEG: thresholds and flips by itself."""
    return "CDNet", {
        "infer_size": 384,
        "zoom_in_params": zoom(options["crop"], expansion_ratio=float(options["target_ratio"])),
        "predictor_params": {},
    }


def emcclick(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """EMC-Click (Du, Yuan, Wang, Tai 2023), github.com/feiaxyt/EMC-Click."""
    return "EMC-Click", {
        "with_flip": bool(options["flip"]),
        "zoom_in_params": {"target_size": int(options["short"])},
        "predictor_params": {},
    }


def fcfi(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """FCFI (Wei, Zhang, Yong 2023), github.com/veizgyauzgyauz/FCFI."""
    return "NoBRS", {
        "with_flip": bool(options["flip"]),
        "zoom_in_params": zoom(options["crop"], expansion_ratio=float(options["target_ratio"])),
        "predictor_params": {},
    }


class FcfiSession(Session):
    """Its predictor takes the previous probabilities, and a gate: 0 at the first click, 1 after it."""

    def ask(self) -> Any:
        """Probabilities (height, width)."""
        if self.masks is None:
            height, width = self.predictor.original_image.shape[2:]
            return self.predictor.get_prediction(self.clicker, np.zeros((height, width), np.float32), 0.0)[0]
        return self.predictor.get_prediction(self.clicker, self.masks[0], 1.0)[0]


class FbrsSession(Session):
    """Its data set normalises the images, so its predictor takes normalised ones."""

    def begin(self, image: Any) -> None:
        """Normalise an image and hand it over."""
        transforms = self.load("torchvision.transforms")
        prepared = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
        self.predictor.set_input_image(prepared(image))


def fbrs(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """f-BRS (Sofiiuk, Petrov, Barinova, Konushin 2020), github.com/SamsungLabs/fbrs_interactive_segmentation."""
    limit = int(options["clicks_limit"])

    def arguments(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return options["mode"], {
            "with_flip": bool(options["flip"]),
            "zoom_in_params": zoom(options["crop"]),
            "predictor_params": {"net_clicks_limit": limit} if limit else None,
        }

    loaded = network(repo, checkpoint, device, norm_radius=int(options["radius"]))
    return model(*loaded, arguments, options, FbrsSession)


def plain_vit(
    repo: str,
    checkpoint: str,
    options: dict[str, Any],
    device: str,
    predictor_options: Any = lambda options: {},
    session: Any = Session,
) -> Model:
    """SimpleClick (Liu, Xu, Bertasius, Niethammer 2023), github.com/uncbiag/SimpleClick, and systems built on it.

    A plain vision transformer of one input size. iCMFormer (Li, Vosselman, Yang 2023), github.com/lik1996/iCMFormer,
    has the same interface.
    """
    load, where, net = network(repo, checkpoint, device, False)
    positions = load("isegm.model.modeling.pos_embed")
    positions.interpolate_pos_embed_inference(net.backbone, fixed_zoom(options["crop"])["target_size"], where)

    def arguments(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "NoBRS", {
            "with_flip": bool(options["flip"]),
            "zoom_in_params": fixed_zoom(options["crop"]),
            "predictor_params": predictor_options(options),
        }

    return model(load, where, net, arguments, options, session)


def cascade(options: dict[str, Any]) -> dict[str, Any]:
    """CFR-ICL (Sun, Xian, Xu, Capriotti, Yao 2024), github.com/TitorX/CFR-ICL-Interactive-Segmentation."""
    return {
        "cascade_step": int(options["cascade"]) + 1,
        "cascade_adaptive": bool(options["adaptive"]),
        "cascade_clicks": int(options["cascade_clicks"]),
    }


class PiclickSession(Session):
    """Seven masks a click, or its own choice."""

    def ask(self) -> Any:
        """Masks (candidates, height, width)."""
        return self.predictor.get_prediction(self.clicker, max_score=bool(self.options["max_score"]))

    def keep(self, index: int) -> None:
        """Feed a mask back: at the next click it is the previous one, and the zoom-in follows it."""
        before = self.predictor.prev_prediction
        mask = self.torch.tensor(self.masks[index][None, None], dtype=before.dtype, device=before.device)
        self.predictor.prev_prediction = mask
        self.predictor.set_prev_for_zoom_in(index)


def piclick(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """PiClick (Yan, Wang, Liu, Deng and others 2023), github.com/cilinyan/PiClick: flips always."""
    repo, checkpoint = str(Path(repo).resolve()), str(Path(checkpoint).resolve())
    folder = tempfile.TemporaryDirectory()  # every predictor makes a folder for pictures in the current one
    os.chdir(folder.name)
    made = plain_vit(repo, checkpoint, dict(options, flip=True), device, session=PiclickSession)
    made.folder = folder  # type: ignore[attr-defined]  # removed with the model
    return made


class SegnextSession(Session):
    """Its predictor has other names for the same methods."""

    def begin(self, image: Any) -> None:
        """Hand an image over."""
        self.predictor.set_image(image)

    def ask(self) -> Any:
        """Probabilities (height, width)."""
        # The network remembers the size of the image that it saw last, which may be another session's.
        self.predictor.model.orig_size = self.predictor.orig_img_shape[-2:]
        return self.predictor.predict(self.clicker)


def segnext(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SegNext (Liu, Cho, Bansal, Niethammer 2024), github.com/uncbiag/SegNext."""
    load, _, net = network(str(Path(repo) / "segnext"), checkpoint, device)
    predictor = load("isegm.inference.predictor").BasePredictor
    return Model(SegnextSession, load, lambda: predictor(net), options)


LOADERS = {
    "ritm": partial(plain, ritm),
    "focalclick": partial(plain, focalclick),
    "cdnet": partial(plain, cdnet),
    "emcclick": partial(plain, emcclick),
    "fcfi": partial(plain, fcfi, session=FcfiSession),
    "fbrs": fbrs,
    "simpleclick": plain_vit,
    "cfr_icl": partial(plain_vit, predictor_options=cascade),
    "piclick": piclick,
    "segnext": segnext,
}
