"""Evaluation protocols: the settings that two results must share to be comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from disbench.core.choices import Granularity, Selection
from disbench.core.click_policies import BUDGETS, REPLAY, ClickPolicy, Recording, is_replay
from disbench.core.clicks import Click
from disbench.core.errors import InputError, quote, unknown_name
from disbench.core.samples import SampleSource
from disbench.io import addresses
from disbench.io.recorded_clicks import read_recording
from disbench.io.settings import Bounds, Count, Number, check_fields

ORACLES: Mapping[Granularity, float] = {"oracle": 0.90, "oracle-85": 0.85}
"""Granularity oracles, and the IoU whose number of clicks they minimise."""
MOST_CLICKS = (1 << 15) - 1  # the column `click` of the rows is an int16


@dataclass(frozen=True, slots=True)
class Protocol:
    """The evaluation protocol of one run.

    Attributes:
        max_clicks: maximum number of clicks per sample, at least 1.
        threshold: a pixel belongs to a mask if its probability is strictly above this.
        selection: how one of several candidates is selected: `oracle-first` (the best by IoU with the target at
            click 1, then the method's own choice), `oracle-all` (the best at every click), `score` (the method's
            highest score; the target is not used).
        policy: how clicks are simulated (`disbench.core.click_policies.ClickPolicy.parse`).
        seed: seed of random policies.
        stop_at: a sample ends at the first IoU that reaches this; None gives every sample all its clicks.
        initial_masks: start from a sample's initial mask if it has one.
        name: the click simulation and loop.
        budget: one of `disbench.core.click_policies.BUDGETS`, for a method that gets all points at once; a sample then
            has one answer, stored as click 1.
        granularity: what `open` is told about the target's size: nothing (`none`), the target's granularity (`truth`),
            or the one of `disbench.core.ambiguity.GRANULARITIES` that needs the fewest clicks to the IoU in `ORACLES`
            (GraCo); only that loop is stored.
        preset: name of the preset that the values come from (`disbench.harness.presets`), or "".
        preset_values: the preset's values; command-line options may have overridden them.
        recording: the clicks of the policy `replay`, once read (`disbench.harness.protocol`).

    Raises:
        InputError: a value that is unknown, out of range, or incompatible with a budget.
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
                raise InputError(f"stop_at = {self.stop_at}: must be above 0 and at most 1")
            for applies, why in (
                (is_replay(self.policy), "recorded clicks end by themselves"),
                (self.granularity in ORACLES, "a granularity oracle compares whole loops"),
            ):
                if applies:
                    raise InputError(f"stop_at = {self.stop_at}: {why}, so leave the option out")
        if self.budget and self.budget not in BUDGETS:
            raise unknown_name("budget", self.budget, BUDGETS)
        for name, only in (("max_clicks", 1), ("stop_at", None), ("policy", "center")) if self.budget else ():
            if getattr(self, name) != only:
                raise InputError(
                    f"{name} = {getattr(self, name)}: this method gets {BUDGETS[self.budget].title} at once and "
                    "answers once, so leave the option out"
                )

    @property
    def click_policy(self) -> ClickPolicy:
        """The policy, with its recorded clicks if any."""
        if self.recording is not None:
            return ClickPolicy(REPLAY, recording=self.recording)
        return ClickPolicy.parse(self.policy)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without recorded clicks (see `policy`), an empty budget or preset, and the granularity `none`."""
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
        clicks: first clicks drawn per set, at least 1.
        seed: seed of the draws.
        move: pixels by which each click is moved in eight directions, within the click region; 0 for none.
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


_SHOWN = 5  # samples listed in a message


def with_recording(protocol: Protocol) -> Protocol:
    """Read the recorded clicks that a protocol's policy names, if any.

    The policy is then in the form stored in results: the file's bare name, the user, and the digest of the clicks.
    """
    named = protocol.click_policy.recording
    if named is None or protocol.recording is not None:
        return protocol
    found = _read(named)
    return replace(protocol, policy=str(ClickPolicy(REPLAY, recording=found)), recording=found)


def numbers_with_clicks(protocol: Protocol, source: SampleSource, numbers: Sequence[int]) -> list[int]:
    """Indices of the samples that have recorded clicks; all of them for simulated clicks.

    InputError for clicks on a sample that is not in the dataset, or if none of these samples has any.
    """
    if protocol.recording is None:
        return list(numbers)
    check_samples(protocol, source.ids)
    found = [number for number in numbers if source.ids[number] in protocol.recording.clicks]
    if not found:
        raise InputError(
            f"{protocol.recording.file}: none of the {len(numbers)} chosen samples has recorded clicks of "
            f"{protocol.recording.user or 'anybody'}; leave --every and --limit out"
        )
    return found


def check_samples(protocol: Protocol, ids: Sequence[str]) -> None:
    """Raise InputError for recorded clicks on samples that are not in the dataset."""
    if unknown := unknown_samples(protocol.recording, ids):
        assert protocol.recording is not None
        raise InputError(
            f"{protocol.recording.file}: clicks on {len(unknown)} samples that the dataset does not have, the first "
            f"{quote(unknown[0])}; its ids are like {quote(ids[0]) if ids else 'none'}; fix the file"
        )


def unknown_samples(recording: Recording | None, ids: Sequence[str]) -> list[str]:
    """Samples with recorded clicks that are not in the dataset."""
    known = set(ids)
    return [] if recording is None else [sample for sample in recording.clicks if sample not in known]


def recorded_clicks(text: str, sample: str | None = None) -> list[Click]:
    """Recorded clicks on one sample, from `FILE` or `FILE,user=NAME` (a path or an address).

    InputError for an unreadable file, an unknown sample, or several samples if none is named.
    """
    named = Recording.parse(text)
    found = _read(named)
    if sample is None and len(found.clicks) > 1:
        some = ", ".join(sorted(found.clicks)[:_SHOWN])
        raise InputError(f"{named.file}: clicks on {len(found.clicks)} samples ({some} ...); name one with --sample")
    if sample is not None and sample not in found.clicks:
        raise unknown_name("sample", sample, found.clicks, named.file)
    return list(found.clicks[sample or next(iter(found.clicks))])


def find_recording(named: Recording, place: Path, given: Path | None = None) -> Recording:
    """Recorded clicks that a stored run's policy names, from `given`, if any.

    By default the file is looked up by its bare name in the current folder and beside the run (`place`).

    Raises:
        InputError: a missing or unreadable file, or one with other clicks.
    """
    name = Path(named.file).name  # an untrusted run must not name other folders
    paths = [given] if given is not None else [Path(name), place.parent / name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"{given or name}: no such file here; name it with --recording")
    if not named.digest:
        raise InputError(f"the policy {ClickPolicy(REPLAY, recording=named)} does not say which clicks (no digest)")
    return read_recording(path, named.user, named.digest)


def _read(named: Recording) -> Recording:
    return read_recording(Path(addresses.localize(named.file)), named.user, named.digest)
