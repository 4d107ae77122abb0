"""A training step of both stages, against the same step written out: propose, choose, click, refine."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from disbench.core.clicks import NO_ERROR, Click, next_click
from disbench.disnet.batches import ClickBatch, Proposals
from disbench.disnet.network import Disnet, train_only
from disbench.disnet.training.examples import Batch
from disbench.disnet.training.losses import binary_cross_entropy, dice_loss, normalized_focal_loss
from disbench.disnet.training.settings import RefinementLoss
from disbench.disnet.training.two_stages import TwoStageLoss, draw_rounds
from tests.unit.disnet_tools import above, photo_batch, tiny_network, tiny_training, valid_iou, without_gradient

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
ROUNDS = [2, 0, 1]


@pytest.fixture(scope="module")
def batch(photo_shards: Path) -> Batch:
    return photo_batch(photo_shards)


def step(
    made: Disnet, batch: Batch, rounds: Sequence[int] = ROUNDS, click_threads: int = 1, **settings: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    return TwoStageLoss(made, tiny_training(**settings), click_threads)(batch, rounds)


def best(proposals: Proposals, goals: Sequence[Any], valid: Any) -> Tensor:
    """Of each sample the candidate whose IoU with any of its goals is largest."""
    numbers = [
        int(np.argmax([max(valid_iou(mask, goal, own_valid) for goal in own_goals) for mask in masks]))
        for masks, own_goals, own_valid in zip(above(proposals.logits), goals, valid, strict=True)
    ]
    return torch.tensor(numbers)


def pixels(clicks: Sequence[Click], first: Tensor) -> ClickBatch:
    """One sample's clicks in pixels: the first as it fell, the others in the middle of their cells."""
    points = [first.tolist(), *([4 * click.x + 1.5, 4 * click.y + 1.5] for click in clicks[1:])]
    signs = [click.positive for click in clicks]
    return ClickBatch(torch.tensor([points]), torch.tensor([signs]), torch.ones(1, len(signs), dtype=torch.bool))


def one(batch: Batch, number: int) -> Tensor:
    return batch.inputs[number : number + 1]


def targets_of(batch: Batch) -> list[Any]:
    return [[target] for target in batch.targets.numpy()]


def clicked(batch: Batch, number: int, answer: Any, rounds: int) -> list[Click]:
    """The sample's clicks after so many of the protocol's on the current answer."""
    clicks = list(batch.clicks[number])
    target = np.where(batch.valid[number].numpy(), batch.targets[number].numpy().astype(int), -1)
    for _ in range(rounds):
        click = next_click(target, answer(pixels(clicks, batch.first.points[number, 0])), clicks)
        if click != NO_ERROR:
            clicks.append(click)
    return clicks


def refined_alone(made: Disnet, batch: Batch, chosen: Tensor) -> list[Tensor]:
    """Stage 2's masks, sample by sample and without padding."""
    masks = []
    with torch.no_grad():
        kept = made.propose(batch.inputs, batch.first).keep(chosen)
        for number, rounds in enumerate(ROUNDS):
            own = dataclasses.replace(
                kept, **{name: getattr(kept, name)[number : number + 1] for name in ("query", "features", "logits")}
            )
            clicks = clicked(batch, number, lambda given, own=own: above(made.refine(own, given))[0], rounds)
            masks.append(made.refine(own, pixels(clicks, batch.first.points[number, 0]))[0])
    return masks


@pytest.mark.parametrize("selection", ["current", "any-gt"])
def test_the_step_written_out(network: Disnet, batch: Batch, selection: Any) -> None:
    weights = RefinementLoss(0.5, 5.0, 3.0)
    loss, parts = step(network, batch, selection=selection, refinement=weights, corrective_clicks=2)
    with torch.no_grad():
        proposals = network.propose(batch.inputs, batch.first)
    goals = targets_of(batch) if selection == "current" else [list(masks.numpy()) for masks in batch.masks]
    chosen = best(proposals, goals, batch.valid.numpy())
    masks = torch.stack(refined_alone(network, batch, chosen))
    given = (masks, batch.targets, batch.valid)
    for name, weight, own in (
        ("normalized_focal", 0.5, normalized_focal_loss),
        ("bce", 5.0, binary_cross_entropy),
        ("dice", 3.0, dice_loss),
    ):
        assert float(parts[f"refined_{name}"]) == pytest.approx(weight * float(own(*given).mean()), rel=1e-4)
    kept = proposals.logits[torch.arange(3), chosen]
    for name, found in (("iou1", kept), ("iou2", masks)):
        expected = [
            valid_iou(*each) for each in zip(above(found), batch.targets.numpy(), batch.valid.numpy(), strict=True)
        ]
        assert float(parts[name]) == pytest.approx(np.mean(expected), abs=1e-6)
    total = sum(float(value) for name, value in parts.items() if not name.startswith("iou"))
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    assert loss.requires_grad and not any(part.requires_grad for part in parts.values())


def test_a_stage_without_trained_parameters_gets_no_gradient_and_the_second_is_left_out(batch: Batch) -> None:
    whole, parts_of_whole = step(tiny_network(), batch)
    first, second = tiny_network(), tiny_network()
    train_only(first, ["proposal.objectness"])
    train_only(second, ["refinement"])
    loss, parts = step(first, batch)
    loss.backward()
    reached = {name for name, own in first.named_parameters() if own.grad is not None}
    assert reached and all(name.startswith("proposal.objectness") for name in reached)
    assert {name: float(own) for name, own in parts.items()} == pytest.approx(
        {name: float(own) for name, own in parts_of_whole.items() if name in parts}
    )
    assert not any("refined" in name or name == "iou2" for name in parts)
    loss, parts = step(second, batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    assert set(parts) == set(parts_of_whole)
    assert all(own.grad is None for own in second.proposal.parameters())
    assert all("no_click" in name for name in without_gradient(second.refinement)), "but for clicks nobody gave"


def test_one_stage_written_out(one_stage: Disnet, batch: Batch) -> None:
    """Every answer is the best candidate for all clicks and the mask before; the last one has a loss of its own."""
    loss, parts = step(one_stage, batch, corrective_clicks=2)
    valid = batch.valid.numpy()
    with torch.no_grad():
        first = one_stage.propose(batch.inputs, batch.first)
        kept = first.logits[torch.arange(3), best(first, targets_of(batch), valid)]
        ious = []
        for number, rounds in enumerate(ROUNDS):
            goal, own_valid = batch.targets.numpy()[number], valid[number]
            state = {"mask": kept[number : number + 1]}

            def answer(given: ClickBatch, number: int = number, state: Any = state) -> Any:
                later = one_stage.propose(one(batch, number), given, state["mask"])
                index = best(later, [[batch.targets.numpy()[number]]], valid[number : number + 1])
                state["mask"] = later.logits[:, int(index)]
                return above(state["mask"])[0]

            clicks = clicked(batch, number, answer, rounds)
            ious.append(valid_iou(answer(pixels(clicks, batch.first.points[number, 0])), goal, own_valid))
    assert float(parts["iou2"]) == pytest.approx(np.mean(ious), abs=1e-6)
    total = sum(float(value) for name, value in parts.items() if not name.startswith("iou"))
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    assert {"later_mask", "later_dice", "later_objectness", "later_earlier"} <= set(parts)


@pytest.mark.parametrize("later_mask", ["kept", "last"])
def test_clicks_as_in_the_protocol_written_out(batch: Batch, later_mask: Any) -> None:
    """Every click is the protocol's on the mask before it, the candidate at first, and every answer has a loss."""
    made, rounds = tiny_network(later_mask=later_mask), [3, 1, 2]
    weights = RefinementLoss(0.0, 2.0, 1.0)
    loss, parts = step(made, batch, rounds, later_clicks="protocol", corrective_clicks=3, refinement=weights)
    with torch.no_grad():
        proposals = made.propose(batch.inputs, batch.first)
    chosen = best(proposals, targets_of(batch), batch.valid.numpy())
    losses, ious = [], []
    for number, count in enumerate(rounds):
        own = proposals.rows(slice(number, number + 1)).keep(chosen[number : number + 1])
        target, valid = batch.targets[number : number + 1], batch.valid[number : number + 1]
        signed = np.where(valid[0].numpy(), target[0].numpy().astype(int), -1)
        clicks, last = list(batch.clicks[number][:1]), own.logits
        for _ in range(count):
            clicks.append(next_click(signed, above(last)[0], clicks))
            assert clicks[-1] != NO_ERROR
            given = pixels(clicks, batch.first.points[number, 0])
            with torch.no_grad():
                last = made.refine(own, given, last if later_mask == "last" else None)
            losses.append(float(2 * binary_cross_entropy(last, target, valid) + dice_loss(last, target, valid)))
        ious.append(valid_iou(above(last)[0], target[0].numpy(), valid[0].numpy()))
    assert float(parts["refined_bce"] + parts["refined_dice"]) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(parts["iou2"]) == pytest.approx(np.mean(ious), abs=1e-6)
    assert float(loss.detach()) == pytest.approx(sum(float(parts[n]) for n in parts if "iou" not in n), rel=1e-5)
    loss.backward()
    assert all("no_click" in name for name in without_gradient(made.refinement)), "but for clicks nobody gave"


def test_the_candidate_of_the_best_score_goes_on_as_often_as_said(network: Disnet, batch: Batch) -> None:
    with torch.no_grad():
        proposals = network.propose(batch.inputs, batch.first)
    ious = [float(step(network, batch, [0, 0, 0], chosen_by_score=share)[1]["iou1"]) for share in (0.0, 1.0)]
    kept = above(proposals.logits[torch.arange(3), proposals.objectness.argmax(1)])
    expected = [valid_iou(*each) for each in zip(kept, batch.targets.numpy(), batch.valid.numpy(), strict=True)]
    assert ious[1] == pytest.approx(np.mean(expected), abs=1e-6) and ious[0] > ious[1]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(
    "options", [{}, {"first_click": False}, {"mca": False, "fcg": False}, {"multiple_output": False}], ids=str
)
def test_every_parameter_learns(options: dict[str, Any], precision: str, photo_shards: Path) -> None:
    """Also in mixed precision, where weights that were cast without gradients must not come again."""
    made = tiny_network(**options).train()
    loss_of = TwoStageLoss(made, tiny_training())
    many, none = photo_batch(photo_shards), photo_batch(photo_shards, (8, 99), later_clicks="protocol")
    for batch, rounds in ((many, [1, 1, 1]), (none, [0, 0])):
        cut = dataclasses.replace(batch, masks=[masks[: made.options.outputs] for masks in batch.masks])
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = loss_of(cut, rounds)
        assert loss.dtype == torch.float32 and loss.isfinite()
        loss.backward()
    alone = ("self_attn.q_proj", "self_attn.k_proj") if made.options.outputs == 1 else ()
    assert [name for name in without_gradient(made) if not any(part in name for part in alone)] == []


def test_rounds_are_uniform_and_the_seed_decides() -> None:
    found = Counter(draw_rounds(800, 3, (1, 2)))
    assert set(found) == {0, 1, 2, 3} and chisquare(list(found.values())).pvalue > 1e-4
    assert draw_rounds(20, 3, (0, 5)) == draw_rounds(20, 3, (0, 5)) != draw_rounds(20, 3, (0, 6))
    assert draw_rounds(5, 0, (0,)) == [0] * 5
    assert set(draw_rounds(80, 3, (1, 2), least=1)) == {1, 2, 3}
