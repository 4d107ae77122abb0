"""Published systems on this machine: their code, environment and trained weights, installed from their cards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Installed:
    """One variant of a bridged system that is here, whole.

    Attributes:
        name: the card's.
        variant: the variant's; "" where the card names none.
        repo: the checkout of the pinned commit.
        python: a program that starts the Python of its environment, with the shims that it needs.
        checkpoint: the trained weights; None where their authors publish none.
        options: what else the variant sets, `option=value` each.
    """

    name: str
    variant: str
    repo: Path
    python: Path
    checkpoint: Path | None
    options: tuple[str, ...] = ()


def install(card_name: str, variant: str = "", *, report: Callable[[str], object] = print) -> Installed:
    """Install a variant of a card ("" for its first); what is here already stays.

    Raises:
        InputError: one sentence: no recipe, an unknown variant, a repository, commit, package or checkpoint that cannot
            be had, a wrong hash.
    """
    raise NotImplementedError


def find_installed(card_name: str, variant: str = "") -> Installed | None:
    """The installation of a variant ("" for the card's first); None if it is not whole."""
    raise NotImplementedError


def overrides(installed: Installed) -> list[str]:
    """The options of a run that an installation sets, `option=value` each; a user's own come after them."""
    places = {"repo": installed.repo, "python": installed.python, "checkpoint": installed.checkpoint}
    return [*(f"{name}={place}" for name, place in places.items() if place), *installed.options]
