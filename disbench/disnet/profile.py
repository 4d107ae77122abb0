"""Cost of the first click and of a later one: parameters and FLOPs of DISNet, part by part.

A multiplication and an addition are 2 FLOPs. Matrix products, convolutions and attention are counted, by
torch.utils.flop_counter; element-wise operations (norms, activations, softmax, gates), resizing and the sampling of
features (grid_sample, also in deformable attention) are not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from disbench.baselines.sam.mobilesam import ENCODING
from disbench.disnet.batches import ClickBatch
from disbench.disnet.network import build_network
from disbench.disnet.options import NetworkSettings
from disbench.reports.render.table import Cell, Column, Table

REST = "rest"
"""Name of the row for operations of a stage outside its parts."""
Clock = Callable[[], float]
Meter = Callable[[], AbstractContextManager[Clock]]
"""A context with a clock; differences of its readings are costs."""


@dataclass(frozen=True, slots=True)
class Part:
    """A row of a profile.

    Attributes:
        stage: "proposal" or "refinement".
        module: its class.
        parameters: number of its parameters, frozen ones included.
        costs: one for each column, in the meter's unit; 0 where the stage does not run.
    """

    stage: str
    name: str
    module: str
    parameters: int
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The cost of a network's parts; a column for each number of clicks, the first click first."""

    clicks: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """The sum over all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def totals(self) -> tuple[float, ...]:
        """The sum of each column."""
        return tuple(sum(costs) for costs in zip(*(part.costs for part in self.parts), strict=True))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Each column's total relative to the first click's."""
        return tuple(total / self.totals[0] for total in self.totals)


@contextmanager
def flops() -> Iterator[Clock]:
    """The meter of FLOPs; it also counts attention on a CPU and the fast path of nn.MultiheadAttention."""
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping={on_cpu: _attention_flops}) as counter:
            yield counter.get_total_flops
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def profile(
    proposal: nn.Module,
    refinement: nn.Module | None,
    inputs: Tensor | None = None,
    side: int = 448,
    later: Sequence[int] = (2, 5),
    meter: Meter = flops,
) -> Profile:
    """Parameters of a network's parts, and their cost at the first click and at later ones.

    The proposal network runs at the first click, the refinement network at later ones; in a network of one stage, the
    proposal network at each click. A column takes one run.

    Args:
        proposal: inputs, clicks, previous logits -> Proposals, on its own device.
        refinement: Kept, clicks -> logits; None for a network of one stage.
        inputs: one sample's input; None: a black image, uint8 (1, 3, side, side). A frozen encoder of other inputs
            is not in the profile.
        side: side of the square input, pixels.
        later: numbers of clicks at the later clicks, a column each.
        meter: the unit of the costs.
    """
    device = next(proposal.parameters()).device
    inputs = (torch.zeros(1, 3, side, side, dtype=torch.uint8) if inputs is None else inputs).to(device)
    clicks = [_clicks(count, side).to(device) for count in (1, *later)]
    stages = {"proposal": proposal} | ({} if refinement is None else {"refinement": refinement})
    with _frozen(*stages.values()):
        found, costs = _measured(proposal, partial(proposal, inputs, clicks[0], None), meter)
        columns, kept = [{"proposal": costs}], found.keep(torch.zeros(1, dtype=torch.long, device=device))
        for given in clicks[1:]:
            if refinement is None:
                costs = _measured(proposal, partial(proposal, inputs, given, kept.logits), meter)[1]
                columns.append({"proposal": costs})
            else:
                columns.append({"refinement": _measured(refinement, partial(refinement, kept, given), meter)[1]})
    rows = [part for stage, module in stages.items() for part in _rows(stage, module, columns)]
    return Profile((1, *later), tuple(rows))


def profile_of(settings: NetworkSettings, later: int = 5) -> Profile:
    """The FLOPs of a network with random weights, without a frozen encoder, at clicks 1, 2 and `later`."""
    network = build_network(settings, pretrained=False).eval()
    inputs = None if settings.architecture == "vit" else torch.zeros(1, *ENCODING[1:])
    columns = (2, later) if later > 2 else (2,)
    return profile(network.proposal, network.refinement, inputs, network.frame.side, columns)


def profile_table(counted: Profile, timed: Sequence[Profile] = ()) -> Table:
    """A table of FLOPs and, from profiles in milliseconds, of median times."""
    parts = [f"{part.stage}: {part.name}" for part in counted.parts]
    sizes = [part.parameters for part in counted.parts]
    spent = [tuple(map(median, zip(*costs, strict=True))) for costs in zip(*map(_costs, timed), strict=True)]
    rows = []
    for name, size, costs, times in zip(
        [*parts, "all"], [*sizes, counted.parameters], _costs(counted), spent or [()] * (len(parts) + 1), strict=True
    ):
        gigas = [f"{cost / 1e9:.2f}" for cost in costs]
        rows.append((name, f"{size / 1e6:.2f}", *gigas, *(f"{time:.0f}" for time in times)))
    last = [counted.totals, *([spent[-1]] if spent else [])]
    rows.append(("of the first click", "", *(f"{100 * cost / total[0]:.1f} %" for total in last for cost in total)))
    columns = [Column("part", number=False), Column("parameters, M")]
    units = ("GFLOP,", "ms,") if timed else ("GFLOP,",)
    columns += [Column(f"click {count}", unit) for unit in units for count in counted.clicks]
    return Table("disnet-cost", "", "", tuple(columns), tuple(tuple(map(Cell, row)) for row in rows), {})


def _costs(found: Profile) -> list[tuple[float, ...]]:
    return [*(part.costs for part in found.parts), found.totals]


@contextmanager
def _frozen(*stages: nn.Module) -> Iterator[None]:
    """Switch gradients off: torch's counter fails on views of trained parameters."""
    trained = [weights for stage in stages for weights in stage.parameters() if weights.requires_grad]
    for weights in trained:
        weights.requires_grad_(False)
    try:
        yield
    finally:
        for weights in trained:
            weights.requires_grad_(True)


def parts_of(stage: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of each part of a stage.

    They come from the stage's attribute `parts` (name -> module), if it has one; a part within another is counted
    separately. Otherwise they are its children; the members of a list `blocks` are joined, child by child.
    """
    named = getattr(stage, "parts", None)
    if named is not None:
        return {name: [module] for name, module in named.items()}
    found = defaultdict(list)
    for name, child in stage.named_children():
        members = list(child) if isinstance(child, nn.ModuleList) else []
        for own, module in [pair for member in members for pair in member.named_children()] or [(name, child)]:
            found[own.replace("_", " ")].append(module)
    return dict(found)


class _Ledger:
    """The cost of each part so far, and which part is running."""

    def __init__(self, clock: Clock) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._clock, self._running, self._since = clock, [REST], clock()

    def enter(self, part: str) -> None:
        self.settle()
        self._running.append(part)

    def leave(self) -> None:
        self.settle()
        self._running.pop()

    def settle(self) -> None:
        now = self._clock()
        self.spent[self._running[-1]] += now - self._since
        self._since = now


def _measured(stage: nn.Module, run: Callable[[], Any], meter: Meter) -> tuple[Any, dict[str, float]]:
    with ExitStack() as context:
        ledger = _Ledger(context.enter_context(meter()))
        for inner, owner in _owners(stage).items():
            before = inner.register_forward_pre_hook(lambda *_, part=owner: ledger.enter(part))
            after = inner.register_forward_hook(lambda *_: ledger.leave())
            context.callback(before.remove)
            context.callback(after.remove)
        answer = run()
        ledger.settle()
    return answer, ledger.spent


def _owners(stage: nn.Module) -> dict[nn.Module, str]:
    """The part of each module of a stage, itself included."""
    owners = dict.fromkeys(stage.modules(), REST)
    for name, modules in parts_of(stage).items():
        owners |= {inner: name for module in modules for inner in module.modules()}
    return owners


def _rows(stage: str, module: nn.Module, columns: Sequence[dict[str, dict[str, float]]]) -> Iterator[Part]:
    parameters: Counter[str] = Counter()
    for inner, owner in _owners(module).items():
        parameters[owner] += sum(parameter.numel() for parameter in inner.parameters(recurse=False))
    for name, modules in [*parts_of(module).items(), (REST, [])]:
        classes = ", ".join(dict.fromkeys(type(own).__name__ for own in modules))
        costs = tuple(column.get(stage, {}).get(name, 0.0) for column in columns)
        yield Part(stage, name, classes, parameters[name], costs)


def _clicks(count: int, side: int) -> ClickBatch:
    """Clicks in a row across the input, with alternating signs."""
    along = torch.linspace(0, side - 1, count + 2)[1:-1]
    points = torch.stack([along, torch.full_like(along, side / 2)], dim=-1)[None]
    positive = (torch.arange(count) % 2 == 0)[None]
    return ClickBatch(points, positive, torch.ones_like(positive))


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of softmax(QK')V, from shapes (batch, heads, length, width)."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])
