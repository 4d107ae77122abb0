"""DISNet as a method: stage 1 runs at the first click, stage 2 from the second click on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from disbench.baselines.sam.session import Encodings, on_device
from disbench.core.clicks import Click
from disbench.core.errors import InputError, unknown_name
from disbench.core.prediction import Prediction, RgbImage
from disbench.disnet.batches import ClickBatch, Kept, Proposals, click_batch, stacked
from disbench.disnet.checkpoints import load_network, shipped_checkpoint
from disbench.disnet.network import Disnet, NetworkInput, build_network_input
from disbench.disnet.training.settings import Training
from disbench.workers import threads

Label = bool | float | str  # value of an option that describes a checkpoint


class DisnetMethod:
    """A method from a network that is in evaluation mode on its device."""

    def __init__(self, network: Disnet, network_input: NetworkInput, device: str = "cpu") -> None:
        self.network, self.device = network, device
        self._inputs: Encodings[npt.NDArray[Any]] = Encodings(network_input)

    def open(self, image: RgbImage) -> DisnetSession:
        """Open an image, uint8 (height, width, 3); the encodings of the last few images are cached."""
        return DisnetSession(self, torch.from_numpy(self._inputs.of(image)), (image.shape[0], image.shape[1]))

    def predict_batch(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """`predict` for several sessions, with one call per stage."""
        one_stage = not self.network.options.first_click
        later = [
            s.proposals is not None if one_stage else len(own) > 1 for s, own in zip(sessions, clicks, strict=True)
        ]
        answers: dict[int, Prediction] = {}
        for is_later in set(later):
            numbers = [number for number, own in enumerate(later) if own == is_later]
            answer = self._refine if is_later and not one_stage else self._propose
            found = answer([sessions[n] for n in numbers], [clicks[n] for n in numbers])
            answers.update(zip(numbers, found, strict=True))
        return [answers[number] for number in range(len(sessions))]

    @torch.inference_mode()
    def _propose(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """Candidates for first clicks; with `first_click` off, for all clicks and the previous masks."""
        given = self.batch_clicks(sessions, clicks)
        inputs = torch.stack([session.input for session in sessions]).to(self.device)
        one_stage = not self.network.options.first_click
        previous = stacked([s.kept for s in sessions]).logits if one_stage and sessions[0].proposals else None
        proposals = self.network.propose(inputs, given, previous)
        for number, session in enumerate(sessions):
            session.proposals, session.last = proposals.rows(slice(number, number + 1)), None
            session.index = int(session.proposals.objectness[0].argmax())
        logits = proposals.logits
        if self.network.options.refine_first and not one_stage:
            first = proposals.objectness.argmax(dim=1)
            kept = [proposals.keep(torch.full_like(first, number)) for number in range(logits.shape[1])]
            logits = torch.stack([self.network.refine(own, given) for own in kept], dim=1)
        scores = map(self._scores, proposals.objectness.sigmoid().float().cpu(), proposals.logits)
        return [_prediction(session, own, found) for session, own, found in zip(sessions, logits, scores, strict=True)]

    def _scores(self, probabilities: Tensor, logits: Tensor) -> Tensor:
        """Object probabilities (N,) of a sample's candidates after Soft-NMS on their masks."""
        masks = (logits > 0).flatten(1).float().cpu()
        both, areas = masks @ masks.T, masks.sum(dim=1)
        ious = both / (areas[:, None] + areas - both).clamp(min=1)
        scores, overlap, waiting = probabilities.clone(), torch.zeros(len(ious)), list(range(len(ious)))
        while waiting:
            reduced = probabilities * (1 - self.network.options.suppression * overlap)
            best = waiting.pop(int(reduced[waiting].argmax()))
            scores[best], overlap = reduced[best], torch.maximum(overlap, ious[best])
        return scores

    @torch.inference_mode()
    def _refine(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        kept = stacked([session.kept for session in sessions])
        first = zip(sessions, kept.logits, strict=True)
        last = torch.stack([own if session.last is None else session.last for session, own in first])
        logits = self.network.refine(kept, self.batch_clicks(sessions, clicks), last)
        for session, own in zip(sessions, logits, strict=True):
            session.last = own
        return [_prediction(session, own[None], None) for session, own in zip(sessions, logits, strict=True)]

    def batch_clicks(self, sessions: Sequence[DisnetSession], clicks: Sequence[Sequence[Click]]) -> ClickBatch:
        """Clicks on the sessions' images, in input pixels."""
        frame, sizes = self.network.frame, [session.size for session in sessions]
        scales, offsets = [frame.scale(size) for size in sizes], [frame.offset(size) for size in sizes]
        return click_batch(clicks, scales, offsets).to(self.device)


class DisnetSession:
    """One image of size (height, width) being segmented; any number of sessions may be open.

    Attributes:
        proposals: the candidates, a batch of one; None before the first click.
        index: the kept candidate.
        last: logits of the last corrected mask, if any; then `keep` has no effect.
    """

    def __init__(self, method: DisnetMethod, network_input: Tensor, size: tuple[int, int]) -> None:
        self.method, self.input, self.size = method, network_input, size
        self.restart()

    def restart(self) -> None:
        """Forget all clicks; the image stays encoded."""
        self.proposals: Proposals | None = None
        self.last: Tensor | None = None
        self.index = 0

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """N candidates with scores (`DisnetOptions.suppression`) for the first click, then one corrected mask.

        Masks are probabilities at the image's size. With `first_click` off there are N candidates at every click.
        """
        return self.method.predict_batch([self], [clicks])[0]

    def keep(self, index: int) -> None:
        """Choose the kept candidate; by default the one with the highest object probability.

        No effect after a corrected mask: M_s and Q_s stay those of the first click.
        """
        if self.last is None:
            self.index = index

    @property
    def kept(self) -> Kept:
        """Input of stage 2 from stage 1, a batch of one."""
        assert self.proposals is not None
        return self.proposals.keep(torch.tensor([self.index], device=self.proposals.logits.device))


def disnet(
    checkpoint: str = "",
    refine_first: bool = False,
    weights: str = "",
    cache: str = "",
    device: str = "cpu",
    **labels: Label,
) -> DisnetMethod:
    """DISNet from a checkpoint.

    Args:
        checkpoint: safetensors file written by `disbench train`; "" for the small network shipped with disbench.
        refine_first: refine the candidates of the first click too.
        weights: folder of a frozen encoder's files; "" for the folder of `disbench methods fetch mobilesam`.
        cache: folder to cache a frozen encoder's features for later runs (4 MiB per image); "" for none.
        device: torch device ("cpu", "cuda").
        labels: expected settings of the checkpoint, named as in `described`; stored in run records.

    Raises:
        InputError: the checkpoint or the encoder's weights are missing or damaged, the checkpoint does not match its
            labels, or the device is missing.
    """
    path = Path(checkpoint).expanduser() if checkpoint else shipped_checkpoint()
    if not checkpoint and labels.get("design"):
        name = labels["design"]
        raise InputError(
            f"{name}-design comes without a network; train one (disbench train design-{name}) and set checkpoint="
        )
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name a safetensors file written by disbench train")
    loaded = load_network(path)
    _check_labels(path, described(loaded.training), labels)
    network: Disnet = on_device(loaded.network, device, "disnet")
    network.options = replace(network.options, refine_first=refine_first)
    torch.set_num_threads(threads.allowed())
    return DisnetMethod(network, build_network_input(replace(loaded.training.network, weights=weights), cache), device)


def design(
    checkpoint: str = "", weights: str = "", cache: str = "", device: str = "cpu", **labels: Label
) -> DisnetMethod:
    """A design from the literature, from a checkpoint; arguments and errors as for `disnet`."""
    return disnet(checkpoint, refine_first=False, weights=weights, cache=cache, device=device, **labels)


def described(training: Training) -> dict[str, Label]:
    """Describe a trained network in the terms of the paper's ablation tables, as options stored in run records."""
    options, design = training.network.options, training.network.design
    if design:
        return {"design": design, "sampling": training.sampling, "training_seed": training.seed}
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


def _check_labels(path: Path, found: dict[str, Label], labels: dict[str, Label]) -> None:
    here, wanted = (str(table.get("design", "")) for table in (found, labels))
    if labels and here != wanted:
        own = f"{here}-design" if here else "disnet"
        raise InputError(f"{path}: contains {here or 'DISNet'}, not {wanted or 'DISNet'}; use --method {own}")
    for name in labels.keys() - found.keys():
        raise unknown_name("option", name, found, "disnet")
    wrong = [name for name in found if name in labels and found[name] != labels[name]]
    if wrong:
        fix = " ".join(f"--set {name}={str(found[name]).lower()}" for name in wrong)
        raise InputError(f"{path}: trained with settings that differ from the options; add {fix}")


def _prediction(session: DisnetSession, logits: Tensor, scores: Tensor | None) -> Prediction:
    frame = session.method.network.frame
    masks = [frame.to_image(own, session.size) for own in logits.float().cpu().numpy()]
    probabilities = torch.from_numpy(np.stack(masks)).sigmoid().numpy()
    return Prediction(probabilities, None if scores is None else scores.numpy())
