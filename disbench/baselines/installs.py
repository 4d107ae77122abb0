"""Install published systems from their cards: code, environment and trained weights.

Everything is in one folder, `$DISBENCH_METHODS` or `methods` in the user's cache:

    environments/NAME-HASH/         a virtual environment, shared by all cards that name it
    CARD/COMMIT/repo/, python       the checkout, and a program that starts the environment's Python for it
    CARD/checkpoints/VARIANT/       the trained weights
    hashes.json                     SHA-256 of each checkpoint at its first download

Each part is built under a temporary name and renamed when complete; one process installs at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disbench.baselines.bridge.method import SHIMS
from disbench.baselines.cards import InstallRecipe, MethodCard, Variant, load_card, load_environment
from disbench.baselines.weights import sha256_of
from disbench.core.errors import InputError, import_extra, one_line
from disbench.io.download import download
from disbench.io.files import atomic_write, file_sha256, scratch_folder, user_cache
from disbench.io.settings import overrides as override_texts
from disbench.io.settings import parse_json_table

Report = Callable[[str], object]
_DRIVE = "https://drive.google.com/"
_OWN = "own.sha256"  # next to a checkpoint supplied by the user: its SHA-256
_OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Installed:
    """A complete installation of one variant of a bridged system; `variant` is "" if the card has none.

    `repo` is the checkout at the pinned commit, `python` starts the environment's Python with the required shims,
    `checkpoint` is None if the authors publish none, `options` are the variant's `option=value` strings.
    """

    name: str
    variant: str
    repo: Path
    python: Path
    checkpoint: Path | None
    options: tuple[str, ...] = ()


def methods_folder() -> Path:
    """Folder of all installations: `$DISBENCH_METHODS`, or `methods` in the user's cache."""
    return Path(os.environ.get("DISBENCH_METHODS") or user_cache() / "methods").absolute()


def install(card_name: str, variant: str = "", *, checkpoint: Path | None = None, report: Report = print) -> Installed:
    """Install a variant of a card ("" for its first); parts that are already installed are kept.

    Args:
        card_name: a card's name or path (`.toml`).
        variant: the name of one of its variants.
        checkpoint: the user's own file of the trained weights, instead of the variant's URL.
        report: called with a line for each step.

    Raises:
        InputError: no recipe, an unknown variant, a wrong hash, or a repository, commit, package or checkpoint that
            cannot be fetched.
    """
    card, recipe, chosen = _resolve(card_name, variant)
    with _install_lock(report) as lock:
        _checkout(card, recipe, lock, report)
        _make_environment(recipe, lock, report)
        _start_program(card, recipe)
        _fetch_checkpoint(card, recipe, chosen, checkpoint, report)
    found = find_installed(card_name, variant)
    assert found is not None
    return found


def find_installed(card_name: str, variant: str = "") -> Installed | None:
    """The installation of a variant ("" for the card's first); None if any part is missing.

    Raises:
        InputError: no recipe, an unknown variant, or a checkpoint whose SHA-256 has changed.
    """
    card, recipe, chosen = _resolve(card_name, variant)
    repo, checkpoint = _folder(card, recipe) / "repo", _checkpoint_path(card, chosen)
    fetched = checkpoint.is_file() and bool(known := _known_hash(card, chosen))
    if not repo.is_dir() or not _environment_folder(recipe).is_dir() or (chosen.url and not fetched):
        return None
    if fetched and sha256_of(checkpoint) != known:
        raise InputError(
            f"{checkpoint}: its SHA-256 has changed since it was fetched; remove the file and run: "
            f"{_command(card_name, chosen)}"
        )
    return Installed(
        name=card.name,
        variant=chosen.name,
        repo=repo,
        python=_start_program(card, recipe),
        checkpoint=checkpoint if fetched else None,
        options=tuple(override_texts(chosen.options)),
    )


def require_installed(card_name: str, variant: str = "") -> Installed:
    """Like `find_installed`, but raises `InputError` with the install command if it is missing."""
    found = find_installed(card_name, variant)
    if found is None:
        _, _, chosen = _resolve(card_name, variant)
        raise InputError(f"{card_name} {chosen.name}: not installed; run: {_command(card_name, chosen)}")
    return found


def overrides(installed: Installed) -> list[str]:
    """The `option=value` strings that an installation sets for a run; the user's own come after them."""
    places = {"repo": installed.repo, "python": installed.python, "checkpoint": installed.checkpoint}
    return [*(f"{name}={place}" for name, place in places.items() if place), *installed.options]


def list_installed() -> Iterator[str]:
    """A line for each installed card and each environment, with their sizes on disk."""
    root = methods_folder()
    for repo in sorted(root.glob("*/*/repo")):
        folder = repo.parents[1]
        files = folder.glob("checkpoints/*/*")
        kept = (file for file in files if file.suffix not in (".json", ".part", ".partial", ".sha256"))
        variants = ", ".join(sorted({file.parent.name for file in kept})) or "no checkpoint"
        yield f"{folder.name:<18} {repo.parent.name}  {_size(folder)}  {variants}"
    for environment in sorted(root.glob("environments/*")):
        users = sorted(link.parents[1].name for link in root.glob("*/*/environment") if link.resolve() == environment)
        yield f"environment {environment.name}  {_size(environment)}  for {', '.join(users) or 'no card'}"


def remove(card_name: str, report: Report = print) -> None:
    """Remove a card's installation and the environments that no other card uses; `InputError` if not installed."""
    root, name = methods_folder(), Path(card_name).name.removesuffix(".toml")
    if not (root / name).is_dir() or name == "environments":
        raise InputError(f"{card_name}: not installed; see disbench methods installed")
    with _install_lock(report):
        _discard(root / name, report)
        used = {link.resolve() for link in root.glob("*/*/environment")}
        for environment in root.glob("environments/*"):
            if environment not in used:
                _discard(environment, report)


def _discard(folder: Path, report: Report) -> None:
    size, gone = _size(folder), folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)  # first, so that a half-removed installation is never taken for a complete one
    shutil.rmtree(gone)
    report(f"{folder}: removed, {size}")


def _size(folder: Path) -> str:
    files = {(found := path.lstat()).st_ino: found.st_blocks * 512 for path in folder.rglob("*")}
    return f"{sum(files.values()) / 1e9:.2f} GB"


def _resolve(card_name: str, name: str) -> tuple[MethodCard, InstallRecipe, Variant]:
    card = load_card(card_name)
    if card.install is None:
        how = "" if card.status == "bridge" else f"; its status is {card.status!r}"
        raise InputError(f"{card_name}: its card has no [install]{how}; see disbench methods show {card_name}")
    return card, card.install, card.variant(name)


def _command(card_name: str, variant: Variant) -> str:
    return f"disbench methods install {card_name}" + (f" --variant {variant.name}" if variant.name else "")


def _folder(card: MethodCard, recipe: InstallRecipe) -> Path:
    return methods_folder() / card.name / recipe.commit[:10]


def _environment_folder(recipe: InstallRecipe) -> Path:
    wanted = load_environment(recipe.environment)
    parts = [wanted.python or _OWN_PYTHON, wanted.packages, wanted.build, dict(wanted.variables)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return methods_folder() / "environments" / f"{Path(recipe.environment).name.removesuffix('.toml')}-{digest}"


def _checkpoint_path(card: MethodCard, variant: Variant) -> Path:
    file = variant.file or "checkpoint.pth"
    return methods_folder() / card.name / "checkpoints" / (variant.name or "own") / file


@contextlib.contextmanager
def _install_lock(report: Report) -> Iterator[int]:
    """Hold the installation lock; git and pip inherit the descriptor, since they may outlive a killed command."""
    methods_folder().mkdir(parents=True, exist_ok=True)
    with (methods_folder() / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another installation to finish")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _run(command: Sequence[object], problem: str, lock: int, variables: Mapping[str, str] | None = None) -> None:
    """Run a program; `InputError` with its last error line if it fails."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "GIT_DIR", "GIT_WORK_TREE")
    environment = {key: text for key, text in os.environ.items() if key not in foreign}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(variables or {})}
    words = [str(part) for part in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, pass_fds=(lock,))
    except FileNotFoundError:
        raise InputError(f"{problem}: the program {words[0]} is not installed; install it") from None
    if done.returncode:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
        said = one_line((errors or lines or ["no output"])[-1]).removeprefix("ERROR: ").removeprefix("fatal: ")
        raise InputError(f"{problem} ({said.rstrip('.')}); fix that and run the same command again")


def _checkout(card: MethodCard, recipe: InstallRecipe, lock: int, report: Report) -> None:
    repo = _folder(card, recipe) / "repo"
    if repo.is_dir():
        return
    if not card.code:
        raise InputError(f'{card.name}: the card names no repository; add code = "https://..."')
    report(f"{card.name}: its code, {card.code} at {recipe.commit[:10]}")
    problem = f"{card.name}: cannot fetch commit {recipe.commit} from {card.code}"
    with scratch_folder(repo.with_name("repo.partial")) as partial:
        fetch = ["fetch", "-q", "--depth", "1", "--", card.code, recipe.commit]
        for step in (["init", "-q"], fetch, ["checkout", "-q", "--detach", "FETCH_HEAD"]):
            _run(["git", "-C", partial, *step], problem, lock)
        partial.rename(repo)


def _make_environment(recipe: InstallRecipe, lock: int, report: Report) -> None:
    folder = _environment_folder(recipe)
    if folder.is_dir():
        return
    wanted = load_environment(recipe.environment)
    problem = f"environment {recipe.environment}"
    with scratch_folder(folder.with_name(f"{folder.name}.partial")) as partial:
        report(f"{problem}: Python {wanted.python or _OWN_PYTHON}, {len(wanted.packages)} packages, in {folder}")
        venv, pip = _environment_commands(wanted.python or _OWN_PYTHON, partial)
        _run(venv, f"{problem}: cannot be created", lock)
        _run([*pip, *wanted.packages], f"{problem}: cannot install its packages", lock)
        if wanted.build:
            report(f"{problem}: building {', '.join(wanted.build)}")
            built = [*pip, "--no-build-isolation", *wanted.build]
            _run(built, f"{problem}: cannot build a package", lock, wanted.variables)
        partial.rename(folder)


def _environment_commands(version: str, folder: Path) -> tuple[list[object], list[object]]:
    """Commands that create a virtual environment for a Python version and install into it.

    Uses this Python, uv, or a Python on the PATH; for this Python's version, its own pip saves a few seconds.
    """
    inside = [folder / "bin/python", "-m", "pip", "install", "-q"]
    if version == _OWN_PYTHON and importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "-q"]
        return [sys.executable, "-m", "venv", "--without-pip", folder], pip
    if uv := shutil.which("uv"):
        return [uv, "venv", "-q", "--seed", "--python", version, folder], inside
    if python := sys.executable if version == _OWN_PYTHON else shutil.which(f"python{version}"):
        return [python, "-m", "venv", folder], inside
    raise InputError(f"Python {version} is not on this machine; install it, or uv, which downloads it")


def _start_program(card: MethodCard, recipe: InstallRecipe) -> Path:
    """The script that starts a system's Python with our shims; written if missing or outdated."""
    folder, environment = _folder(card, recipe), _environment_folder(recipe)
    path = [str(SHIMS), *([str(folder / "repo" / recipe.folder)] if recipe.folder else [])]
    empty = ",".join([*load_environment(recipe.environment).empty, *recipe.empty])
    settings = f"PYTHONPATH={shlex.quote(os.pathsep.join(path))} DISBENCH_EMPTY={shlex.quote(empty)}"
    text = f'#!/bin/sh\n{settings} exec {shlex.quote(str(environment / "bin/python"))} "$@"\n'
    program, link = folder / "python", folder / "environment"
    if not program.is_file() or program.read_text() != text:
        with atomic_write(program) as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), 0o755)
    if not link.is_symlink() or link.resolve() != environment.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(environment)
    return program


def _fetch_checkpoint(
    card: MethodCard, recipe: InstallRecipe, variant: Variant, given: Path | None, report: Report
) -> None:
    path, label = _checkpoint_path(card, variant), f"{card.name} {variant.name}"
    if given is None and not variant.url:
        report(f"{label}: the authors publish no trained weights; give yours with --checkpoint, or in a run with --set")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if given is None and path.is_file() and file_sha256(path) == _known_hash(card, variant):
        return
    known, own = _authors_hash(card, variant), path.with_name(_OWN)
    report(f"{label}: its checkpoint, {given or variant.url}")
    if given is not None:
        if not given.is_file():
            raise InputError(f"{given}: no such file; name the trained weights")
        if (digest := file_sha256(given)) != (known or digest):
            raise InputError(f"{given}: SHA-256 is {digest}, but {label} has {known}; name the right file")
        beside = sorted(given.parent.glob(recipe.beside)) if recipe.beside else []
        if recipe.beside and len(beside) != 1:
            raise InputError(
                f"{given}: {len(beside)} files {recipe.beside} next to it; put only the authors' one there"
            )
        own.write_text(digest)
        for source in (*beside, given):
            place = path if source == given else path.with_name(source.name)
            with atomic_write(place) as file, source.open("rb") as content:
                shutil.copyfileobj(content, file)
        return
    own.unlink(missing_ok=True)
    digest = download(_file_address(variant, label), path, sha256=known, progress=True)
    with path.open("rb") as file:
        begins = file.read(256).lstrip().lower()
    if begins.startswith((b"<!doctype html", b"<html")):
        path.unlink()
        raise InputError(
            f"{variant.url}: a web page, not the file {variant.file or 'of the weights'}; download it by hand and "
            f"run: {_command(card.name, variant)} --checkpoint FILE"
        )
    if not known:
        hashes = {**_hashes(), _key(card, variant): digest}
        with atomic_write(methods_folder() / "hashes.json") as file:
            file.write(json.dumps(hashes, indent=1, sort_keys=True).encode())


def _file_address(variant: Variant, label: str) -> str:
    """URL of a checkpoint; for a Google Drive folder, that of the variant's file in it."""
    if not variant.url.startswith(f"{_DRIVE}drive/folders/"):
        return variant.url
    if not variant.file:
        raise InputError(
            f"{variant.url}: the card does not say which file of this shared folder is {variant.name}; download it by "
            "hand and name it with --checkpoint FILE"
        )
    gdown = import_extra("gdown", "drives", label)
    try:
        listed = gdown.download_folder(url=variant.url, skip_download=True, quiet=True)
    except Exception as error:  # from gdown itself, from requests, or from parsing the page
        raise InputError(f"{variant.url}: cannot read this shared folder ({one_line(str(error))})") from error
    found = [file for file in listed if Path(file.path).name == variant.file]
    if len(found) != 1:
        names = ", ".join(sorted(Path(file.path).name for file in listed))
        raise InputError(f"{variant.url}: the folder has {len(found)} files {variant.file}, only {one_line(names)}")
    return f"{_DRIVE}uc?id={found[0].id}"


def _key(card: MethodCard, variant: Variant) -> str:
    return f"{card.name}/{variant.name}"


def _known_hash(card: MethodCard, variant: Variant) -> str:
    """The expected SHA-256 of a checkpoint: that of the user's own file, or the authors'."""
    own = _checkpoint_path(card, variant).with_name(_OWN)
    return own.read_text() if own.is_file() else _authors_hash(card, variant)


def _authors_hash(card: MethodCard, variant: Variant) -> str:
    """A checkpoint's SHA-256 from the card or from its first download; "" before that."""
    return variant.sha256.lower() or str(_hashes().get(_key(card, variant), ""))


def _hashes() -> dict[str, Any]:
    path = methods_folder() / "hashes.json"
    try:
        return parse_json_table(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path}: not readable ({error}); remove it and check the checkpoints by hand") from None
