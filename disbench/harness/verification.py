"""`verify_run`: recompute a stored run's measures from its rows, and clicks and IoUs as far as its masks allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from disbench.core.click_policies import is_replay
from disbench.core.clicks import opencv_version
from disbench.core.errors import InputError
from disbench.core.samples import SampleSource, content_of
from disbench.datasets.cards import open_dataset
from disbench.harness.archive import LEFT_OUT, MANIFEST, Manifest, read_packed
from disbench.harness.checks import TOLERANCE, ClickChecks, Problems, RowChecks, check_schema, is_unread
from disbench.harness.measures import Value, as_claims, as_lines
from disbench.harness.protocol import Protocol, find_recording, unknown_samples
from disbench.harness.set_source import IntentSource, SetSource
from disbench.harness.store import RUN, StoredRun, read_run
from disbench.io import definitions
from disbench.io.archives import safe_path
from disbench.io.settings import overrides

_LONGEST = 100  # maximum length of a claim in a message


@dataclass(frozen=True)
class Verification:
    """The outcome of `verify_run`; the run holds if there are no problems.

    Attributes:
        problems: one line per kind.
        figures: measure -> value, recomputed from the rows; None if that is impossible.
        clicks: number of clicks compared with the masks before them, or with the recording.
        moved: number of these that differ from those simulated here, within the tolerance.
        measured: number of rows whose IoUs were recomputed from their masks.
        unchecked: what could not be checked, and why.
    """

    place: Path
    problems: tuple[str, ...]
    figures: Mapping[str, Value] | None = None
    clicks: int = 0
    moved: int = 0
    measured: int = 0
    unchecked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def holds(self) -> bool:
        """True if no problem was found."""
        return not self.problems

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        why = "are the recorded ones" if self.recorded else "follow from the masks before them"
        followed = f"{self.clicks:,} clicks {why}" if self.clicks else ""
        measured = f"{self.measured:,} IoUs and boundary IoUs follow from their masks" if self.measured else ""
        found = [*as_lines(self.figures or {}), followed, measured]
        holds = "the run holds, as far as it could be checked" if self.unchecked else "the run holds"
        return [
            f"{self.place}: {holds if self.holds else 'the run does not hold'}",
            *(f"  {line}" for line in (found if self.holds else self.problems) if line),
            *(f"  not checked: {what}" for what in self.unchecked),
            *(f"  {note}" for note in self.notes),
        ]


def verify_run(
    place: Path,
    data: Path | None = None,
    *,
    source: SampleSource | None = None,
    dataset: str | None = None,
    images: Path | str | None = None,
    recording: Path | None = None,
    progress: bool = False,
) -> Verification:
    """Recompute a run's measures from its rows, and check the rows against its protocol.

    Always checked: `run.json` and the rows fit each other. With the dataset: its samples, in order, and each first
    click. With stored masks also: each click follows from the mask before it, each IoU from its mask.

    Args:
        place: folder of a run, or a packed run.
        data: root of the datasets.
        source: the dataset, if already open.
        dataset: name, card or folder of the dataset, if the name in `run.json` does not identify it.
        images: images of diverse sets, as in `SetSource`.
        recording: file of recorded clicks, if it is neither in the current folder nor beside the run.
        progress: show a progress bar on standard error.

    Raises:
        InputError: no finished run, an imported or damaged one, or a sample of the dataset that cannot be read.
    """
    packed = read_packed(place) if place.is_file() else None
    run, manifest = (packed.run, packed.manifest) if packed else (read_run(place), None)
    run.require_clicks()
    problems = Problems()
    if not check_schema(run, problems):
        return Verification(place, tuple(problems.lines()), unchecked=("the rows",))
    protocol, unseen = _recorded(run.protocol, place, recording)
    stored = _stored(run, manifest, problems)
    found, unchecked = _samples(run, source, partial(open_run_dataset, run, data, dataset, images), problems)
    unchecked += unseen
    if found is not None and stored == "none":
        left_out = manifest is not None and manifest.masks == LEFT_OUT
        why = "the archive was packed without its masks" if left_out else "run with --store kept to have them"
        unchecked.append(f"clicks after the first, and IoUs: there are no masks ({why})")
    rows, clicks = RowChecks(run, protocol, stored, problems), ClickChecks(protocol, problems)
    expected = {} if found is None else _expected(found, run, protocol, problems)
    missing, last = dict.fromkeys(expected), -1
    for table in tqdm(run.samples(), total=run.record.result.samples, unit="sample", disable=not progress):
        sound = rows.add(table)
        if found is None:
            continue
        name = str(table["sample"][0].as_py())
        if name not in expected:
            problems.add("sample that the dataset, every and limit do not give", repr(name))
            continue
        number = expected[name]
        missing.pop(name, None)
        if number <= last:
            problems.add("sample out of the dataset's order", repr(name))
        last = number
        if sound is not None and not is_unread(sound[0]):
            clicks.add(found.read(number), sound)
    if protocol.recording is not None or not is_replay(protocol.policy):  # otherwise samples with clicks are unknown
        for name in missing:
            problems.add("sample that is missing", repr(name))
    figures = rows.end()
    notes = (
        ()
        if not clicks.moved
        else (
            f"{clicks.moved:,} of {clicks.clicks:,} clicks are not where they are simulated here, but within "
            f"{TOLERANCE:g} pixels of the largest distance, as another release of OpenCV moves them (the run's "
            f"{run.record.versions['opencv']!r}, here {opencv_version()!r})",
        )
    )
    if manifest is not None and figures is not None:
        for name, value in as_claims(figures).items():
            if (claim := manifest.figures.get(name)) != value:
                example = f"{name}: {repr(claim)[:_LONGEST]}, not {value}"
                problems.add(f"figure of {MANIFEST} that the rows do not have", example)
    return Verification(
        place,
        tuple(problems.lines()),
        figures,
        clicks.clicks,
        clicks.moved,
        clicks.measured,
        tuple(unchecked),
        notes,
        recorded=protocol.recording is not None,
    )


def open_run_dataset(
    run: StoredRun, data: Path | None, dataset: str | None = None, images: Path | str | None = None
) -> SampleSource:
    """Open the dataset of a run with the run's options, without comparing its content hash.

    `dataset` is its name, card.toml or folder, or for a run on diverse sets the folder of the shards, with `images` as
    in `SetSource`. Without it, the name in `run.json` must be that of one of this package's cards; InputError if not,
    or if the dataset is missing.
    """
    if run.record.dataset.has_sets:
        if dataset is None:
            raise InputError(f"{run.dataset!r} is made of diverse sets; name the folder of its shards with --dataset")
        return IntentSource(SetSource(Path(dataset), images, data, run.record.dataset.sets.choice))
    if images is not None:
        raise InputError(f"{run.dataset!r} is not made of diverse sets; leave --images out")
    if dataset is None and run.dataset not in definitions.names("datasets"):
        raise InputError(f"{run.dataset!r} is not a dataset of disbench; name its card or folder with --dataset")
    wanted = overrides(run.record.dataset.options)
    for text in wanted if dataset is None else []:  # untrusted options must not name folders outside the dataset
        for part in text.partition("=")[2].split(","):
            safe_path(part, f"{run.place(RUN)}: option {text.partition('=')[0]!r} of the dataset")
    return open_dataset(dataset or run.dataset, data, wanted)


def _recorded(protocol: Protocol, place: Path, recording: Path | None) -> tuple[Protocol, list[str]]:
    """The protocol with its recorded clicks if found, and what cannot be checked without them."""
    named = protocol.click_policy.recording
    if named is None:
        return protocol, []
    try:
        return dataclasses.replace(protocol, recording=find_recording(named, place, recording)), []
    except (InputError, OSError) as error:
        return protocol, [f"that the clicks are the recorded ones ({error})"]


def _stored(run: StoredRun, manifest: Manifest | None, problems: Problems) -> str:
    """Which masks the rows should have."""
    store = run.record.execution.store
    if manifest is None or manifest.masks == store:
        return store
    if manifest.masks != LEFT_OUT or store == "none":
        problems.add(f"{MANIFEST} with other masks than its run", f"{manifest.masks!r}, not {store!r}")
    return "none"


def _samples(
    run: StoredRun, source: SampleSource | None, opened: Callable[[], SampleSource], problems: Problems
) -> tuple[SampleSource | None, list[str]]:
    """The dataset of a run, or None, and what cannot be checked without it."""
    said = run.record.dataset
    try:
        source = source or opened()
        found = content_of(source).whole
    except (InputError, OSError) as error:
        return None, [f"samples, clicks and IoUs ({error})"]
    if found != said.content_hash:
        elsewhere = ", or images elsewhere (--images)" if said.has_sets else ""
        reason = (
            f"the dataset {said.name!r} here has the content hash {found[:16]}..., the run's had "
            f"{said.content_hash[:16]!r}...: other files, or other options{elsewhere}"
        )
    elif len(source.ids) == said.samples:
        return source, []
    else:
        problems.add("number of samples that the dataset does not have", f"{said.samples}, not {len(source.ids)}")
        reason = "the number of samples is wrong"
    return None, [f"samples, clicks and IoUs ({reason})"]


def _expected(source: SampleSource, run: StoredRun, protocol: Protocol, problems: Problems) -> dict[str, int]:
    """Samples that a run should have: id -> index."""
    recording = protocol.recording
    for name in unknown_samples(recording, source.ids):
        problems.add("recorded clicks on a sample that the dataset does not have", repr(name))
    found = {source.ids[number]: number for number in run.record.numbers}
    return found if recording is None else {name: found[name] for name in found if name in recording.clicks}
