"""Compare the masks of a peer's own evaluation of a few images with the adapter's masks for the same clicks.

    PYTHON random_clicks.py focsam|interformer --repo DIR --data DIR [--images 4] [--clicks 4]

These peers place clicks at random, so `compare.py` cannot reproduce them; here they are recorded. Runs in the peer's
Python (`python` of its installation). The network is a narrow one of the peer's own class with random weights. For
FocSAM both sides use torchvision's deformable convolution if mmcv was built without its operators.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import calibrate
from PIL import Image

Images = list[tuple[str, Any, Any]]
"""Name, image (RGB) and ground truth (1, 0, 255 ignored) of each."""
PeerResults = Iterator[tuple[Any, list[tuple[int, int, bool]], list[Any]]]
"""For each image: the adapter's model, the clicks (x, y, positive), and the peer's masks after each click, bool."""
ADAPTERS = Path(__file__).resolve().parents[2] / "disbench/baselines/bridge/adapters.py"


def adapters() -> Any:
    """Import the adapters' module."""
    spec = importlib.util.spec_from_file_location("adapters", ADAPTERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def focsam_network(repo: Path, folder: Path) -> str:
    """Write the checkpoint of a narrow network and its configuration to a folder."""
    config = importlib.import_module("mmengine.config").Config.fromfile(
        str(repo / "configs/focsam/focsam_vit_huge_eval.py"), import_custom_modules=False
    )
    config.model.backbone.update(embed_dim=64, depth=4, num_heads=2, global_attn_indexes=(1, 3))
    config.model.refine_head.update(depth=2)
    config.model.pop("init_cfg")
    config.dump(str(folder / "config.py"))
    model_config = dict(config.model, data_preprocessor=config.data_preprocessor)
    net = importlib.import_module("mmseg.registry").MODELS.build(model_config)
    for values in net.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.15)
    torch.save({"state_dict": net.state_dict()}, folder / "weights.pth")
    return str(folder / "weights.pth")


def focsam_masks(net: Any, image: Any, target: Any) -> tuple[list[Any], list[Any]]:
    """Clicks, (y, x, kind) each, and the mask after each, 0 and 1, from FocSAM's `interact_test`."""
    structures = importlib.import_module("mmseg.structures")
    pixels = importlib.import_module("mmengine.structures").PixelData
    sample = structures.SegDataSample(gt_sem_seg=pixels(data=torch.from_numpy(target)[None].long()))
    sample.set_metainfo({"img_shape": target.shape, "ori_shape": target.shape})
    planes = torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1).copy())
    with torch.no_grad():
        clicks, masks, _ = net.test_step({"inputs": [planes], "data_samples": [sample]})
    return clicks, masks


def focsam(repo: Path, folder: Path, images: Images, clicks: int) -> PeerResults:
    """FocSAM's `interact_test`."""
    load = adapters()
    sys.path[:0] = [str(repo), str(repo / "mmsegmentation")]
    load.complete_operators(importlib.import_module)
    importlib.import_module("focsam")
    importlib.import_module("mmengine.registry").init_default_scope("mmseg")
    model = load.focsam(str(repo), focsam_network(repo, folder), {}, "cpu")
    net = model.parts[1]
    net.test_cfg["num_clicks"] = clicks
    positive = importlib.import_module("engine.utils.click").CLK_POSITIVE
    for _, image, target in images:
        peer_clicks, masks = focsam_masks(net, image, (target == 1).astype(np.uint8))
        yield model, [(x, y, kind == positive) for y, x, kind in peer_clicks], [mask == 1 for mask in masks]


def interformer(repo: Path, folder: Path, images: Images, clicks: int) -> PeerResults:
    """InterFormer's `tools/clicktest.py`, run as a command; it clicks and evaluates on the padded image."""
    sys.path[:0] = [str(repo), str(repo / "mmsegmentation")]
    mmcv = importlib.import_module("mmcv")
    segmentor = importlib.import_module("interformer.segmentors").ClickSegmentor
    config = mmcv.Config.fromfile(str(repo / "configs/interformer_light_coco_lvis_320k.py"))
    config.model.backbone.update(embed_dims=192, num_layers=4, num_heads=3)
    config.model.pretrained = None
    config.dump(str(folder / "config.py"))
    weights = str(folder / "weights.pth")
    net = importlib.import_module("mmseg.models").build_segmentor(config.model)
    torch.save({"state_dict": net.state_dict()}, weights)
    options = {"inner_radius": 5.0, "outer_radius": 0.0, "divisor": 32}
    model = adapters().interformer(str(repo), weights, options, "cpu")
    net = model.parts[1]

    def predict() -> None:
        for _, image, _ in images[:2]:
            session, (height, width) = model.open(image), image.shape[:2]
            session.predict([(width // 2, height // 2, True)])
            session.predict([(width // 5, height // 3, False)])

    calibrate(net, "decode_head.conv_seg", predict)
    torch.save({"state_dict": net.state_dict()}, weights)
    data_folder = folder / "data/grabcut"
    data_folder.mkdir(parents=True)
    for name, image, target in images:
        Image.fromarray(image).save(data_folder / f"{name}.png")
        Image.fromarray(target).save(data_folder / f"{name}#001.png")
    peer_clicks: list[Any] = []
    masks: list[Any] = []
    original_mark, original_follow = segmentor.update_ref_label_by_point_lists, segmentor.update_ref_label_by_prediction

    def record_clicks(*, point_lists: Any, **options: Any) -> Any:
        peer_clicks.extend(point for points in point_lists for point in points)
        return original_mark(point_lists=point_lists, **options)

    def record_mask(label: Any, mask: Any) -> Any:
        masks.append(mask[0, 0].numpy() == 1)
        return original_follow(label, mask)

    segmentor.update_ref_label_by_point_lists = staticmethod(record_clicks)
    segmentor.update_ref_label_by_prediction = staticmethod(record_mask)
    sys.argv = ["clicktest.py", weights, "--dataset", "grabcut", "--num_clicks", str(clicks)]
    os.chdir(folder)
    runpy.run_path(str(repo / "tools/clicktest.py"), run_name="__main__")
    segmentor.update_ref_label_by_point_lists = staticmethod(original_mark)
    segmentor.update_ref_label_by_prediction = staticmethod(original_follow)
    (report,) = folder.glob("clicktest_*.json")
    print("its IoUs:", json.loads(report.read_text())["iou_per_click"])
    for number in range(len(images)):
        selected = slice(number * clicks, (number + 1) * clicks)
        yield model, [(x, y, kind == "positive") for y, x, kind in peer_clicks[selected]], masks[selected]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=("focsam", "interformer"))
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--clicks", type=int, default=4)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images: Images = []
    for path in sorted((arguments.data / "GrabCut/data_GT").iterdir())[: arguments.images]:
        (mask,) = (arguments.data / "GrabCut/boundary_GT").glob(f"{path.stem}.*")
        values = np.array(Image.open(mask).convert("L"))
        target = np.where(values == 128, 255, values > 128).astype(np.uint8)
        images.append((path.stem, np.array(Image.open(path).convert("RGB")), target))
    equal, moved, areas = 0, 0, []
    with tempfile.TemporaryDirectory() as scratch:
        evaluation = focsam if arguments.peer == "focsam" else interformer
        results = evaluation(arguments.repo.resolve(), Path(scratch), images, arguments.clicks)
        for (_, image, target), (model, clicks, masks) in zip(images, results, strict=True):
            session = model.open(image)
            ours = [session.predict(clicks[:count])[0][0] for count in range(1, len(clicks) + 1)]
            theirs = [mask[: target.shape[0], : target.shape[1]] for mask in masks]
            equal += sum(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
            moved += len({one.tobytes() for one in theirs}) > 1
            areas += [float(one.mean()) for one in theirs]
    print(
        f"{equal} of {len(areas)} masks equal in every pixel; a mask is {min(areas):.3f} to {max(areas):.3f} of its "
        f"image; on {moved} of {arguments.images} images it moves"
    )


if __name__ == "__main__":
    main()
