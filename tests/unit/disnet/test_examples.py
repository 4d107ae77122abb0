"""Views, random clicks, and the examples made of them: image, masks and clicks move together, the seed decides."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.masks import decode
from disbench.core.prediction import RgbImage
from disbench.core.scenes import SampledScene, Scene, SetOfObjects
from disbench.disnet.batches import STRIDE, Frame
from disbench.disnet.network import stretched
from disbench.disnet.options import DisnetOptions, NetworkSettings
from disbench.disnet.training.examples import (
    BORDER_SHARE,
    GAMMA,
    MOST,
    NEGATIVE_KINDS,
    NEGATIVE_SHARES,
    Batch,
    Example,
    Examples,
    View,
    collate,
    draw_view,
    fixed_view,
    random_clicks,
)
from disbench.disnet.training.settings import Augmentation, Shards, Training
from disbench.shards.reader import DiverseSet, read_sets
from tests.refusals import refuses
from tests.unit.shard_tools import scene_object, with_hierarchy, without_hierarchy, write_shards

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
AUGMENTATIONS = st.builds(
    Augmentation,
    smallest_crop=st.floats(0.05, 1.0),
    horizontal_flip=st.sampled_from([0.0, 0.5, 1.0]),
    vertical_flip=st.sampled_from([0.0, 0.5, 1.0]),
    brightness=st.just(0.0),
    contrast=st.just(0.0),
)
SEEDS = st.integers(0, 2**32 - 1)
DEFAULT = Augmentation()


def drawn(size: tuple[int, int], augmentation: Augmentation, seed: int) -> View:
    return draw_view(size, augmentation, np.random.default_rng(seed))


def coordinates(size: tuple[int, int]) -> Any:
    """An image that says of each pixel where it is: red the row, green the column."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)


@settings(max_examples=60)
@given(SIZES, AUGMENTATIONS, SEEDS)
def test_image_and_masks_move_together(size: tuple[int, int], augmentation: Augmentation, seed: int) -> None:
    view, image = drawn(size, augmentation, seed), coordinates(size)
    masks = np.random.default_rng(seed).random((3, *size)) < 0.5
    seen, planes = view.image(image), view.planes(masks)
    assert seen.shape == (view.height, view.width, 3) and planes.shape == (3, view.height, view.width)
    assert seen.dtype == np.uint8 and planes.dtype == np.bool_
    assert np.array_equal(planes, masks[:, seen[..., 0], seen[..., 1]])


def test_brightness_and_contrast_by_hand() -> None:
    """0.5 * (level - 127.5) + 127.5 + 0.2 * 255, cut off at 255; masks know nothing of it."""
    levels = np.array([[0, 100, 127, 128, 255]], dtype=np.uint8)
    image = np.repeat(levels[..., None], 3, axis=2)
    view = View(0, 0, 1, 5, brightness=0.2, contrast=0.5)
    expected = [[round(0.5 * (int(level) - 127.5) + 127.5 + 51) for level in levels[0]]]
    assert view.image(image)[..., 1].tolist() == expected
    assert View(0, 0, 1, 5, brightness=1.0).image(image)[0, :, 0].tolist() == [255] * 5
    assert View(0, 0, 1, 5, brightness=-1.0).image(image)[0, :, 0].tolist() == [0] * 5
    mask = np.ones((1, 1, 5), dtype=bool)
    assert np.array_equal(view.planes(mask), mask)


@pytest.mark.parametrize("number", range(5))
def test_fixed_views(number: int) -> None:
    size, image = (40, 50), coordinates((40, 50))
    view = fixed_view(size, DEFAULT, number, (3, 77))
    assert view == fixed_view(size, DEFAULT, number, (3, 77))
    if number == 0:
        assert np.array_equal(view.image(image), image)
    elif number == 1:
        assert np.array_equal(view.image(image), image[:, ::-1])
    else:
        others = [fixed_view(size, DEFAULT, n, seed) for n, seed in ((number + 1, (3, 77)), (number, (3, 78)))]
        assert view not in others


SIZE = (60, 80)


def planes(seed: int = 0) -> tuple[Any, Any, Any]:
    """A target, the valid cells, other objects: boxes that overlap, and a frame padded at the bottom and right."""
    noise = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        mask = np.zeros(SIZE, dtype=bool)
        top, left = noise.integers(0, 40), noise.integers(0, 60)
        mask[top : top + noise.integers(1, 20), left : left + noise.integers(1, 20)] = True
        found.append(mask)
    valid = np.zeros(SIZE, dtype=bool)
    valid[: noise.integers(41, 60), : noise.integers(61, 80)] = True
    return found[0], valid, found[1]


def clicked(seed: int, target: Any, valid: Any, others: Any, most: int = MOST) -> list[Click]:
    return random_clicks(target, valid, others, np.random.default_rng(seed), most)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_positive_clicks_lie_on_the_object_and_negative_ones_do_not(seed: int) -> None:
    target, valid, others = planes(seed)
    for click in clicked(seed, target, valid, others):
        assert valid[click.y, click.x]
        assert target[click.y, click.x] == click.positive
        assert all(type(value) is int for value in click[:2]), "not NumPy's"


def counts(most: int = MOST, draws: int = 1000) -> dict[bool, list[int]]:
    """By sign, how many clicks of it each draw has; every kind of negative click has its place."""
    target, valid = np.zeros((12, 12), dtype=bool), np.ones((12, 12), dtype=bool)
    target[4:8, 4:8] = True
    others = np.zeros((12, 12), dtype=bool)
    others[:2] = True
    clicks = [clicked(seed, target, valid, others, most) for seed in range(draws)]
    return {sign: [sum(c.positive == sign for c in own) for own in clicks] for sign in (True, False)}


def test_each_further_click_is_four_fifths_as_likely() -> None:
    assert counts(most=0, draws=20) == {True: [0] * 20, False: [0] * 20}
    shares = np.array([GAMMA**number for number in range(MOST + 1)])
    expected = 1000 * shares / shares.sum()
    for found in counts().values():
        assert max(found) <= MOST
        observed = np.bincount(found, minlength=MOST + 1)
        few = 12  # beyond, few are expected of each: they count together
        cells = [np.append(values[:few], values[few:].sum()) for values in (observed, expected)]
        assert chisquare(*cells).pvalue > 1e-4


def test_the_kinds_of_negative_clicks() -> None:
    """Far from the object, in another object, in a band around it: a tenth, four, five tenths."""
    target, valid = np.zeros(SIZE, dtype=bool), np.ones(SIZE, dtype=bool)
    target[20:40, 20:40] = True
    others = np.zeros(SIZE, dtype=bool)
    others[:2, :2] = True
    band = round(BORDER_SHARE * 20)
    near = np.zeros(SIZE, dtype=bool)
    near[20 - band : 40 + band, 20 - band : 40 + band] = True
    found: Counter[str] = Counter()
    for seed in range(400):
        for click in clicked(seed, target, valid, others):
            if not click.positive:
                place = (click.y, click.x)
                kind = "border" if near[place] else "other" if others[place] else "background"
                found[kind] += 1
    total = sum(found.values())
    everywhere = NEGATIVE_SHARES[0]
    by_chance = {"border": everywhere * (near & ~target).sum() / (~target).sum(), "other": 0.0}
    for kind, share in zip(NEGATIVE_KINDS, NEGATIVE_SHARES, strict=True):
        expected = everywhere - by_chance["border"] if kind == "background" else share + by_chance[kind]
        assert found[kind] / total == pytest.approx(expected, abs=0.03)


FRAMES = [Frame("stretched", 64), Frame("padded", 128)]
PLAIN = Augmentation(brightness=0.0, contrast=0.0)
WHOLE = dataclasses.replace(PLAIN, views=1)


def examples(
    shards: Path | Sequence[Shards], frame: Frame = FRAMES[0], augmentation: Augmentation = PLAIN, **more: Any
) -> Examples:
    network_input = more.pop("network_input", partial(stretched, side=frame.side))
    options = DisnetOptions(candidates=more.pop("outputs", 7))
    sources = (Shards(str(shards)),) if isinstance(shards, Path) else tuple(shards)
    training = Training("a", sources, network=NetworkSettings(options=options), augmentation=augmentation, **more)
    return Examples(training, frame, network_input)


def same(one: Example, other: Example) -> bool:
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(Example))
    return all(np.array_equal(a, b) if hasattr(a, "shape") else a == b for a, b in pairs)


class Places:
    """Examples whose images say of each pixel where it is, and whose input is the view as it is."""

    def __init__(self, folder: Path, frame: Frame, augmentation: Augmentation = PLAIN, **more: Any) -> None:
        self.examples = examples(folder, frame, augmentation, network_input=np.asarray, **more)
        self.sets, self.frame = read_sets(folder), frame
        self.examples._image = self._image  # type: ignore[method-assign]

    @staticmethod
    def _image(_: Shards, scene: Scene) -> RgbImage:
        numbers = np.arange(scene.height * scene.width, dtype=np.uint32)
        image = numbers.reshape(scene.height, -1, 1).view(np.uint8)[..., :3]
        return np.ascontiguousarray(image)

    def item(self, number: int, epoch: int = 0) -> tuple[Example, DiverseSet, Any]:
        """An example, its set, and the number of the image's pixel at each pixel of the view."""
        example = self.examples[epoch, number]
        seen = example.input.numpy().astype(np.int64)
        return example, self.sets[number], seen[..., 0] + seen[..., 1] * 256 + seen[..., 2] * 65536


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.kind)
def test_masks_and_first_click_are_the_sets_in_the_view(photo_shards: Path, frame: Frame) -> None:
    places = Places(photo_shards, frame)
    crops = 0
    for number in range(0, len(places.sets), 9):
        example, chosen, view = places.item(number)
        is_crop = view.size < np.prod(chosen.click_region["size"])
        crops += is_crop
        target = example.masks[example.target]
        assert target.sum() >= (16 if is_crop else 1)
        if target.sum() < 16:
            continue  # a test of its own
        seen = np.stack([decode(rle).ravel()[view] for rle in chosen.masks])
        wanted = [mask for mask in frame.masks(seen) if mask.any()]
        assert any(np.array_equal(target, mask) for mask in wanted)
        kept = [mask for mask in wanted if any(np.array_equal(mask, own) for own in example.masks)]
        order = list({mask.tobytes(): None for mask in kept})  # inner to outer, each once
        assert order == [mask.tobytes() for mask in example.masks]
        assert np.array_equal(example.valid, frame.valid(view.shape))
        assert not (example.masks & ~example.valid).any()
        (scale_x, scale_y), (shift_x, shift_y) = frame.scale(view.shape), frame.offset(view.shape)
        x, y = (example.first[0] - shift_x) / scale_x, (example.first[1] - shift_y) / scale_y
        assert abs(x - round(x)) < 1e-6 and abs(y - round(y)) < 1e-6
        assert decode(chosen.click_region).ravel()[view[round(y), round(x)]]
    assert crops > 9, "many views are crops"


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.kind)
def test_clicks_are_cells_of_the_image(photo_shards: Path, frame: Frame) -> None:
    dataset = examples(photo_shards, frame)
    reach = 0.5 + 1e-6 if frame.kind == "stretched" else 1.0  # the padded image's last row may be rounded away
    counts = []
    for number in range(0, len(dataset), 16):
        example = dataset[1, number]
        first, *more = example.clicks
        assert first.positive and example.valid[first.y, first.x]
        assert np.abs((np.array(example.first) + 0.5) / STRIDE - 0.5 - (first.x, first.y)).max() <= reach
        target = example.masks[example.target]
        for click in more:
            assert example.valid[click.y, click.x] and target[click.y, click.x] == click.positive
        counts.append(len(more))
    assert max(counts) > 3
    alone = examples(photo_shards, frame, later_clicks="protocol")
    assert all(len(alone[1, number].clicks) == 1 for number in range(0, len(alone), 64))


def test_epoch_number_and_seed_decide_and_nothing_else(photo_shards: Path) -> None:
    one, other = examples(photo_shards), pickle.loads(pickle.dumps(examples(photo_shards)))
    items = [(epoch, number) for epoch in (0, 1) for number in (3, 40, 200)]
    forwards = [one[item] for item in items]
    backwards = [other[item] for item in reversed(items)][::-1]
    assert all(map(same, forwards, backwards))
    assert not same(one[0, 3], one[1, 3])
    assert not same(one[0, 3], examples(photo_shards, seed=1)[0, 3])


def test_several_folders_follow_each_other(photo_shards: Path, tmp_path: Path) -> None:
    lone = write_shards(tmp_path / "lone", [box_scene((40, 50), [(5, 30, 5, 40)])])
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    sources = [Shards(str(lone), str(tmp_path)), Shards(str(photo_shards)), Shards(str(lone), str(tmp_path))]
    several = examples(sources)
    count = len(examples(photo_shards))
    assert len(several) == count + 2
    assert (several[0, 0].input == several[0, 0].input[0, 0, 0]).all()
    assert several[0, 1].input.float().std() > 1 and several[0, count].input.float().std() > 1
    assert several[0, count + 1].input.float().std() == 0


def test_an_epoch_has_the_images_of_a_pattern_as_often_as_said(photo_shards: Path) -> None:
    """Each time in views and with clicks of its own."""
    names = read_sets(photo_shards).reader.names()[1]
    source = Shards(str(photo_shards), only=names[1], times=3)
    made = examples([source], augmentation=Augmentation())
    counts = read_sets(photo_shards).reader.sets_per_scene()
    count = int(sum(own for name, own in zip(names, counts, strict=True) if name == names[1]))
    assert len(made) == 3 * count < 3 * sum(counts)
    first, again = made[0, 0], made[0, count]
    assert not same(first, again)
    plain = examples([source], augmentation=WHOLE)
    assert torch.equal(plain[0, 0].input, plain[0, 2 * count].input)


def box_scene(size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]], members: Any = None) -> SampledScene:
    """A scene of boxes (top, bottom, left, right); each is the center of a set, or `members` are one set's."""
    masks = []
    for top, bottom, left, right in boxes:
        mask = np.zeros(size, dtype=bool)
        mask[top:bottom, left:right] = True
        masks.append(mask)
    scene = Scene("a", "a.png", *size, source="by-hand", objects=tuple(map(scene_object, masks)))
    return (
        with_hierarchy(scene, len(masks)) if members is None else without_hierarchy(scene, [SetOfObjects(0, members)])
    )


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six boxes within each other: the innermost is the center of a set of six."""
    boxes = [(20 - n, 30 + n, 20 - n, 30 + n) for n in range(0, 18, 3)]
    folder = tmp_path_factory.mktemp("nested")
    return write_shards(folder, [box_scene((50, 50), boxes, tuple((n,) for n in range(6)))])


@pytest.mark.parametrize("outputs", [1, 2, 4, 6, 7])
def test_a_set_is_cut_to_as_many_masks_as_there_are_candidates(nested: Path, outputs: int) -> None:
    """The center's, the one that supervises, and others by chance; inner to outer as before."""
    places = Places(nested, FRAMES[0], WHOLE, outputs=outputs)
    whole = [mask.tobytes() for mask in Places(nested, FRAMES[0], WHOLE).item(0)[0].masks]
    seen: set[int] = set()
    for epoch in range(20):
        example, _, _ = places.item(0, epoch)
        numbers = [whole.index(mask.tobytes()) for mask in example.masks]
        assert numbers == sorted(numbers) and len(numbers) == min(outputs, 6)
        assert outputs == 1 or numbers[0] == 0
        seen.add(numbers[example.target])
    assert len(seen) > 3


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.kind)
@pytest.mark.parametrize("size", [(300, 300), (301, 97), (97, 301)])
def test_a_mask_smaller_than_a_cell_still_is_one(frame: Frame, size: tuple[int, int], tmp_path: Path) -> None:
    """Also where it lies in the last, rounded, row of the image."""
    height, width = size
    for number, (y, x) in enumerate([(0, 0), (height - 1, width - 1), (height // 2, width // 3)]):
        folder = write_shards(tmp_path / str(number), [box_scene(size, [(y, y + 1, x, x + 1)])])
        places = Places(folder, frame)
        for epoch in range(3):
            example, _, view = places.item(0, epoch)
            assert view.shape == size, "every crop leaves too little of it"
            assert example.masks.sum() == 1 and (example.masks <= example.valid).all()
            first = example.clicks[0]
            assert np.abs(np.argwhere(example.masks[0])[0] - (first.y, first.x)).max() <= 1


def test_a_batch(photo_shards: Path) -> None:
    frame = FRAMES[1]
    dataset = examples(photo_shards, frame, network_input=lambda image: np.zeros((2, 3), dtype=np.float32))
    chosen = [dataset[0, number] for number in (0, 40, 200)]
    batch = collate(chosen)
    assert batch.inputs.shape == (3, 2, 3) and batch.inputs.dtype == torch.float32
    assert batch.valid.shape == batch.targets.shape == (3, 32, 32) and batch.targets.dtype == torch.bool
    assert batch.first.points.shape == (3, 1, 2) and batch.first.given.all() and batch.first.positive.all()
    signed = batch.signed_targets()
    for number, example in enumerate(chosen):
        target = example.masks[example.target]
        assert np.array_equal(batch.masks[number].numpy(), example.masks)
        assert np.array_equal(batch.targets[number].numpy(), target)
        assert np.allclose(batch.first.points[number, 0].numpy(), example.first)
        assert batch.clicks[number] == example.clicks
        assert np.array_equal(signed[number] == 1, target)
        assert np.array_equal(signed[number] == -1, ~example.valid)
    moved = batch.to("cpu")
    assert isinstance(moved, Batch) and moved.clicks == batch.clicks
    assert torch.equal(moved.targets, batch.targets)


def test_data_that_does_not_fit_is_named(photo_shards: Path, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [box_scene((40, 50), [(5, 30, 5, 40)])])
    Image.fromarray(np.zeros((40, 51, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    for shards, words in ((photo_shards, str(tmp_path)), (folder, "a.png: 51 x 40 pixels, .* 50 x 40")):
        dataset = examples([Shards(str(shards), str(tmp_path))], network_input=np.asarray)
        with pytest.raises(InputError, match=words):
            _ = dataset[0, 0]
    refuses("no diverse set", lambda: examples(write_shards(tmp_path / "none", [box_scene((9, 9), [])])))
    refuses(str(tmp_path / "nowhere"), examples, tmp_path / "nowhere")
