"""One training step of both stages: propose, match, choose, click, refine (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from disbench.core.clicks import NO_ERROR, Click, next_click
from disbench.disnet.batches import ClickBatch, Kept, Proposals
from disbench.disnet.designs.design import GroundTruth
from disbench.disnet.network import Disnet
from disbench.disnet.training.examples import Batch, refinement_clicks
from disbench.disnet.training.losses import MASK_LOSSES, THRESHOLD, choose_candidates, proposal_loss
from disbench.disnet.training.settings import RefinementLoss, Training

Parts = dict[str, Tensor]  # summands of the loss and figures of a step, by name
Clicks = list[list[Click]]


class TwoStageLoss(nn.Module):
    """The loss of a batch as one module, to be wrapped by distributed training.

    `click_threads` is the number of threads that simulate clicks (OpenCV releases Python's lock).
    """

    def __init__(self, network: Disnet, training: Training, click_threads: int = 1) -> None:
        super().__init__()
        self.network, self.settings = network, training
        self._first, self._second = _is_trained(network.proposal), _is_trained(network.refinement)
        self._map = ThreadPoolExecutor(click_threads).map if click_threads > 1 else map

    def forward(self, batch: Batch, rounds: Sequence[int]) -> tuple[Tensor, Parts]:
        """The loss and its summands; `rounds` is the number of corrective clicks of each example."""
        if self.network.design is not None:
            return self._design_loss(batch, rounds)
        if self.network.options.first_click:
            return self._two_stages(batch, rounds)
        return self._one_stage(batch, rounds)

    def _two_stages(self, batch: Batch, rounds: Sequence[int]) -> tuple[Tensor, Parts]:
        with torch.set_grad_enabled(self._first and torch.is_grad_enabled()):
            proposals = self.network.propose(batch.inputs, batch.first)
            loss, parts = proposal_loss(proposals, batch.masks, batch.valid, self.settings.matching)
        kept = proposals.keep(self._chosen(proposals, batch)).detached_mask()
        parts["iou1"] = _mean_iou(kept.logits, batch)
        if not self._second:
            return loss, parts
        if self.settings.later_clicks == "protocol":
            answers, last, index = self._followed(kept, batch, rounds)
            targets, valid = batch.targets[index], batch.valid[index]
        else:
            clicks = self._make_clicks(batch, rounds, lambda given, rows: self.network.refine(kept.rows(rows), given))
            answers = last = self.network.refine(kept, clicks)
            targets, valid = batch.targets, batch.valid
        second, more = refinement_loss(answers, targets, valid, self.settings.refinement)
        return loss + second, parts | more | {"iou2": _mean_iou(last, batch)}

    def _followed(self, kept: Kept, batch: Batch, rounds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Answers to all corrective clicks, placed as in the protocol; the last answers; rows of all answers."""
        clicks: Clicks = [list(given[:1]) for given in batch.clicks]
        targets, last = batch.signed_targets(), kept.logits
        answers, places = [], []
        for rows in _turns(rounds):
            index = torch.tensor(rows, device=batch.inputs.device)
            self._click(clicks, targets, last[index], rows)
            given = refinement_clicks(batch.first.rows(index), [clicks[row] for row in rows])
            answers.append(self.network.refine(kept.rows(index), given, last[index]))
            last = last.index_copy(0, index, answers[-1].detach().to(last.dtype))
            places.append(index)
        return torch.cat(answers), last, torch.cat(places)

    def _click(self, clicks: Clicks, targets: npt.NDArray[np.int8], logits: Tensor, rows: Sequence[int]) -> None:
        """Append the next click of some rows of the batch, from their current logits."""
        found = (logits.sigmoid() > THRESHOLD).cpu().numpy()
        given = [clicks[row] for row in rows]
        for row, click in zip(rows, list(self._map(next_click, targets[rows], found, given)), strict=True):
            if click != NO_ERROR:
                clicks[row].append(click)

    def _one_stage(self, batch: Batch, rounds: Sequence[int]) -> tuple[Tensor, Parts]:
        """With `first_click` off: the loss of the answers to the first click and to all clicks."""
        matching = self.settings.matching
        proposals = self.network.propose(batch.inputs, batch.first)
        loss, parts = proposal_loss(proposals, batch.masks, batch.valid, matching)
        previous = proposals.keep(self._chosen(proposals, batch)).logits.detach()
        parts["iou1"] = _mean_iou(previous, batch)

        def answer(given: ClickBatch, rows: Tensor) -> Tensor:
            later = self.network.propose(batch.inputs[rows], given, previous[rows])
            best = choose_candidates(later.logits, batch.targets[rows], batch.valid[rows])
            logits = later.keep(best).logits
            previous[rows] = logits.detach()
            return logits

        clicks = self._make_clicks(batch, rounds, answer)
        later = self.network.propose(batch.inputs, clicks, previous)
        second, more = proposal_loss(later, list(batch.targets[:, None]), batch.valid, matching)
        parts |= {f"later_{name}": value for name, value in more.items()}
        return loss + second, parts | {"iou2": _mean_iou(later.keep(self._chosen(later, batch)).logits, batch)}

    def _design_loss(self, batch: Batch, rounds: Sequence[int]) -> tuple[Tensor, Parts]:
        """A design's loss of the first answer plus the mean loss of its later answers (see `later_clicks`)."""
        clicks: Clicks = [list(given[:1]) for given in batch.clicks]
        loss, parts, last = self._answered(batch, batch.first, clicks, None)
        parts["iou1"] = _mean_iou(last, batch)
        turns = _turns(rounds)
        is_random, targets = self.settings.later_clicks == "random", batch.signed_targets()
        if is_random:
            clicks, turns = [list(given) for given in batch.clicks], [*turns, list(range(len(rounds)))]
        found: list[tuple[int, Tensor, Parts]] = []
        for number, rows in enumerate(turns):
            ends, part = number == len(turns) - 1, batch.rows(rows)
            if not is_random:
                self._click(clicks, targets, last[rows], rows)
            own = [clicks[row] for row in rows]
            with torch.set_grad_enabled(torch.is_grad_enabled() and (ends or not is_random)):
                later, more, logits = self._answered(part, refinement_clicks(part.first, own), own, last[rows])
            last = last.index_copy(0, torch.tensor(rows, device=last.device), logits.to(last.dtype))
            if is_random and not ends:
                self._click(clicks, targets, logits, rows)
            else:
                found.append((len(rows), later, more))
        count = sum(answers for answers, _, _ in found)
        for answers, later, more in found:
            loss = loss + later * (answers / count)
            for name, value in more.items():
                parts[f"later_{name}"] = parts.get(f"later_{name}", torch.zeros_like(value)) + value * (answers / count)
        return loss, parts | {"iou2": _mean_iou(last, batch)}

    def _answered(
        self, batch: Batch, given: ClickBatch, clicks: Sequence[Sequence[Click]], last: Tensor | None
    ) -> tuple[Tensor, Parts, Tensor]:
        """A design's loss of its answers to some clicks, its summands, and the kept masks without gradients."""
        assert self.network.design is not None
        proposals = self.network.propose(batch.inputs, given, last)
        loss, parts = self.network.design.loss(proposals, ground_truth_of(batch, clicks), self.settings)
        return loss, parts, proposals.keep(self._chosen(proposals, batch)).logits.detach()

    def _chosen(self, proposals: Proposals, batch: Batch) -> Tensor:
        rule, share = self.settings.selection, self.settings.chosen_by_score
        best = choose_candidates(proposals.logits, batch.targets, batch.valid, rule, batch.masks)
        if not share:
            return best
        by_score = torch.rand(len(best)).to(best.device) < share
        return torch.where(by_score, proposals.objectness.argmax(dim=1), best)

    @torch.no_grad()
    def _make_clicks(
        self, batch: Batch, rounds: Sequence[int], answer: Callable[[ClickBatch, Tensor], Tensor]
    ) -> ClickBatch:
        """All clicks of stage 2: the first click, random clicks, then corrective clicks on the current answer.

        `answer` computes mask logits from the clicks so far and their rows in the batch.
        """
        clicks: Clicks = [list(given) for given in batch.clicks]
        targets = batch.signed_targets()
        for rows in _turns(rounds):
            index = torch.tensor(rows, device=batch.inputs.device)
            given = refinement_clicks(batch.first.rows(index), [clicks[row] for row in rows])
            self._click(clicks, targets, answer(given, index), rows)
        torch.clear_autocast_cache()  # older torch caches the weights cast here without gradients
        return refinement_clicks(batch.first, clicks)


def _turns(rounds: Sequence[int]) -> list[list[int]]:
    """For each corrective click, the rows of the batch that get it."""
    return [[row for row, count in enumerate(rounds) if count > number] for number in range(max(rounds, default=0))]


def ground_truth_of(batch: Batch, clicks: Sequence[Sequence[Click]]) -> GroundTruth:
    """The masks that clicks, in cells, may mean; all masks of a set agree with the first click."""
    sets = []
    for masks, target, own in zip(batch.masks, batch.targets, clicks, strict=True):
        x, y = (torch.tensor([getattr(click, axis) for click in own[1:]], dtype=torch.long) for axis in "xy")
        signs = torch.tensor([click.positive for click in own[1:]], dtype=torch.bool, device=masks.device)
        agrees = (masks[:, y, x] == signs).all(dim=1) & (masks != target).flatten(1).any(dim=1)
        sets.append(torch.cat([target[None], masks[agrees]]))
    return GroundTruth(batch.targets, sets, batch.valid)


def refinement_loss(
    logits: Tensor, targets: Tensor, valid: Tensor, weights: RefinementLoss
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2's loss, the batch mean of the weighted losses, and its summands; tensors are (batch, h, w)."""
    parts = {
        f"refined_{name}": getattr(weights, name) * loss(logits, targets, valid).mean()
        for name, loss in MASK_LOSSES.items()
        if getattr(weights, name)
    }
    total = torch.stack(list(parts.values())).sum() if parts else logits.sum() * 0
    return total, {name: part.detach() for name, part in parts.items()}


def draw_rounds(count: int, most: int, seed: Sequence[int], least: int = 0) -> list[int]:
    """Draw the number of corrective clicks of each example, uniform from `least` to `most`."""
    generator = np.random.default_rng(list(seed))
    return [int(number) for number in generator.integers(least, most + 1, size=count)]


def _is_trained(stage: nn.Module | None) -> bool:
    return stage is not None and any(parameter.requires_grad for parameter in stage.parameters())


def _mean_iou(logits: Tensor, batch: Batch) -> Tensor:
    found = (logits.detach().sigmoid() > THRESHOLD) & batch.valid
    both = (found & batch.targets).flatten(1).sum(1)
    either = ((found | batch.targets) & batch.valid).flatten(1).sum(1)
    return (both / either.clamp(min=1)).mean()
