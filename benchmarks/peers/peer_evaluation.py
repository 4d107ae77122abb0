"""Run a peer's own evaluation in the peer's Python, and record the IoU after every click.

    PYTHON peer_evaluation.py KIND --repo DIR --checkpoint FILE --data DIR --clicks N --out FILE -- ARGUMENTS

Started by `compare.py`. The peer's script or function runs unchanged; only its results are recorded, since the scripts
print only means.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def isegm(arguments: argparse.Namespace, name: str = "scripts/evaluate_model.py") -> list[list[float]]:
    """`scripts/evaluate_model.py` of RITM and systems built on it, on GrabCut, run as a command."""
    (script,) = [path.resolve() for path in Path().rglob(name)]
    sys.path.insert(0, str(script).removesuffix(f"/{name}"))
    evaluation = importlib.import_module("isegm.inference.evaluation")
    ious: list[list[float]] = []
    evaluate = evaluation.evaluate_dataset

    def record(*args: Any, **options: Any) -> Any:
        results = evaluate(*args, **options)
        ious.extend([float(iou) for iou in ious] for ious in results[0])
        raise SystemExit  # the rest only averages and prints

    evaluation.evaluate_dataset = record
    sys.argv = [str(script), *arguments.script_arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit:
        if not ious:
            raise
    return ious


def graco(arguments: argparse.Namespace) -> list[list[float]]:
    """GraCo's `evaluate.py`, without CLIP, which is only used for phrases and would be downloaded.

    Over the ten granularities (`--graco`), its predictor carries the zoom-in over to the first click of the next; here
    each granularity starts from the whole image.
    """
    torch = importlib.import_module("torch")
    phrases = importlib.import_module("isegm.model.is_plainvit_graco_two_signal_model_lora")
    phrases.ClipTextEncoder = lambda **_: torch.nn.Identity()
    clicker, base = (importlib.import_module(f"isegm.inference.{name}") for name in ("clicker", "predictors.base"))
    predictors: list[Any] = []
    original_begin, original_reset = base.BasePredictor.set_input_image, clicker.Clicker.reset_clicks

    def begin_image(predictor: Any, image: Any) -> None:
        original_begin(predictor, image)
        predictors[:] = [predictor]

    def reset_zoom(clicks: Any) -> None:
        original_reset(clicks)
        for predictor in predictors:
            predictor.set_input_image(predictor.original_image)

    base.BasePredictor.set_input_image, clicker.Clicker.reset_clicks = begin_image, reset_zoom
    return isegm(arguments, "evaluate.py")


def fcfi(arguments: argparse.Namespace) -> list[list[float]]:
    """FCFI's script, with GrabCut's path corrected: its configuration names a folder of its authors."""
    experiments = importlib.import_module("isegm.utils.exp")
    original_load = experiments.load_config_file

    def load_with_local_paths(*args: Any, **options: Any) -> Any:
        config = original_load(*args, **options)
        config.GRABCUT_PATH, config.EXPS_PATH = arguments.data, str(Path(arguments.out).parent)
        return config

    experiments.load_config_file = load_with_local_paths
    return isegm(arguments)


def focuscut(arguments: argparse.Namespace) -> list[list[float]]:
    """`validation_robot` of FocusCut's `main.py`, with GrabCut's files in its dataset layout.

    Its code calls `.cuda()` everywhere, which is ignored here.
    """
    stay_on_cpu(importlib.import_module("torch"))
    scratch = Path(arguments.out).parent
    for name in ("img", "gt", "list"):
        (scratch / "focus/GrabCut" / name).mkdir(parents=True)
    stems = []
    for path in sorted(Path(arguments.data, "data_GT").iterdir()):
        stems.append(path.stem)
        (scratch / "focus/GrabCut/img" / path.name).symlink_to(path.resolve())
        (mask,) = Path(arguments.data, "boundary_GT").glob(path.stem + ".*")
        values = np.array(Image.open(mask))
        values = values if values.ndim == 2 else values[:, :, 0]
        labels = np.where(values == 128, 255, values > 128).astype(np.uint8)
        Image.fromarray(labels).save(scratch / "focus/GrabCut/gt" / f"{path.stem}.png")
    for name in ("train", "val"):
        (scratch / f"focus/GrabCut/list/{name}.txt").write_text("\n".join(stems))
    helpers = importlib.import_module("helpers")
    ious: list[list[float]] = []

    def capture(record: Any, **options: Any) -> Any:
        ious.extend([float(iou) for iou in record[stem]["ious"][1:]] for stem in stems)
        raise SystemExit

    helpers.get_noc_miou = capture
    count, sets = str(arguments.clicks), ["-dp", str(scratch / "focus"), "-dv", "GrabCut", "-dt", "GrabCut"]
    sys.argv = ["main.py", "-v", "-r", arguments.checkpoint, *sets, "-sp", str(scratch / "log"), "-mpn", count]
    sys.argv += ["-rpn", count, *arguments.script_arguments]
    try:
        runpy.run_path("main.py", run_name="__main__")
    except SystemExit:
        if not ious:
            raise
    return ious


def stay_on_cpu(torch: Any) -> None:
    """Ignore `.cuda()` and `.to("cuda")`."""
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda this, *args, **options: this
    move = torch.Tensor.to
    torch.Tensor.to = lambda this, *args, **options: this if args == ("cuda",) else move(this, *args, **options)


def semantic_sam(arguments: argparse.Namespace) -> list[list[float]]:
    """The `SemanticSAMPredictor` of Semantic-SAM's README with the first click; the best-scored of its six masks.

    Its `prepare_image` reads and shrinks the image, its `sem_seg_postprocess` resizes the masks' logits back. All six
    masks (COCO run lengths) and their scores are recorded in candidates.json.
    """
    torch, coco = importlib.import_module("torch"), importlib.import_module("pycocotools.mask")
    stay_on_cpu(torch)
    sys.modules["MultiScaleDeformableAttention"] = type(sys)("MultiScaleDeformableAttention")  # for CUDA alone
    peer = importlib.import_module("semantic_sam")
    build, modules = (importlib.import_module(f"semantic_sam.{name}") for name in ("build_semantic_sam", "modules"))
    read = build.load_opt_from_config_file

    def described(file: str) -> Any:
        config = read(file)
        config["MODEL"]["BACKBONE"]["LOAD_PRETRAINED"] = False  # a download that the checkpoint replaces
        return config

    build.load_opt_from_config_file = described
    predictor = peer.SemanticSAMPredictor(peer.build_semantic_sam(arguments.script_arguments[0], arguments.checkpoint))
    found, candidates = [], []
    folder = Path(arguments.data)
    for path, (_, target) in zip(sorted((folder / "data_GT").iterdir()), grabcut(folder), strict=True):
        x, y, _ = center(target, np.zeros(target.shape, dtype=bool), [])
        height, width = target.shape
        small, planes = peer.prepare_image(path)
        with torch.no_grad():  # as in its demo.py
            logits, scores = predictor.predict(small, planes, [[x / width, y / height]])
            masks = modules.sem_seg_postprocess(logits, small.shape[:2], height, width).numpy() > 0
        scores = scores[0, 0].tolist()
        found.append([_iou(masks[int(np.argmax(scores))], target)])
        runs = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
        candidates.append([[one["counts"].decode(), score] for one, score in zip(runs, scores, strict=True)])
    Path(arguments.out).with_name("candidates.json").write_text(json.dumps(candidates))
    return found


def sam(arguments: argparse.Namespace) -> list[list[float]]:
    """A plain loop around SAM's own predictor, since SAM has no click-based evaluation.

    Three masks at each click; the one with the best score is kept and its logits are fed back; RITM's clicks.
    """
    peer = importlib.import_module("segment_anything")
    net = peer.sam_model_registry[arguments.script_arguments[0]](checkpoint=arguments.checkpoint)
    net.eval()
    return of_predictor(peer.SamPredictor(net), arguments)


def sam2(arguments: argparse.Namespace) -> list[list[float]]:
    """The same loop around SAM 2's image predictor."""
    build = importlib.import_module("sam2.build_sam").build_sam2
    predictors = importlib.import_module("sam2.sam2_image_predictor")
    net = build(arguments.script_arguments[0], arguments.checkpoint, device="cpu")
    return of_predictor(predictors.SAM2ImagePredictor(net), arguments)


def of_predictor(predictor: Any, arguments: argparse.Namespace) -> list[list[float]]:
    """IoUs from SAM's or SAM 2's predictor."""
    return [sam_sample(predictor, *pair, arguments.clicks) for pair in grabcut(Path(arguments.data))]


def sam_sample(predictor: Any, image: Any, target: Any, clicks: int) -> list[float]:
    """IoU after each click on one image; `target` is the ground truth: 1, 0, and 255 for ignored pixels."""
    predictor.set_image(image)
    points: list[list[int]] = []
    labels: list[int] = []
    mask, logits, ious = np.zeros(target.shape, dtype=bool), None, []
    for _ in range(clicks):
        x, y, label = center(target, mask, points)
        points.append([x, y])
        labels.append(label)
        masks, scores, low_resolution = predictor.predict(np.array(points), np.array(labels), mask_input=logits)
        best = int(scores.argmax())
        mask, logits = masks[best] > 0, low_resolution[best][None]
        ious.append(_iou(mask, target))
    return ious


def center(target: Any, mask: Any, points: list[list[int]]) -> tuple[int, int, int]:
    """The next click (x, y, label): the deepest point of the errors, by OpenCV's exact distances."""
    cv2 = importlib.import_module("cv2")
    depths = []
    for error in ((target == 1) & ~mask, (target == 0) & mask):
        padded = np.pad(error.astype(np.uint8), 1)
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1].copy()
        for x, y in points:
            depth[y, x] = 0
        depths.append(depth)
    label = int(depths[0].max() > depths[1].max())
    y, x = np.unravel_index(depths[1 - label].argmax(), target.shape)
    return int(x), int(y), label


def grabcut(folder: Path) -> list[tuple[Any, Any]]:
    """Images (RGB) and ground truth (1, 0, 255 ignored) of GrabCut, sorted by name."""
    cv2 = importlib.import_module("cv2")
    pairs = []
    for path in sorted((folder / "data_GT").iterdir()):
        (mask,) = (folder / "boundary_GT").glob(path.stem + ".*")
        values = cv2.imread(str(mask))[:, :, 0]
        target = np.where(values == 128, 255, values > 128).astype(np.uint8)
        pairs.append((cv2.imread(str(path))[:, :, ::-1].copy(), target))
    return pairs


def fcanet(arguments: argparse.Namespace) -> list[list[float]]:
    """`eval_dataset` of FCANet's `evaluate.py`; records its masks and computes their IoUs the same way."""
    evaluate = importlib.import_module("evaluate")
    evaluate.datasets_kwargs["GrabCut"]["dataset_path"] = arguments.data
    masks: list[Any] = []
    predict = evaluate.predict

    def recorded(*args: Any, **options: Any) -> Any:
        masks.append(predict(*args, **options))
        return masks[-1]

    evaluate.predict = recorded
    model = evaluate.init_model("fcanet", "resnet", arguments.checkpoint, if_cuda=False)
    evaluate.eval_dataset(
        model, "GrabCut", max_point_num=arguments.clicks, record_point_num=arguments.clicks, if_cuda=False
    )
    targets = [gt for _, gt in evaluate.Dataset(**evaluate.datasets_kwargs["GrabCut"])]
    return [
        [_iou(mask, target) for mask in masks[number * arguments.clicks : (number + 1) * arguments.clicks]]
        for number, target in enumerate(targets)
    ]


def iog(arguments: argparse.Namespace) -> list[list[float]]:
    """The steps of IOG's `test.py`, with its own transforms and network.

    Its inside point is the deepest point of the resized mask, which no click gives; here it is the first click.
    """
    torch, cv2 = importlib.import_module("torch"), importlib.import_module("cv2")
    steps, helpers = (importlib.import_module(f"dataloaders.{name}") for name in ("custom_transforms", "helpers"))
    net = importlib.import_module("networks.mainnetwork").Network()
    net.load_state_dict(torch.load(arguments.checkpoint, map_location="cpu"))
    net.eval()
    elements, side = ("image", "gt", "void_pixels"), (512, 512)
    sizes = {"gt": None, **{f"crop_{name}": side for name in elements}}
    transforms = [
        steps.CropFromMask(crop_elems=elements, relax=30, zero_pad=True),
        steps.FixedResize(resolutions=sizes, flagvals=dict.fromkeys(sizes, cv2.INTER_LINEAR)),
        steps.IOGPoints(sigma=10, elem="crop_gt", pad_pixel=10),
        steps.ToImage(norm_elem="IOG_points"),
        steps.ConcatInputs(elems=("crop_image", "IOG_points")),
        steps.ToTensor(),
    ]
    ious = []
    for image, target in grabcut(Path(arguments.data)):
        gt = (target == 1).astype(np.float32)
        box = helpers.get_bbox(gt, pad=30, zero_pad=True)
        x, y, _ = center(target, np.zeros(target.shape, dtype=bool), [])
        start, size = np.array([box[1], box[0]]), np.array([box[3] - box[1] + 1, box[2] - box[0] + 1])
        inside = np.round((np.array([y, x]) - start + 0.5) * (512 / size) - 0.5).astype(int)
        helpers.getPositon = lambda depths, inside=inside: inside
        sample = {"image": image.astype(np.float32), "gt": gt, "void_pixels": (target == 255).astype(np.float32)}
        for transform in transforms:
            sample = transform(sample)
        with torch.no_grad():
            logits = net(sample["concat"][None])[-1].numpy()[0, 0]
        probability = 1 / (1 + np.exp(-logits))
        mask = helpers.crop2fullmask(probability, box, gt, zero_pad=True, relax=0, mask_relax=False) > 0.5
        ious.append([_iou(mask, target)])
    return ious


def _iou(mask: Any, target: Any) -> float:
    """IoU of a mask of 0 and 1 with the ground truth, ignoring 255."""
    valid = target != 255
    object_, prediction = (target == 1) & valid, (mask == 1) & valid
    return float((object_ & prediction).sum() / (object_ | prediction).sum())


KINDS = {
    **{"isegm": isegm, "graco": graco, "fcfi": fcfi, "fcanet": fcanet, "focuscut": focuscut},
    **{"sam": sam, "sam2": sam2, "semantic_sam": semantic_sam, "iog": iog},
}


def main() -> None:
    """Run a peer's evaluation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    for name in ("repo", "checkpoint", "data", "out"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--clicks", type=int, required=True)
    split = sys.argv.index("--")
    arguments = parser.parse_args(sys.argv[1:split])
    arguments.script_arguments = sys.argv[split + 1 :]
    arguments.data, arguments.out = str(Path(arguments.data).resolve()), str(Path(arguments.out).resolve())
    os.chdir(arguments.repo)
    sys.path.insert(0, arguments.repo)
    ious = KINDS[arguments.kind](arguments)
    Path(arguments.out).write_text(json.dumps([np.float32(ious).tolist() for ious in ious]))


if __name__ == "__main__":
    main()
