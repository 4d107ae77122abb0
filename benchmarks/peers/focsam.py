"""FocSAM's own evaluation of a few images, and the adapter with the clicks that it made: is every mask the same?

    PYTHON focsam.py --repo DIR --data DIR [--images 4] [--clicks 4]

Its clicks are drawn at random, so `compare.py` cannot make them; here they are taken down. Runs in FocSAM's own Python
(the environment of its card, with the modules that the card stands in for). The network is FocSAM's own class, narrow,
with random weights. Both sides use torchvision's deformable convolution if mmcv was built without its operators.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ADAPTERS = Path(__file__).resolve().parents[2] / "disbench/baselines/bridge/adapters.py"


def adapters() -> Any:
    """The module of the adapters."""
    spec = importlib.util.spec_from_file_location("adapters", ADAPTERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(repo: Path, folder: Path) -> str:
    """The checkpoint of a narrow network, in a folder with its configuration."""
    config = importlib.import_module("mmengine.config").Config.fromfile(
        str(repo / "configs/focsam/focsam_vit_huge_eval.py"), import_custom_modules=False
    )
    config.model.backbone.update(embed_dim=64, depth=4, num_heads=2, global_attn_indexes=(1, 3))
    config.model.refine_head.update(depth=2)
    config.model.pop("init_cfg")
    config.dump(str(folder / "config.py"))
    wanted = dict(config.model, data_preprocessor=config.data_preprocessor)
    net = importlib.import_module("mmseg.registry").MODELS.build(wanted)
    for values in net.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.15)
    torch.save({"state_dict": net.state_dict()}, folder / "weights.pth")
    return str(folder / "weights.pth")


def theirs(net: Any, image: Any, goal: Any) -> tuple[list[Any], list[Any]]:
    """Clicks, (y, x, kind) each, and the mask after each, 0 and 1, of its `interact_test`."""
    structures = importlib.import_module("mmseg.structures")
    pixels = importlib.import_module("mmengine.structures").PixelData
    sample = structures.SegDataSample(gt_sem_seg=pixels(data=torch.from_numpy(goal)[None].long()))
    sample.set_metainfo({"img_shape": goal.shape, "ori_shape": goal.shape})
    planes = torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1).copy())
    with torch.no_grad():
        clicks, masks, _ = net.test_step({"inputs": [planes], "data_samples": [sample]})
    return clicks, masks


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--clicks", type=int, default=4)
    arguments = parser.parse_args()
    repo = arguments.repo.resolve()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    load = adapters()
    sys.path[:0] = [str(repo), str(repo / "mmsegmentation")]
    load.complete_operators(importlib.import_module)
    importlib.import_module("focsam")
    importlib.import_module("mmengine.registry").init_default_scope("mmseg")
    equal, moved, shares = 0, 0, []
    with tempfile.TemporaryDirectory() as place:
        model = load.focsam(str(repo), network(repo, Path(place)), {}, "cpu")
        net = model.parts[1]
        net.test_cfg["num_clicks"] = arguments.clicks
        positive = importlib.import_module("engine.utils.click").CLK_POSITIVE
        for path in sorted((arguments.data / "GrabCut/data_GT").iterdir())[: arguments.images]:
            (mask,) = (arguments.data / "GrabCut/boundary_GT").glob(f"{path.stem}.*")
            image = np.array(Image.open(path).convert("RGB"))
            goal = (np.array(Image.open(mask).convert("L")) > 128).astype(np.uint8)
            clicks, masks = theirs(net, image, goal)
            given = [(x, y, kind == positive) for y, x, kind in clicks]
            session = model.open(image)
            mine = [session.predict(given[:count])[0][0] for count in range(1, len(given) + 1)]
            wanted = [found[: goal.shape[0], : goal.shape[1]] == 1 for found in masks]
            equal += sum(np.array_equal(one, other) for one, other in zip(mine, wanted, strict=True))
            moved += len({one.tobytes() for one in wanted}) > 1
            shares += [float(one.mean()) for one in wanted]
    print(
        f"{equal} of {len(shares)} masks equal in every pixel; a mask is {min(shares):.3f} to {max(shares):.3f} of its "
        f"image; on {moved} of {arguments.images} images it moves"
    )


if __name__ == "__main__":
    main()
