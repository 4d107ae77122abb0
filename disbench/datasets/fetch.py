"""Getting a dataset from the addresses on its card, and asking whether they are alive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from disbench.core.errors import InputError
from disbench.datasets.cards import Address, DatasetCard, RemoteFile, load_card, open_card
from disbench.io import addresses, definitions
from disbench.io.archives import safe_path, unpack
from disbench.io.download import Answer, download, head
from disbench.io.files import Existing, scratch_folder

DOWNLOADS = ".downloads"
"""Where archives are kept below the root of the datasets until they are unpacked."""
_ASKED_AT_ONCE = 8
_LEVELS = 4
"""Folders in each other in an archive that are searched for what it holds."""


def fetch(
    name: str, data: Path | None, *, unverified: bool = False, existing: Existing = "resume", progress: bool = False
) -> Iterator[str]:
    """Download a dataset's files, check them, and put them in place.

    The addresses of a file are tried in order. Where a card has a content hash and one file, that hash decides,
    whatever the archive; otherwise the archive's SHA-256 does. What is in place is always whole: an archive is unpacked
    beside, and its folders are renamed into place. After an interruption, the same call continues where it stopped.

    Args:
        name: a card's name, or a path to the user's own card.
        data: root of the datasets.
        unverified: take files that the card has no hash for, or whose content has another; it is told.
        existing: whether a file or folder that is there stays (`resume`), is replaced, or stops this.
        progress: show a progress bar on standard error.

    Yields:
        Lines that tell what was done, as it is done.

    Raises:
        InputError: no root, no address, a file without a hash where that is not allowed, or no address whose file is
            there and right.
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
    unknown = [file.file for file, _ in wanted if not (_by_content(card) or file.sha256)]
    if unknown and not unverified:
        raise InputError(
            f"{card.name}: the card has no SHA-256 for {', '.join(unknown)}, so what comes cannot be checked; "
            "allow it with --no-hash, and compare the SHA-256 that is printed"
        )
    for file, missing in wanted:
        yield from _fetch_file(card, file, missing, data, unverified=unverified, progress=progress)


def _by_content(card: DatasetCard) -> bool:
    """Whether the content hash can be computed from what one archive holds."""
    return bool(card.content_hash) and len(card.files) == 1


def _fetch_file(
    card: DatasetCard, file: RemoteFile, missing: Sequence[str], data: Path, *, unverified: bool, progress: bool
) -> Iterator[str]:
    downloads, failed = data / DOWNLOADS / card.name, []
    by_content = _by_content(card)
    for number, address in enumerate(file.addresses, 1):
        name = file.file.replace("/", "-")
        archive = downloads / (f"{number}-{name}" if number > 1 else name)
        downloads.mkdir(parents=True, exist_ok=True)
        yield f"{file.file}: from {address.url}"
        known, size = ("", 0) if by_content else (address.sha256, address.bytes)
        try:
            digest = download(address.url, archive, sha256=known, size=size, progress=progress)
            checked = "as on the card" if address.sha256 == digest else "NOT CHECKED: none on the card"
            if not by_content:
                yield f"{file.file}: SHA-256 {digest} ({checked})"
            yield from _install(card, archive, file, address, missing, data, unverified)
        except InputError as error:
            if not known:  # it may have come damaged
                archive.unlink(missing_ok=True)
            failed.append(error)
            if address is not file.addresses[-1]:
                yield f"{file.file}: not from there: {error}"
            continue
        archive.unlink(missing_ok=True)
        _remove_if_empty(downloads, downloads.parent)
        yield f"{file.file}: {', '.join(missing)} in {_target(card, file, data)}"
        return
    if len(failed) == 1:
        raise failed[0]
    raise InputError(
        f"{card.name}: none of the {len(failed)} addresses of {file.file} serves: {'; '.join(map(str, failed))}"
    )


def _check(card: DatasetCard, file: RemoteFile) -> None:
    """Refuse a card that would write outside its dataset's folder."""
    where = f"{card.path}: [[files]]"
    for path in (file.file, file.to, card.folder or "", card.name, *file.holds):
        safe_path(path, where)
    for copy in file.copies:
        for path in copy.holds:
            safe_path(path, where)
        if copy.holds and len(copy.holds) != len(file.holds):
            raise InputError(f"{where}: a copy's 'holds' names what the file's does, in the same order")
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


def _install(
    card: DatasetCard,
    archive: Path,
    file: RemoteFile,
    address: Address,
    missing: Sequence[str],
    data: Path,
    unverified: bool,
) -> Iterator[str]:
    """Put what is missing in place; after an error, what was there before is there."""
    target = _target(card, file, data)
    target.mkdir(parents=True, exist_ok=True)
    aside = target / f".unpacking-{archive.name}"
    theirs = dict(zip(file.holds, address.holds, strict=True)) if file.unpack else {file.file: "file"}
    wanted = list(theirs) if _by_content(card) else missing
    staged = aside / "staged" / file.to
    try:
        with scratch_folder(aside):
            source = aside / "archive"
            source.mkdir()
            staged.mkdir(parents=True)
            if file.unpack:
                unpack(archive, source)
                source = _holder(source, [theirs[name] for name in wanted], archive)
            else:
                archive.rename(source / "file")
            for name in wanted:
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                (source / theirs[name]).rename(staged / name)
            if _by_content(card):
                yield _content(card, aside / "staged", unverified)
            for number, item in enumerate(missing):
                _exchange(staged / item, target / item, aside / f".old-{number}")
    finally:
        _remove_if_empty(target)


def _content(card: DatasetCard, folder: Path, unverified: bool) -> str:
    """Compare the content of a folder with the card; a line about it."""
    found = open_card(card, folder).content_hash()
    if found == card.content_hash:
        return f"{card.name}: content hash {found} (as on the card)"
    if unverified:
        return f"{card.name}: content hash {found} (NOT THE CARD'S, {card.content_hash})"
    raise InputError(
        f"{card.name}: its content hash is {found}, where the card has {card.content_hash}: these are other files; "
        "take them with --no-hash all the same, and results carry the other hash"
    )


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


def check_links(names: Sequence[str] = ()) -> Iterator[tuple[str, str, str, Answer]]:
    """Ask for every file of datasets without fetching it: (dataset, file, address, what its server says).

    A file of another size than the card has is not alive.

    Args:
        names: cards' names or paths; all cards of the package if empty.

    Raises:
        InputError: an unknown name, or a card that is wrong.
    """
    cards = [load_card(name) for name in names or definitions.names("datasets")]
    asked = [(card, file, address) for card in cards for file in card.files for address in file.addresses]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        answers = {url: pool.submit(head, url) for url in dict.fromkeys(address.url for *_, address in asked)}
        for card, file, address in asked:
            answer = answers[address.url].result()
            if answer.bytes and address.bytes and answer.bytes != address.bytes:
                answer = replace(answer, alive=False, status=f"{answer.status}, but {address.bytes} bytes on the card")
            yield card.name, file.file, address.url, answer
