"""MobileSAM-architecture: the decoder that is cut here, and the masks made of it, are the exported decoder's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disbench.baselines.sam.mobilesam import MobileSam, MobileSamEncoder, point_coords, point_labels
from disbench.baselines.sam.session import SamSession, image_hash, inner_size, padded_input, stored, unpadded
from disbench.baselines.weights import weights_folder
from disbench.core.clicks import Click
from disbench.core.prediction import Prediction
from disbench.datasets.photos import photo_path
from tests.unit.mobilesam_tools import needs_weights

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
Exported = Callable[..., list[np.ndarray]]
Methods = dict[int, MobileSam]
CLICKS = [Click(220, 140, True), Click(20, 20, False), Click(250, 90, True), Click(160, 200, True)]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from disbench.datasets.images import read_rgb

    return read_rgb(photo_path("chelsea.png"))


@pytest.fixture(scope="module")
def encodings(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("encodings"))


@pytest.fixture(scope="module")
def methods(encodings: str) -> dict[int, MobileSam]:
    return {n: MobileSam(candidates=n, cache=encodings) for n in (1, 3)}


@pytest.fixture(scope="module")
def exported() -> Callable[..., list[np.ndarray]]:
    """The exported decoder as it is: mask at the image's size, score, low-resolution mask."""
    model = onnxruntime.InferenceSession(str(weights_folder("mobilesam") / "sam.onnx"))

    def run(session: SamSession, clicks: list[Click], previous: np.ndarray | None) -> list[np.ndarray]:
        scale = 1024 / max(session._size)
        given = {
            "image_embeddings": session._encoding[None],
            "point_coords": np.array([[[c.x * scale, c.y * scale] for c in clicks] + [[0, 0]]], np.float32),
            "point_labels": np.array([[float(c.positive) for c in clicks] + [-1.0]], dtype=np.float32),
            "mask_input": (np.zeros((256, 256), np.float32) if previous is None else previous)[None, None],
            "has_mask_input": np.array([float(previous is not None)], dtype=np.float32),
            "orig_im_size": np.array(session._size, dtype=np.float32),
        }
        found: list[np.ndarray] = model.run(["masks", "iou_predictions", "low_res_masks"], given)
        return found

    return run


@needs_weights
@pytest.mark.parametrize("feedback", [True, False])
def test_one_candidate_is_what_the_exported_decoder_picks(
    methods: Methods, photo: np.ndarray, exported: Exported, monkeypatch: pytest.MonkeyPatch, feedback: bool
) -> None:
    monkeypatch.setattr(methods[1], "feedback", feedback)
    session, previous = methods[1].open(photo), None
    for number in range(1, 5):
        prediction = session.predict(CLICKS[:number])
        masks, score, low = exported(session, CLICKS[:number], previous)
        assert prediction.masks.shape == (1, *photo.shape[:2])
        assert prediction.masks.dtype == np.bool_
        assert prediction.masks[0].any()
        assert np.allclose(prediction.scores, score[0], atol=1e-5)
        assert np.allclose(session._low, low[0], atol=1e-3)
        different = np.count_nonzero(prediction.masks[0] != (masks[0, 0] > 0))
        assert different <= 3, "of 135,300 pixels only those whose logit is 0 but for rounding may differ"
        session.keep(0)
        previous = low[0, 0] if feedback else None


@needs_weights
@pytest.mark.parametrize("size", [(45, 600), (600, 45), (300, 451), (1200, 900), (64, 64)])
def test_masks_of_any_size(methods: Methods, photo: np.ndarray, exported: Exported, size: tuple[int, int]) -> None:
    session = SamSession(methods[1], methods[1].encoding(photo), size)
    clicks = [Click(size[1] // 2, size[0] // 2, True)]
    mask = session.predict(clicks).masks[0]
    expected = exported(session, clicks, None)[0][0, 0] > 0
    assert mask.shape == expected.shape == size
    assert np.count_nonzero(mask != expected) <= size[0] * size[1] // 10_000


@needs_weights
def test_three_candidates_hold_the_decoders_own_choice(methods: Methods, photo: np.ndarray) -> None:
    three, one = methods[3].open(photo).predict(CLICKS[:1]), methods[1].open(photo).predict(CLICKS[:1])
    assert three.masks.shape[0] == 3
    assert three.scores is not None and one.scores is not None
    best = int(np.argmax(three.scores))
    assert three.scores[best] == pytest.approx(one.scores[0], abs=1e-5)
    assert np.array_equal(three.masks[best], one.masks[0])


@needs_weights
def test_three_at_the_first_click_then_one(encodings: str, methods: Methods, photo: np.ndarray) -> None:
    session, one, three = (m.open(photo) for m in (MobileSam(later=1, cache=encodings), methods[1], methods[3]))
    first = session.predict(CLICKS[:1])
    assert np.array_equal(first.masks, three.predict(CLICKS[:1]).masks)
    session.keep(int(np.argmax(first.scores)))
    one.predict(CLICKS[:1])
    for number in (2, 3):
        found = session.predict(CLICKS[:number])
        assert found.masks.shape[0] == 1
        assert np.array_equal(found.masks, one.predict(CLICKS[:number]).masks)
        session.keep(0)


@needs_weights
def test_what_is_kept_is_fed_back(methods: Methods, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    method = methods[3]

    def second(keep: int | None, disturbed: bool = False) -> Prediction:
        session = method.open(photo)
        first = session.predict(CLICKS[:1])
        assert first.scores is not None
        session.keep(int(np.argmax(first.scores)) if keep is None else keep)
        if disturbed:
            other = method.open(photo[::-1].copy())
            other.predict(CLICKS[1:2])
            other.keep(0)
        return session.predict(CLICKS[:2])

    plain = method.open(photo)
    plain.predict(CLICKS[:1])
    assert np.array_equal(plain.predict(CLICKS[:2]).masks, second(None).masks), "the best score's by default"
    assert not np.array_equal(second(0).masks, second(2).masks)
    assert np.array_equal(second(1).masks, second(1, disturbed=True).masks)
    monkeypatch.setattr(method, "feedback", False)
    assert np.array_equal(second(0).masks, second(2).masks)
    assert np.array_equal(second(0).masks, method.open(photo).predict(CLICKS[:2]).masks)


@needs_weights
def test_a_batch_is_what_its_sessions_would_say(methods: Methods, photo: np.ndarray) -> None:
    method = methods[3]
    images = [photo, photo[::-1].copy(), photo[:200]]
    given = [CLICKS, [Click(100, 100, True), Click(5, 5, False)], CLICKS[1:]]
    alone, together = ([method.open(image) for image in images] for _ in range(2))
    for number in range(1, 4):
        clicks = [of_image[:number] for of_image in given]  # the second has fewer in the last round
        batched = method.predict_batch(together, clicks)
        for session, twin, of_session, found in zip(alone, together, clicks, batched, strict=True):
            expected = session.predict(of_session)
            assert np.allclose(expected.scores, found.scores, atol=1e-4)
            assert np.count_nonzero(expected.masks != found.masks) <= 3
            session.keep(1)
            twin.keep(1)


@needs_weights
def test_an_image_is_encoded_once(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    method, calls, run = MobileSam(cache=str(tmp_path / "kept")), [], MobileSamEncoder._run

    def spy(encoder: MobileSamEncoder, image: np.ndarray) -> Any:
        calls.append(1)
        return run(encoder, image)

    monkeypatch.setattr(MobileSamEncoder, "_run", spy)
    first = method.encoding(photo)
    assert first.shape == (256, 64, 64)
    assert method.encoding(photo.copy()) is first
    assert len(calls) == 1
    (file,) = (tmp_path / "kept").iterdir()
    assert file.name.startswith(image_hash(photo))
    again = MobileSam(cache=str(tmp_path / "kept"))
    assert np.array_equal(again.encoding(photo), first)
    assert len(calls) == 1
    masks = [m.open(photo).predict(CLICKS[:1]).masks for m in (method, again)]
    assert np.array_equal(*masks)


def test_what_goes_in() -> None:
    image = np.full((300, 600, 3), (10, 20, 30), dtype=np.uint8)
    given = padded_input(image, 1024)
    assert given.shape == (1, 3, 1024, 1024)
    assert given.dtype == np.float32
    assert inner_size((300, 600), 1024) == (512, 1024)
    assert (given[:, :, 512:] == 0).all()
    assert np.allclose(given[0, :, 0, 0], [(10 - 123.675) / 58.395, (20 - 116.28) / 57.12, (30 - 103.53) / 57.375])
    clicks = [Click(300, 100, True), Click(0, 1, False)]
    given = point_coords(clicks, (300, 600))
    scale = 1024 / 600
    assert np.allclose(given, [[[512.0, 100 * scale], [0.0, scale], [0.0, 0.0]]])
    assert given.dtype == np.float32
    assert point_labels(clicks) == [1.0, 0.0, -1.0]


def test_upsampling_is_torchs() -> None:
    """SAM's own words for it: interpolate, crop, interpolate, all bilinear without aligned corners."""
    low = np.random.default_rng(0).normal(0, 8, (256, 256)).astype(np.float32)
    for size in ((333, 500), (500, 333), (90, 120), (1500, 2000)):
        resize = torch.nn.functional.interpolate
        square = resize(torch.from_numpy(low)[None, None], (1024, 1024), mode="bilinear", align_corners=False)
        height, width = inner_size(size, 1024)
        expected = resize(square[..., :height, :width], size, mode="bilinear", align_corners=False)[0, 0]
        assert np.allclose(unpadded(low, size, 1024), expected.numpy(), atol=2e-3)


def test_stored_encodings_and_their_names(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert image_hash(image) == image_hash(np.asfortranarray(image))
    assert image_hash(image) != image_hash(image.reshape(4, 2, 3))
    assert image_hash(image) != image_hash(image + np.uint8(1))
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.arange(6, dtype=np.float32).reshape(2, 3)

    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        assert np.array_equal(stored(folder, "a", (2, 3), make), np.arange(6).reshape(2, 3))
    assert len(made) == 1
    for damage in (b"", b"\x93NUMPY nonsense", (folder / "a.npy").read_bytes()[:-4]):
        (folder / "a.npy").write_bytes(damage)
        assert np.array_equal(stored(folder, "a", (2, 3), make), np.arange(6).reshape(2, 3))
    np.save(folder / "a.npy", np.zeros((2, 4), dtype=np.float32))
    assert stored(folder, "a", (2, 3), make).shape == (2, 3)
    assert len(made) == 5
    assert [path.name for path in folder.iterdir()] == ["a.npy"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        stored(tmp_path / "file", "a", (2, 3), make)
