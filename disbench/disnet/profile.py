"""Cost of the first click and of later clicks: parameters and FLOPs of DISNet by part.

A multiply-add is 2 FLOPs. torch.utils.flop_counter counts matrix products, convolutions and attention; element-wise
operations (norms, activations, softmax, gates), resizing and feature sampling (grid_sample, also in deformable
attention) are not counted.
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
from disbench.reports.render import Cell, Column, Table

REST = "rest"  # row of a stage's operations outside its parts
Clock = Callable[[], float]
Meter = Callable[[], AbstractContextManager[Clock]]  # yields a clock; costs are differences of its readings


@dataclass(frozen=True, slots=True)
class Part:
    """A row of a profile.

    Attributes:
        stage: "proposal" or "refinement".
        parameters: number of parameters, including frozen ones.
        costs: one per number of clicks, in the meter's unit; 0 if the stage does not run.
    """

    stage: str
    name: str
    parameters: int
    costs: tuple[float, ...]


@contextmanager
def flops() -> Iterator[Clock]:
    """A meter of FLOPs that also counts CPU attention and nn.MultiheadAttention, whose fast path it disables."""
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
) -> list[Part]:
    """Parameters of a network's parts, and their cost at the first click and at later clicks.

    The proposal network runs at the first click, the refinement network at later clicks; a one-stage network runs its
    proposal network at each click. Gradients are permanently disabled: torch's counter fails on views of trained
    parameters.

    Args:
        proposal: inputs, clicks, previous logits -> Proposals.
        refinement: Kept, clicks -> logits; None for a one-stage network.
        inputs: input of one sample (a frozen encoder is not profiled); None for a black image of `side`.
        side: side of the square input, pixels.
        later: numbers of clicks to profile after the first.
        meter: measures the costs.
    """
    inputs = torch.zeros(1, 3, side, side, dtype=torch.uint8) if inputs is None else inputs
    stages = {"proposal": proposal.requires_grad_(False)}
    if refinement is not None:
        stages["refinement"] = refinement.requires_grad_(False)
    found, costs = _measured(proposal, partial(proposal, inputs, _clicks(1, side), None), meter)
    columns, kept = [{"proposal": costs}], found.keep(torch.zeros(1, dtype=torch.long))
    for given in (_clicks(count, side) for count in later):
        name, module = list(stages.items())[-1]
        arguments = (inputs, given, kept.logits) if refinement is None else (kept, given)
        columns.append({name: _measured(module, partial(module, *arguments), meter)[1]})
    return [part for stage, module in stages.items() for part in _rows(stage, module, columns)]


def flop_table(settings: NetworkSettings, later: int = 5) -> Table:
    """FLOPs of a network with random weights at clicks 1, 2 and `later`, without a frozen encoder."""
    network = build_network(settings, pretrained=False).eval()
    inputs = None if settings.architecture == "vit" else torch.zeros(1, *ENCODING[1:])
    columns = (2, later) if later > 2 else (2,)
    return profile_table(profile(network.proposal, network.refinement, inputs, network.frame.side, columns), columns)


def profile_table(parts: Sequence[Part], later: Sequence[int], unit: str = "GFLOP", size: float = 1e9) -> Table:
    """A table of a profile's parts, their sum and its ratio to the first click; costs are divided by `size`."""
    totals = [sum(costs) for costs in zip(*(part.costs for part in parts), strict=True)]
    rows = [(f"{part.stage}: {part.name}", part.parameters, part.costs) for part in parts]
    texts = [
        (name, f"{parameters / 1e6:.2f}", *(f"{cost / size:.2f}" for cost in costs))
        for name, parameters, costs in [*rows, ("all", sum(part.parameters for part in parts), totals)]
    ]
    texts.append(("of the first click", "", *(f"{100 * total / totals[0]:.1f} %" for total in totals)))
    columns = [Column("part", number=False), Column("parameters, M")]
    columns += [Column(f"click {count}", f"{unit},") for count in (1, *later)]
    return Table("disnet-cost", "", "", tuple(columns), tuple(tuple(map(Cell, row)) for row in texts), {})


def stage_parts(stage: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of each part of a stage.

    The parts are the stage's attribute `parts` (name -> module) if it has one; a part nested in another is counted
    separately. Otherwise they are its children; the members of a ModuleList are merged child by child.
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


def _measured(stage: nn.Module, run: Callable[[], Any], meter: Meter) -> tuple[Any, dict[str, float]]:
    """The result of `run`, and the cost of each part, excluding the parts that it calls."""
    spent: dict[str, float] = defaultdict(float)
    running = [REST]
    with ExitStack() as context:
        clock = context.enter_context(meter())
        since = clock()

        def settle() -> None:
            nonlocal since
            now = clock()
            spent[running[-1]] += now - since
            since = now

        def enter(part: str, *_: Any) -> None:
            settle()
            running.append(part)

        def leave(*_: Any) -> None:
            settle()
            running.pop()

        for inner, owner in _owners(stage).items():
            for hook in (inner.register_forward_pre_hook(partial(enter, owner)), inner.register_forward_hook(leave)):
                context.callback(hook.remove)
        answer = run()
        settle()
    return answer, spent


def _owners(stage: nn.Module) -> dict[nn.Module, str]:
    owners = dict.fromkeys(stage.modules(), REST)
    for name, modules in stage_parts(stage).items():
        owners |= {inner: name for module in modules for inner in module.modules()}
    return owners


def _rows(stage: str, module: nn.Module, columns: Sequence[dict[str, dict[str, float]]]) -> Iterator[Part]:
    parameters: Counter[str] = Counter()
    for inner, owner in _owners(module).items():
        parameters[owner] += sum(parameter.numel() for parameter in inner.parameters(recurse=False))
    for name in (*stage_parts(module), REST):
        yield Part(stage, name, parameters[name], tuple(column.get(stage, {}).get(name, 0.0) for column in columns))


def _clicks(count: int, side: int) -> ClickBatch:
    along = torch.linspace(0, side - 1, count + 2)[1:-1]
    points = torch.stack([along, torch.full_like(along, side / 2)], dim=-1)[None]
    positive = (torch.arange(count) % 2 == 0)[None]
    return ClickBatch(points, positive, torch.ones_like(positive))


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of softmax(QK')V, from shapes (batch, heads, length, width)."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])
