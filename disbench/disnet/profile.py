"""What the first click and a later one cost: parameters and FLOPs of DISNet, part by part.

A multiplication and an addition are 2 FLOPs. Counted are matrix products, convolutions and attention, as
torch.utils.flop_counter counts them. Not counted is what works on single values: norms, activations, softmax,
gates, resizing, and the sampling of features (grid_sample: that of deformable attention, too).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from disbench.baselines.sam.mobilesam import ENCODING
from disbench.disnet.batches import ClickBatch
from disbench.disnet.network import build_network
from disbench.disnet.options import NetworkSettings

REST = "rest"
"""The part that stands for what a stage does outside of its parts."""
Clock = Callable[[], float]
Meter = Callable[[], AbstractContextManager[Clock]]
"""A context with a clock whose differences are what something cost."""
_Costs = dict[tuple[str, str], float]
"""(stage, part) -> what it cost."""


@dataclass(frozen=True, slots=True)
class Part:
    """A row of a profile.

    Attributes:
        stage: "proposal" or "refinement".
        name: of the part within the stage.
        module: its class.
        parameters: how many numbers it has, frozen ones among them.
        costs: of each column, in the meter's unit; 0 where the stage does not run.
    """

    stage: str
    name: str
    module: str
    parameters: int
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What the parts of a network cost.

    Attributes:
        clicks: of each column, how many clicks are given; the first column is the first click.
        parts: rows.
    """

    clicks: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def totals(self) -> tuple[float, ...]:
        """Of each column."""
        return tuple(sum(costs) for costs in zip(*(part.costs for part in self.parts), strict=True))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each column, its total divided by the first click's."""
        return tuple(total / self.totals[0] for total in self.totals)


@contextmanager
def flops() -> Iterator[Clock]:
    """The meter of FLOPs.

    Two things would go uncounted and are seen to: attention on a CPU, for which torch has no formula, and
    the fast path of nn.MultiheadAttention.
    """
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
    """Parameters of a network's parts, and what they cost at the first click and at later ones.

    At the first click the proposal network runs, at a later one the refinement network on the candidate that
    was kept; in a network of one stage, the proposal network at each click. A column takes one run.

    Args:
        proposal: inputs, clicks, previous logits -> Proposals; it runs where its parameters are.
        refinement: Kept, clicks -> logits; None for a network of one stage.
        inputs: of one sample; None: a black image, uint8 (1, 3, side, side). What made other inputs of an image
            (a frozen encoder) is not in the profile.
        side: of the square input that clicks are given in, pixels.
        later: how many clicks are given at the later clicks, a column each.
        meter: of what the costs are.
    """
    device = next(proposal.parameters()).device
    if inputs is None:
        inputs = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    inputs = inputs.to(device)
    clicks = [_clicks(count, side).to(device) for count in (1, *later)]
    with _frozen(proposal, *([] if refinement is None else [refinement])):
        found, costs = _measured("proposal", proposal, partial(proposal, inputs, clicks[0], None), meter)
        columns, kept = [costs], found.keep(torch.zeros(1, dtype=torch.long, device=device))
        for given in clicks[1:]:
            if refinement is None:
                run = partial(proposal, inputs, given, kept.logits)
                columns.append(_measured("proposal", proposal, run, meter)[1])
            else:
                run = partial(refinement, kept, given)
                columns.append(_measured("refinement", refinement, run, meter)[1])
    stages = {"proposal": proposal} | ({} if refinement is None else {"refinement": refinement})
    rows = [part for stage, module in stages.items() for part in _rows(stage, module, columns)]
    return Profile((1, *later), tuple(rows))


def profile_of(settings: NetworkSettings, later: int = 5) -> Profile:
    """The FLOPs of a network that is built for it, with random weights.

    Args:
        settings: of the network; a frozen encoder is not part of it and not counted.
        later: how many clicks are given at the later click.
    """
    network = build_network(settings, pretrained=False).eval()
    inputs = None if settings.architecture == "vit" else torch.zeros(1, *ENCODING[1:])
    columns = (2, later) if later > 2 else (2,)
    return profile(network.proposal, network.refinement, inputs, network.frame.side, columns)


def profile_lines(found: Profile) -> list[str]:
    """A profile as a table of text."""
    heads = ["part", "parameters, M", *(f"click {count}, GFLOP" for count in found.clicks)]
    rows = [
        [
            f"{part.stage}: {part.name}",
            f"{part.parameters / 1e6:.2f}",
            *(f"{c / 1e9:.2f}" for c in part.costs),
        ]
        for part in found.parts
    ]
    rows.append(["all", f"{found.parameters / 1e6:.2f}", *(f"{total / 1e9:.2f}" for total in found.totals)])
    rows.append(["of the first click", "", *(f"{100 * ratio:.1f} %" for ratio in found.ratios)])
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    return [
        "  ".join(
            text.ljust(width) if not at else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (heads, *rows)
    ]


@contextmanager
def _frozen(*stages: nn.Module) -> Iterator[None]:
    """Take the gradients away: torch's counter stumbles over views of parameters that are to be learned."""
    learned = [weights for stage in stages for weights in stage.parameters() if weights.requires_grad]
    for weights in learned:
        weights.requires_grad_(False)
    try:
        yield
    finally:
        for weights in learned:
            weights.requires_grad_(True)


def parts_of(stage: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules that make up each part of a stage.

    They are what the stage's attribute `parts` (name -> module) says, if it has one: a part within another
    is named after it, and counted apart. Else they are its child modules; the list `blocks` stands for the
    children of its members, those of one name together.
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
    """Whose turn it is while a stage runs, and what each part has cost; parts within a part pay themselves."""

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


def _measured(stage: str, module: nn.Module, run: Callable[[], Any], meter: Meter) -> tuple[Any, _Costs]:
    """What a run of a stage answers, and what it cost."""
    with ExitStack() as context:
        ledger = _Ledger(context.enter_context(meter()))
        for inner, owner in _owners(module).items():
            before = inner.register_forward_pre_hook(lambda *_, part=owner: ledger.enter(part))
            after = inner.register_forward_hook(lambda *_: ledger.leave())
            context.callback(before.remove)
            context.callback(after.remove)
        answer = run()
        ledger.settle()
    return answer, {(stage, part): cost for part, cost in ledger.spent.items()}


def _owners(stage: nn.Module) -> dict[nn.Module, str]:
    """Which part each module of a stage, itself among them, belongs to."""
    owners = dict.fromkeys(stage.modules(), REST)
    for name, modules in parts_of(stage).items():
        owners |= {inner: name for module in modules for inner in module.modules()}
    return owners


def _rows(stage: str, module: nn.Module, columns: Sequence[_Costs]) -> Iterator[Part]:
    parameters: Counter[str] = Counter()
    for inner, owner in _owners(module).items():
        parameters[owner] += sum(parameter.numel() for parameter in inner.parameters(recurse=False))
    for name, modules in [*parts_of(module).items(), (REST, [])]:
        classes = ", ".join(dict.fromkeys(type(own).__name__ for own in modules))
        costs = tuple(column.get((stage, name), 0.0) for column in columns)
        yield Part(stage, name, classes, parameters[name], costs)


def _clicks(count: int, side: int) -> ClickBatch:
    """Clicks in a row across the input, of both signs in turn."""
    along = torch.linspace(0, side - 1, count + 2)[1:-1]
    points = torch.stack([along, torch.full_like(along, side / 2)], dim=-1)[None]
    positive = (torch.arange(count) % 2 == 0)[None]
    return ClickBatch(points, positive, torch.ones_like(positive))


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Of softmax(QK')V, from shapes (batch, heads, length, width)."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])
