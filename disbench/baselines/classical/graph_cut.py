"""Interactive graph cuts.

Boykov and Jolly, "Interactive graph cuts for optimal boundary & region segmentation of objects in N-D images",
ICCV 2001. The graph is built here, since no permissively licensed library has the method; SciPy finds the maximum flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from disbench.baselines.classical.seeds import (
    Bandwidth,
    Frame,
    Radius,
    SeededMethod,
    Side,
    SignMap,
    Solver,
    colour_bins,
    log_likelihood_ratio,
)
from disbench.core.arrays import BoolArray, FloatArray, Int32Array
from disbench.core.errors import InputError, import_extra
from disbench.core.prediction import RgbImage
from disbench.io.settings import Bounds

FlowSolver = Literal["scipy", "pymaxflow"]

FINEST = 100  # capacities are in hundredths if the image's size allows it
LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Links:
    """The n-links of an image, between each pixel and its eight neighbours.

    `first` and `second` are row-major pixel indices, `cost` is the cost of cutting between them: (links,) each.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    cost: FloatArray


@dataclass(frozen=True)
class GraphCut(SeededMethod):
    """The labelling of minimum energy: colour likelihoods plus the cost of separating similar neighbours.

    Attributes:
        gamma: weight of the boundary (n-links) against the colours (t-links, in nats).
        solver: `scipy`, or `pymaxflow` (extra `maxflow`; GPL), which gives the same labels faster.
        frame: when the image's outermost pixels are background seeds.
    """

    max_side: Side = 320
    radius: Radius = 3.0
    gamma: Annotated[float, Bounds(0, 10000)] = 50.0
    bandwidth: Bandwidth = 10.0
    solver: FlowSolver = "scipy"
    frame: Frame = "always"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver == "pymaxflow":
            import_extra("maxflow", "maxflow", "solver=pymaxflow")

    def prepared(self, working: RgbImage) -> Solver:  # noqa: D102
        bins, links = colour_bins(working), neighbour_links(working, self.gamma)
        unit = capacity_unit(working.shape[0] * working.shape[1], self.gamma)

        def cut(seeds: SignMap) -> BoolArray:
            ratio = log_likelihood_ratio(bins, seeds, self.bandwidth)
            return minimum_cut(terminal_links(ratio, seeds, self.gamma, unit), links, unit, self.solver)

        return cut


def neighbour_links(image: RgbImage, gamma: float) -> Links:
    """The n-links (paper: B): gamma * exp(-beta * |difference of colour|^2) / distance.

    Beta is 1 / (2 * mean squared difference over the image), as in GrabCut (Rother et al. 2004); the paper leaves
    sigma open.
    """
    height, width = image.shape[:2]
    numbers, colours = np.arange(height * width).reshape(height, width), image.astype(np.float64)
    first, second, squares, distances = [], [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = slice(0, max(0, height - down)), slice(max(0, -right), width - max(0, right))
        there = slice(down, None), slice(max(0, right), width - max(0, -right))
        first.append(numbers[here].ravel())
        second.append(numbers[there].ravel())
        squares.append(((colours[here] - colours[there]) ** 2).sum(axis=-1).ravel())
        distances.append(np.full(first[-1].size, np.hypot(down, right)))
    difference = np.concatenate(squares)
    mean = difference.mean() if difference.any() else 1.0
    cost = gamma * np.exp(-difference / (2 * mean)) / np.concatenate(distances)
    return Links(np.concatenate(first), np.concatenate(second), cost)


def capacity_unit(pixels: int, gamma: float) -> int:
    """Capacity units per cost of 1; SciPy's flow is a 32-bit integer.

    A cut costs at most all n-links (under 3.5 * gamma per pixel) plus the t-links of all pixels that are not seeds
    (under 12 nats, due to the uniform part of the colour models).
    """
    unit = min(FINEST, int(LARGEST / (pixels * (3.5 * gamma + 12))))
    if unit < 1:
        raise InputError(f"{pixels} pixels are too many for 32-bit capacities; set max_side or a smaller gamma")
    return unit


def terminal_links(ratio: FloatArray, seeds: SignMap, gamma: float, unit: int) -> Int32Array:
    """The t-links: the cost of labelling each pixel background minus the cost of labelling it object.

    int32 (height, width), positive towards the object, from ln(Pr(colour | object) / Pr(colour | background)). Only
    the difference of a pixel's two t-links affects the cut. A seed's exceeds the sum of its n-links (paper: K), so no
    cut separates it from its terminal.
    """
    firm = int((8 * gamma + 1) * unit) + 8
    return np.where(seeds == 0, np.rint(ratio * unit), seeds * float(firm)).astype(np.int32)


def minimum_cut(terminals: Int32Array, links: Links, unit: int, solver: FlowSolver) -> BoolArray:
    """The object's pixels, (height, width), from the minimum cut; ties give the smallest object."""
    capacities = np.rint(links.cost * unit).astype(np.int32)
    return (_cut_scipy if solver == "scipy" else _cut_pymaxflow)(terminals, links, capacities)


def _cut_scipy(terminals: Int32Array, links: Links, capacities: Int32Array) -> BoolArray:
    from scipy.sparse import csr_matrix  # noqa: PLC0415  (slow to load)
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow  # noqa: PLC0415

    flat = terminals.ravel()
    for_object, for_background = np.flatnonzero(flat > 0), np.flatnonzero(flat < 0)
    source, sink = flat.size, flat.size + 1
    tails = (links.first, links.second, np.full(for_object.size, source), for_background)
    heads = (links.second, links.first, for_object, np.full(for_background.size, sink))
    values = (capacities, capacities, flat[for_object], -flat[for_background])
    graph = csr_matrix(
        (np.concatenate(values), (np.concatenate(tails), np.concatenate(heads))), shape=(sink + 1, sink + 1)
    )
    flow = maximum_flow(graph, source, sink)
    left = graph - flow.flow
    left.eliminate_zeros()
    is_object = np.zeros(sink + 1, dtype=bool)
    is_object[breadth_first_order(left, source, return_predecessors=False)] = True
    return is_object[: flat.size].reshape(terminals.shape)


def _cut_pymaxflow(terminals: Int32Array, links: Links, capacities: Int32Array) -> BoolArray:
    maxflow = import_extra("maxflow", "maxflow", "solver=pymaxflow")
    flat = terminals.ravel()
    graph = maxflow.GraphInt(flat.size, links.first.size)
    graph.add_nodes(flat.size)
    graph.add_edges(links.first, links.second, capacities, capacities)
    # The object is the sink: the library assigns pixels that neither terminal reaches to the source, which must be
    # background here.
    numbers = np.arange(flat.size)
    graph.add_grid_tedges(numbers, np.maximum(-flat, 0), np.maximum(flat, 0))
    graph.maxflow()
    return np.asarray(graph.get_grid_segments(numbers)).reshape(terminals.shape)
