"""Compare logits, scores and masks of SlimSAM and SAM 3's tracker with transformers' own processor and model.

    python benchmarks/peers/processors.py --data DIR [--images 5]

Needs disbench[models], and torchvision for the library's processors. Uses tiny models with random weights, and three
clicks on each image of GrabCut, with the logits of the best mask fed back.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from disbench.baselines.sam.transformers_sam import MOST_LOGIT, SAM_3, SLIM_SAM, Family, TransformersSam
from disbench.core.clicks import Click

SIDE = 112
CLICKS = [Click(100, 80, True), Click(20, 150, False), Click(160, 60, True)]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 14, "mask_input_channels": 8}
DECODER = {**SMALL, "mlp_dim": 64, "iou_head_hidden_dim": 32}
ENCODER = {**SMALL, "image_size": SIDE, "patch_size": 14, "window_size": 4, "global_attn_indexes": [1]}


def slimsam() -> tuple[Any, Any]:
    """A tiny model and its processor."""
    vision = {**ENCODER, "output_channels": 32, "num_pos_feats": 16, "mlp_dim": 64}
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)
    image = transformers.SamImageProcessorPil(
        size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}, do_pad=True
    )
    return transformers.SamModel(config), transformers.SamProcessor(image)


def sam3() -> tuple[Any, Any]:
    """A tiny model and its processor."""
    backbone = {**ENCODER, "model_type": "sam3_vit_model", "intermediate_size": 64, "pretrain_image_size": SIDE}
    vision = {"model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 32}
    vision |= {"backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "scale_factors": [4.0, 2.0, 1.0]}
    config = transformers.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER
    )
    image = transformers.Sam3ImageProcessor(size={"height": SIDE, "width": SIDE})
    return transformers.Sam3TrackerModel(config), transformers.Sam3TrackerProcessor(image)


def compare_model(family: Family, model: Any, processor: Any, images: list[Any]) -> str:
    """A line with the number of bitwise equal answers and the largest differences."""
    for values in model.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.2)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = TransformersSam(family, folder)
    predictions = equal = masks_equal = pixels = 0
    largest = 0.0
    for image in images:
        session, previous = ours.open(image), None
        for count in range(1, len(CLICKS) + 1):
            clicks = CLICKS[:count]
            points, labels = [[[[c.x, c.y] for c in clicks]]], [[[int(c.positive) for c in clicks]]]
            inputs = processor(
                images=Image.fromarray(image), input_points=points, input_labels=labels, return_tensors="pt"
            )
            sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
            with torch.inference_mode():
                outputs = ours.model(
                    pixel_values=inputs["pixel_values"],
                    input_points=inputs["input_points"].float(),
                    input_labels=inputs["input_labels"],
                    input_masks=previous,
                )
            ours_prediction, logits = session.predict(clicks), outputs.pred_masks[0, 0].numpy()
            masks = np.asarray(processor.post_process_masks(outputs.pred_masks, *sizes)[0][0]).astype(bool)
            assert session._low is not None
            scores = outputs.iou_scores[0, 0].numpy()
            predictions += 1
            equal += bool(np.array_equal(session._low, logits) and np.array_equal(ours_prediction.scores, scores))
            masks_equal += bool(np.array_equal(ours_prediction.masks, masks))
            pixels += int((ours_prediction.masks != masks).sum())
            largest = max(largest, float(np.abs(session._low - logits).max()))
            best = int(scores.argmax())
            session.keep(best)
            max_logit = MOST_LOGIT if family.stretches else None
            previous = torch.from_numpy(
                logits[best] if max_logit is None else logits[best].clip(-max_logit, max_logit)
            )[None, None]
    return (
        f"{family.name}: logits and scores of {equal} of {predictions} answers equal in every bit, largest difference "
        f"{largest:.2g}; masks of {masks_equal} equal, {pixels} pixels differ"
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    paths = sorted((arguments.data / "GrabCut/data_GT").iterdir())[: arguments.images]
    images = [np.array(Image.open(path).convert("RGB")) for path in paths]
    for family, make in ((SLIM_SAM, slimsam), (SAM_3, sam3)):
        print(compare_model(family, *make(), images))


if __name__ == "__main__":
    main()
