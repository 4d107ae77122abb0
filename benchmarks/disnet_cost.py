"""What a later click costs beside the first one: FLOPs and CPU time of DISNet on ViT-B, by part, random weights.

    python benchmarks/disnet_cost.py [--side 448] [--later 2 5] [--repeats 5]

One thread, one image; after a run to warm up, the median of the repeats, of each part by itself. A part's time
leaves out the parts that it calls.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median

from disbench.workers import threads

threads.limit(1)

import torch

from disbench.disnet.options import DisnetOptions, ViTConfig
from disbench.disnet.profile import Profile, profile
from disbench.disnet.proposal_network import ProposalNetwork
from disbench.disnet.refinement_network import RefinementNetwork
from disbench.reports.render.table import Cell, Column, Table, as_text


@contextmanager
def milliseconds() -> Iterator[Callable[[], float]]:
    """The meter of the process's CPU time: that of its one thread, whatever else the machine does."""
    yield lambda: time.process_time() * 1e3


def cells(name: str, parameters: int, flops: Sequence[float], times: Sequence[float]) -> tuple[Cell, ...]:
    texts = [name, f"{parameters / 1e6:.2f}", *(f"{count / 1e9:.2f}" for count in flops)]
    return tuple(Cell(text) for text in [*texts, *(f"{spent:.0f}" for spent in times)])


def costs(flops: Profile, timed: Sequence[Profile]) -> Table:
    """Both profiles in one table."""
    rows = []
    for at, part in enumerate(flops.parts):
        spent = [median(run.parts[at].costs[column] for run in timed) for column in range(len(flops.clicks))]
        rows.append(cells(f"{part.stage}: {part.name}", part.parameters, part.costs, spent))
    spent = [median(run.totals[column] for run in timed) for column in range(len(flops.clicks))]
    rows.append(cells("all", flops.parameters, flops.totals, spent))
    ratios = [f"{100 * ratio:.1f} %" for ratio in flops.ratios]
    rows.append(tuple(map(Cell, ["of the first click", "", *ratios, *(f"{100 * s / spent[0]:.1f} %" for s in spent)])))
    columns = [Column("part", number=False), Column("parameters, M")]
    columns += [Column(f"click {count}", unit) for unit in ("GFLOP,", "ms,") for count in flops.clicks]
    return Table("disnet-cost", "", "", tuple(columns), tuple(rows), {})


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
    flops = measured()
    timed = [measured(meter=milliseconds) for _ in range(1 + arguments.repeats)]
    print(as_text(costs(flops, timed[1:])))


if __name__ == "__main__":
    main()
