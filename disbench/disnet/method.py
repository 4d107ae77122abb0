"""DISNet as a method: stage 1 once an image's first click, stage 2 alone from the second click on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from disbench.baselines.sam.encodings import Encodings
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.prediction import Prediction, RgbImage
from disbench.disnet.batches import ClickBatch, Kept, Proposals, click_batch
from disbench.disnet.checkpoints import load_network
from disbench.disnet.network import Disnet, input_of
from disbench.disnet.training.settings import Training
from disbench.io import definitions
from disbench.workers import threads

STORED = "disnet-small.safetensors"
"""The small network that is part of this package."""


class DisnetMethod:
    """A network in hand as a method.

    Args:
        network: in evaluation mode, on the device.
        network_input: makes the network's input of an image.
        device: of the network.
    """

    def __init__(
        self, network: Disnet, network_input: Callable[[RgbImage], npt.NDArray[Any]], device: str = "cpu"
    ) -> None:
        self.network, self.device = network, device
        self._inputs: Encodings[npt.NDArray[Any]] = Encodings(network_input)

    def open(self, image: RgbImage) -> DisnetSession:
        """Begin with an image, uint8 (height, width, 3); one that was opened just before is not encoded again."""
        return DisnetSession(self, torch.from_numpy(self._inputs.of(image)), (image.shape[0], image.shape[1]))

    def predict_batch(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """`predict` of several sessions, with one call of a stage for all that are at it."""
        if not self.network.options.first_click:
            return self._all_proposed(sessions, clicks)
        first = [n for n, given in enumerate(clicks) if len(given) == 1]
        later = [n for n, given in enumerate(clicks) if len(given) > 1]
        answers: dict[int, Prediction] = {}
        for numbers, answer in ((first, self._proposed), (later, self._refined)):
            if numbers:
                own = [sessions[n] for n in numbers]
                answers.update(zip(numbers, answer(own, [clicks[n] for n in numbers]), strict=True))
        return [answers[n] for n in range(len(sessions))]

    @torch.inference_mode()
    def _proposed(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """Candidates for first clicks."""
        given = self._clicks(sessions, clicks)
        proposals = self.network.propose(self._joined(sessions), given)
        for number, session in enumerate(sessions):
            session.take(_row(proposals, number))
        logits = proposals.logits
        if self.network.options.refine_first:
            logits = self._all_refined(proposals, given)
        return [
            _prediction(session, own, scores)
            for session, own, scores in zip(sessions, logits, proposals.objectness, strict=True)
        ]

    @torch.inference_mode()
    def _refined(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """One corrected mask each."""
        kept = [session.kept for session in sessions]
        for session in sessions:
            session.settle()
        logits = self.network.refine(_stacked(kept), self._clicks(sessions, clicks))
        return [_prediction(s, own[None], None) for s, own in zip(sessions, logits, strict=True)]

    @torch.inference_mode()
    def _all_proposed(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """Without the first click's own stage: candidates for all clicks and the mask kept before."""
        answers: dict[int, Prediction] = {}
        begun_before = [session.begun for session in sessions]  # an answer begins a session
        for begun in (False, True):
            numbers = [n for n, own_begun in enumerate(begun_before) if own_begun == begun]
            if not numbers:
                continue
            own = [sessions[n] for n in numbers]
            previous = torch.stack([session.kept.logits[0] for session in own]) if begun else None
            given = self._clicks(own, [clicks[n] for n in numbers])
            proposals = self.network.propose(self._joined(own), given, previous)
            for row, (number, session) in enumerate(zip(numbers, own, strict=True)):
                session.take(_row(proposals, row))
                answers[number] = _prediction(session, proposals.logits[row], proposals.objectness[row])
        return [answers[n] for n in range(len(sessions))]

    def _all_refined(self, proposals: Proposals, clicks: ClickBatch) -> Tensor:
        """Every candidate of the first click after stage 2 (`refine_first`): (batch, N, grid, grid)."""
        columns = []
        for number in range(proposals.logits.shape[1]):
            index = torch.full((len(proposals.logits),), number, device=proposals.logits.device)
            columns.append(self.network.refine(proposals.keep(index), clicks))
        return torch.stack(columns, dim=1)

    def _clicks(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> ClickBatch:
        frame, sizes = self.network.frame, [session.size for session in sessions]
        scales, offsets = [frame.scale(size) for size in sizes], [frame.offset(size) for size in sizes]
        return click_batch(clicks, scales, offsets).to(self.device)

    def _joined(self, sessions: Sequence[DisnetSession]) -> Tensor:
        return torch.stack([session.input for session in sessions]).to(self.device)


class DisnetSession:
    """One image being segmented; any number may be open.

    Args:
        method: whose network answers.
        network_input: of the image.
        size: (height, width) of the image, pixels.
    """

    def __init__(self, method: DisnetMethod, network_input: Tensor, size: tuple[int, int]) -> None:
        self.method, self.input, self.size = method, network_input, size
        self._proposals: Proposals | None = None
        self._index, self._settled = 0, False

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """At the first click N candidates with their object probabilities; later one corrected mask.

        Masks are probabilities of the image's size. With `first_click` off there are N at every click.
        """
        return self.method.predict_batch([self], [clicks])[0]

    def keep(self, index: int) -> None:
        """The candidate that goes on; without a word it is the one of the largest object probability.

        Of a corrected mask, of which there is but one, nothing goes on: M_s and Q_s stay those of the first click.
        """
        if not self._settled:
            self._index = index

    def take(self, proposals: Proposals) -> None:
        """Remember the candidates."""
        self._proposals, self._index = proposals, int(proposals.objectness[0].argmax())
        self._settled = False

    def settle(self) -> None:
        """The candidate is chosen: what is kept from here on are corrected masks."""
        self._settled = True

    @property
    def begun(self) -> bool:
        """Whether there was a first click."""
        return self._proposals is not None

    @property
    def kept(self) -> Kept:
        """What stage 2 knows of stage 1, a batch of one."""
        assert self._proposals is not None
        return self._proposals.keep(torch.tensor([self._index], device=self._proposals.logits.device))


def disnet(
    checkpoint: str = "",
    refine_first: bool = False,
    weights: str = "",
    cache: str = "",
    device: str = "cpu",
    *,
    first_click: bool = True,
    multiple_output: bool = True,
    mca: bool = True,
    fcg: bool = True,
    click_augmented_feature: bool = True,
    conv_ffn: bool = True,
    first_click_radius: float = 15.0,
    other_click_radius: float = 5.0,
    sampling: str = "hierarchy",
    training_seed: int = 0,
) -> DisnetMethod:
    """DISNet from a checkpoint.

    Args:
        checkpoint: safetensors file that `disbench train` wrote; "" is the small network of this package.
        refine_first: at the first click too the answer is the refined mask.
        weights: folder of a frozen encoder's files; "" is where `disbench methods fetch mobilesam` puts them.
        cache: folder that keeps a frozen encoder's features of images (4 MiB each) from run to run; "" keeps none.
        device: of torch ("cpu", "cuda").
        first_click: from here on, what the checkpoint is, so that a run's record says it: see `described`.
        multiple_output: likewise.
        mca: likewise.
        fcg: likewise.
        click_augmented_feature: likewise.
        conv_ffn: likewise.
        first_click_radius: likewise.
        other_click_radius: likewise.
        sampling: likewise.
        training_seed: likewise.

    Raises:
        InputError: the checkpoint or the encoder's weights are missing or damaged, it is not what the options say,
            or there is no such device.
    """
    declared: dict[str, bool | float | str] = {
        "first_click": first_click,
        "multiple_output": multiple_output,
        "mca": mca,
        "fcg": fcg,
        "click_augmented_feature": click_augmented_feature,
        "conv_ffn": conv_ffn,
        "first_click_radius": first_click_radius,
        "other_click_radius": other_click_radius,
        "sampling": sampling,
        "training_seed": training_seed,
    }
    path = stored_checkpoint(checkpoint)
    loaded = load_network(path)
    _check_declared(path, described(loaded.training), declared)
    network = loaded.network
    network.options = replace(network.options, refine_first=refine_first)
    torch.set_num_threads(threads.allowed())
    try:
        network.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"disnet: there is no device {device!r} here ({error}); use cpu") from error
    return DisnetMethod(network, input_of(replace(loaded.training.network, weights=weights), cache), device)


def described(training: Training) -> dict[str, bool | float | str]:
    """What a training makes of the network, in the words of the ablations' tables: a run's options.

    Args:
        training: the settings.
    """
    options = training.network.options
    return {
        "first_click": options.first_click,
        "multiple_output": options.multiple_output,
        "mca": options.mca,
        "fcg": options.fcg,
        "click_augmented_feature": options.guidance.click_augmented_feature,
        "conv_ffn": options.guidance.conv_ffn,
        "first_click_radius": options.attention.first_click_radius,
        "other_click_radius": options.attention.other_click_radius,
        "sampling": training.sampling,
        "training_seed": training.seed,
    }


def _check_declared(
    path: Path, found: Mapping[str, bool | float | str], declared: Mapping[str, bool | float | str]
) -> None:
    wrong = [name for name, value in declared.items() if found[name] != value]
    if wrong:
        cure = " ".join(f"--set {name}={str(found[name]).lower()}" for name in wrong)
        raise InputError(f"{path}: it was trained with other settings than the options say; add {cure}")


@cache
def stored_checkpoint(checkpoint: str) -> Path:
    """The path of a checkpoint: as given, or of the small network of this package.

    Raises:
        InputError: it is not there.
    """
    path = Path(checkpoint).expanduser() if checkpoint else definitions.folder("baselines") / STORED
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name a safetensors file that disbench train wrote")
    return path


def _prediction(session: DisnetSession, logits: Tensor, scores: Tensor | None) -> Prediction:
    frame = session.method.network.frame
    masks = [frame.to_image(own, session.size) for own in logits.float().cpu().numpy()]
    probabilities = torch.from_numpy(np.stack(masks)).sigmoid().numpy()
    return Prediction(probabilities, None if scores is None else scores.sigmoid().float().cpu().numpy())


def _row(proposals: Proposals, number: int) -> Proposals:
    one = slice(number, number + 1)
    context = None if proposals.context is None else proposals.context[one]
    return Proposals(
        proposals.logits[one],
        proposals.objectness[one],
        proposals.queries[one],
        proposals.features[one],
        context,
    )


def _stacked(kept: Sequence[Kept]) -> Kept:
    contexts = [own.context for own in kept if own.context is not None]
    return Kept(
        torch.cat([own.query for own in kept]),
        torch.cat([own.features for own in kept]),
        torch.cat([own.logits for own in kept]),
        torch.cat(contexts) if contexts else None,
    )
