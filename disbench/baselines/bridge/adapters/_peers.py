"""What adapters share: a peer's checkout on the path, the predictors of the package `isegm`, and those of SAM.

RITM's package is called `isegm`, and so are those that began from it. A predictor keeps the image, the region that it
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

import numpy as np


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


def isegm(
    repo: str, checkpoint: str, device: str, *given: Any, **more: Any
) -> tuple[Callable[[str], Any], Any, Any, Callable[..., Any]]:
    """A network of the package `isegm`.

    Args:
        repo: folder that holds the package.
        checkpoint: of the network.
        device: torch's name of it.
        given: to its `load_is_model`, after checkpoint and device.
        more: likewise, by name.

    Returns:
        A function that imports a module by its full name, torch's device, the network, and a function that makes a
        predictor of a mode, with options by name.

    Raises:
        ImportError: as `enter`.
    """
    load = enter(repo)
    where = load("torch").device(device)
    net = load("isegm.inference.utils").load_is_model(checkpoint, where, *given, **more)
    make = load("isegm.inference.predictors").get_predictor
    return load, where, net, lambda mode, **options: make(net, mode, where, **options)


class Model:
    """A network and how its predictor is made and asked.

    Args:
        enter: what `enter` returned.
        predictor: makes a predictor of the peer's.
        begin: hands an image to that predictor.
        ask: what the predictor of a session says: float32 or bool (height, width), or with the candidates first.
        keep: tells the predictor of a session which candidate was kept.
    """

    def __init__(
        self,
        enter: Callable[[str], Any],
        predictor: Callable[[], Any],
        begin: Callable[[Any, Any], None] = lambda predictor, image: predictor.set_input_image(image),
        ask: Callable[[Any], Any] = lambda session: session.predictor.get_prediction(session.clicker),
        keep: Callable[[Any, int], None] = lambda session, index: None,
    ) -> None:
        self.torch = enter("torch")
        self.clicks = enter("isegm.inference.clicker")
        self.predictor, self.begin, self.ask, self.kept = predictor, begin, ask, keep

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
            model.begin(self.predictor, image)

    def predict(self, clicks: Any) -> Any:
        """Masks for all clicks so far, (x, y, positive) each: (candidates, height, width), and no scores."""
        for x, y, positive in clicks[len(self.clicker) :]:
            # NumPy's numbers, as the peers' own clicks have: torch makes float64 of them where Python's give float32,
            # and what f-BRS optimises follows the last bits.
            place = (np.int64(y), np.int64(x))
            self.clicker.add_click(self.model.clicks.Click(is_positive=bool(positive), coords=place))
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
    load, where, net, make = isegm(repo, checkpoint, device, False)
    zoom_options = fixed_zoom(int(options["crop"]))
    positions = load("isegm.model.modeling.pos_embed")
    positions.interpolate_pos_embed_inference(net.backbone, zoom_options["target_size"], where)

    def predictor() -> Any:
        return make(
            "NoBRS",
            with_flip=bool(options["flip"]),
            zoom_in_params=dict(zoom_options),
            predictor_params=dict(predictor_options or {}),
        )

    return Model(load, predictor, **model)


class Once:
    """A network that gets all points of a fixed budget at once.

    Args:
        network: of the peer's.
        options: of the adapter.
        device: torch's name of it.
        answer: the mask of an image and its points, (x, y, positive) each: float32 (height, width) in [0, 1].
    """

    def __init__(
        self,
        network: Any,
        options: dict[str, Any],
        device: str,
        answer: Callable[[Once, Any, Any], Any],
    ) -> None:
        self.network, self.options, self.device, self.answer = network, options, device, answer

    def open(self, image: Any) -> OnceSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return OnceSession(self, image)


class OnceSession:
    """One image."""

    def __init__(self, model: Once, image: Any) -> None:
        self.model, self.image = model, image

    def predict(self, clicks: Any) -> Any:
        """The one mask of all points: float32 (1, height, width), and no scores."""
        mask = np.clip(self.model.answer(self.model, self.image, clicks), 0, 1)
        return mask.astype(np.float32)[None], None


class Prompted:
    """SAM and those that began from it: an image is encoded once, and clicks are prompts.

    Args:
        predictor: makes a predictor of the peer's.
        options: `candidates`, `later` and `feedback`, as the adapters tell.
        more: what else every prediction takes.
    """

    def __init__(self, predictor: Callable[[], Any], options: dict[str, Any], **more: Any) -> None:
        self.predictor, self.more = predictor, more
        self.first, self.feedback = int(options["candidates"]) == 3, bool(options["feedback"])
        self.later = self.first and int(options["later"]) == 3

    def open(self, image: Any) -> PromptedSession:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return PromptedSession(self, image)


class PromptedSession:
    """One image; the mask that was kept goes back as logits."""

    def __init__(self, model: Prompted, image: Any) -> None:
        self.model, self.predictor = model, model.predictor()
        self.logits: Any = None
        self.kept: int | None = None
        self.predictor.set_image(image)

    def predict(self, clicks: Any) -> Any:
        """Masks for all clicks so far, (x, y, positive) each: bool (candidates, height, width), and their scores."""
        points = np.array([(x, y) for x, y, _ in clicks], dtype=np.float64)
        labels = np.array([int(positive) for _, _, positive in clicks])
        masks, scores, self.logits = self.predictor.predict(
            point_coords=points,
            point_labels=labels,
            mask_input=self._previous(),
            multimask_output=self.model.first if len(clicks) == 1 else self.model.later,
            **self.model.more,
        )
        self.kept = int(np.argmax(scores))
        return np.asarray(masks) > 0, scores

    def keep(self, index: int) -> None:
        """The mask whose logits go back; without a word it is the one of the best score."""
        self.kept = index

    def _previous(self) -> Any:
        """Logits (1, low, low) of the mask that was kept, or None."""
        if self.kept is None or not self.model.feedback:
            return None
        return self.logits[self.kept : self.kept + 1]
