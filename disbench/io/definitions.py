"""Find definition files (recipes, cards, reports, trainings, protocols) in a wheel or a checkout.

They are at the root of the repository (`sampling/`, `datasets/`, `baselines/`, `reports/`) and under
`disbench/_definitions/` in a wheel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from disbench.core.errors import InputError, unknown_name
from disbench.io import addresses
from disbench.io.settings import parse_toml

Kind = Literal[
    "sampling",
    "datasets",
    "datasets/splits",
    "baselines",
    "reports",
    "reports/plans",
    "baselines/configs",
    "baselines/configs/ablations",
    "baselines/protocols",
    "baselines/environments",
]

_NOUNS = ["recipe", "dataset", "split", "card", "table or figure", "plan", "training", "ablation"]
_NOUNS += ["protocol", "environment"]  # in the order of `Kind`
_PACKAGE = Path(__file__).resolve().parents[1]


def folder(kind: Kind) -> Path:
    """The folder of one kind of definition; `InputError` if the installation is incomplete."""
    for candidate in (_PACKAGE / "_definitions" / kind, _PACKAGE.parent / kind):
        if candidate.is_dir():
            return candidate
    raise InputError(f"the definitions '{kind}' are missing from this installation; install disbench again")


def names(kind: Kind) -> list[str]:
    """The names of all definitions of one kind, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.toml"))


def find(kind: Kind, name: str) -> Path:
    """Path of the definition `name`, which may also be a path (`*.toml`); `InputError` if it does not exist."""
    if name.endswith(".toml"):
        path = Path(addresses.localize(name))
        if not path.is_file():
            raise InputError(f"{path}: no such file; give an existing TOML file or a known name")
        return path
    known = names(kind)
    if name not in known:
        raise unknown_name(_NOUNS[get_args(Kind).index(kind)], name, known)
    return folder(kind) / f"{name}.toml"


def load(path: Path) -> Mapping[str, Any]:
    """Contents of a definition file; `InputError` if it cannot be read or is not TOML."""
    try:
        return parse_toml(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable TOML file ({error}); correct it or name another") from error
