"""Compare a peer's method through the bridge with the peer's own evaluation: the IoU after every click.

    python benchmarks/peers/compare.py ritm --data DIR [--repo DIR --python DIR/bin/python --checkpoint FILE]

Omitted options come from the installation (`disbench methods install`). The first images of GrabCut are evaluated
twice: by the peer's code in its own Python (`theirs.py`), and by disbench through the bridge, with the options,
threshold, candidate selection and clicks of the peer's protocol; both sides are first tried on one image. No evaluation
stops early. Both sides run with one thread and without OpenCV's Intel IPP, whose distance transform is not
deterministic. Prints a table row with the number of bitwise equal IoUs and the largest difference.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
os.environ |= {"OMP_NUM_THREADS": "1", "OPENCV_IPP": "disabled"}

from disbench.baselines.cards import method_spec  # noqa: E402
from disbench.baselines.installs import require_installed  # noqa: E402
from disbench.core.ambiguity import best_loop  # noqa: E402
from disbench.datasets.cards import open_dataset  # noqa: E402
from disbench.harness.evaluation import evaluate  # noqa: E402

Ious = dict[str, list[float]]
EVALUATE = ("--datasets=GrabCut", "--cpu", "--n-clicks={clicks}", "--target-iou=1.01")
FOLDERS = ("--config-path={folder}/config.yml", "--logs-path={folder}")
WHOLE = ("--checkpoint={checkpoint}", *EVALUATE, *FOLDERS)


@dataclass(frozen=True)
class Peer:
    """How to start a peer's own evaluation, and the matching settings of disbench.

    Attributes:
        kind: the `KIND` of `theirs.py`.
        more: arguments of the peer's script.
        settings: method options that override the card's.
        selection: rule for the kept candidate.
        policy: click policy.
    """

    kind: str = "isegm"
    more: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    selection: str = "score"
    policy: str = "center"


class Told:
    """A method with the same granularity for all images."""

    def __init__(self, method: Any, granularity: float) -> None:
        self.method, self.granularity = method, granularity

    def open(self, image: Any) -> Any:
        """Begin with an image."""
        return self.method.open(image, granularity=self.granularity)


PEERS: dict[str, Peer] = {
    "ritm": Peer(more=("NoBRS", *WHOLE)),
    "fbrs": Peer(more=("f-BRS-B", *WHOLE), policy="scipy-center"),
    "simpleclick": Peer(more=("NoBRS", *WHOLE)),
    "icmformer": Peer(more=("NoBRS", *WHOLE)),
    "cfr-icl": Peer(more=("NoBRS", *WHOLE, "--cf-n=4", "--acf")),
    "piclick": Peer(more=("NoBRS", *WHOLE), selection="oracle-all"),
    "focalclick": Peer(more=("FocalClick", "--infer-size=256", "--thresh=0.5", *WHOLE)),
    "cdnet": Peer(more=("CDNet", "--infer-size=384", "--thresh=0.5", *WHOLE)),
    "emc-click": Peer(more=("EMC-Click", "--eval-mode=emc-click", "--thresh=0.5", *WHOLE)),
    "fcfi": Peer(
        kind="fcfi",
        more=(
            *("NoBRS", "--backbone=h18s", "--with-flip", "--resume-path={checkpoint}", "--save-path={folder}"),
            *EVALUATE,
        ),
    ),
    "fcanet": Peer(kind="fcanet", policy="scipy-center"),
    "focuscut": Peer(
        kind="focuscut", more=("-ap", "backbone='resnet50',pretrained=False", "-hrv"), policy="scipy-restart"
    ),
    "segnext": Peer(more=(*WHOLE, "--max-n-clicks={clicks}")),
    "sam-official": Peer(kind="sam", more=("vit_b",)),
    "sam-hq-official": Peer(kind="sam", more=("vit_tiny",), settings=("backbone=vit_tiny",)),
    "iog": Peer(kind="iog"),
    "sam2-official": Peer(kind="sam2", more=("configs/sam2.1/sam2.1_hiera_t.yaml",)),
    "graco": Peer(
        kind="graco",
        more=("NoBRS", *WHOLE, "--lora_checkpoint={checkpoint}.own"),
        settings=("lora={checkpoint}.own",),
    ),
}


@dataclass
class Comparison:
    """IoUs of both sides by sample."""

    ours: Ious
    theirs: Ious

    def row(self, peer: str, commit: str) -> str:
        """A table row."""
        pairs = [
            (np.float32(mine), np.float32(other))
            for sample in self.theirs
            for mine, other in zip(self.ours[sample], self.theirs[sample], strict=True)
        ]
        mine, other = (np.array(side) for side in zip(*pairs, strict=True))
        equal = int((mine.view(np.uint32) == other.view(np.uint32)).sum())
        moved = int(sum(len(set(ious)) > 1 for ious in self.theirs.values()))
        return (
            f"| {peer} | {commit} | {len(self.theirs)} | {len(pairs)} | {equal} | {np.abs(mine - other).max():.3g} "
            f"| {other.min():.3f} to {other.max():.3f}, mean {other.mean():.3f}; {moved} curves move |"
        )


def small_set(data: Path, count: int, folder: Path) -> list[str]:
    """Make a GrabCut dataset of the first images; returns their stems, in order."""
    stems = []
    for kind in ("data_GT", "boundary_GT"):
        (folder / "GrabCut" / kind).mkdir(parents=True)
    masks = {path.stem: path for path in (data / "GrabCut/boundary_GT").iterdir()}
    for path in sorted((data / "GrabCut/data_GT").iterdir())[:count]:
        (folder / "GrabCut/data_GT" / path.name).symlink_to(path.resolve())
        mask = masks[path.stem]
        (folder / "GrabCut/boundary_GT" / mask.name).symlink_to(mask.resolve())
        stems.append(path.stem)
    names = ("INTERACTIVE_MODELS_PATH", "EXPS_PATH")
    config = {"GRABCUT_PATH": folder / "GrabCut", **dict.fromkeys(names, folder)}
    (folder / "config.yml").write_text("".join(f'{key}: "{value}"\n' for key, value in config.items()))
    return stems


def theirs(peer: Peer, arguments: argparse.Namespace, folder: Path, stems: Iterable[str]) -> Ious:
    """IoUs from the peer's own evaluation."""
    out = folder / "theirs.json"
    places = {"checkpoint": arguments.checkpoint, "folder": folder, "clicks": arguments.clicks}
    command = [str(arguments.python), str(HERE / "theirs.py"), peer.kind, "--repo", arguments.repo]
    command += ["--checkpoint", arguments.checkpoint, "--data", str(folder / "GrabCut"), "--out", str(out)]
    command += ["--clicks", str(arguments.clicks), "--", *(part.format(**places) for part in peer.more)]
    if told := arguments.granularity:
        command.append("--graco" if told == "oracle" else f"--gra={told}")
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"{arguments.peer}: its own evaluation failed with exit code {code}: {shlex.join(command)}")
    return dict(zip(stems, json.loads(out.read_text()), strict=True))


def ours(peer: Peer, arguments: argparse.Namespace, folder: Path) -> tuple[Ious, dict[str, str]]:
    """IoUs from disbench through the bridge, and the samples that failed."""
    places = [f"{name}={getattr(arguments, name)}" for name in ("repo", "python", "checkpoint")]
    settings = [part.format(checkpoint=arguments.checkpoint) for part in peer.settings]
    spec = method_spec(arguments.peer, [*places, "timeout=600", *settings, *arguments.set])
    method, told = spec.build(), arguments.granularity
    numbers = [number / 10 for number in range(1, 11)] if told == "oracle" else [float(told)] if told else []
    loops = [
        evaluate(
            one,
            open_dataset("grabcut", folder),
            max_clicks=arguments.clicks,
            threshold=spec.threshold,
            selection=peer.selection,  # type: ignore[arg-type]
            policy=peer.policy,
            budget=spec.budget,
        )
        for one in [Told(method, number) for number in numbers] or [method]
    ]
    ious = {}
    for sample in loops[0].ious:
        curves = [loop.ious[sample].tolist() for loop in loops]
        best = best_loop(curves, 1.0, arguments.clicks) if len(curves) > 1 else 0
        ious[sample.rpartition("/")[2]] = curves[best]
    return ious, loops[0].failures


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--variant", default="", help="variant of the installation, for options not given below")
    for name in ("repo", "python", "checkpoint"):
        parser.add_argument("--" + name)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--granularity", default="", help="for graco: 0.1 to 1.0, or oracle, the best of the ten")
    parser.add_argument("--set", action="append", default=[], help="option=value of the method")
    arguments = parser.parse_args()
    if not (arguments.repo and arguments.python and arguments.checkpoint):
        found = require_installed(arguments.peer, arguments.variant)
        for name in ("repo", "python", "checkpoint"):
            setattr(arguments, name, getattr(arguments, name) or getattr(found, name))
    for name in ("repo", "checkpoint"):
        setattr(arguments, name, str(Path(getattr(arguments, name)).resolve()))
    peer = PEERS[arguments.peer]
    for images in sorted({1, arguments.images}):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            stems = small_set(Path(arguments.data), images, folder)
            other = theirs(peer, arguments, folder, stems)
            mine, failures = ours(peer, arguments, folder)
        if failures:
            sys.exit("\n".join(f"{sample}: {reason}" for sample, reason in failures.items()))
    row = Comparison(mine, other)
    git = ["git", "-C", arguments.repo, "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    print(row.row(arguments.peer, commit))


if __name__ == "__main__":
    main()
