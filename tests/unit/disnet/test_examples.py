"""Training examples of the embedded photos: masks, clicks and targets against the shards, pixel by pixel."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from disbench.core.clicks import Click
from disbench.core.diverse_sets import SampledScene, SetOfObjects
from disbench.core.errors import InputError
from disbench.core.masks import decode
from disbench.core.prediction import RgbImage
from disbench.core.scenes import Scene
from disbench.disnet.frames import STRIDE, Frame
from disbench.disnet.network import stretched
from disbench.disnet.options import DisnetOptions, NetworkSettings
from disbench.disnet.training.examples import Batch, Example, Examples, collate, refinement_clicks
from disbench.disnet.training.settings import Augmentation, Shards, Training
from disbench.shards.reader import DiverseSet, read_sets
from tests.unit.shard_tools import related, scene_object, unrelated, write_shards

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
    counts = read_sets(photo_shards).reader.sets_a_scene()
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
    return related(scene, len(masks)) if members is None else unrelated(scene, [SetOfObjects(0, members)])


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


def test_clicks_of_stage_two_are_cell_centres_but_for_the_first(photo_shards: Path) -> None:
    dataset = examples(photo_shards)
    batch = collate([dataset[0, number] for number in (0, 40, 200)])
    clicks = [list(own) for own in batch.clicks]
    found = refinement_clicks(batch.first, clicks)
    assert torch.equal(found.points[:, 0], batch.first.points[:, 0])
    for number, own in enumerate(clicks):
        assert found.given[number].sum() == len(own)
        for place, click in enumerate(own[1:], start=1):
            assert found.points[number, place].tolist() == [4 * click.x + 1.5, 4 * click.y + 1.5]
            assert found.positive[number, place] == click.positive
    first = collate([Example(torch.zeros(1), np.ones((4, 4), bool), np.ones((1, 4, 4), bool), 0, (3.0, 3.0), ())])
    found = refinement_clicks(first.first, [[Click(0, 0, True), Click(3, 0, False)]])
    assert found.points[0].tolist() == [[3.0, 3.0], [13.5, 1.5]]


def test_data_that_does_not_fit_is_named(photo_shards: Path, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [box_scene((40, 50), [(5, 30, 5, 40)])])
    Image.fromarray(np.zeros((40, 51, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    for shards, words in ((photo_shards, str(tmp_path)), (folder, "a.png: 51 x 40 pixels, .* 50 x 40")):
        dataset = examples([Shards(str(shards), str(tmp_path))], network_input=np.asarray)
        with pytest.raises(InputError, match=words):
            _ = dataset[0, 0]
    with pytest.raises(InputError, match="no diverse set"):
        examples(write_shards(tmp_path / "none", [box_scene((9, 9), [])]))
    with pytest.raises(InputError, match=str(tmp_path / "nowhere")):
        examples(tmp_path / "nowhere")
