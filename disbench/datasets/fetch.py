"""Download datasets from the URLs on their cards, list them and verify them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets import cards
from disbench.datasets.cards import Address, DatasetCard, RemoteFile
from disbench.io import addresses, definitions
from disbench.io.archives import safe_path, unpack
from disbench.io.download import LinkStatus, download, head
from disbench.io.files import Existing, scratch_folder

DOWNLOADS = ".downloads"  # folder under the data root for archives until they are unpacked
_LINK_THREADS = 8
_THREADS = 4
_MAX_DEPTH = 4  # depth to which an archive's folders are searched


def fetch(
    name: str, data: Path | None, *, unverified: bool = False, existing: Existing = "resume", progress: bool = False
) -> Iterator[str]:
    """Download a dataset's files, verify them and install them.

    The URLs of a file are tried in order. If the card has a content hash and only one file, the content hash is
    checked, otherwise the archive's SHA-256. Installation is atomic: archives are unpacked to a temporary folder, whose
    content is then renamed into place. After an interruption, the same call resumes.

    Args:
        name: a card's name, or a path to the user's own card.
        data: data root.
        unverified: accept files without a hash on the card or with a different content hash, with a warning.
        existing: keep existing files and folders (`resume`), replace them, or fail.
        progress: show a progress bar on standard error.

    Yields progress messages. `InputError` without a data root, or if no URL serves the right file.
    """
    card = cards.load_card(name)
    if not card.files:
        raise InputError(f"{card.name}: its card has no address to fetch from; {card.get or card.homepage}")
    if data is None:
        raise InputError(f"{card.name}: the root of the datasets is unknown; set it with --data or DISBENCH_DATA")
    if addresses.address_of(data) is not None:
        raise InputError(f"{card.name}: cannot fetch to a remote folder; give a local one with --data")
    job = _Fetch(card, data, unverified, progress)
    wanted = []
    for file in card.files:
        _check_card(card, file)
        if missing := job.missing(file, existing):
            wanted.append((file, missing))
        else:
            yield f"{file.file}: what it holds is here already"
    unknown = [file.file for file, _ in wanted if not (job.by_content or file.sha256)]
    if unknown and not unverified:
        lacking = f"the card has no SHA-256 for {', '.join(unknown)}, so the download cannot be verified"
        raise InputError(f"{card.name}: {lacking}; allow it with --no-hash, and compare the SHA-256 that is printed")
    for file, missing in wanted:
        yield from job.fetch(file, missing)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """A dataset being fetched to the root `data`."""

    card: DatasetCard
    data: Path
    unverified: bool
    progress: bool

    @property
    def by_content(self) -> bool:
        """True if the content hash can be computed from a single archive."""
        return bool(self.card.content_hash) and len(self.card.files) == 1

    def target(self, file: RemoteFile) -> Path:
        return self.data / (self.card.folder or "") / file.to

    def missing(self, file: RemoteFile, existing: Existing) -> list[str]:
        """The names from a file that have to be installed."""
        names, target = list(file.holds) if file.unpack else [file.file], self.target(file)
        existing_names = [name for name in names if (target / name).exists()]
        if existing_names and existing == "fail":
            raise InputError(f"{target / existing_names[0]}: already exists; use --existing resume or overwrite")
        return names if existing == "overwrite" else [name for name in names if name not in existing_names]

    def fetch(self, file: RemoteFile, missing: Sequence[str]) -> Iterator[str]:
        downloads, failed = self.data / DOWNLOADS / self.card.name, []
        for number, address in enumerate(file.addresses, 1):
            name = file.file.replace("/", "-")
            archive = downloads / (f"{number}-{name}" if number > 1 else name)
            downloads.mkdir(parents=True, exist_ok=True)
            yield f"{file.file}: from {address.url}"
            known, size = ("", 0) if self.by_content else (address.sha256, address.bytes)
            try:
                digest = download(address.url, archive, sha256=known, size=size, progress=self.progress)
                if not self.by_content:
                    checked = "as on the card" if address.sha256 == digest else "NOT CHECKED: none on the card"
                    yield f"{file.file}: SHA-256 {digest} ({checked})"
                yield from self._install(archive, file, address, missing)
            except InputError as error:
                if not known:  # the download may be damaged
                    archive.unlink(missing_ok=True)
                failed.append(error)
                if address is not file.addresses[-1]:
                    yield f"{file.file}: not from there: {error}"
                continue
            archive.unlink(missing_ok=True)
            _remove_if_empty(downloads, downloads.parent)
            yield f"{file.file}: {', '.join(missing)} in {self.target(file)}"
            return
        if len(failed) == 1:
            raise failed[0]
        said = "; ".join(map(str, failed))
        raise InputError(f"{self.card.name}: none of the {len(failed)} addresses of {file.file} works: {said}")

    def _install(self, archive: Path, file: RemoteFile, address: Address, missing: Sequence[str]) -> Iterator[str]:
        """Install the missing names; restores the previous content on errors."""
        target = self.target(file)
        target.mkdir(parents=True, exist_ok=True)
        aside = target / f".unpacking-{archive.name}"
        theirs = dict(zip(file.holds, address.holds, strict=True)) if file.unpack else {file.file: "file"}
        wanted = list(theirs) if self.by_content else missing
        staged = aside / "staged" / file.to
        try:
            with scratch_folder(aside):
                source = aside / "archive"
                source.mkdir()
                if file.unpack:
                    unpack(archive, source)
                    source = _find_folder(source, [theirs[name] for name in wanted], archive)
                else:
                    archive.rename(source / "file")
                for name in wanted:
                    (staged / name).parent.mkdir(parents=True, exist_ok=True)
                    (source / theirs[name]).rename(staged / name)
                if self.by_content:
                    yield self._content(aside / "staged")
                for number, item in enumerate(missing):
                    _swap(staged / item, target / item, aside / f".old-{number}")
        finally:
            _remove_if_empty(target)

    def _content(self, folder: Path) -> str:
        """Compare a folder's content hash with the card's and return a message."""
        card, found = self.card, cards.open_card(self.card, folder).content_hash()
        if found == card.content_hash:
            return f"{card.name}: content hash {found} (as on the card)"
        if self.unverified:
            return f"{card.name}: content hash {found} (NOT THE CARD'S, {card.content_hash})"
        said = f"content hash {found} differs from the card's, {card.content_hash}"
        raise InputError(f"{card.name}: {said}; accept these files with --no-hash")


def _check_card(card: DatasetCard, file: RemoteFile) -> None:
    """Reject a card that would write outside its dataset's folder."""
    where = f"{card.path}: [[files]]"
    copied = [path for copy in file.copies for path in copy.holds]
    for path in (file.file, file.to, card.folder or "", card.name, *file.holds, *copied):
        safe_path(path, where)
    if any(copy.holds and len(copy.holds) != len(file.holds) for copy in file.copies):
        raise InputError(f"{where}: a copy's 'holds' must have the same entries as the file's, in the same order")
    if not file.file or (file.unpack and not file.holds):
        raise InputError(f"{where}: a file needs a name, and an archive needs 'holds', the names to extract")


def _find_folder(folder: Path, names: Sequence[str], archive: Path) -> Path:
    """The topmost folder, at or below this one, that contains all the names."""
    level = [folder]
    for _ in range(_MAX_DEPTH + 1):
        for candidate in level:
            if all((candidate / name).exists() for name in names):
                return candidate
        level = [path for candidate in level for path in sorted(candidate.iterdir()) if path.is_dir()]
    raise InputError(f"{archive}: no folder in it contains {' and '.join(names)}; correct the card's 'holds'")


def _swap(new: Path, place: Path, old: Path) -> None:
    """Move `place` to `old` and `new` to `place`; moves `old` back on failure."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except BaseException:
        if old.exists():
            old.rename(place)
        raise


def _remove_if_empty(*folders: Path) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def check_links(names: Sequence[str] = ()) -> Iterator[tuple[str, str, str, LinkStatus]]:
    """Check every download URL without downloading: yields (dataset, file, URL, server's answer).

    A file whose size differs from the card is not alive. Without names, checks all cards of the package.
    """
    known = [cards.load_card(name) for name in names or definitions.names("datasets")]
    links = [(card, file, address) for card in known for file in card.files for address in file.addresses]
    with ThreadPoolExecutor(_LINK_THREADS) as pool:
        responses = {url: pool.submit(head, url) for url in dict.fromkeys(address.url for *_, address in links)}
        for card, file, address in links:
            status = responses[address.url].result()
            if status.bytes and address.bytes and status.bytes != address.bytes:
                status = replace(status, alive=False, status=f"{status.status}, but {address.bytes} bytes on the card")
            yield card.name, file.file, address.url, status


@dataclass(frozen=True, slots=True)
class Listing:
    """A dataset with a card.

    `samples` is the number on the card, None if it depends on the user's files; `folder` is where it was found, or
    None; `state` is `here`, `can be fetched`, `not here`, or `your own` for the card of any folder.
    """

    name: str
    title: str
    samples: int | None
    folder: Path | None
    state: str

    def line(self) -> str:
        """One line of text, in columns."""
        count = f"{self.samples:,}" if self.samples is not None else "-"
        return f"{self.name:<25} {count:>7}  {self.state:<14}  {self.title}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a dataset: `problems`, and `notes` on how its files are read.

    `content_hash` is empty if it cannot be computed; `checked_hash` is True if the card has one to compare with.
    """

    name: str
    samples: int = 0
    images: int = 0
    content_hash: str = ""
    checked_hash: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if there are no problems."""
        return not self.problems

    def lines(self) -> list[str]:
        """The verification as lines of text."""
        found = f"{self.name}: {self.samples:,} samples on {self.images:,} images"
        count = len(self.problems)
        state = "whole" if self.ok else f"not whole, {count} problem{'s'[: count > 1]}"
        known = "as on the card" if self.checked_hash and self.ok else "the card has none to compare"
        hashed = [f"  content hash {self.content_hash}" + (f" ({known})" if self.ok else "")]
        said = (f"  {sentence}" for sentence in (*self.notes, *self.problems))
        return [f"{found}: {state}", *(hashed if self.content_hash else []), *said]


def list_datasets(data: Path | None) -> list[Listing]:
    """All datasets with a card, sorted by name, and whether they are under the data root."""
    found = []
    for card in map(cards.load_card, definitions.names("datasets")):
        if card.name == cards.ANY_FOLDER:
            found.append(Listing(card.name, card.title, None, None, "your own"))
            continue
        folder = card.find(data, card.values())
        state = "here" if folder else "can be fetched" if card.files else "not here"
        found.append(Listing(card.name, card.title, card.samples, folder, state))
    return found


def verify(name: str, data: Path | None, overrides: Sequence[str] = (), *, progress: bool = False) -> Verification:
    """Read all samples of a dataset and compare it with its card.

    Checks that each sample's image and mask have the same size and that the target has an object. With default options,
    also compares the counts and the content hash. Reports all problems, not only the first. Arguments as for
    `open_dataset`; `InputError` for an unknown dataset or option.
    """
    name = addresses.localize(name)
    card = None if cards.is_folder(name) else cards.load_card(name)
    default = card is not None and card.values(overrides) == card.values()
    try:
        source = cards.open_dataset(name, data, overrides)
    except InputError as error:
        return Verification(card.name if card else name, problems=(str(error),))
    problems = _unreadable(source, progress=progress)
    content_hash, failure = "", ""
    try:
        content_hash = source.content_hash()
    except (InputError, OSError) as error:
        failure = str(error)
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


def _unreadable(source: SampleSource, *, progress: bool) -> list[str]:
    """Distinct errors of the samples that cannot be read."""
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


def _differences(found: Verification, card: DatasetCard) -> list[str]:
    """Differences from the card."""
    problems = [
        f"{count:,} {what}, but {expected:,} on the card"
        for what, count, expected in (("samples", found.samples, card.samples), ("images", found.images, card.images))
        if expected is not None and count != expected
    ]
    if found.checked_hash and found.content_hash and found.content_hash != card.content_hash:
        both = f"content hash {found.content_hash}, but {card.content_hash} on the card"
        problems.append(f"{both}: the files differ from those the card was made from")
    return problems
