"""IA+SA: a trained network is adapted to the user's corrections, within an image and across images.

Kontogianni, Gygli, Uijlings, Ferrari, "Continuous Adaptation for Interactive Object Segmentation by Learning from
Corrections", ECCV 2020, section 3. Single image adaptation (IA): before each answer to a correction, gradient steps on
the clicks as sparse labels and on the current mask; each image starts from the same weights. Image sequence adaptation
(SA): after an image, gradient steps on its clicks and final mask; the next image starts from the result. Simplified:
the regularisation towards the initial weights is a plain squared distance, not weighted by importance; both
adaptations use the same loss and steps; only trainable weights are adapted, so the encoder stays frozen.
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
from disbench.disnet.click_encodings import sample_features
from disbench.disnet.method import DisnetMethod, DisnetSession, Label, design
from disbench.disnet.network import trained_parameters
from disbench.disnet.training.losses import THRESHOLD, binary_cross_entropy

CLICK_WEIGHT = 0.5  # weight of the click loss; the mask loss has 1 - CLICK_WEIGHT
ANCHOR_WEIGHT = 1.0  # weight of the squared distance from the initial weights


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
    """The design `ritm` with test-time adaptation; other arguments and errors as for `design`.

    `single_image` enables IA; `image_sequence` enables SA, which makes results depend on the order of the images. After
    each correction, and at the end of an image, Adam takes `steps` steps with learning rate `rate`. If given, the file
    `order` gets a line for each opened image.
    """
    inner = design(checkpoint, weights=weights, cache=cache, device=device, **labels)
    place = Path(order).expanduser() if order else None
    return AdaptiveMethod(inner, single_image, image_sequence, steps, rate, place)


class AdaptiveMethod:
    """A one-stage, one-mask network with adapted weights; only one image can be open at a time.

    `sequence` are the weights that the next image starts with; arguments are those of `ia_sa`.
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
        """End the previous image and begin with this one: uint8 (height, width, 3), RGB."""
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
        """Copy weights into the network."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, weights, strict=True):
                parameter.copy_(value)

    def adapt(self, inputs: Tensor, clicks: ClickBatch, last: Tensor, valid: Tensor) -> None:
        """Take gradient steps on one sample: inputs (1, ...), clicks, last logits and bool `valid` (1, grid, grid)."""
        start, network = self.weights(), self.inner.network
        optimizer = torch.optim.Adam(self.parameters, lr=self.rate)
        with torch.enable_grad():
            for _ in range(self.steps):
                logits = network.propose(inputs, clicks, last).logits[:, 0]
                loss = correction_loss(logits, clicks, last, valid)
                for parameter, value in zip(self.parameters, start, strict=True):
                    loss = loss + ANCHOR_WEIGHT * (parameter - value).square().sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        optimizer.zero_grad()


def correction_loss(logits: Tensor, clicks: ClickBatch, last: Tensor, valid: Tensor) -> Tensor:
    """Weighted sum of the cross entropy at the clicks and with the last mask, for one sample.

    Clicks are in input pixels, the other arguments (1, grid, grid).
    """
    found = sample_features(logits[:, None], clicks.points, STRIDE)[..., 0]
    at_clicks = F.binary_cross_entropy_with_logits(found, clicks.positive.to(found.dtype))
    with_mask = binary_cross_entropy(logits, last.sigmoid() > THRESHOLD, valid).mean()
    return CLICK_WEIGHT * at_clicks + (1 - CLICK_WEIGHT) * with_mask


class AdaptiveSession:
    """One image being segmented."""

    def __init__(self, method: AdaptiveMethod, inner: DisnetSession) -> None:
        self.method, self.inner = method, inner
        self.valid = torch.from_numpy(method.inner.network.frame.valid(inner.size))[None].to(method.inner.device)
        self._begin()

    def _begin(self) -> None:
        self.inner.restart()
        self.weights = self.method.sequence
        self.clicks: list[Click] = []

    def restart(self) -> None:
        """End the sequence of clicks and begin another on the same image."""
        self.end()
        self._begin()

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """One mask at the image's size; from the second click on, after adapting to the clicks and the last mask."""
        self.method.use(self.weights)
        self.clicks = list(clicks)
        if self.method.single_image and self.inner.proposals is not None:
            self._adapt()
            self.weights = self.method.weights()
        return self.inner.predict(clicks)

    def end(self) -> None:
        """Finish the image: adapt the sequence's weights to the final mask."""
        if self.method.image_sequence and self.inner.proposals is not None:
            self.method.use(self.method.sequence)
            self._adapt()
            self.method.sequence = self.method.weights()
            self.inner.proposals = None

    def _adapt(self) -> None:
        method = self.method.inner
        last = self.inner.kept.logits.clone()  # an inference tensor
        inputs = self.inner.input[None].to(method.device)
        self.method.adapt(inputs, method.batch_clicks([self.inner], [self.clicks]), last, self.valid)
