"""The policy `replay`: recorded clicks instead of simulated ones (docs/clicks.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from disbench.core.click_policies import REPLAY, ClickPolicy, Recording
from disbench.core.clicks import Click
from disbench.core.errors import InputError, shown, unknown_name
from disbench.core.samples import SampleSource
from disbench.harness.protocol import Protocol
from disbench.io import addresses

_SHOWN = 5
"""Samples that a message names."""


def with_recording(protocol: Protocol) -> Protocol:
    """The protocol with the recorded clicks that its policy names, if any.

    The policy then gives what a result records: the file's bare name, the user, and the digest of the clicks.
    """
    named = protocol.click_policy.recording
    if named is None or protocol.recording is not None:
        return protocol
    found = _read(named)
    return replace(protocol, policy=str(ClickPolicy(REPLAY, recording=found)), recording=found)


def with_first_clicks(protocol: Protocol) -> tuple[Protocol, Mapping[str, Sequence[str]]]:
    """The protocol with every user's first clicks of the recording that its policy names, and the user of each.

    InputError for another policy, or clicks that cannot be read.
    """
    from disbench.io.recorded_clicks import read_first_clicks  # noqa: PLC0415

    named = protocol.click_policy.recording
    if named is None:
        raise InputError(
            f"policy {protocol.policy}: first clicks are those of a recording; name it with --policy {REPLAY}:FILE"
        )
    path = Path(addresses.local_text(named.file))
    found, users = read_first_clicks(path, named.user, named.digest)
    return replace(protocol, policy=str(ClickPolicy(REPLAY, recording=found)), recording=found), users


def recorded_numbers(protocol: Protocol, source: SampleSource, numbers: Sequence[int]) -> list[int]:
    """Those samples that have recorded clicks; all of them with simulated clicks.

    InputError for clicks on a sample that the dataset does not have, or on none of these.
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
    """Refuse recorded clicks on samples that the dataset does not have."""
    if unknown := unknown_samples(protocol.recording, ids):
        assert protocol.recording is not None
        raise InputError(
            f"{protocol.recording.file}: clicks on {len(unknown)} samples that the dataset does not have, the first "
            f"{shown(unknown[0])}; its ids are like {shown(ids[0]) if ids else 'none'}; fix the file"
        )


def unknown_samples(recording: Recording | None, ids: Sequence[str]) -> list[str]:
    """Samples with recorded clicks that the dataset does not have."""
    known = set(ids)
    return [] if recording is None else [sample for sample in recording.clicks if sample not in known]


def recorded_clicks(text: str, sample: str | None = None) -> list[Click]:
    """The recorded clicks on one sample, from `FILE` or `FILE,user=NAME` (a path or an address).

    InputError for a file that cannot be read, an unknown sample, or several samples and none named.
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
    """The recorded clicks that a stored run's policy names, from a given file or from where the run lies.

    Without a file, it is looked for by its bare name in the present folder and beside the run (`place`).

    Raises:
        InputError: no such file, it cannot be read, or it has other clicks.
    """
    from disbench.io.recorded_clicks import read_recording  # noqa: PLC0415

    name = Path(named.file).name  # a stranger's run leads to no other folder
    paths = [given] if given is not None else [Path(name), place.parent / name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"{given or name}: no such file here; name it with --recording")
    if not named.digest:
        raise InputError(f"the policy {ClickPolicy(REPLAY, recording=named)} does not say which clicks (no digest)")
    return read_recording(path, named.user, named.digest)


def _read(named: Recording) -> Recording:
    from disbench.io.recorded_clicks import read_recording  # noqa: PLC0415

    return read_recording(Path(addresses.local_text(named.file)), named.user, named.digest)
