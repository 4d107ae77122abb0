"""Presets: a published evaluation's own terms (`protocols/*.toml`), so that its numbers can be repeated.

A definition, not code: it sets values of the protocol and readings of datasets that this package has anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from disbench import definitions
from disbench.click_policies import ClickPolicy
from disbench.datasets.cards import load_card
from disbench.errors import InputError, unknown_name
from disbench.harness.figures import reached_percents
from disbench.harness.protocol import Protocol
from disbench.harness.store import StoredRun
from disbench.metrics import FailureRule, noc, nof
from disbench.options import overrides

_VALUES: Mapping[str, type | tuple[type, ...]] = {
    "threshold": (int, float),
    "max_clicks": int,
    "policy": str,
    "selection": str,
    "initial_masks": bool,
}
"""What a preset may set of the protocol."""
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **{"title": str, "source": str, "notes": str, "failures": str, "datasets": dict},
    **_VALUES,
}


@dataclass(frozen=True)
class Preset:
    """The terms of one published evaluation.

    Attributes:
        name: of its definition: the file's stem.
        title: whose evaluation it is.
        failures: how it counts failures, a rule of `disbench.metrics.nof`.
        values: of the protocol, by the names of `Protocol`; what is not here it leaves to the run.
        datasets: name of a dataset's card -> its options.
    """

    name: str
    title: str
    failures: FailureRule
    values: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def dataset_options(self, dataset: str) -> list[str]:
        """The options `option=value` of a dataset, by the name of its card; none for all others."""
        return overrides(self.datasets.get(dataset, {}))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as runs record it."""
        readings = {name: dict(options) for name, options in self.datasets.items()}
        return {"name": self.name, "failures": self.failures, **self.values, "datasets": readings}


def load_preset(name: str) -> Preset:
    """The preset of a name, or of a path that ends in `.toml`.

    Raises:
        InputError: no such preset, or one that is not as it should be.
    """
    path = definitions.find("protocols", name)
    content = definitions.load(path)
    _check_kinds(content, path)
    for key in ("title", "failures"):
        if not content.get(key):
            raise InputError(f"{path}: {key!r} is missing; add it")
    if content["failures"] not in get_args(FailureRule):
        raise unknown_name("rule of failures", content["failures"], get_args(FailureRule), str(path))
    values = {key: content[key] for key in _VALUES if key in content}
    try:
        ClickPolicy.parse(Protocol(**values).policy)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    datasets = content.get("datasets", {})
    _check_datasets(datasets, path)
    return Preset(path.stem, content["title"], content["failures"], values, datasets)


def protocol_of(
    preset: Preset | None,
    *,
    threshold: float,
    budget: str = "",
    chosen: Mapping[str, Any],
    **others: Any,
) -> Protocol:
    """The protocol of a run: what the user chose, else what the preset sets, else the standard.

    Args:
        preset: or None.
        threshold: of the method's card, where neither user nor preset has one.
        budget: of the method; it answers once then.
        chosen: value of the protocol -> what the user chose, or None.
        others: further values of the protocol.

    Raises:
        InputError: a preset with a budget, or values that do not fit.
    """
    if preset and budget:
        raise InputError(
            f"protocol {preset.name}: it is one of a loop of clicks, but this method gets all its points at once; "
            "leave --protocol out"
        )
    values = {"threshold": threshold, **(preset.values if preset else {}), **others, "budget": budget}
    values |= {key: value for key, value in chosen.items() if value is not None}
    if budget:
        values["max_clicks"] = 1
    return Protocol(**values, preset=preset.as_dict() if preset else {})


def departures(protocol: Mapping[str, Any]) -> list[str]:
    """What a run did otherwise than the preset that it was asked for: names of values of the protocol.

    Args:
        protocol: as a run records it.
    """
    preset = protocol.get("preset") or {}
    return [key for key in _VALUES if key in preset and preset[key] != protocol.get(key)]


def figures_line(run: StoredRun, preset: Preset) -> str:
    """NoC and NoF of a finished run, failures counted as the preset does; "" where there are none.

    Raises:
        InputError: the run's rows are damaged.
    """
    ious, protocol = list(run.by_sample().values()), run.protocol
    cap, percents = int(protocol["max_clicks"]), reached_percents(protocol["stop_at"])
    parts = [f"NoC@{percent} {noc(ious, percent / 100, cap):.2f}" for percent in percents]
    parts += [f"NoF@{percent} {nof(ious, percent / 100, cap, preset.failures)}" for percent in percents]
    rule = f"failures by the rule '{preset.failures}'"
    return f"on the terms of {preset.name}: {', '.join(parts)}; {rule}" if parts else ""


def _check_kinds(content: Mapping[str, Any], path: Path) -> None:
    for key, value in content.items():
        if key not in _KINDS:
            raise unknown_name("key", key, _KINDS, str(path))
        kind = _KINDS[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{path}: {key} = {value!r} is of the wrong kind")


def _check_datasets(datasets: Mapping[str, Any], path: Path) -> None:
    for name, options in datasets.items():
        if not isinstance(options, Mapping):
            raise InputError(f"{path}: write the options of a dataset as a table [datasets.{name}]")
        try:
            load_card(name).values(overrides(options))
        except InputError as error:
            raise InputError(f"{path}: [datasets.{name}]: {error}") from error
