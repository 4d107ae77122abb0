"""Run a peer's own evaluation, in the peer's own Python, and write down the IoU after every click.

    PYTHON theirs.py KIND --repo DIR --checkpoint FILE --data DIR --clicks N --out FILE -- ARGUMENTS

`compare.py` starts this. What evaluates is the peer's script or function, unchanged; only what it returns is
taken down, since the scripts themselves print means.
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


def isegm(arguments: argparse.Namespace) -> list[list[float]]:
    """`scripts/evaluate_model.py` of RITM and those that began from it, on GrabCut, as one would type it."""
    evaluation = importlib.import_module("isegm.inference.evaluation")
    found: list[list[float]] = []
    evaluate = evaluation.evaluate_dataset

    def recorded(*given: Any, **options: Any) -> Any:
        outcome = evaluate(*given, **options)
        found.extend([float(iou) for iou in ious] for ious in outcome[0])
        raise SystemExit  # what follows only averages and prints

    evaluation.evaluate_dataset = recorded
    (script,) = [path for path in Path().rglob("scripts/evaluate_model.py") if "build" not in path.parts]
    sys.argv = [str(script), *arguments.more]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit:
        if not found:
            raise
    return found


def fcanet(arguments: argparse.Namespace) -> list[list[float]]:
    """`eval_dataset` of FCANet's `evaluate.py`; the masks that it measures are taken down and measured alike."""
    evaluate = importlib.import_module("evaluate")
    evaluate.datasets_kwargs["GrabCut"]["dataset_path"] = arguments.data
    masks: list[Any] = []
    predict = evaluate.predict

    def recorded(*given: Any, **options: Any) -> Any:
        masks.append(predict(*given, **options))
        return masks[-1]

    evaluate.predict = recorded
    model = evaluate.init_model("fcanet", "resnet", arguments.checkpoint, if_cuda=False)
    evaluate.eval_dataset(
        model, "GrabCut", max_point_num=arguments.clicks, record_point_num=arguments.clicks, if_cuda=False
    )
    goals = [gt for _, gt in evaluate.Dataset(**evaluate.datasets_kwargs["GrabCut"])]
    return [
        [_iou(mask, goal) for mask in masks[number * arguments.clicks : (number + 1) * arguments.clicks]]
        for number, goal in enumerate(goals)
    ]


def _iou(mask: Any, goal: Any) -> float:
    """IoU of a mask of 0 and 1 with a goal whose 255 are ignored."""
    counted = goal != 255
    object_, guess = (goal == 1) & counted, (mask == 1) & counted
    return float((object_ & guess).sum() / (object_ | guess).sum())


KINDS = {"isegm": isegm, "fcanet": fcanet}


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    for name in ("repo", "checkpoint", "data", "out"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--clicks", type=int, required=True)
    split = sys.argv.index("--")
    arguments = parser.parse_args(sys.argv[1:split])
    arguments.more = sys.argv[split + 1 :]
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    os.chdir(arguments.repo)
    sys.path.insert(0, arguments.repo)
    found = KINDS[arguments.kind](arguments)
    Path(arguments.out).write_text(json.dumps([np.float32(ious).tolist() for ious in found]))


if __name__ == "__main__":
    main()
