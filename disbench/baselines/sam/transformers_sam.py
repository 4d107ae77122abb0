"""SAM, SAM-HQ and SAM 2 with the transformers library, with our own preprocessing.

The library's image processors are not used (SAM 2's needs torchvision). Preprocessing follows the authors' predictors:
SAM and SAM-HQ resize the long side and pad, SAM 2 stretches the image to a square. `candidates=3` offers the three
multi-mask candidates at every click, or with `later=1` at the first click only. `candidates=1` offers one: the best of
the three by the model's score for one click, the single-mask token's from two clicks on (SAM 2: the best of the three
if that one is unstable, as in the authors' code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disbench.baselines.sam.session import (
    MEAN,
    STD,
    Candidates,
    Decoded,
    Prompt,
    SamMethod,
    best,
    inner_size,
    on_device,
    padded_input,
    points,
    unpadded,
)
from disbench.core.arrays import Float32Array
from disbench.core.errors import InputError, import_extra, one_line, opencv
from disbench.core.prediction import RgbImage

Size = tuple[int, int]
MOST_LOGIT = 32.0  # SAM 2's predictor clips the logits that it returns for feedback
_HALF = np.full(3, 127.5, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Family:
    """The differences between the models.

    Attributes:
        types: accepted values of `model_type` in a configuration.
        hub: name of the default model on Hugging Face.
        stretches: the image is stretched to the encoder's square, not padded, and fed-back logits are clipped to
            [-32, 32].
        halves: the stretched image is rounded to 8 bits and scaled to [-1, 1] instead of SAM's normalisation.
    """

    name: str
    model_class: str
    types: tuple[str, ...]
    hub: str
    stretches: bool = False
    halves: bool = False


class TransformersSam(SamMethod):
    """A method of one family, made by the functions at the end of this file."""

    def __init__(
        self,
        family: Family,
        model: str,
        revision: str = "main",
        feedback: bool = True,
        candidates: Candidates = 3,
        later: Candidates = 3,
        device: str = "cpu",
    ) -> None:
        self.family, self.model = family, load_model(family, model, revision, device)
        part = "prompt_encoder_config" if family.stretches else "vision_config"
        self.side = int(getattr(self.model.config, part).image_size)
        super().__init__(self._encode, feedback, candidates, later)

    def decode(self, prompts: Sequence[Prompt]) -> list[Decoded]:
        """Decode prompts with equal numbers of clicks and previous logits in all or none."""
        import torch  # noqa: PLC0415

        clicks, logits = len(prompts[0].clicks), [p.previous for p in prompts if p.previous is not None]
        previous = np.stack(logits)[:, None] if logits else None
        if previous is not None and self.family.stretches:
            previous = previous.clip(-MOST_LOGIT, MOST_LOGIT)
        labels = [[[int(click.positive) for click in prompt.clicks]] for prompt in prompts]
        with torch.inference_mode():
            found = self.model(
                **_joined([prompt.encoding for prompt in prompts]),
                input_points=self._tensor(self._points(prompts)),
                input_labels=torch.tensor(labels, device=self.model.device),
                input_masks=None if previous is None else self._tensor(previous),
                multimask_output=clicks == 1 or self.offers_three(clicks),
            )
        masks, scores = found.pred_masks[:, 0].cpu().numpy(), found.iou_scores[:, 0].cpu().numpy()
        answers = [Decoded(*answer) for answer in zip(masks, scores, strict=True)]
        return answers if self.offers_three(clicks) else [best(answer) for answer in answers]

    def upsampled(self, low: Float32Array, size: Size) -> Float32Array:
        """Resize a mask's logits (low, low) to the image's size (height, width)."""
        if not self.family.stretches:
            return unpadded(low, size, self.side)
        logits: Float32Array = opencv().resize(low, size[::-1])
        return logits

    def _encode(self, image: RgbImage) -> dict[str, Any]:
        import torch  # noqa: PLC0415

        stretches, halves = self.family.stretches, self.family.halves
        pixels = stretched_input(image, self.side, halves) if stretches else padded_input(image, self.side)
        with torch.inference_mode():
            found = self.model.get_image_embeddings(self._tensor(pixels))
        if isinstance(found, tuple):  # SAM-HQ; its decoder uses only the first global-attention layer
            return {"image_embeddings": found[0], "intermediate_embeddings": [found[1][0]]}
        return {"image_embeddings": found}

    def _points(self, prompts: Sequence[Prompt]) -> Float32Array:
        """Clicks in the encoder's frame: float32 (prompts, 1, clicks, 2); the model adds the padding point."""
        scaled = []
        for prompt in prompts:
            inner = (self.side, self.side) if self.family.stretches else inner_size(prompt.size, self.side)
            scale = inner[1] / prompt.size[1], inner[0] / prompt.size[0]
            if self.family.halves:  # transformers computes in float32, SAM's authors in float64
                scale = np.float32(scale[0]), np.float32(scale[1])  # type: ignore[assignment]
            scaled.append(points(prompt.clicks, scale)[None])
        return np.stack(scaled)

    def _tensor(self, array: Float32Array) -> Any:
        import torch  # noqa: PLC0415

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.device)


def load_model(family: Family, model: str, revision: str, device: str) -> Any:
    """Load a model in float32 onto its device from local files; safetensors only, no pickles.

    Never downloads: workers would all do so at once, each with a timeout.
    """
    model_class = getattr(import_extra("transformers", "models", family.name), family.model_class)
    folder = Path(model).expanduser()
    place = str(folder) if folder.is_dir() else model
    source = {"revision": revision, "local_files_only": True}
    try:
        with _quiet():
            config, _ = model_class.config_class.get_config_dict(place, **source)
            if (found := config.get("model_type")) not in family.types:
                raise OSError(f"model type is {found!r}, not {family.types[0]!r}")
            loaded, report = model_class.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, **source
            )
            if lacking := sorted(report["missing_keys"]):
                raise OSError(f"it lacks {len(lacking)} of the model's weights: {lacking[0]}")
    except Exception as error:  # transformers, safetensors and the hub share no exception class
        words = one_line(str(error))
        fetch = f"hf download {model} --revision {revision}"
        if model == family.hub and revision == "main":
            fetch = f"disbench methods fetch {family.name}"
        fix = "" if folder.is_dir() else f"run once, with a network: {fetch}, or "
        raise InputError(
            f"{family.name}: the model {model} (revision {revision}) cannot be loaded ({words}); {fix}name a folder "
            "with config.json and model.safetensors by --set model=FOLDER"
        ) from error
    return on_device(loaded.float().eval(), device, family.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' progress bars and log messages: errors are one sentence."""
    from transformers import utils  # noqa: PLC0415

    logging: Any = utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _joined(encodings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    def join(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], list):
            return [join(tensors) for tensors in zip(*parts, strict=True)]
        return torch.cat(list(parts))

    return {name: join([encoding[name] for encoding in encodings]) for name in encodings[0]}


def stretched_input(image: RgbImage, side: int, halves: bool = False) -> Float32Array:
    """SAM 2's encoder input, float32 (1, 3, side, side): the image stretched (bilinear, antialiased) and normalised.

    With `halves`, SAM 3's input: rounded to 8 bits and scaled from [0, 255] to [-1, 1].
    """
    import torch  # noqa: PLC0415

    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    planes = planes if halves else planes.float()
    square = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear", align_corners=False, antialias=True)
    levels: Float32Array = square.numpy().astype(np.float32)
    mean, deviation = (_HALF, _HALF) if halves else (MEAN, STD)
    normalised: Float32Array = (levels - mean[:, None, None]) / deviation[:, None, None]
    return normalised


SAM = Family("sam", "SamModel", types=("sam",), hub="facebook/sam-vit-base")
SAM_HQ = Family("sam-hq", "SamHQModel", types=("sam_hq",), hub="syscv-community/sam-hq-vit-base")
SAM_2 = Family("sam2", "Sam2Model", ("sam2", "sam2_video"), "facebook/sam2.1-hiera-tiny", stretches=True)
SLIM_SAM = Family("slimsam", "SamModel", types=("sam",), hub="Zigeng/SlimSAM-uniform-50")
SAM_3 = Family("sam3", "Sam3TrackerModel", ("sam3_tracker", "sam3_video"), "facebook/sam3", stretches=True, halves=True)


def method_of(family: Family) -> Callable[..., TransformersSam]:
    """The function that builds a method of a family from its card's options."""

    def make(
        model: str = family.hub,
        revision: str = "main",
        feedback: bool = True,
        candidates: Candidates = 3,
        later: Candidates = 3,
        device: str = "cpu",
    ) -> TransformersSam:
        return TransformersSam(family, model, revision, feedback, candidates, later, device)

    return make


sam = method_of(SAM)  # SAM (Kirillov et al., ICCV 2023)
sam_hq = method_of(SAM_HQ)
"""SAM-HQ (Ke et al., NeurIPS 2023): the high-quality token's logits are added to each mask.

transformers returns the three candidates sorted by score; the authors' own code returns only the best.
"""
sam2 = method_of(SAM_2)  # SAM 2 (Ravi et al., 2024) on single images
slimsam = method_of(SLIM_SAM)  # SlimSAM (Chen, Fang, Ma, Wang, NeurIPS 2024): SAM, pruned and distilled
sam3 = method_of(SAM_3)  # SAM 3's tracker (Carion et al., 2025) on single images: clicks, not concepts
