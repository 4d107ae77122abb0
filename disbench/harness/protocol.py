"""How a method is evaluated: the settings that two results must share to be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from disbench.core.budgets import BUDGETS
from disbench.core.choices import Granularity, Selection
from disbench.core.click_policies import REPLAY, ClickPolicy, Recording, replays
from disbench.core.errors import InputError, unknown_name
from disbench.io.settings import Bounds, Count, Number, check_fields

ORACLES: Mapping[Granularity, float] = {"oracle": 0.90, "oracle-85": 0.85}
"""Oracles of the granularity, and the IoU that the best loop reaches first."""
MOST_CLICKS = (1 << 15) - 1
"""The column `click` of the rows is an int16."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """The evaluation protocol of one run.

    Attributes:
        max_clicks: clicks a sample gets, at least 1.
        threshold: a pixel belongs to a mask if its probability is strictly above this.
        selection: how one of several candidates is kept: `oracle-first` (the best by IoU with the target at
            click 1, the method's own choice after it), `oracle-all` (the best at every click), `score` (the
            method's highest score; the target is not used).
        policy: how clicks are simulated (`disbench.core.click_policies.ClickPolicy.parse`).
        seed: for policies that draw.
        stop_at: a sample ends at the first IoU that reaches this; None gives every sample all its clicks.
        initial_masks: begin from a sample's initial mask where it has one.
        name: the click simulation and loop.
        budget: one of `disbench.core.budgets.BUDGETS` for a method that gets all points at once instead of a loop of
            clicks; a sample then has one answer, which counts as its click 1.
        granularity: what `open` is told of the target's size: nothing (`none`), its own granularity (`truth`), or that
            of `disbench.core.ambiguity.GRANULARITIES` with which the target is found in the fewest clicks (`ORACLES`;
            GraCo): only that loop is stored.
        preset: name of the preset that the values come from (`disbench.harness.presets`), or "".
        preset_values: what the preset sets; options on the command line may have overridden it.
        recording: the clicks of the policy `replay`, once they are read (`disbench.harness.replay`).

    Raises:
        InputError: a value that is unknown, out of range, or does not go with a budget.
    """

    max_clicks: Annotated[int, Bounds(1, MOST_CLICKS)] = 20
    threshold: Number = 0.49
    selection: Selection = "oracle-first"
    policy: str = "center"
    seed: Count = 0
    stop_at: float | None = None
    initial_masks: bool = True
    name: Literal["ritm"] = "ritm"
    budget: str = ""
    granularity: Granularity = "none"
    preset: str = ""
    preset_values: Mapping[str, Any] = field(default_factory=dict)
    recording: Recording | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        ClickPolicy.parse(self.policy)
        if self.stop_at is not None:
            if not 0 < self.stop_at <= 1:
                raise InputError(f"stop_at = {self.stop_at}: an IoU lies above 0 and at most at 1")
            if replays(self.policy):
                raise InputError(
                    f"stop_at = {self.stop_at}: recorded clicks end by themselves, so leave the option out with "
                    f"{REPLAY}"
                )
            if self.granularity in ORACLES:
                raise InputError(
                    f"stop_at = {self.stop_at}: an oracle of the granularity compares whole loops, so leave the option "
                    "out"
                )
        if self.budget:
            self._check_budget()

    def _check_budget(self) -> None:
        if self.budget not in BUDGETS:
            raise unknown_name("budget", self.budget, BUDGETS)
        for name, only in (("max_clicks", 1), ("stop_at", None), ("policy", "center")):
            if getattr(self, name) != only:
                raise InputError(
                    f"{name} = {getattr(self, name)}: this method gets {BUDGETS[self.budget].words} at once and "
                    "answers once, so leave the option out"
                )

    @property
    def click_policy(self) -> ClickPolicy:
        """The policy, with its recorded clicks where it has any."""
        if self.recording is not None:
            return ClickPolicy(REPLAY, recording=self.recording)
        return ClickPolicy.parse(self.policy)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; without an empty budget or preset, the granularity `none`, and recorded clicks (see `policy`)."""
        found = dataclasses.asdict(dataclasses.replace(self, recording=None))
        del found["recording"]
        for name in ("budget", "preset", "preset_values"):
            if not found[name]:
                del found[name]
        if self.granularity == "none":
            del found["granularity"]
        return found


@dataclass(frozen=True, slots=True)
class SetProtocol:
    """The protocol of the diverse task: how a method is asked what a first click may mean.

    Attributes:
        clicks: first clicks drawn for each set, at least 1.
        seed: for the draws.
        move: pixels by which each click is moved in eight directions, staying in the click region; 0 for none.
        threshold: a pixel belongs to a candidate if its probability is strictly above this.
    """

    clicks: Annotated[Count, Bounds(1)] = 1
    seed: Count = 0
    move: Count = 3
    threshold: Number = 0.49

    def __post_init__(self) -> None:
        check_fields(self)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)
