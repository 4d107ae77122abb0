"""Presets: the evaluation settings of a paper's own code (`baselines/protocols/*.toml`; PROTOCOL: deviations)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from disbench.core.choices import Selection
from disbench.core.click_policies import ClickPolicy
from disbench.core.errors import InputError, shown, unknown_name
from disbench.core.metrics import FailureRule
from disbench.harness.measures import MEASURES, PERCENTS, read_rows
from disbench.harness.protocol import MOST_CLICKS, SELECTIONS, Protocol
from disbench.harness.store import StoredRun
from disbench.io import definitions
from disbench.io.options import overrides
from disbench.io.settings import LARGEST

STANDARD = "ritm"
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("title", "source", "selection", "policy", "failures", "notes"), str),
    "threshold": (int, float),
    "max_clicks": int,
    "datasets": dict,
}


_VALUES = ("threshold", "max_clicks", "selection", "policy")


@dataclass(frozen=True)
class Preset:
    """A protocol as a whole.

    Attributes:
        name: of its file.
        title: whose it is.
        source: where it is read.
        threshold: a pixel belongs to a mask above it; None: the method's own.
        max_clicks: clicks a sample gets.
        selection: how one of several candidates is kept.
        policy: how clicks are simulated.
        failures: which NoF is published.
        datasets: name of a dataset's card -> its options.
        notes: what a protocol cannot say.
    """

    name: str
    title: str
    source: str = ""
    threshold: float | None = None
    max_clicks: int = 20
    selection: Selection = "oracle-first"
    policy: str = "center"
    failures: FailureRule = "ritm"
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: str = ""

    def reading(self, dataset: str) -> list[str]:
        """Options of a dataset, `option=value` each: how this protocol reads its masks."""
        return overrides(self.datasets.get(dataset, {}))

    def as_dict(self) -> dict[str, Any]:
        """What it sets, JSON-ready, as runs record it; what it leaves to the method is not there."""
        values = {key: getattr(self, key) for key in _VALUES if getattr(self, key) is not None}
        readings = {name: dict(options) for name, options in self.datasets.items()}
        return {**values, "failures": self.failures, "datasets": readings}

    def figures(self, run: StoredRun) -> str:
        """NoC and NoF of a finished run of a loop of clicks, failures counted as here, for people to read.

        Raises:
            InputError: the run's rows are damaged.
        """
        rows = read_rows(run)
        percents = [percent for percent in PERCENTS if rows.reaches(percent)]
        names = [f"noc_{percent}" for percent in percents] + [f"nof_{percent}_{self.failures}" for percent in percents]
        parts = [f"{MEASURES[name].title} {MEASURES[name].text(MEASURES[name].of(rows))}" for name in names]
        return f"as {self.name} counts: {', '.join(parts)} (failures: {self.failures})"

    def line(self) -> str:
        """For a list."""
        said = [
            "" if self.threshold is None else f"> {self.threshold:g}",
            "" if self.max_clicks == 20 else f"{self.max_clicks} clicks",
            "" if self.selection == "oracle-first" else self.selection,
            "" if self.policy == "center" else self.policy,
            "" if self.failures == "ritm" else f"NoF {self.failures}",
            *(f"{name}: {', '.join(self.reading(name))}" for name in self.datasets),
        ]
        return f"{self.name:<16}{self.title}; {'; '.join(filter(None, said)) or 'nothing else'}"


def load_preset(name: str) -> Preset:
    """The preset of a name, or of a path that ends in `.toml`.

    Raises:
        InputError: no such preset, or one that is not as it should be.
    """
    path = definitions.find("baselines/protocols", name)
    content = definitions.load(path)
    for key, value in content.items():
        if key not in _KINDS:
            raise unknown_name("key", key, _KINDS, str(path))
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise InputError(f"{path}: {key} = {shown(value)} is of the wrong kind")
    if "title" not in content:
        raise InputError(f"{path}: 'title' is missing; add it")
    for key, known in (("selection", SELECTIONS), ("failures", get_args(FailureRule))):
        if key in content and content[key] not in known:
            raise unknown_name(key, content[key], known, str(path))
    if not 1 <= content.get("max_clicks", 1) <= MOST_CLICKS:
        raise InputError(f"{path}: max_clicks is not from 1 to {MOST_CLICKS}")
    if not abs(content.get("threshold", 0)) <= LARGEST:  # nan is not, either
        raise InputError(f"{path}: threshold is no number that is computed with; mend it")
    for dataset, options in content.get("datasets", {}).items():
        if not isinstance(options, dict):
            raise InputError(f"{path}: write a dataset's options as a table [datasets.{dataset}]")
    preset = Preset(path.stem, **content)
    try:
        ClickPolicy.parse(preset.policy)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return preset


def departures(protocol: Protocol) -> list[str]:
    """Names of the values in which a run differs from the preset that it was asked for."""
    asked = protocol.preset_values
    return [key for key in _VALUES if key in asked and asked[key] != getattr(protocol, key)]


def list_presets() -> list[str]:
    """A line for each preset."""
    return [load_preset(name).line() for name in definitions.names("baselines/protocols")]
