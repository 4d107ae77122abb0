"""Cost of later clicks compared with the first: FLOPs and CPU time of DISNet on ViT-B by part, with random weights.

    python benchmarks/disnet_cost.py [--side 448] [--later 2 5] [--repeats 5]

One thread, one image; the median of the repeats after a warm-up run. A part's time excludes the parts that it calls.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median

from disbench.workers import threads

threads.limit(1)

import torch

from disbench.disnet.options import DisnetOptions, ViTConfig
from disbench.disnet.profile import profile, profile_table
from disbench.disnet.proposal_network import ProposalNetwork
from disbench.disnet.refinement_network import RefinementNetwork
from disbench.reports.render import as_text


@contextmanager
def milliseconds() -> Iterator[Callable[[], float]]:
    """A meter of the process's CPU time (one thread)."""
    yield lambda: time.process_time() * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="FLOPs and CPU time of DISNet's first and later clicks.")
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--later", nargs="+", type=int, default=[2, 5])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config, options = ViTConfig(input_side=arguments.side), DisnetOptions()
    proposal = ProposalNetwork(config, options).eval()
    refinement = RefinementNetwork(config.channels, options).eval()
    measured = partial(profile, proposal, refinement, side=arguments.side, later=arguments.later)
    print(as_text(profile_table(measured(), arguments.later)))
    timed = [measured(meter=milliseconds) for _ in range(1 + arguments.repeats)][1:]
    medians = [
        replace(runs[0], costs=tuple(map(median, zip(*(run.costs for run in runs), strict=True))))
        for runs in zip(*timed, strict=True)
    ]
    print(as_text(profile_table(medians, arguments.later, "ms", 1)))


if __name__ == "__main__":
    main()
