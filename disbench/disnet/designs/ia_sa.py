"""IA+SA: a trained network's weights follow the user's corrections, within an image and from image to image.

Kontogianni, Gygli, Uijlings, Ferrari, "Continuous Adaptation for Interactive Object Segmentation by Learning from
Corrections", ECCV 2020, section 3. Single image (IA): before each answer to a correction, gradient steps on the clicks
as sparse labels and on the mask so far, from weights that every image starts with anew. Image sequence (SA): after an
image, steps on its clicks and its final mask, whose result the next image starts with. Simplified: what holds the
weights near their start is a plain squared distance, not one weighted by importance; the same loss and steps serve
both; only what training changes is adapted, so that the encoder stays frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from disbench.core.clicks import Click
from disbench.core.prediction import Prediction, RgbImage
from disbench.disnet.batches import STRIDE, ClickBatch
from disbench.disnet.click_encodings import sampled_features
from disbench.disnet.method import DisnetMethod, DisnetSession, Label, design
from disbench.disnet.network import trained_parameters
from disbench.disnet.training.losses import THRESHOLD, binary_cross_entropy

CLICKS_SHARE = 0.5  # weight of the clicks' loss; the mask's has the rest
ANCHOR = 1.0  # weight of the squared distance of the weights from those that the steps started with


def ia_sa(
    checkpoint: str = "",
    single_image: bool = True,
    image_sequence: bool = True,
    steps: int = 5,
    rate: float = 1e-5,
    order: str = "",
    weights: str = "",
    cache: str = "",
    device: str = "cpu",
    **labels: Label,
) -> AdaptiveMethod:
    """The design `ritm`, adapted at test time; arguments and errors as for `design`, and some of its own.

    `single_image` is IA, `image_sequence` SA, with which numbers depend on the order of the images. A correction, and
    the end of an image, is followed by `steps` gradient steps of Adam with the learning rate `rate`. A line is appended
    to the file `order`, if given, for each image that begins.
    """
    inner = design(checkpoint, weights=weights, cache=cache, device=device, **labels)
    place = Path(order).expanduser() if order else None
    return AdaptiveMethod(inner, single_image, image_sequence, steps, rate, place)


class AdaptiveMethod:
    """A network of one stage and one mask whose weights are adapted; its images come one after another.

    `sequence` are the weights that an image starts with; the other arguments are those of `ia_sa`.
    """

    def __init__(
        self,
        inner: DisnetMethod,
        single_image: bool,
        image_sequence: bool,
        steps: int,
        rate: float,
        order: Path | None = None,
    ) -> None:
        self.inner, self.single_image, self.image_sequence = inner, single_image, image_sequence
        self.steps, self.rate, self.order = steps, rate, order
        self.parameters = list(trained_parameters(inner.network).values())
        self.sequence = self.weights()
        self._current: AdaptiveSession | None = None
        self._begun = 0

    def open(self, image: RgbImage) -> AdaptiveSession:
        """End the image before, and begin with this one: uint8 (height, width, 3), RGB."""
        if self._current is not None:
            self._current.end()
        self._begun += 1
        if self.order is not None:
            with self.order.open("a", encoding="utf-8") as file:
                file.write(f"{self._begun} {hashlib.sha256(image.tobytes()).hexdigest()[:16]}\n")
        self._current = AdaptiveSession(self, self.inner.open(image))
        return self._current

    def weights(self) -> list[Tensor]:
        """A copy of the network's weights."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def use(self, weights: Sequence[Tensor]) -> None:
        """Give the network these weights."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, weights, strict=True):
                parameter.copy_(value)

    def adapt(self, inputs: Tensor, clicks: ClickBatch, last: Tensor, valid: Tensor) -> None:
        """Take steps on a sample's clicks and its last mask: inputs (1, ...), logits and bool (1, grid, grid)."""
        start, network = self.weights(), self.inner.network
        optimizer = torch.optim.Adam(self.parameters, lr=self.rate)
        with torch.enable_grad():
            for _ in range(self.steps):
                logits = network.propose(inputs, clicks, last).logits[:, 0]
                loss = correction_loss(logits, clicks, last, valid)
                for parameter, value in zip(self.parameters, start, strict=True):
                    loss = loss + ANCHOR * (parameter - value).square().sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        optimizer.zero_grad()


def correction_loss(logits: Tensor, clicks: ClickBatch, last: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy at the clicks and with the last mask, weighted; all of one sample.

    Clicks are in pixels of the input, the others (1, grid, grid).
    """
    found = sampled_features(logits[:, None], clicks.points, STRIDE)[..., 0]
    at_clicks = F.binary_cross_entropy_with_logits(found, clicks.positive.to(found.dtype))
    with_mask = binary_cross_entropy(logits, last.sigmoid() > THRESHOLD, valid).mean()
    return CLICKS_SHARE * at_clicks + (1 - CLICKS_SHARE) * with_mask


class AdaptiveSession:
    """An image being segmented."""

    def __init__(self, method: AdaptiveMethod, inner: DisnetSession) -> None:
        self.method, self.inner = method, inner
        self.valid = torch.from_numpy(method.inner.network.frame.valid(inner.size))[None].to(method.inner.device)
        self._begin()

    def _begin(self) -> None:
        self.inner.restart()
        self.weights = self.method.sequence
        self.clicks: list[Click] = []

    def restart(self) -> None:
        """End the sequence of clicks, and begin another one on the same image."""
        self.end()
        self._begin()

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One mask of the image's size; from the second click on after steps on all clicks and the mask before."""
        self.method.use(self.weights)
        self.clicks = list(clicks)
        if self.method.single_image and self.inner.proposals is not None:
            self._adapt()
            self.weights = self.method.weights()
        return self.inner.predict(clicks)

    def end(self) -> None:
        """The user is done: the sequence's weights take steps on the final mask."""
        if self.method.image_sequence and self.inner.proposals is not None:
            self.method.use(self.method.sequence)
            self._adapt()
            self.method.sequence = self.method.weights()
            self.inner.proposals = None

    def _adapt(self) -> None:
        method = self.method.inner
        last = self.inner.kept.logits.clone()  # made in inference mode
        inputs = self.inner.input[None].to(method.device)
        self.method.adapt(inputs, method.clicks_of([self.inner], [self.clicks]), last, self.valid)
