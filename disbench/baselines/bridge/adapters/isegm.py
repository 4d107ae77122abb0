"""RITM's package `isegm`, and those that began from it.

A predictor keeps the image, the region that it zooms into and the previous mask, so each session makes its own; the
network is shared. Clicks go in as (row, column), to a list of theirs that counts them.

Cards say what the options are. Checkpoints hold `config` and `state_dict`, those of f-BRS the weights alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import Model, enter

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Session:
    """One image; clicks grow.

    Args:
        load: imports a module of the peer's.
        predictor: makes a predictor of the peer's.
        begin: hands an image to the predictor.
        ask: what the predictor of a session says: float32 or bool (height, width), or with the candidates first.
        keep: tells the predictor of a session which candidate was kept.
        image: uint8 (height, width, 3), RGB.
    """

    def __init__(self, load: Any, predictor: Any, begin: Any, ask: Any, keep: Any, image: Any) -> None:
        self.torch, self.clicks = load("torch"), load("isegm.inference.clicker")
        self.predictor, self.clicker = predictor(), self.clicks.Clicker()
        self.ask, self.kept = ask, keep
        self.masks: Any = None
        with self.torch.no_grad():
            begin(self.predictor, image)

    def predict(self, clicks: Any) -> Any:
        """Masks for all clicks so far, (x, y, positive) each: (candidates, height, width), and no scores."""
        for x, y, positive in clicks[len(self.clicker) :]:
            # NumPy's numbers, as the peers' own clicks have: torch makes float64 of them where Python's give float32,
            # and what f-BRS optimises follows the last bits.
            place = (np.int64(y), np.int64(x))
            self.clicker.add_click(self.clicks.Click(is_positive=bool(positive), coords=place))
        with self.torch.no_grad():
            masks = self.ask(self)
        self.masks = masks if masks.ndim == 3 else masks[None]
        return self.masks, None

    def keep(self, index: int) -> None:
        """Told which candidate was kept."""
        self.kept(self, index)


def set_image(predictor: Any, image: Any) -> None:
    """Hand over an image, as most predictors take it."""
    predictor.set_input_image(image)


def prediction(session: Session) -> Any:
    """What most predictors say."""
    return session.predictor.get_prediction(session.clicker)


def nothing(session: Session, index: int) -> None:
    """What most predictors are told of the mask that was kept."""


def network(repo: str, checkpoint: str, device: str, *given: Any, **named: Any) -> tuple[Any, Any, Any]:
    """The peer's importing function, torch's device, and a network; `given` and `named` go to `load_is_model`."""
    load = enter(repo)
    where = load("torch").device(device)
    return load, where, load("isegm.inference.utils").load_is_model(checkpoint, where, *given, **named)


def asked(
    load: Any,
    where: Any,
    net: Any,
    arguments: Callable[[], tuple[str, dict[str, Any]]],
    begin: Any = set_image,
    ask: Any = prediction,
    keep: Any = nothing,
) -> Model:
    """A model of a network; `arguments` has the mode of its predictor and what else goes to `get_predictor`."""
    get_predictor = load("isegm.inference.predictors").get_predictor

    def predictor() -> Any:
        mode, more = arguments()
        return get_predictor(net, mode, where, **more)

    return Model(Session, load, predictor, begin, ask, keep)


def plain(
    arguments: Any, repo: str, checkpoint: str, options: dict[str, Any], device: str, ask: Any = prediction
) -> Model:
    """A system that differs from RITM in the arguments of its predictor alone."""
    return asked(*network(repo, checkpoint, device), partial(arguments, options), ask=ask)


def zoom(size: object, **more: Any) -> dict[str, Any] | None:
    """RITM's options of the zoom-in: the object's region at `size` pixels, from click 2 on; None for 0."""
    return dict(more, target_size=int(size)) if int(size) else None  # type: ignore[call-overload]


def fixed_zoom(size: object) -> dict[str, Any]:
    """The zoom-in of those with one input size: aspect not kept, from the first click; `size` is its side."""
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


def ask_fcfi(session: Session) -> Any:
    """It is handed the previous probabilities, and a gate: 0 at the first click, 1 after it."""
    if session.masks is None:
        height, width = session.predictor.original_image.shape[2:]
        return session.predictor.get_prediction(session.clicker, np.zeros((height, width), np.float32), 0.0)[0]
    return session.predictor.get_prediction(session.clicker, session.masks[0], 1.0)[0]


def fbrs(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """f-BRS (Sofiiuk, Petrov, Barinova, Konushin 2020), github.com/SamsungLabs/fbrs_interactive_segmentation."""
    load, where, net = network(repo, checkpoint, device, norm_radius=int(options["radius"]))
    limit = int(options["clicks_limit"])
    # Its data set normalises the images, so its predictor takes normalised ones.
    transforms = load("torchvision.transforms")
    prepared = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])

    def arguments() -> tuple[str, dict[str, Any]]:
        return options["mode"], {
            "with_flip": bool(options["flip"]),
            "zoom_in_params": zoom(options["crop"]),
            "predictor_params": {"net_clicks_limit": limit} if limit else None,
        }

    return asked(load, where, net, arguments, lambda predictor, image: predictor.set_input_image(prepared(image)))


def plain_vit(
    repo: str,
    checkpoint: str,
    options: dict[str, Any],
    device: str,
    predictor_options: Any = lambda options: {},
    **hooks: Any,
) -> Model:
    """SimpleClick (Liu, Xu, Bertasius, Niethammer 2023), github.com/uncbiag/SimpleClick, and those that began from it.

    A plain vision transformer of one input size. iCMFormer (Li, Vosselman, Yang 2023),
    github.com/lik1996/iCMFormer, is called alike.
    """
    load, where, net = network(repo, checkpoint, device, False)
    positions = load("isegm.model.modeling.pos_embed")
    positions.interpolate_pos_embed_inference(net.backbone, fixed_zoom(options["crop"])["target_size"], where)

    def arguments() -> tuple[str, dict[str, Any]]:
        return "NoBRS", {
            "with_flip": bool(options["flip"]),
            "zoom_in_params": fixed_zoom(options["crop"]),
            "predictor_params": predictor_options(options),
        }

    return asked(load, where, net, arguments, **hooks)


def cascade(options: dict[str, Any]) -> dict[str, Any]:
    """CFR-ICL (Sun, Xian, Xu, Capriotti, Yao 2024), github.com/TitorX/CFR-ICL-Interactive-Segmentation."""
    return {
        "cascade_step": int(options["cascade"]) + 1,
        "cascade_adaptive": bool(options["adaptive"]),
        "cascade_clicks": int(options["cascade_clicks"]),
    }


def piclick(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """PiClick (Yan, Wang, Liu, Deng and others 2023), github.com/cilinyan/PiClick: seven masks a click, or its choice.

    Flip averaging cannot be switched off.
    """
    repo, checkpoint = str(Path(repo).resolve()), str(Path(checkpoint).resolve())
    folder = tempfile.TemporaryDirectory()  # every predictor makes a folder for pictures in the current one
    os.chdir(folder.name)
    choice = bool(options["max_score"])

    def ask(session: Session) -> Any:
        return session.predictor.get_prediction(session.clicker, max_score=choice)

    model = plain_vit(repo, checkpoint, dict(options, flip=True), device, ask=ask, keep=keep_piclick)
    model.folder = folder  # type: ignore[attr-defined]
    return model


def keep_piclick(session: Session, index: int) -> None:
    """Feed a mask back: at the next click it is the previous one, and the zoom-in follows it."""
    before = session.predictor.prev_prediction
    mask = session.torch.tensor(session.masks[index][None, None], dtype=before.dtype, device=before.device)
    session.predictor.prev_prediction = mask
    session.predictor.set_prev_for_zoom_in(index)


def segnext(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SegNext (Liu, Cho, Bansal, Niethammer 2024), github.com/uncbiag/SegNext."""
    load, _, net = network(str(Path(repo) / "segnext"), checkpoint, device)
    make = load("isegm.inference.predictor").BasePredictor

    def begin(predictor: Any, image: Any) -> None:
        predictor.set_image(image)

    def ask(session: Session) -> Any:
        # The network remembers the size of the image that it saw last, which may be another session's.
        session.predictor.model.orig_size = session.predictor.orig_img_shape[-2:]
        return session.predictor.predict(session.clicker)

    return Model(Session, load, lambda: make(net), begin, ask, nothing)


LOADERS = {
    "ritm": partial(plain, ritm),
    "focalclick": partial(plain, focalclick),
    "cdnet": partial(plain, cdnet),
    "emcclick": partial(plain, emcclick),
    "fcfi": partial(plain, fcfi, ask=ask_fcfi),
    "fbrs": fbrs,
    "simpleclick": plain_vit,
    "cfr_icl": partial(plain_vit, predictor_options=cascade),
    "piclick": piclick,
    "segnext": segnext,
}
