"""CPU time of a training step of the small DISNet by part, and sets per second on one core, with cached features.

    python benchmarks/training.py [disnet-small] [--data ROOT] [--set OPTION=VALUE ...] [--steps N] [--against CHECKOUT]

Shards and images as for `disbench train`. A first pass over the examples encodes their images; then the steps after the
first are timed. `--against` measures another checkout of disbench alternately with this one; figures are medians over
turns, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disbench.workers import threads

threads.limit(1)

import accelerate
from accelerate.optimizer import AcceleratedOptimizer
from torch.optim.swa_utils import AveragedModel

from disbench.disnet.network import Disnet
from disbench.disnet.training import train, two_stages
from disbench.disnet.training.settings import load_training, resolved

TURNS = 3
PARTS = {
    "loading": [(train, "_next")],
    "stage 1": [(Disnet, "propose")],
    "losses": [(two_stages, name) for name in ("proposal_loss", "choose_candidates", "refinement_loss", "_mean_iou")],
    "clicks": [(two_stages.TwoStageLoss, name) for name in ("_click", "_make_clicks")],
    "stage 2": [(Disnet, "refine")],
    "backward": [(accelerate.Accelerator, "backward")],
    "optimizer": [
        (accelerate.Accelerator, "clip_grad_norm_"),
        (AcceleratedOptimizer, "step"),
        (AveragedModel, "update_parameters"),
    ],
}


class Clock:
    """CPU seconds of this process by part; a call nested in another part counts for the outer part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.steps: list[float] = []
        self._inside_part = False

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count calls of a function for a part."""
        function = getattr(owner, name)

        def call(*given: Any, **options: Any) -> Any:
            if self._inside_part:
                return function(*given, **options)
            self._inside_part, begun = True, time.process_time()
            try:
                return function(*given, **options)
            finally:
                self._inside_part = False
                self.seconds[part] += time.process_time() - begun

        setattr(owner, name, call)

    def step(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a training step; the first call is the warm-up."""

        def call(*given: Any) -> Any:
            begun = time.process_time()
            result = function(*given)
            self.steps.append(time.process_time() - begun)
            if len(self.steps) == 1:
                self.seconds.clear()
            return result

        return call


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """CPU milliseconds per set, by part."""
    settings = load_training(arguments.training, [*arguments.set, "workers=0", "accumulate=1"])
    training = resolved(settings, arguments.data)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        list(train._Run(training, Path(folder), "cpu")._loader(arguments.steps))
        for part, owners in PARTS.items():
            for owner, name in owners:
                if hasattr(owner, name):  # another checkout may lack it
                    clock.watch(owner, name, part)
        train._Run._one_step = clock.step(train._Run._one_step)  # type: ignore[method-assign]
        train.train(training, Path(folder), device="cpu", until=arguments.steps)
    sets = training.batch * (arguments.steps - 1)
    clock.seconds["other"] = sum(clock.steps[1:]) - clock.seconds.total()
    return {part: clock.seconds[part] * 1e3 / sets for part in [*PARTS, "other"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of a training step by part.")
    parser.add_argument("training", nargs="?", default="disnet-small")
    parser.add_argument("--data", type=Path, default=os.environ.get("DISBENCH_DATA"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(measure(arguments)))
        return
    this_checkout = Path(__file__).resolve().parents[1]
    checkouts = [this_checkout] if arguments.against is None else [this_checkout, arguments.against.resolve()]
    turns: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for _ in range(TURNS):
        for checkout in reversed(checkouts):
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            printed = subprocess.check_output([sys.executable, *sys.argv, "--once"], env=environment, text=True)
            turns[checkout].append(json.loads(printed.splitlines()[-1]))
    names = ["here", "against"]
    print(f"{'ms of CPU a set':<18}" + "".join(f"{name:>12}" for name, _ in zip(names, checkouts, strict=False)))
    for part in turns[this_checkout][0]:
        medians = [statistics.median(turn[part] for turn in turns[checkout]) for checkout in checkouts]
        print(f"{part:<18}" + "".join(f"{value:12.1f}" for value in medians))
    rates = [statistics.median(1e3 / sum(turn.values()) for turn in turns[checkout]) for checkout in checkouts]
    print(f"{'sets a second':<18}" + "".join(f"{rate:12.2f}" for rate in rates))


if __name__ == "__main__":
    main()
