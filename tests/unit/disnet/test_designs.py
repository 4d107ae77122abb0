"""The designs of the literature: a step of each written out, what each shows at a click, learning, files, refusals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from disbench.baselines.cards import load_card, method_spec
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.disnet.checkpoints import save_network
from disbench.disnet.designs import DESIGNS
from disbench.disnet.designs.design import GroundTruth
from disbench.disnet.designs.dos_gc import GraphCutMethod
from disbench.disnet.designs.ia_sa import ANCHOR_WEIGHT, CLICK_WEIGHT, AdaptiveMethod, correction_loss
from disbench.disnet.designs.multiseg import SMALLEST
from disbench.disnet.method import DisnetMethod, disnet
from disbench.disnet.network import Disnet, build_network, build_network_input
from disbench.disnet.training.examples import Batch
from disbench.disnet.training.losses import binary_cross_entropy, dice_loss, normalized_focal_loss
from disbench.disnet.training.settings import RefinementLoss, Training, load_training
from disbench.disnet.training.two_stages import TwoStageLoss, ground_truth_of
from tests.refusals import refuses
from tests.unit.disnet_tools import above, photo_batch, tiny_settings, tiny_training, valid_iou, without_gradient

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
WEIGHTS = RefinementLoss(0.5, 5.0, 3.0)
OUTPUTS = {"sam-style": 4, "ld": 3, "multiseg": 3, "piclick": 3}


def settings_of(name: Any) -> Any:
    outputs = OUTPUTS.get(name, 1)
    options = {"first_click": False, "multiple_output": outputs > 1, "candidates": max(outputs, 3)}
    return dataclasses.replace(tiny_settings(**options), design=name)


def network_of(name: str, seed: int = 0) -> Disnet:
    torch.manual_seed(seed)
    made = build_network(settings_of(name)).eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.05)
    return made


def training_of(name: str) -> Training:
    later, count = ("random", 0) if name == "dos" else ("protocol", 2)
    return tiny_training(later_clicks=later, corrective_clicks=count, refinement=WEIGHTS, network=settings_of(name))


@pytest.fixture(scope="module")
def batch(photo_shards: Path) -> Batch:
    return photo_batch(photo_shards, later_clicks="protocol")


def one_mask(logits: Tensor, target: Tensor, valid: Tensor) -> float:
    given = (logits[None].double(), target[None], valid[None])
    terms = ((0.5, normalized_focal_loss), (5.0, binary_cross_entropy), (3.0, dice_loss))
    return sum(weight * float(loss(*given)) for weight, loss in terms)


def restated(name: str, logits: Tensor, scores: Tensor, goal: GroundTruth) -> float:
    """A layer's loss as the design's file tells it, sample by sample and mask by mask."""
    samples = list(zip(logits, scores, goal.sets, goal.valid, strict=True))
    if name == "multiseg":
        masks, present = [], []
        count = logits.shape[1]
        for own, own_scores, meant, valid in samples:
            sizes = [math.sqrt(max(int((mask & valid).sum()), 1) / int(valid.sum())) for mask in meant]
            scales = [SMALLEST ** (1 - k / (count - 1)) for k in range(count)]
            distance = [[abs(math.log(size / scale)) for scale in scales] for size in sizes]
            nearest = [min(range(count), key=lambda k, row=row: row[k]) for row in distance]
            for k in range(count):
                fits = [m for m in range(len(meant)) if nearest[m] == k]
                present.append(_entropy(own_scores[k], float(bool(fits))))
                if fits:
                    chosen = 0 if 0 in fits else min(fits, key=lambda m, k=k: distance[m][k])
                    masks.append(one_mask(own[k], meant[chosen], valid))
        return float(np.mean(masks)) + 2.0 * float(np.mean(present))
    total = []
    for own, own_scores, meant, valid in samples:
        losses = [one_mask(mask, meant[0], valid) for mask in own]
        if name == "sam-style":
            ious = [valid_iou(found, meant[0].numpy(), valid.numpy()) for found in above(own)]
            errors = [(float(s.sigmoid()) - value) ** 2 for s, value in zip(own_scores, ious, strict=True)]
            total.append(min(losses) + 2.0 * float(np.mean(errors)))
        elif name == "ld":
            chosen = int(np.argmin(losses))
            total.append(losses[chosen] - 2.0 * float(own_scores.double().log_softmax(0)[chosen]))
        else:
            total.append(losses[0])
    return float(np.mean(total))


def _entropy(score: Tensor, goal: float) -> float:
    likely = float(score.double().sigmoid())
    return -math.log(likely if goal else 1 - likely)


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "piclick"])
def test_the_loss_written_out(name: str, batch: Batch) -> None:
    made = network_of(name)
    for later in (False, True):
        clicks = [(own[0], *([Click(2, 3, True)] if later else [])) for own in batch.clicks]
        given = batch.first
        if later:
            point = torch.tensor([[[9.5, 13.5]]]).expand(3, -1, -1)
            ones = torch.ones(3, 2, dtype=torch.bool)
            given = dataclasses.replace(given, points=torch.cat([given.points, point], 1), positive=ones, given=ones)
        goal = ground_truth_of(batch, clicks)
        with torch.no_grad():
            found = made.propose(batch.inputs, given)
            assert made.design is not None
            loss, _ = made.design.loss(found, goal, training_of(name))
        layers = [(found.logits, found.objectness), *found.earlier]
        expected = sum(restated(name, logits, scores, goal) for logits, scores in layers)
        assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_piclick_is_matched_to_what_the_clicks_may_mean(batch: Batch) -> None:
    """Masks of the set that a later click contradicts are not matched; scores are told the IoU with the target."""
    masks = next(own for own in batch.masks if len(own) > 1)
    target, other = masks[0], masks[-1]
    assert not torch.equal(target, other)
    shown = dataclasses.replace(
        batch.rows([0]), masks=[masks], targets=target[None], valid=torch.ones_like(batch.valid[:1])
    )
    y, x = (int(place) for place in (target != other).nonzero()[0])
    first = shown.clicks[0][0]
    assert len(ground_truth_of(shown, [(first,)]).sets[0]) == len(masks)
    told = ground_truth_of(shown, [(first, Click(x, y, bool(target[y, x])))]).sets[0]
    assert torch.equal(told[0], target) and not any(torch.equal(mask, other) for mask in told)
    made = network_of("piclick")
    assert made.design is not None
    with torch.no_grad():
        found = dataclasses.replace(made.propose(shown.inputs, shown.first), earlier=())
        exact = dataclasses.replace(found, logits=torch.where(target, 9.0, -9.0)[None, None].expand(1, 3, -1, -1))
        costs = []
        for score in (9.0, -9.0):
            scored = dataclasses.replace(exact, objectness=torch.full((1, 3), score))
            _, parts = made.design.loss(scored, ground_truth_of(shown, [(first,)]), training_of("piclick"))
            costs.append(float(parts["objectness"]))
    assert costs[0] < 0.01 and costs[1] > 10, "all three fit the target wholly"


def test_fcanet_is_corrected_by_the_first_clicks_features(batch: Batch) -> None:
    made = network_of("fcanet")
    design: Any = made.design
    with torch.no_grad():
        base = made.proposal(batch.inputs, batch.first)
        found = made.propose(batch.inputs, batch.first)
        height, width = base.features.shape[-2:]
        x, y = ((place + 0.5) / 4 - 0.5 for place in batch.first.points[0, 0].tolist())
        clamped = (min(max(x, 0), width - 1), min(max(y, 0), height - 1))
        left, top = int(clamped[0]), int(clamped[1])
        across, down = clamped[0] - left, clamped[1] - top
        right, below = min(left + 1, width - 1), min(top + 1, height - 1)
        cells = base.features[0]
        at_click = (1 - down) * ((1 - across) * cells[:, top, left] + across * cells[:, top, right])
        at_click = at_click + down * ((1 - across) * cells[:, below, left] + across * cells[:, below, right])
        query = design.query(at_click)
        for row, column in ((0, 0), (3, 7), (height - 1, width - 2)):
            far = math.hypot(column - x, row - y) / max(height, width)
            own = cells[:, row, column]
            attention = float(query @ own) / math.sqrt(len(own)) + float(design.distance) * far + float(design.bias)
            assert float(found.earlier[-1][0][0, 0, row, column]) == pytest.approx(attention, abs=1e-4)
            inside = 1 / (1 + math.exp(-attention))
            mixed = torch.nn.functional.gelu(design.mix(torch.cat([own * inside, own * (1 - inside)])))
            corrected = float(base.logits[0, 0, row, column]) + float(design.correction(mixed))
            assert float(found.logits[0, 0, row, column]) == pytest.approx(corrected, abs=1e-4)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_step_reaches_all_that_is_trained(name: str, batch: Batch) -> None:
    made = network_of(name)
    loss, parts = TwoStageLoss(made, training_of(name))(batch, [0, 0, 0] if name == "dos" else [2, 1, 1])
    loss.backward()
    assert torch.isfinite(loss) and 0 <= float(parts["iou1"]) <= 1 and 0 <= float(parts["iou2"]) <= 1
    total = sum(float(value) for part, value in parts.items() if not part.startswith("iou"))
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)
    unreached = without_gradient(made)
    assert not [part for part in unreached if part.startswith("design")]
    assert len(unreached) < 5, unreached


@pytest.mark.parametrize(("name", "sees"), [(name, kind.feedback) for name, kind in DESIGNS.items()])
def test_who_sees_the_last_mask(name: str, sees: bool, batch: Batch) -> None:
    made = network_of(name)
    last = torch.where(batch.targets, 9.0, -9.0)
    with torch.no_grad():
        answers = [made.propose(batch.inputs, batch.first, mask).logits for mask in (None, last)]
    assert torch.equal(*answers) is not sees


@pytest.mark.parametrize(("name", "counts"), [("sam-style", (3, 1)), ("ld", (3, 3)), ("ritm", (1, 1))])
def test_masks_at_clicks_and_the_file(name: str, counts: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "design.safetensors"
    made = network_of(name)
    save_network(path, made, training_of(name), {}, half=False)
    loaded = disnet(str(path), design=name)
    picture = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    clicks = [Click(30, 20, True), Click(5, 30, False)]
    answers = []
    for method in (loaded, DisnetMethod(made, build_network_input(settings_of(name)))):
        session = method.open(picture)
        answers += [session.predict(clicks[:1]).masks, session.predict(clicks).masks]
    assert tuple(len(masks) for masks in answers[:2]) == counts
    assert np.allclose(answers[0], answers[2]) and np.allclose(answers[1], answers[3])
    for labels in ({"design": "dos"}, {"first_click": True}):
        with pytest.raises(InputError, match=f"{name}-design"):
            disnet(str(path), **labels)


@pytest.mark.parametrize(
    ("name", "options"),
    [("ritm", {"multiple_output": True}), ("ld", {"multiple_output": False}), ("piclick", {"first_click": True})],
)
def test_a_design_on_another_network_is_refused(name: Any, options: Any) -> None:
    settings = settings_of(name)
    with pytest.raises(InputError, match=name):
        build_network(dataclasses.replace(settings, options=dataclasses.replace(settings.options, **options)))


@pytest.mark.parametrize("name", DESIGNS)
def test_trainings_differ_from_disnets_in_the_design_alone(name: Any) -> None:
    """Every setting but the design's own is that of `disnet-small`, whatever it is."""
    base, own = load_training("disnet-small"), load_training(f"design-{name}")
    plain = {key: getattr(base.network.options, key) for key in ("first_click", "multiple_output", "candidates")}
    network = dataclasses.replace(own.network, design="", options=dataclasses.replace(own.network.options, **plain))
    same = {"name": base.name, "description": base.description, "network": network}
    if name == "dos":
        same |= {"later_clicks": base.later_clicks, "corrective_clicks": base.corrective_clicks}
    assert own.network.design == name and dataclasses.replace(own, **same) == base
    card = load_card(f"{name}-design")
    assert card.title.endswith("(design, small)") and card.options["design"].default == name
    refuses(f"design-{name}", lambda: method_spec(f"{name}-design").build())


class Half:
    """A method whose mask has a probability of 0.6 left of column 20, and of 0.4 right of it."""

    def open(self, image: Any) -> Half:
        self.size = image.shape[:2]
        return self

    def predict(self, clicks: Any) -> Any:
        from disbench.core.prediction import Prediction

        mask = np.full((1, *self.size), 0.4, dtype=np.float32)
        mask[..., :20] = 0.6
        return Prediction(mask)


def test_graph_cut_moves_the_boundary_to_the_colours_and_keeps_to_the_clicks() -> None:
    picture = np.zeros((30, 40, 3), dtype=np.uint8)
    picture[:, 23:] = 200
    session = GraphCutMethod(Half(), 0, 10.0).open(picture)
    clicks = [Click(5, 5, True), Click(35, 20, True), Click(2, 28, False)]
    mask = session.predict(clicks[:1]).masks[0]
    assert mask[:, :23].all() and not mask[:, 23:].any()
    assert GraphCutMethod(Half(), 0, 0.0).open(picture).predict(clicks[:1]).masks[0].sum() == 30 * 20
    told = session.predict(clicks).masks[0]
    assert told[20, 35] and not told[28, 2]


def adapted(single_image: bool, image_sequence: bool, order: Path | None = None) -> list[Any]:
    """Answers to two images' clicks, and whether the weights that images start with have moved."""
    inner = DisnetMethod(network_of("ritm"), build_network_input(settings_of("ritm")))
    method = AdaptiveMethod(inner, single_image, image_sequence, steps=2, rate=1e-3, order=order)
    before = [weights.clone() for weights in method.sequence]
    answers: list[Any] = []
    for seed in range(2):
        session = method.open(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))
        clicks = [Click(30, 20, True), Click(5, 30, False)]
        answers += [session.predict(clicks[: count + 1]).masks for count in range(2)]
    return [*answers, any(not torch.equal(*pair) for pair in zip(before, method.sequence, strict=True))]


def test_what_ia_and_sa_change(tmp_path: Path) -> None:
    plain, image, sequence = adapted(False, False), adapted(True, False), adapted(False, True, tmp_path / "order")
    assert np.array_equal(image[0], plain[0]) and np.array_equal(image[2], plain[2]), "every image starts anew"
    assert not np.array_equal(image[1], plain[1]) and not np.array_equal(image[3], plain[3])
    assert np.array_equal(sequence[0], plain[0]) and np.array_equal(sequence[1], plain[1])
    assert not np.array_equal(sequence[2], plain[2]), "the second image starts from the first one's corrections"
    assert [made[-1] for made in (plain, image, sequence)] == [False, False, True]
    assert [line.split()[0] for line in (tmp_path / "order").read_text().splitlines()] == ["1", "2"]
    assert all(np.array_equal(*pair) for pair in zip(adapted(True, True)[:4], adapted(True, True)[:4], strict=True))


def test_the_loss_of_corrections(batch: Batch) -> None:
    logits, last = torch.randn(1, 16, 16), torch.randn(1, 16, 16)
    valid = torch.ones(1, 16, 16, dtype=torch.bool)
    given = batch.first.rows(slice(0, 1))
    given = dataclasses.replace(given, points=torch.tensor([[[4 * 3 + 1.5, 4 * 5 + 1.5]]]))
    at_click = _entropy(logits[0, 5, 3], 1.0)
    pairs = zip(logits.flatten(), (last.sigmoid() > 0.49).flatten(), strict=True)
    mask = float(np.mean([_entropy(value, float(inside)) for value, inside in pairs]))
    expected = CLICK_WEIGHT * at_click + (1 - CLICK_WEIGHT) * mask
    assert ANCHOR_WEIGHT > 0 and float(correction_loss(logits, given, last, valid)) == pytest.approx(expected, rel=1e-4)
