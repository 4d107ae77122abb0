"""Compare a peer's method through the bridge with the peer's own evaluation: the IoU after every click.

    python benchmarks/peers/compare.py ritm --data DIR [--repo DIR --python DIR/bin/python --checkpoint FILE]

Omitted options come from the installation (`disbench methods install`). The first images of GrabCut are evaluated
twice: by the peer's code in its own Python (`peer_evaluation.py`), and by disbench through the bridge, with the
options, threshold, candidate selection and clicks of the peer's protocol; both sides are first tried on one image. No
evaluation stops early. Both sides run with one thread and without OpenCV's Intel IPP, whose distance transform is not
deterministic. Prints a table row with the number of bitwise equal IoUs and the largest difference, and for a peer that
records all its candidates, how many of them are equal.
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

PEERS_FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(PEERS_FOLDER.parents[1]))
os.environ |= {"OMP_NUM_THREADS": "1", "OPENCV_IPP": "disabled"}

from disbench.baselines.cards import method_spec  # noqa: E402
from disbench.baselines.installs import require_installed  # noqa: E402
from disbench.core.ambiguity import best_loop  # noqa: E402
from disbench.datasets.cards import open_dataset  # noqa: E402
from disbench.harness.evaluation import Results, evaluate  # noqa: E402

Ious = dict[str, list[float]]
EVALUATE = ("--datasets=GrabCut", "--cpu", "--n-clicks={clicks}", "--target-iou=1.01")
FOLDERS = ("--config-path={folder}/config.yml", "--logs-path={folder}")
WHOLE = ("--checkpoint={checkpoint}", *EVALUATE, *FOLDERS)


@dataclass(frozen=True)
class Peer:
    """How to start a peer's own evaluation, and the matching settings of disbench.

    Attributes:
        kind: the `KIND` of `peer_evaluation.py`.
        script_arguments: arguments of the peer's script.
        settings: method options that override the card's.
        selection: rule for the kept candidate.
        policy: click policy.
    """

    kind: str = "isegm"
    script_arguments: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    selection: str = "score"
    policy: str = "center"


class FixedGranularity:
    """A method with the same granularity for all images."""

    def __init__(self, method: Any, granularity: float) -> None:
        self.method, self.granularity = method, granularity

    def open(self, image: Any) -> Any:
        """Begin with an image."""
        return self.method.open(image, granularity=self.granularity)


PEERS: dict[str, Peer] = {
    "ritm": Peer(script_arguments=("NoBRS", *WHOLE)),
    "fbrs": Peer(script_arguments=("f-BRS-B", *WHOLE), policy="scipy-center"),
    "simpleclick": Peer(script_arguments=("NoBRS", *WHOLE)),
    "icmformer": Peer(script_arguments=("NoBRS", *WHOLE)),
    "cfr-icl": Peer(script_arguments=("NoBRS", *WHOLE, "--cf-n=4", "--acf")),
    "piclick": Peer(script_arguments=("NoBRS", *WHOLE), selection="oracle-all"),
    "focalclick": Peer(script_arguments=("FocalClick", "--infer-size=256", "--thresh=0.5", *WHOLE)),
    "cdnet": Peer(script_arguments=("CDNet", "--infer-size=384", "--thresh=0.5", *WHOLE)),
    "emc-click": Peer(script_arguments=("EMC-Click", "--eval-mode=emc-click", "--thresh=0.5", *WHOLE)),
    "fcfi": Peer(
        kind="fcfi",
        script_arguments=(
            *("NoBRS", "--backbone=h18s", "--with-flip", "--resume-path={checkpoint}", "--save-path={folder}"),
            *EVALUATE,
        ),
    ),
    "fcanet": Peer(kind="fcanet", policy="scipy-center"),
    "focuscut": Peer(
        kind="focuscut",
        script_arguments=("-ap", "backbone='resnet50',pretrained=False", "-hrv"),
        policy="scipy-restart",
    ),
    "segnext": Peer(script_arguments=(*WHOLE, "--max-n-clicks={clicks}")),
    "sam-official": Peer(kind="sam", script_arguments=("vit_b",)),
    "sam-hq-official": Peer(kind="sam", script_arguments=("vit_tiny",), settings=("backbone=vit_tiny",)),
    "semantic-sam": Peer(kind="semantic_sam", script_arguments=("T",)),
    "iog": Peer(kind="iog"),
    "sam2-official": Peer(kind="sam2", script_arguments=("configs/sam2.1/sam2.1_hiera_t.yaml",)),
    "graco": Peer(
        kind="graco",
        script_arguments=("NoBRS", *WHOLE, "--lora_checkpoint={checkpoint}.own"),
        settings=("lora={checkpoint}.own",),
    ),
}


@dataclass
class Comparison:
    """IoUs of both sides by sample."""

    bridge_ious: Ious
    peer_ious: Ious

    def row(self, peer: str, commit: str) -> str:
        """A table row."""
        pairs = [
            (np.float32(ours), np.float32(theirs))
            for sample in self.peer_ious
            for ours, theirs in zip(self.bridge_ious[sample], self.peer_ious[sample], strict=True)
        ]
        ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
        equal = int((ours.view(np.uint32) == theirs.view(np.uint32)).sum())
        moved = int(sum(len(set(ious)) > 1 for ious in self.peer_ious.values()))
        return (
            f"| {peer} | {commit} | {len(self.peer_ious)} | {len(pairs)} | {equal} | {np.abs(ours - theirs).max():.3g} "
            f"| {theirs.min():.3f} to {theirs.max():.3f}, mean {theirs.mean():.3f}; {moved} curves move |"
        )


def write_subset(data: Path, count: int, folder: Path) -> list[str]:
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


def peer_ious(peer: Peer, arguments: argparse.Namespace, folder: Path, stems: Iterable[str]) -> Ious:
    """IoUs from the peer's own evaluation."""
    out = folder / "theirs.json"
    values = {"checkpoint": arguments.checkpoint, "folder": folder, "clicks": arguments.clicks}
    command = [str(arguments.python), str(PEERS_FOLDER / "peer_evaluation.py"), peer.kind, "--repo", arguments.repo]
    command += ["--checkpoint", arguments.checkpoint, "--data", str(folder / "GrabCut"), "--out", str(out)]
    command += ["--clicks", str(arguments.clicks), "--", *(part.format(**values) for part in peer.script_arguments)]
    if granularity := arguments.granularity:
        command.append("--graco" if granularity == "oracle" else f"--gra={granularity}")
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"{arguments.peer}: its own evaluation failed with exit code {code}: {shlex.join(command)}")
    return dict(zip(stems, json.loads(out.read_text()), strict=True))


def bridge_ious(peer: Peer, arguments: argparse.Namespace, folder: Path) -> tuple[Ious, Results]:
    """IoUs from disbench through the bridge, and the results (the first, if there are several granularities)."""
    paths = [f"{name}={getattr(arguments, name)}" for name in ("repo", "python", "checkpoint")]
    settings = [part.format(checkpoint=arguments.checkpoint) for part in peer.settings]
    spec = method_spec(arguments.peer, [*paths, "timeout=600", *settings, *arguments.set])
    method, granularity = spec.build(), arguments.granularity
    levels = [tenths / 10 for tenths in range(1, 11)] if granularity == "oracle" else [granularity]
    results = [
        evaluate(
            variant,
            open_dataset("grabcut", folder),
            max_clicks=arguments.clicks,
            threshold=spec.threshold,
            selection=peer.selection,  # type: ignore[arg-type]
            policy=peer.policy,
            budget=spec.budget,
            store="all",
        )
        for variant in ([FixedGranularity(method, float(level)) for level in levels] if granularity else [method])
    ]
    ious = {}
    for sample in results[0].ious:
        curves = [result.ious[sample].tolist() for result in results]
        best = best_loop(curves, 1.0, arguments.clicks) if len(curves) > 1 else 0
        ious[sample.rpartition("/")[2]] = curves[best]
    return ious, results[0]


def compare_candidates(file: Path, results: Results) -> str:
    """How many candidates of all predictions have the mask and the score that the peer recorded in `file`."""
    ours = [list(zip(row.candidate_masks or (), row.candidate_scores or (), strict=True)) for row in results.rows]
    pairs = [
        (mask.decode() == peer_mask, score == peer_score)
        for candidates, recorded in zip(ours, json.loads(file.read_text()), strict=True)
        for (mask, score), (peer_mask, peer_score) in zip(candidates, recorded, strict=True)
    ]
    masks, scores = (sum(equal) for equal in zip(*pairs, strict=True))
    return f"of {len(pairs)} candidates, {masks} masks and {scores} scores are equal"


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
        installation = require_installed(arguments.peer, arguments.variant)
        for name in ("repo", "python", "checkpoint"):
            setattr(arguments, name, getattr(arguments, name) or getattr(installation, name))
    for name in ("repo", "checkpoint"):
        setattr(arguments, name, str(Path(getattr(arguments, name)).resolve()))
    peer = PEERS[arguments.peer]
    for count in sorted({1, arguments.images}):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            stems = write_subset(Path(arguments.data), count, folder)
            theirs = peer_ious(peer, arguments, folder, stems)
            ours, results = bridge_ious(peer, arguments, folder)
            if results.failures:
                sys.exit("\n".join(f"{sample}: {reason}" for sample, reason in results.failures.items()))
            recorded = folder / "candidates.json"
            candidates = compare_candidates(recorded, results) if recorded.is_file() else ""
    comparison = Comparison(ours, theirs)
    git = ["git", "-C", arguments.repo, "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    print(comparison.row(arguments.peer, commit))
    if candidates:
        print(candidates)


if __name__ == "__main__":
    main()
