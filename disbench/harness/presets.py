"""Presets: evaluation settings of papers' own code (`baselines/protocols/*.toml`; PROTOCOL: deviations)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from disbench.baselines.cards import MethodSpec
from disbench.core.choices import Selection
from disbench.core.click_policies import ClickPolicy
from disbench.core.metrics import FailureRule
from disbench.harness.measures import MEASURES, PERCENTS, read_rows
from disbench.harness.protocol import MOST_CLICKS, Protocol
from disbench.harness.store import StoredRun
from disbench.io import definitions
from disbench.io.settings import Bounds, Number, overrides, settings_from

STANDARD = "ritm"
_VALUES = ("threshold", "max_clicks", "selection", "policy")


@dataclass(frozen=True)
class Preset:
    """Settings of one paper or its code; see `Protocol` for settings not described here.

    Attributes:
        source: the file, or its address, that the settings were read from.
        threshold: None for the method's own.
        failures: the rule of the published NoF.
        datasets: name of a dataset card -> its options.
        notes: what the settings cannot express.
    """

    title: str
    source: str = ""
    threshold: Number | None = None
    max_clicks: Annotated[int, Bounds(1, MOST_CLICKS)] = 20
    selection: Selection = "oracle-first"
    policy: str = "center"
    failures: FailureRule = "ritm"
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        ClickPolicy.parse(self.policy)

    def reading(self, dataset: str) -> list[str]:
        """Options for reading a dataset, `option=value` each."""
        return overrides(self.datasets.get(dataset, {}))

    def conduct(
        self,
        spec: MethodSpec,
        *,
        max_clicks: int | None = None,
        threshold: float | None = None,
        selection: Selection | None = None,
        policy: str | None = None,
        **more: Any,
    ) -> Protocol:
        """The protocol of a method's run: these settings with overrides; `more` are other fields of `Protocol`."""
        own = spec.threshold if self.threshold is None else self.threshold
        standard = self == load_preset(STANDARD)
        return Protocol(
            max_clicks=1 if spec.budget else max_clicks or self.max_clicks,
            budget=spec.budget,
            threshold=own if threshold is None else threshold,
            selection=selection or self.selection,
            policy=policy or self.policy,
            preset="" if standard else self.name,
            preset_values={} if standard else self.as_dict(),
            **more,
        )

    def as_dict(self) -> dict[str, Any]:
        """Settings as stored in runs, without those left to the method."""
        values = {key: getattr(self, key) for key in _VALUES if getattr(self, key) is not None}
        return {**values, "failures": self.failures, "datasets": {k: dict(v) for k, v in self.datasets.items()}}

    def figures(self, run: StoredRun) -> str:
        """NoC and NoF of a finished run as text, with failures counted by this preset's rule."""
        rows = read_rows(run)
        percents = [percent for percent in PERCENTS if rows.reaches(percent)]
        names = [f"noc_{percent}" for percent in percents] + [f"nof_{percent}_{self.failures}" for percent in percents]
        parts = [f"{MEASURES[name].title} {MEASURES[name].text(MEASURES[name].of(rows))}" for name in names]
        return f"as {self.name} counts: {', '.join(parts)} (failures: {self.failures})"

    def line(self) -> str:
        """One line for a list of presets."""
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
    """Load a preset by name or from a path ending in `.toml`; InputError if it is missing or invalid."""
    path = definitions.find("baselines/protocols", name)
    return replace(settings_from(Preset, definitions.load(path), str(path)), name=path.stem)


def changed_settings(protocol: Protocol) -> list[str]:
    """Names of settings in which a run differs from its preset."""
    asked = protocol.preset_values
    return [key for key in _VALUES if key in asked and asked[key] != getattr(protocol, key)]


def list_presets() -> list[str]:
    """One line per preset."""
    return [load_preset(name).line() for name in definitions.names("baselines/protocols")]
