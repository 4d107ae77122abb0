"""What is wrong with a run: all of it counted, the first of each kind kept."""

from __future__ import annotations

from collections import Counter

_KEPT = 3
"""Examples of each kind of problem."""


class Problems:
    """A collection whose size does not grow with the number of problems."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, kind: str, example: str) -> None:
        """Add a problem.

        Args:
            kind: what is wrong, the same text for all problems of a kind.
            example: where, and how.
        """
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _KEPT:
            examples.append(example)

    def lines(self) -> list[str]:
        """A line a kind: how many, and the first of them."""
        return [
            f"{count:,} x {kind}: {'; '.join(self._examples[kind])}"
            + (f"; and {count - _KEPT:,} more" if count > _KEPT else "")
            for kind, count in self._counts.items()
        ]
