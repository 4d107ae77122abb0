"""Which datasets are here, and whether one is complete and unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets.cards import ANY_FOLDER, DatasetCard, is_folder, load_card, open_dataset
from disbench.io import addresses, definitions

_THREADS = 4


@dataclass(frozen=True, slots=True)
class Listing:
    """A dataset that disbench has a card for.

    Attributes:
        samples: number of samples on the card; None if unknown or if it depends on the user's files.
        folder: where it was found, or None.
        state: `here`, `can be fetched`, `not here`, or `your own` for the card of any folder.
    """

    name: str
    title: str
    samples: int | None
    folder: Path | None
    state: str

    def line(self) -> str:
        """The listing as one line of text, in columns."""
        count = f"{self.samples:,}" if self.samples is not None else "-"
        return f"{self.name:<25} {count:>7}  {self.state:<14}  {self.title}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a dataset.

    Attributes:
        content_hash: hash of the samples; empty if it cannot be computed.
        checked_hash: whether the card has a hash to compare with.
        problems: everything that is wrong, one sentence each.
        notes: how masks and photographs are read, where that is not plain.
    """

    name: str
    samples: int = 0
    images: int = 0
    content_hash: str = ""
    checked_hash: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        found = f"{self.name}: {self.samples:,} samples on {self.images:,} images"
        count = len(self.problems)
        state = "whole" if self.whole else f"not whole, {count} problem{'s'[: count > 1]}"
        known = "as on the card" if self.checked_hash and self.whole else "the card has none to compare"
        hashed = [f"  content hash {self.content_hash}" + (f" ({known})" if self.whole else "")]
        said = (f"  {sentence}" for sentence in (*self.notes, *self.problems))
        return [f"{found}: {state}", *(hashed if self.content_hash else []), *said]


def list_datasets(data: Path | None) -> list[Listing]:
    """Every dataset with a card, sorted by name, and whether it is below the root of the datasets."""
    return [_listing(load_card(name), data) for name in definitions.names("datasets")]


def verify(name: str, data: Path | None, overrides: Sequence[str] = (), *, progress: bool = False) -> Verification:
    """Read all of a dataset and compare it with its card.

    Every sample is read: image and mask have the same size, and the target has an object. With the card's own options
    the counts and the content hash are compared, too. All problems are reported, not only the first. Arguments as for
    `open_dataset`; `InputError` for an unknown dataset or option.
    """
    name = addresses.local_text(name)
    card = None if is_folder(name) else load_card(name)
    default = card is not None and card.values(overrides) == card.values()
    try:
        source = open_dataset(name, data, overrides)
    except InputError as error:
        return Verification(card.name if card else name, problems=(str(error),))
    problems = _unreadable(source, progress=progress)
    content_hash, failure = _content_hash(source)
    facts: Mapping[str, Any] = source.facts()
    found = Verification(
        name=source.name,
        samples=len(source.ids),
        images=facts.get("images", 0),
        content_hash=content_hash,
        checked_hash=bool(card and card.content_hash and default),
        notes=tuple(facts.get("notes", ())),
    )
    if card is not None and default:
        problems += _differences(found, card)
    problems += [failure] if failure and not problems else []
    return replace(found, problems=tuple(problems))


def _listing(card: DatasetCard, data: Path | None) -> Listing:
    if card.name == ANY_FOLDER:
        return Listing(card.name, card.title, None, None, "your own")
    folder = card.find(data, card.values())
    state = "here" if folder else "can be fetched" if card.files else "not here"
    return Listing(card.name, card.title, card.samples, folder, state)


def _unreadable(source: SampleSource, *, progress: bool) -> list[str]:
    """The error of every sample that cannot be read, without repetitions."""
    from tqdm import tqdm  # noqa: PLC0415

    pool = ThreadPoolExecutor(_THREADS)
    try:
        results = pool.map(partial(_problem, source), range(len(source.ids)))
        bar = tqdm(results, total=len(source.ids), desc=source.name, unit="sample", disable=not progress)
        return list(dict.fromkeys(problem for problem in bar if problem))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the other samples


def _problem(source: SampleSource, index: int) -> str | None:
    try:
        source.read(index)
    except (InputError, OSError) as error:
        return str(error)
    return None


def _content_hash(source: SampleSource) -> tuple[str, str]:
    """The content hash, or "" and the error."""
    try:
        return source.content_hash(), ""
    except (InputError, OSError) as error:
        return "", str(error)


def _differences(found: Verification, card: DatasetCard) -> list[str]:
    """Differences from the card."""
    problems = [
        f"{count:,} {what}, but {expected:,} on the card"
        for what, count, expected in (("samples", found.samples, card.samples), ("images", found.images, card.images))
        if expected is not None and count != expected
    ]
    if found.checked_hash and found.content_hash and found.content_hash != card.content_hash:
        problems.append(
            f"content hash {found.content_hash}, but {card.content_hash} on the card: the files are not those that "
            "the card was made from"
        )
    return problems
