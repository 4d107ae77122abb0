"""Getting a dataset from the addresses on its card."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from disbench.core.errors import InputError
from disbench.datasets.cards import DatasetCard, RemoteFile, load_card
from disbench.io import addresses
from disbench.io.archives import safe_path, unpack
from disbench.io.download import download
from disbench.io.files import Existing, scratch_folder

DOWNLOADS = ".downloads"
"""Where archives are kept below the root of the datasets until they are unpacked."""
_LEVELS = 4
"""Folders in each other in an archive that are searched for what it holds."""


def fetch(
    name: str, data: Path | None, *, unverified: bool = False, existing: Existing = "resume", progress: bool = False
) -> Iterator[str]:
    """Download a dataset's files, check them, and put them in place.

    What is in place is always whole: an archive is unpacked beside, and its folders are renamed into place.
    After an interruption, the same call continues where it stopped.

    Args:
        name: a card's name, or a path to the user's own card.
        data: root of the datasets.
        unverified: take files that the card has no SHA-256 for; the hash of what came is told.
        existing: whether a file or folder that is there stays (`resume`), is replaced, or stops this.
        progress: show a progress bar on standard error.

    Yields:
        Lines that tell what was done, as it is done.

    Raises:
        InputError: no root, no address, a file without a hash where that is not allowed, or a download or an archive
            that is refused.
    """
    card = load_card(name)
    if not card.files:
        raise InputError(f"{card.name}: its card has no address to fetch from; {card.get or card.homepage}")
    if data is None:
        raise InputError(f"{card.name}: where to? give the root of the datasets with --data or DISBENCH_DATA")
    if addresses.address_of(data) is not None:
        raise InputError(f"{card.name}: a dataset is fetched to a folder of this machine; name one with --data")
    wanted = []
    for file in card.files:
        _check(card, file)
        if missing := _missing(file, _target(card, file, data), existing):
            wanted.append((file, missing))
        else:
            yield f"{file.file}: what it holds is here already"
    unknown = [file.file for file, _ in wanted if not file.sha256]
    if unknown and not unverified:
        raise InputError(
            f"{card.name}: the card has no SHA-256 for {', '.join(unknown)}, so what comes cannot be checked; "
            "allow it with --no-hash, and compare the SHA-256 that is printed"
        )
    downloads = data / DOWNLOADS / card.name
    for file, missing in wanted:
        archive = downloads / file.file.replace("/", "-")
        downloads.mkdir(parents=True, exist_ok=True)
        yield f"{file.file}: from {file.url}"
        digest = download(file.url, archive, sha256=file.sha256, size=file.bytes, progress=progress)
        yield f"{file.file}: SHA-256 {digest} ({'as on the card' if file.sha256 else 'NOT CHECKED: none on the card'})"
        target = _target(card, file, data)
        try:
            _install(archive, file, target, missing)
        except InputError:
            if not file.sha256:  # it may have come damaged
                archive.unlink(missing_ok=True)
            raise
        archive.unlink(missing_ok=True)
        _remove_if_empty(downloads, downloads.parent)
        yield f"{file.file}: {', '.join(missing)} in {target}"


def _check(card: DatasetCard, file: RemoteFile) -> None:
    """Refuse a card that would write outside its dataset's folder."""
    where = f"{card.path}: [[files]]"
    for path in (file.file, file.to, card.folder or "", card.name, *file.holds):
        safe_path(path, where)
    if not file.file or (file.unpack and not file.holds):
        raise InputError(f"{where}: a file needs a name, and an archive 'holds': what is taken out of it")


def _target(card: DatasetCard, file: RemoteFile, data: Path) -> Path:
    return data / (card.folder or "") / file.to


def _missing(file: RemoteFile, target: Path, existing: Existing) -> list[str]:
    """The names of a file's content that have to be put in place."""
    names = list(file.holds) if file.unpack else [file.file]
    here = [name for name in names if (target / name).exists()]
    if here and existing == "fail":
        raise InputError(f"{target / here[0]}: it is there already; use --existing resume or overwrite")
    return names if existing == "overwrite" else [name for name in names if name not in here]


def _install(archive: Path, file: RemoteFile, target: Path, missing: Sequence[str]) -> None:
    """Put what is missing in place; after an error, what was there before is there."""
    target.mkdir(parents=True, exist_ok=True)
    aside = target / f".unpacking-{archive.name}"
    try:
        with scratch_folder(aside):
            source = aside
            if file.unpack:
                unpack(archive, aside)
                source = _holder(aside, missing, archive)
            else:
                (aside / missing[0]).parent.mkdir(parents=True, exist_ok=True)
                archive.rename(aside / missing[0])
            for number, item in enumerate(missing):
                _exchange(source / item, target / item, aside / f".old-{number}")
    finally:
        _remove_if_empty(target)


def _holder(folder: Path, names: Sequence[str], archive: Path) -> Path:
    """The folder, this or one below it, that holds all the names; the nearest to the top."""
    level = [folder]
    for _ in range(_LEVELS + 1):
        for candidate in level:
            if all((candidate / name).exists() for name in names):
                return candidate
        level = [path for candidate in level for path in sorted(candidate.iterdir()) if path.is_dir()]
    raise InputError(f"{archive}: no folder in it holds {' and '.join(names)}; correct the card's 'holds'")


def _exchange(new: Path, place: Path, old: Path) -> None:
    """Rename into place; what was there is renamed away, and back if that fails."""
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
