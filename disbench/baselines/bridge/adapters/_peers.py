"""What adapters share: a peer's checkout on the path, and the predictors of the package `isegm`.

RITM's package has that name, and so have those that began from it. A predictor keeps the image, the region that it
zooms into and the previous mask, so each session makes its own; the network is shared. Clicks go in as (row, column),
to a list of theirs that counts them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def enter(repo: str, package: str = "isegm") -> Callable[[str], Any]:
    """Put a checkout first on the path, and say of what it should hold that it does.

    Args:
        repo: folder that holds the package.
        package: a package or module of the peer's.

    Returns:
        A function that imports a module by its full name.

    Raises:
        ImportError: it is not found there.
    """
    folder = Path(repo).resolve()
    sys.path.insert(0, str(folder))
    # These checkpoints hold the classes of their options; newer torch would refuse to read them.
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"{repo} holds no {package}; name the folder of the peer's checkout")
    places = [Path(place).resolve() for place in spec.submodule_search_locations or [spec.origin or ""]]
    if not any(folder in place.parents for place in places):
        raise ImportError(f"{repo} holds no {package}; one was found in {places[0]}")
    return importlib.import_module


class Model:
    """A network and how its predictor is made and asked.

    Args:
        enter: what `enter` returned.
        predictor: makes a predictor of the peer's.
        prepared: the image as that predictor takes it.
        ask: what the predictor of a session says: float32 or bool (height, width), or with the candidates first.
        keep: tells the predictor of a session which candidate was kept.
    """

    def __init__(
        self,
        enter: Callable[[str], Any],
        predictor: Callable[[], Any],
        prepared: Callable[[Any], Any] = lambda image: image,
        ask: Callable[[Any], Any] = lambda session: session.predictor.get_prediction(session.clicker),
        keep: Callable[[Any, int], None] = lambda session, index: None,
    ) -> None:
        self.torch = enter("torch")
        self.clicks = enter("isegm.inference.clicker")
        self.predictor, self.prepared, self.ask, self.kept = predictor, prepared, ask, keep

    def open(self, image: Any) -> Session:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return Session(self, image)


class Session:
    """One image; clicks grow.

    Attributes:
        predictor: the peer's, this session's own.
        clicker: the peer's list of clicks.
        masks: what it said last: (candidates, height, width).
    """

    def __init__(self, model: Model, image: Any) -> None:
        self.model, self.predictor, self.clicker = model, model.predictor(), model.clicks.Clicker()
        self.masks: Any = None
        with model.torch.no_grad():
            self.predictor.set_input_image(model.prepared(image))

    def predict(self, clicks: Any) -> Any:
        """Masks for all clicks so far, (x, y, positive) each: (candidates, height, width), and no scores."""
        for x, y, positive in clicks[len(self.clicker) :]:
            self.clicker.add_click(self.model.clicks.Click(is_positive=bool(positive), coords=(y, x)))
        with self.model.torch.no_grad():
            masks = self.model.ask(self)
        self.masks = masks if masks.ndim == 3 else masks[None]
        return self.masks, None

    def keep(self, index: int) -> None:
        """Told which candidate was kept."""
        self.model.kept(self, index)


def zoom(size: int, **more: Any) -> dict[str, Any] | None:
    """RITM's options of the zoom-in: the object's region at `size` pixels, from click 2 on; 0 for none."""
    return dict(more, target_size=size) if size else None


def fixed_zoom(size: int) -> dict[str, Any]:
    """The zoom-in of those with one input size: aspect not kept, from the first click; `size` is its side."""
    return {"skip_clicks": -1, "target_size": (size, size)}


def plain_vit(
    repo: str,
    checkpoint: str,
    options: dict[str, Any],
    device: str,
    predictor_options: dict[str, Any] | None = None,
    **model: Any,
) -> Model:
    """SimpleClick and those that began from it: a plain vision transformer of one input size."""
    load = enter(repo)
    where = load("torch").device(device)
    net = load("isegm.inference.utils").load_is_model(checkpoint, where, False)
    zoom_options = fixed_zoom(int(options["crop"]))
    positions = load("isegm.model.modeling.pos_embed")
    positions.interpolate_pos_embed_inference(net.backbone, zoom_options["target_size"], where)
    make = load("isegm.inference.predictors").get_predictor

    def predictor() -> Any:
        return make(
            net,
            "NoBRS",
            where,
            with_flip=bool(options["flip"]),
            zoom_in_params=dict(zoom_options),
            predictor_params=dict(predictor_options or {}),
        )

    return Model(load, predictor, **model)
