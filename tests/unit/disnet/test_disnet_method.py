"""DISNet as a method: frames, the session's protocol, what is kept, batches, and checkpoints by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disbench.baselines.cards import method_spec
from disbench.baselines.sam.session import padded_input
from disbench.core.arrays import BoolArray
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.disnet.batches import STRIDE, ClickBatch, Frame, Proposals
from disbench.disnet.checkpoints import save_network
from disbench.disnet.method import DisnetMethod, DisnetSession, disnet
from disbench.disnet.network import Disnet, stretched
from disbench.disnet.training.settings import Training
from tests.refusals import refuses
from tests.unit.disnet_tools import SIDE, tiny_network, tiny_training

Kind = Literal["stretched", "padded"]
KINDS: tuple[Kind, ...] = ("stretched", "padded")
fewer = settings(max_examples=60)
ANY_SIZE = st.tuples(st.integers(5, 150), st.integers(5, 150))


@st.composite
def rectangles(draw: st.DrawFn) -> BoolArray:
    height, width = draw(ANY_SIZE)
    mask = np.zeros((height, width), dtype=bool)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    mask[top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))] = True
    return mask


def shares(mask: BoolArray, size: tuple[int, int]) -> Any:
    """Every cell's share of the mask, pixel by pixel, in whole numbers until the end.

    Each pixel is cut into as many parts as there are cells along an axis; each cell is then a number of parts.
    """
    fine = mask.repeat(size[0], axis=0).repeat(size[1], axis=1)
    cells = fine.reshape(size[0], mask.shape[0], size[1], mask.shape[1])
    return cells.mean(axis=(1, 3))


@fewer
@given(st.tuples(st.integers(1, 24), st.integers(1, 24)), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_a_cell_is_the_masks_if_at_least_half_of_it_is(size: tuple[int, int], kind: Kind, seed: int) -> None:
    """Where the image shrinks, where it grows, and where one axis does this and the other that."""
    frame, noise = Frame(kind, 48), np.random.default_rng(seed)
    mask = noise.random(size) < 0.5
    found = frame.masks(mask[None])[0]
    height, width = frame.inner(size)
    expected = shares(mask, (height, width))
    sure = np.abs(expected - 0.5) > 1e-5
    assert np.array_equal(found[:height, :width][sure], (expected > 0.5)[sure])
    assert not found[height:].any() and not found[:, width:].any()


@fewer
@given(rectangles(), st.sampled_from(KINDS))
def test_a_mask_comes_back_but_for_the_cells_on_its_edge(mask: BoolArray, kind: Kind) -> None:
    frame = Frame(kind, 128)
    cells = frame.masks(mask[None])[0]
    back = frame.to_image(np.where(cells, 10, -10).astype(np.float32), mask.shape)
    assert back.shape == mask.shape and back.dtype == np.float32
    pixels = max(1 / scale for scale in frame.scale(mask.shape)) * STRIDE  # a cell's, at most
    beyond = np.pad(mask, 1).astype(np.uint8)  # the image's border is an edge too, as what lies beyond has a say
    distances = cv2.distanceTransform(beyond, cv2.DIST_L2, 5) + cv2.distanceTransform(1 - beyond, cv2.DIST_L2, 5)
    far = distances[1:-1, 1:-1] > 2 * pixels + 1
    assert np.array_equal((back > 0)[far], mask[far])


def placed(frame: Frame, size: tuple[int, int], x: float, y: float) -> tuple[float, float]:
    (scale_x, scale_y), (shift_x, shift_y) = frame.scale(size), frame.offset(size)
    return x * scale_x + shift_x, y * scale_y + shift_y


def center(bright: Any) -> tuple[float, float]:
    """The centre of what is bright: x, y."""
    rows, columns = np.mgrid[: bright.shape[0], : bright.shape[1]]
    weights = np.asarray(bright, dtype=np.float64)
    return float((columns * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())


SPOTS = st.tuples(st.integers(60, 200), st.integers(60, 200), st.floats(0.3, 0.7), st.floats(0.3, 0.7))


def spot(height: int, width: int, right: float, down: float) -> tuple[Any, int, int]:
    """A black image with a smooth bright spot, and the pixel in its middle."""
    x, y = int(right * width), int(down * height)
    rows, columns = np.mgrid[:height, :width]
    levels = 250 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50.0)
    return np.repeat(levels.round().astype(np.uint8)[..., None], 3, axis=2), x, y


@fewer
@given(SPOTS)
def test_a_click_lies_where_the_stretched_image_has_its_pixel(given_: tuple[int, int, float, float]) -> None:
    image, x, y = spot(*given_)
    frame = Frame("stretched", 128)
    found = stretched(image, 128)
    assert found.shape == (3, 128, 128) and found.dtype == np.uint8
    assert np.allclose(center(found[0]), placed(frame, image.shape[:2], x, y), atol=0.3)


@fewer
@given(SPOTS)
def test_a_click_lies_where_sam_has_it(given_: tuple[int, int, float, float]) -> None:
    """SAM scales the pixel's corner and adds half a pixel of the input; the image scales the pixel's centre."""
    image, x, y = spot(*given_)
    size = (image.shape[0], image.shape[1])
    frame, scale = Frame("padded", 128), 128 / max(size)
    red = padded_input(image, 128)[0, 0]
    inner = [round(own * scale) for own in size]
    bright = (red - red[0, 0])[: inner[0], : inner[1]]  # zeros beyond the image are not black
    assert placed(frame, size, x, y) == (x * scale, y * scale)
    rounding = 0.5 * max(1, scale) + 0.5  # of the inner part to whole pixels
    assert np.allclose(center(bright), placed(frame, size, x, y), atol=abs(scale - 1) / 2 + rounding)


def test_a_stripe_of_pixels_is_seen_where_one_axis_shrinks_and_the_other_grows() -> None:
    """One white column of two is grey, not white or black as its single pixels are."""
    image = np.zeros((40, 200, 3), dtype=np.uint8)
    image[:, ::2] = 254
    assert np.ptp(stretched(image, 100)) == 0


pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
CLICKS = [Click(30, 20, True), Click(5, 30, False), Click(60, 10, True)]


def image(height: int = 40, width: int = 90, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def method(network: Disnet) -> DisnetMethod:
    return DisnetMethod(network, partial(stretched, side=SIDE))


def given(clicks: Sequence[Click], size: tuple[int, int]) -> ClickBatch:
    """Pixel centres of an image stretched to the input."""
    scales = (SIDE / size[1], SIDE / size[0])
    points = [[(click.x + 0.5) * scales[0] - 0.5, (click.y + 0.5) * scales[1] - 0.5] for click in clicks]
    signs = torch.tensor([[click.positive for click in clicks]])
    return ClickBatch(torch.tensor([points]), signs, torch.ones_like(signs))


def probabilities(logits: torch.Tensor, size: tuple[int, int]) -> Any:
    """Bilinear, half pixels as torch has them, and then the sigmoid."""
    fine = torch.nn.functional.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)
    return fine[0].sigmoid().numpy()


def inputs_of(picture: Any) -> torch.Tensor:
    return torch.from_numpy(stretched(picture, SIDE))[None]


@torch.inference_mode()
def test_the_first_click_is_stage_ones_and_the_others_stage_twos(network: Disnet) -> None:
    picture, size = image(), (40, 90)
    session = method(network).open(picture)
    first = session.predict(CLICKS[:1])
    proposals = network.propose(inputs_of(picture), given(CLICKS[:1], size))
    assert first.masks.shape == (3, 40, 90) and first.masks.dtype == np.float32
    assert np.allclose(first.masks, probabilities(proposals.logits[0], size), atol=1e-4)
    assert first.scores is not None
    assert np.allclose(first.scores, proposals.objectness[0].sigmoid(), atol=1e-5)
    for chosen in (2, 0, 1):
        session.predict(CLICKS[:1])
        session.keep(chosen)
        for count in (2, 3):
            later = session.predict(CLICKS[:count])
            refined = network.refine(proposals.keep(torch.tensor([chosen])), given(CLICKS[:count], size))
            assert later.masks.shape == (1, 40, 90) and later.scores is None
            assert np.allclose(later.masks, probabilities(refined, size), atol=1e-4)
            session.keep(0)  # as the harness does: the only one of these, not the first click's first


SIZES = [(40, 90), (64, 64), (120, 30)]
MORE = [CLICKS, [Click(8, 8, True), Click(50, 60, True)], [Click(2, 100, False), Click(20, 20, True)]]


def played(made: DisnetMethod, batched: bool) -> list[list[Any]]:
    """All that three sessions say, which are at different clicks; each keeps another candidate."""
    sessions = [made.open(image(*size, seed=n)) for n, size in enumerate(SIZES)]
    said: list[list[Any]] = [[], [], []]

    def ask(numbers: Sequence[int]) -> None:
        clicks = [MORE[n][: len(said[n]) + 1] for n in numbers]
        own = [sessions[n] for n in numbers]
        answers = (
            made.predict_batch(own, clicks)
            if batched
            else [session.predict(of_session) for session, of_session in zip(own, clicks, strict=True)]
        )
        for n, answer in zip(numbers, answers, strict=True):
            said[n].append(answer)
            sessions[n].keep(n if len(answer.masks) > 1 else 0)

    for numbers in ([1], [0, 1, 2], [2, 0], [0]):
        ask(numbers)
    return said


@pytest.mark.parametrize("kind", ["network", "one_stage"])
def test_a_batch_is_what_its_sessions_would_say(kind: str, request: pytest.FixtureRequest) -> None:
    made = method(request.getfixturevalue(kind))
    alone, together = played(made, batched=False), played(made, batched=True)
    for one, other in zip(chain(*alone), chain(*together), strict=True):
        assert np.allclose(one.masks, other.masks, atol=1e-4)
        assert (one.scores is None) == (other.scores is None)
        assert one.scores is None or np.allclose(one.scores, other.scores, atol=1e-4)


@torch.inference_mode()
def test_with_one_stage_there_are_candidates_at_every_click(one_stage: Disnet) -> None:
    """For all clicks and the mask that was kept before."""
    picture, size = image(), (40, 90)
    session, previous = method(one_stage).open(picture), None
    for count, chosen in ((1, 2), (2, 1), (3, 0)):
        found = session.predict(CLICKS[:count])
        expected: Proposals = one_stage.propose(inputs_of(picture), given(CLICKS[:count], size), previous)
        assert found.masks.shape == (3, 40, 90) and found.scores is not None
        assert np.allclose(found.masks, probabilities(expected.logits[0], size), atol=1e-4)
        session.keep(chosen)
        previous = expected.logits[:, chosen]


@torch.inference_mode()
def test_the_last_mask_goes_on_where_the_network_wants_it() -> None:
    """From the second click on; alone and in a batch, and a first click starts anew."""
    network, picture, size = tiny_network(later_mask="last"), image(), (40, 90)
    made = method(network)
    proposals = network.propose(inputs_of(picture), given(CLICKS[:1], size))
    kept = proposals.keep(torch.tensor([1]))
    one, other = made.open(picture), made.open(picture)
    for _ in range(2):
        made.predict_batch([one, other], [CLICKS[:1]] * 2)
        one.keep(1)
        last = kept.logits
        for count in (2, 3):
            found = made.predict_batch([one, other], [CLICKS[:count]] * 2)[0]
            last = network.refine(kept, given(CLICKS[:count], size), last)
            assert np.allclose(found.masks, probabilities(last, size), atol=1e-4)
        assert not torch.allclose(last, network.refine(kept, given(CLICKS, size)), atol=1e-2)


@torch.inference_mode()
def test_the_first_answer_can_be_refined_too(network: Disnet, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, size = image(), (40, 90)
    plain = method(network).open(picture)
    scores = plain.predict(CLICKS[:1]).scores
    later = plain.predict(CLICKS[:2]).masks
    monkeypatch.setattr(network, "options", dataclasses.replace(network.options, refine_first=True))
    session = method(network).open(picture)
    found = session.predict(CLICKS[:1])
    proposals = network.propose(inputs_of(picture), given(CLICKS[:1], size))
    for number in range(3):
        refined = network.refine(proposals.keep(torch.tensor([number])), given(CLICKS[:1], size))
        assert np.allclose(found.masks[number], probabilities(refined, size)[0], atol=1e-4)
    assert np.allclose(found.scores, scores)
    assert np.allclose(session.predict(CLICKS[:2]).masks, later), "M_s stays stage 1's"


@pytest.fixture(scope="module")
def stored(network: Disnet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "tiny.safetensors"
    save_network(path, network, tiny_training(seed=3, sampling="proximity"), {}, half=False)
    return path


@pytest.fixture
def _own_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_own_threads")
def test_a_checkpoint_by_the_card(stored: Path, network: Disnet) -> None:
    options = [f"checkpoint={stored}", "training_seed=3", "sampling=proximity"]
    made = method_spec("disnet", options).build()
    assert isinstance(made, DisnetMethod) and isinstance(made.open(image()), DisnetSession)
    answers = [each.open(image()).predict(CLICKS[:1]).masks for each in (made, method(network))]
    assert np.allclose(*answers, atol=1e-5)
    refining = method_spec("disnet", [*options, "refine_first=true"]).build()
    assert isinstance(refining, DisnetMethod) and refining.network.options.refine_first
    refuses("no device 'nowhere' on this machine", lambda: method_spec("disnet", [*options, "device=nowhere"]).build())


def test_options_that_say_what_a_checkpoint_is_are_checked(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--set sampling=proximity --set training_seed=3$"):
        method_spec("disnet", [f"checkpoint={stored}"]).build()
    with pytest.raises(InputError, match=r"--set mca=true --set first_click_radius=15.0$"):
        disnet(str(stored), mca=False, first_click_radius=9.0, sampling="proximity", training_seed=3)
    refuses(f"{tmp_path}/none", lambda: method_spec("disnet", [f"checkpoint={tmp_path}/none"]).build())
    from disbench.disnet.method import described

    card = method_spec("disnet").options
    own = {"checkpoint", "refine_first", "weights", "cache", "device"}
    assert set(described(Training("a"))) == set(card) - own
    assert described(Training("a")) == {name: card[name] for name in set(card) - own}


def test_a_candidate_that_repeats_a_better_one_has_a_lower_score(
    network: Disnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the second has an IoU of 0.5 with the first, and of 1/3 with the third, which is disjoint from it."""
    logits = torch.full((1, 3, 8, 8), -1.0)
    for number, columns in enumerate((slice(0, 3), slice(1, 4), slice(3, 4))):
        logits[0, number, :, columns] = 1
    found = network.propose(inputs_of(image()), given(CLICKS[:1], (40, 90)))
    made = dataclasses.replace(found, logits=logits, objectness=torch.tensor([[0.8, 0.7, 0.6]]).logit())
    monkeypatch.setattr(network, "propose", lambda *given: made)
    for suppression, scores in ((0.0, [0.8, 0.7, 0.6]), (0.5, [0.8, 0.525, 0.6])):
        monkeypatch.setattr(network, "options", dataclasses.replace(network.options, suppression=suppression))
        assert np.allclose(method(network).open(image()).predict(CLICKS[:1]).scores, scores)
