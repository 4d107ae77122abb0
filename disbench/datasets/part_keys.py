"""Names of parts, and keys by which the parts of one whole are alike: the table `part_keys.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from disbench.io import definitions
from disbench.io.files import file_sha256
from disbench.io.settings import settings_from

TABLE = Path(__file__).with_name("part_keys.toml")
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class Numbered:
    """Names of a dataset that has numbers only.

    Attributes:
        classes: from number 0 on.
        parts: class -> names of its parts, from number 1 on.
        counted: class -> name -> first and last number of parts that are counted ("wheel_1", "wheel_2" ...).
    """

    classes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)

    def class_name(self, number: int) -> str:
        """The name of a class; "class 33" for a number without a name."""
        return self.classes[number] if number < len(self.classes) else f"class {number}"

    def part(self, class_name: str, number: int) -> tuple[str, tuple[str, ...]]:
        """The name of a part, from 1 on, and its keys; "part 7" for a number without a name."""
        for name, (first, last) in self.counted.get(class_name, {}).items():
            if first <= number <= last:
                return f"{name}_{number - first + 1}", (name,)
        names = self.parts.get(class_name, ())
        name = names[number - 1] if number <= len(names) else f"part {number}"
        return name, (name,)


@dataclass(frozen=True, slots=True)
class PartKeys:
    """The table: Pascal-Part's other spellings and keys by name, and the names of Panoptic Parts' numbers."""

    version: int
    spellings: Mapping[str, str]
    pascal: Mapping[str, tuple[str, ...]]
    cityscapes: Numbered
    pascal_panoptic: Numbered

    def pascal_part(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The usual spelling of a part of Pascal-Part and its keys, the finest first; none for an unknown name."""
        number = _NUMBER.search(name)
        stem = name[: number.start()] if number else name
        stem = self.spellings.get(stem, stem)
        return stem + (number[0] if number else ""), self.pascal.get(stem, ())


@cache
def part_keys() -> PartKeys:
    """The table as it is shipped."""
    return settings_from(PartKeys, definitions.load(TABLE), str(TABLE))


def keys_fingerprint() -> dict[str, str]:
    """SHA-256 of the table by its name and version, for the fingerprint of scenes."""
    return {f"{TABLE.name} {part_keys().version}": file_sha256(TABLE)}
