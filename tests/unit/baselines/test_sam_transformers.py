"""SAM, SlimSAM, SAM-HQ, SAM 2 and SAM 3 through transformers, on tiny models of random weights that the tests make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disbench.baselines.cards import load_card, method_spec
from disbench.baselines.sam import transformers_sam as sam_transformers
from disbench.baselines.sam.session import SamSession
from disbench.baselines.sam.transformers_sam import (
    SAM,
    SAM_2,
    SAM_3,
    SAM_HQ,
    SLIM_SAM,
    TransformersSam,
    stretched_input,
)
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from tests.refusals import refuses

transformers = pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
FAMILIES = {
    family.name: family
    for family in (SAM, SLIM_SAM, SAM_HQ, SAM_2, SAM_3)
    if hasattr(transformers, family.model_class)  # older releases lack some
}
NAMES = list(FAMILIES)
SIDE = 128
CLICKS = [Click(70, 20, True), Click(10, 50, False), Click(40, 5, True)]
Maker = Callable[..., TransformersSam]


PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8}
DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}


def sam_model(prefix: str) -> Any:
    config = getattr(transformers, f"{prefix}Config")(
        vision_config={
            **{"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": SIDE, "patch_size": 16, "window_size": 4, "global_attn_indexes": [1]},
            **{"num_pos_feats": 16, "mlp_dim": 64},
        },
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER | {"num_hidden_layers": 2} | ({"vit_dim": 32} if prefix == "SamHQ" else {}),
    )
    return getattr(transformers, f"{prefix}Model")(config)


def sam2_model() -> Any:
    backbone = {
        **{"model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [SIDE, SIDE]},
        **{"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]},
        **{"num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4]},
        "global_attention_blocks": [3],
    }
    config = transformers.Sam2Config(
        vision_config={
            **{"model_type": "sam2_vision_model", "backbone_config": backbone, "fpn_hidden_size": 32},
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        },
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER,
    )
    return transformers.Sam2Model(config)


def sam3_model() -> Any:
    backbone = {
        **{"model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "image_size": SIDE, "pretrain_image_size": SIDE, "patch_size": 16},
        **{"window_size": 4, "global_attn_indexes": [1]},
    }
    config = transformers.Sam3TrackerConfig(
        vision_config={
            **{"model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 32},
            **{"backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]},
            "scale_factors": [4.0, 2.0, 1.0],
        },
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER,
    )
    return transformers.Sam3TrackerModel(config)


def tiny(name: str) -> Any:
    makers = {"sam2": sam2_model, "sam3": sam3_model}
    return makers[name]() if name in makers else sam_model("SamHQ" if name == "sam-hq" else "Sam")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with each model, its weights large enough that clicks and feedback change masks."""
    found = {}
    for number, name in enumerate(NAMES):
        torch.manual_seed(number)
        model = tiny(name)
        for weights in model.parameters():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=0.2)
        found[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def made(folders: dict[str, str]) -> Callable[..., TransformersSam]:
    known: dict[tuple[object, ...], TransformersSam] = {}

    def make(name: str, **options: Any) -> TransformersSam:
        key = (name, *sorted(options.items()))
        if key not in known:
            built = method_spec(name, [f"model={folders[name]}", *(f"{o}={v}" for o, v in options.items())]).build()
            assert isinstance(built, TransformersSam)
            known[key] = built
        return known[key]

    return make


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Not square, smooth enough that its resizing is not all that counts."""
    noise = np.random.default_rng(0).random((60, 90, 3)).cumsum(axis=0).cumsum(axis=1)
    return (noise / noise.max() * 255).astype(np.uint8)


def ask(model: Any, image: np.ndarray, clicks: list[Click], previous: Any, name: str, several: bool) -> Any:
    """The model itself, asked in one go from pixels on: an independent statement of what goes in."""
    height, width = image.shape[:2]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    from PIL import Image

    if name == "sam3":
        inner, mean, std = (SIDE, SIDE), np.full(3, 0.5), np.full(3, 0.5)
        resized = np.asarray(Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR)) / 255.0
    elif name == "sam2":
        inner = (SIDE, SIDE)
        planes = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
        resize = torch.nn.functional.interpolate
        resized = resize(planes, inner, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    else:
        inner = (round(height * SIDE / width), SIDE)
        resized = np.asarray(Image.fromarray(image).resize(inner[::-1], Image.Resampling.BILINEAR)) / 255.0
    pixels = np.zeros((SIDE, SIDE, 3))
    pixels[: inner[0], : inner[1]] = (resized - mean) / std
    points = [[c.x * inner[1] / width, c.y * inner[0] / height] for c in clicks]
    with torch.inference_mode():
        return model(
            pixel_values=torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None],
            input_points=torch.tensor([[points]], dtype=torch.float32),
            input_labels=torch.tensor([[[int(c.positive) for c in clicks]]]),
            input_masks=previous,
            multimask_output=several,
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("candidates", "later"), [(1, 3), (3, 3), (3, 1)])
def test_it_is_the_model_asked_directly(made: Maker, image: np.ndarray, name: str, candidates: int, later: int) -> None:
    """Pixels, clicks, feedback: all that goes in, and the candidates that come out, at every click."""
    method = made(name, candidates=candidates, later=later)
    session, previous = method.open(image), None
    for number in range(1, len(CLICKS) + 1):
        several = number == 1 or (candidates, later) == (3, 3)
        offered = candidates if number == 1 else min(candidates, later)
        answer = ask(method.model, image, CLICKS[:number], previous, name, several)
        low, scores = answer.pred_masks[0, 0].numpy(), answer.iou_scores[0, 0].numpy()
        if offered == 1:
            best = int(scores.argmax())
            low, scores = low[best : best + 1], scores[best : best + 1]
        prediction = session.predict(CLICKS[:number])
        assert prediction.masks.shape == (offered, 60, 90)
        assert prediction.masks.dtype == np.bool_
        assert np.allclose(prediction.scores, scores, atol=1e-4)
        assert session._low is not None
        assert np.allclose(session._low, low, rtol=1e-3, atol=1e-4 * np.abs(low).max())
        kept = offered - 1
        session.keep(kept)
        fed_back = session._low[kept].clip(-32, 32) if FAMILIES[name].stretches else session._low[kept]
        previous = torch.from_numpy(fed_back)[None, None]


@pytest.mark.parametrize("name", NAMES)
def test_sessions_do_not_mix_and_batches_are_the_same(made: Maker, image: np.ndarray, name: str) -> None:
    method = made(name)
    images = [image, image[::-1].copy(), image[:, :50]]
    given = [CLICKS, [Click(30, 30, True), Click(5, 5, False), Click(8, 40, True)], CLICKS[1:]]
    expected: list[list[Any]] = [[], [], []]
    for number, of_image in enumerate(given):
        session = method.open(images[number])
        for clicks in range(1, len(of_image) + 1):
            expected[number].append(session.predict(of_image[:clicks]))
            session.keep(1)
    sessions = [method.open(each) for each in images]
    for clicks in range(1, 4):
        alive = [number for number in range(3) if len(given[number]) >= clicks]
        together: list[SamSession] = [sessions[number] for number in alive]
        found = method.predict_batch(together, [given[number][:clicks] for number in alive])
        for number, prediction in zip(alive, found, strict=True):
            wanted = expected[number][clicks - 1]
            assert np.allclose(prediction.scores, wanted.scores, atol=1e-4)
            assert np.mean(prediction.masks != wanted.masks) < 0.002
            sessions[number].keep(1)


@pytest.mark.skipif("sam3" not in NAMES, reason="this transformers has no SAM 3")
def test_the_square_of_sam3_has_levels_from_minus_one_to_one() -> None:
    """As its image processor: torchvision resizes 8-bit levels, then 127.5 is taken off and divided by."""
    image = np.random.default_rng(2).integers(0, 256, (30, 90, 3), dtype=np.uint8)
    given = stretched_input(image, 64, halves=True)
    levels = given * 127.5 + 127.5
    assert np.allclose(levels, levels.round(), atol=1e-4)
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]
    exact = torch.nn.functional.interpolate(planes, (64, 64), mode="bilinear", antialias=True).numpy()
    assert np.abs(levels - exact).max() < 1.6


@pytest.mark.skipif("sam3" not in NAMES, reason="this transformers has no SAM 3")
def test_sam3s_tracker_is_found_in_the_published_model(folders: dict[str, str], tmp_path: Path) -> None:
    """The published file is SAM 3 for videos: its configuration has the tracker's, its weights have other names."""
    import json

    from safetensors.torch import save_file

    config = json.loads((Path(folders["sam3"]) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam3_video", "tracker_config": config}))
    whole = sam_transformers.sam3(folders["sam3"]).model.state_dict()
    begins = {
        "vision_encoder.backbone.": "detector_model.vision_encoder.backbone.",
        "vision_encoder.neck.": "tracker_neck.",
    }
    published = {}
    for name, values in whole.items():
        begin = next((begin for begin in begins if name.startswith(begin)), "")
        published[begins.get(begin, "tracker_model.") + name.removeprefix(begin)] = values.clone()
    save_file(published, tmp_path / "model.safetensors", metadata={"format": "pt"})
    part = sam_transformers.sam3(str(tmp_path)).model.state_dict()
    for name, values in whole.items():
        assert torch.equal(values, part[name]), name


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_not_here_says_how_to_get(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be loaded.*hf download someone/no-such-model --revision v2"):
        method_spec(name, ["model=someone/no-such-model", "revision=v2"]).build()
    with pytest.raises(InputError, match=f"methods fetch {name}, or name a folder"):
        method_spec(name, [f"model={load_card(name).hub}", "revision=main"]).build()


def test_what_a_user_gets_wrong(folders: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refuses(r"cannot be loaded.*config\.json", lambda: sam_transformers.sam(str(tmp_path)))
    other = next(folder for name, folder in folders.items() if name == "sam-hq")
    refuses("not 'sam'", sam_transformers.sam, other)
    refuses("no device 'nowhere'", lambda: sam_transformers.sam(folders["sam"], device="nowhere"))
    assert capfd.readouterr().err == ""


def test_weights_that_are_not_whole(folders: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((Path(folders["sam"]) / "config.json").read_text())
    weights = load_file(Path(folders["sam"]) / "model.safetensors")
    lost = "mask_decoder.iou_token.weight"
    kept = {key: value for key, value in weights.items() if key != lost}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refuses(f"lacks 1 of the model's weights: {lost}", lambda: sam_transformers.sam(str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    refuses("cannot be loaded", lambda: sam_transformers.sam(str(tmp_path)))
