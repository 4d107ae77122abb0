"""Random networks in each peer's checkpoint format, for comparisons without trained weights.

    PYTHON networks.py CARD --repo DIR --out FILE --images DIR

Runs in the peer's Python (`python` of its installation); CARD is the name of its card. Normalisation statistics are
computed from a few images, and the last layer is set so that masks are neither empty nor full; they are still
meaningless. FILE is written only when the network is complete.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

CHILD = Path(__file__).resolve().parents[2] / "disbench/baselines/bridge/child.py"
CLICKS = [(0.5, 0.5, True), (0.2, 0.3, False), (0.6, 0.4, True)]
HRNET: dict[str, Any] = {
    "width": 8,
    "ocr_width": 16,
    "with_aux_output": True,
    "use_leaky_relu": True,
    "use_rgb_conv": False,
    "use_disks": True,
    "norm_radius": 5,
    "with_prev_mask": True,
}


@dataclass(frozen=True)
class Recipe:
    """How to make a peer's network.

    Attributes:
        build: builds the network, of the peer's own class; it may be smaller than the published ones.
        last_layer: name of the layer that gives the logits, or of a normalisation after it; "": change nothing.
        options: options of the adapter.
        with_config: the file also contains the network's description (`config`), not only its weights.
        folder: folder of the checkout that contains the package.
        adapter: name of the adapter, if different from the card's.
        weights_key: key of the weights in the file.
        separate: name parts of the weights that go to a second file, OUT.own, the adapter's option `lora`.
        clicks: numbers of clicks to predict with, in order.
    """

    build: Callable[[], Any]
    last_layer: str
    options: dict[str, Any]
    with_config: bool = True
    folder: str = ""
    adapter: str = ""
    weights_key: str = ""
    separate: tuple[str, ...] = ()
    clicks: tuple[int, ...] = (1, 2, 3)


def hrnet(**options: Any) -> Any:
    """The HRNet of RITM, FocalClick and FCFI."""
    return importlib.import_module("isegm.model.is_hrnet_model").HRNetModel(**{**HRNET, **options})


def refined_hrnet() -> Any:
    """EMC-Click's HRNet."""
    module = importlib.import_module("isegm.model.is_refine_model")
    refiner = {"conv_layer": "xconv2", "mid_dims": 64, "corr_channel": 64}
    return module.HRNetRefineModel(small=True, refiner_conf=refiner, only_first_click=True, **HRNET)


def plain_vit(module: str = "is_plainvit_model") -> Any:
    """SimpleClick's or iCMFormer's ViT, with 8 blocks instead of 12 and a quarter of the channels."""
    loss = importlib.import_module("isegm.model.modeling.transformer_helper.cross_entropy_loss")
    return importlib.import_module(f"isegm.model.{module}").PlainVitModel(
        use_disks=True,
        norm_radius=5,
        with_prev_mask=True,
        backbone_params=vit(8, 192),
        neck_params={"in_dim": 192, "out_dims": [32, 64, 128, 256]},
        head_params={
            "in_channels": [32, 64, 128, 256],
            "in_index": [0, 1, 2, 3],
            "dropout_ratio": 0.1,
            "num_classes": 1,
            "loss_decode": loss.CrossEntropyLoss(),
            "align_corners": False,
            "upsample": "x1",
            "channels": 64,
        },
        random_split=False,
    )


def vit(depth: int, width: int) -> dict[str, Any]:
    """Options of a plain vision transformer."""
    return {
        "img_size": (448, 448),
        "patch_size": (16, 16),
        "in_chans": 3,
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // 64,
        "mlp_ratio": 4,
        "qkv_bias": True,
    }


def old_hrnet() -> Any:
    """f-BRS's HRNet, narrower than the published ones."""
    module = importlib.import_module("isegm.model.is_hrnet_model")
    return module.get_hrnet_model(width=8, ocr_width=16, small=True)


def cdnet() -> Any:
    """CDNet's ResNet-34."""
    return importlib.import_module("isegm.model.is_deeplab_model").DeeplabModel(
        backbone="resnet34",
        deeplab_ch=128,
        aspp_dropout=0.2,
        use_leaky_relu=True,
        use_rgb_conv=False,
        use_disks=True,
        norm_radius=5,
        with_prev_mask=False,
    )


def fcanet() -> Any:
    """FCANet's ResNet-101."""
    return importlib.import_module("model.fcanet").FCANet(backbone="resnet")


def focuscut() -> Any:
    """FocusCut's ResNet-50."""
    return importlib.import_module("model.hrcnet_base.my_net").MyNet(
        output_stride=16, size=384, special_lr=1.0, aux_parameter={"backbone": "resnet50", "pretrained": False}
    )


def segnext() -> Any:
    """SegNext's ViT, with 4 blocks instead of 12, a quarter of the channels, and half the input size."""
    return importlib.import_module("isegm.model.is_plainvit_model").PlainVitModel(
        backbone_params={**vit(4, 192), "img_size": (512, 512), "global_atten_freq": 2},
        neck_params={"in_dim": 192, "out_dims": [32, 64, 128, 256]},
        head_params={
            "in_channels": [32, 64, 128, 256],
            "in_select_index": [0, 1, 2, 3],
            "dropout_ratio": 0.1,
            "num_classes": 1,
            "out_channels": 64,
        },
        fusion_params={
            "type": "self_attention",
            "depth": 1,
            "params": {"dim": 192, "num_heads": 3, "mlp_ratio": 4, "qkv_bias": True},
        },
        use_disks=True,
        norm_radius=5,
    )


def piclick() -> Any:
    """PiClick's ViT, with 8 blocks instead of 12 and a quarter of their channels; the position code has 256."""
    return importlib.import_module("isegm.model.is_piclick_model").PiClickModel(
        num_classes=1,
        num_queries=7,
        use_disks=True,
        norm_radius=5,
        with_prev_mask=True,
        backbone_params=vit(8, 192),
        head_params={
            "num_classes": 1,
            "num_queries": 7,
            "in_channels": [256] * 4,
            "feat_channels": 256,
            "out_channels": 256,
            "num_transformer_feat_level": 3,
        },
        neck_params={"in_dim": 192, "out_dims": [256] * 4},
    )


def sam(backbone: str) -> Any:
    """SAM or SAM-HQ."""
    return importlib.import_module("segment_anything").sam_model_registry[backbone]()


def hiera() -> Any:
    """The smallest SAM 2."""
    return importlib.import_module("sam2.build_sam").build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")


def swin_tiny() -> Any:
    """Semantic-SAM with Swin-T; its mask features weigh differences between channels, so masks are mixed."""
    sys.modules["MultiScaleDeformableAttention"] = type(sys)("MultiScaleDeformableAttention")
    peer = importlib.import_module("semantic_sam")
    config = Path(str(peer.__file__)).parents[1] / "configs/semantic_sam_only_sa-1b_swinT.yaml"
    described = importlib.import_module("utils.arguments").load_opt_from_config_file(config)
    described["MODEL"]["BACKBONE"]["LOAD_PRETRAINED"] = False
    net = importlib.import_module("semantic_sam.BaseModel").BaseModel(described, peer.build_model(described))
    features = net.model.sem_seg_head.pixel_decoder.mask_features
    features.weight.data -= features.weight.data.mean(1, keepdim=True)
    features.bias.data.zero_()
    return net


def inside_outside() -> Any:
    """IOG's ResNet-101."""
    return importlib.import_module("networks.mainnetwork").Network(
        nInputChannels=5, num_classes=1, backbone="resnet101", output_stride=16, sync_bn=None, freeze_bn=False
    )


OCR = "feature_extractor.cls_head"
ZOOM = {"flip": True, "crop": 400}
RECIPES: dict[str, Recipe] = {
    "ritm": Recipe(lambda: hrnet(small=True), OCR, {**ZOOM, "mode": "NoBRS", "fixed": False, "clicks_limit": 0}),
    "fbrs": Recipe(old_hrnet, OCR, {**ZOOM, "mode": "NoBRS", "clicks_limit": 0, "radius": 260}, with_config=False),
    "simpleclick": Recipe(plain_vit, "head.conv_seg", {"flip": True, "crop": 448}),
    "icmformer": Recipe(
        lambda: plain_vit("is_icmformer_plainvit_model"),
        "head.conv_seg",
        {"flip": True, "crop": 448},
        adapter="simpleclick",
    ),
    "cfr-icl": Recipe(
        plain_vit,
        "head.conv_seg",
        {"flip": True, "crop": 448, "cascade": 0, "cascade_clicks": 1, "adaptive": False},
        adapter="cfr_icl",
    ),
    "focalclick": Recipe(
        lambda: hrnet(small=True, pipeline_version="s2"),
        OCR,
        {"mode": "FocalClick", "flip": False, "size": 256, "crop": 400, "target_ratio": 1.4, "focus_ratio": 1.4},
    ),
    "cdnet": Recipe(cdnet, "head.layers.2", {"crop": 400, "target_ratio": 1.4}),
    "emc-click": Recipe(refined_hrnet, OCR, {"flip": True, "short": 384}, adapter="emcclick"),
    "fcfi": Recipe(
        lambda: hrnet(mid_ch=64, update_num=1, expansion_ratio=2.0),
        OCR,
        {"flip": True, "crop": 700, "target_ratio": 3.0},
    ),
    "fcanet": Recipe(fcanet, "pred_decoder.pred_conv.6", {"backbone": "resnet", "integrity": False}, with_config=False),
}


SAMS = {"sam-official": "vit_b", "sam-hq-official": "vit_tiny"}
RECIPES |= {
    "focuscut": Recipe(
        focuscut,
        "pred_decoder.pred_conv.0",
        {"backbone": "resnet50", "size": 384, "focus": True, "rounds": 3, "flip": False},
        with_config=False,
    ),
    "segnext": Recipe(segnext, "head.seg_conv", {}, folder="segnext"),
    "piclick": Recipe(piclick, "", {"crop": 448, "max_score": False}),
    **{name: Recipe(partial(sam, backbone), "", {}, with_config=False) for name, backbone in SAMS.items()},
    "sam2-official": Recipe(hiera, "", {}, with_config=False, weights_key="model"),
    "semantic-sam": Recipe(swin_tiny, "", {}, with_config=False),
    "iog": Recipe(
        inside_outside,
        "Fine_net.final_predict.2",
        {"relax": 30, "margin": 10, "side": 512, "sigma": 10.0},
        with_config=False,
        clicks=(3,),
    ),
}


def graco() -> Any:
    """GraCo's ViT, sized like SimpleClick's above, without CLIP (only used for phrases); its added layers are not 0."""
    module = importlib.import_module("isegm.model.is_plainvit_graco_two_signal_model_lora")
    module.ClipTextEncoder = lambda **_: torch.nn.Identity()
    parameters = {name: entry["value"] for name, entry in plain_vit()._config["params"].items() if entry["specified"]}
    parameters["backbone_params"] = {**parameters["backbone_params"], "enable_gra": True}
    net = module.PhraseCLIPGraCoModel_lora(phrase_encoder_params={}, **parameters)
    for name, values in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.2)
    return net


RECIPES["graco"] = Recipe(graco, "head.conv_seg", {"flip": True, "crop": 448}, separate=("lora_", "gra_embed"))


def calibrate(net: Any, last_layer: str, predict: Callable[[], None]) -> None:
    """Compute normalisation statistics, then set the last layer to separate regions within an image.

    A random last layer separates images from each other: its masks are empty or full.

    Args:
        net: the network.
        last_layer: name of the last layer.
        predict: predicts on a few images.
    """
    norms = [module for module in net.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(update_statistics) for norm in norms]
    predict()
    for hook in hooks:
        hook.remove()
    for module in net.modules():
        if type(module).__name__ == "ScaleLayer":  # initially gives clicks almost no weight
            module.scale.data.fill_(1.0)
    layer = net.get_submodule(last_layer)
    if layer in norms:
        return
    layer = layer[-1] if isinstance(layer, torch.nn.Sequential) else layer
    inputs: list[Any] = []
    hook = layer.register_forward_pre_hook(lambda module, arguments: inputs.extend(arguments[0].detach()))
    predict()
    hook.remove()
    direction, shift = within_image_direction([features.flatten(1).T for features in inputs])
    kernel = layer.weight[0, 0].numel()
    with torch.no_grad():  # with two classes, the object is the last
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[-1].copy_((direction / kernel)[:, None, None].expand_as(layer.weight[-1]))
        layer.bias[-1] = -shift


def within_image_direction(features: list[Any]) -> tuple[Any, float]:
    """A direction in which features differ within images rather than between them, and its 60th percentile.

    Args:
        features: (pixels, channels) per image.

    Returns:
        The direction, scaled so that features have a standard deviation of 2 along it, and the percentile.
    """
    pixels = torch.cat([values[:: max(len(values) // 2000, 1)] for values in features]).double()
    means = torch.stack([values.double().mean(0) for values in features])
    between = torch.cov(means.T)
    within = sum(torch.cov(values.double().T) for values in features) / len(features)
    regularized = between + 0.01 * within + 1e-6 * torch.eye(len(within)) * within.diagonal().mean()
    whitening = torch.linalg.inv(torch.linalg.cholesky(regularized))
    direction = whitening.T @ torch.linalg.eigh(whitening @ within @ whitening.T)[1][:, -1]
    projections = pixels @ direction
    direction = direction * (2 / projections.std())
    return direction.float(), float((pixels @ direction).quantile(0.6))


def update_statistics(norm: Any, arguments: tuple[Any, ...]) -> None:
    """Move a normalisation's statistics halfway to those of its input; all the way the first time."""
    inputs = arguments[0].detach().transpose(0, 1).flatten(1)
    if inputs.shape[1] < 16:
        return
    weight = 0.5 if getattr(norm, "followed", False) else 1.0
    norm.followed = True
    norm.running_mean.lerp_(inputs.mean(1), weight)
    norm.running_var.lerp_(inputs.var(1), weight)


def main() -> None:
    """Write a random network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=RECIPES)
    for name in ("repo", "out", "images"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--count", type=int, default=4, help="number of images to use")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    recipe = RECIPES[arguments.peer]
    sys.path.insert(0, str(Path(arguments.repo, recipe.folder)))
    if arguments.peer in ("focuscut", "semantic-sam"):
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda this, *args, **options: this
    net, uncalibrated = recipe.build(), f"{arguments.out}.unsettled"
    if not recipe.last_layer:
        write(recipe, net, arguments.out)
        return
    write(recipe, net, uncalibrated)  # for the adapter to read; OUT is written when complete
    options = (
        {**recipe.options, "lora": str(Path(f"{uncalibrated}.own").resolve())} if recipe.separate else recipe.options
    )
    model = child().adapter_load(recipe.adapter or arguments.peer)(arguments.repo, uncalibrated, options, "cpu")
    images = [np.array(Image.open(path)) for path in sorted(Path(arguments.images).iterdir())[: arguments.count]]
    name = type(net).__name__
    network = next(found for found in gc.get_objects() if type(found).__name__ == name and found is not net)

    def predict() -> None:
        for image in images:
            session = model.open(image)
            height, width = image.shape[:2]
            clicks = [(int(x * width), int(y * height), positive) for x, y, positive in CLICKS]
            for count in recipe.clicks:
                session.predict(clicks[:count])
                if hasattr(session, "keep"):
                    session.keep(0)

    calibrate(network, recipe.last_layer, predict)
    net.load_state_dict(network.state_dict(), strict=False)
    write(recipe, net, arguments.out)
    for file in (uncalibrated, f"{uncalibrated}.own"):
        Path(file).unlink(missing_ok=True)


def write(recipe: Recipe, net: Any, out: str) -> None:
    """Write the checkpoint."""
    weights = net.state_dict()
    separate = {name: weights.pop(name) for name in list(weights) if any(part in name for part in recipe.separate)}
    if separate:
        torch.save({"state_dict": separate, "config": net._config}, f"{out}.own")
    content = {recipe.weights_key: weights} if recipe.weights_key else weights
    torch.save({"state_dict": weights, "config": net._config} if recipe.with_config else content, out)


def child() -> Any:
    """Import the module that runs adapters."""
    spec = importlib.util.spec_from_file_location("child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
