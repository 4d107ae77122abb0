"""What an engine tells of its workers."""

from __future__ import annotations

import logging

_logger = logging.getLogger("disbench.workers")


class Notices:
    """Remembers what happened to workers, and warns of it as it happens.

    Attributes:
        lost: a sentence for every worker that was lost.
    """

    def __init__(self) -> None:
        self.lost: list[str] = []

    def tell(self, sentence: str) -> None:
        """Remember a sentence, and log it as a warning of `disbench.workers` (on standard error by default)."""
        self.lost.append(sentence)
        _logger.warning("%s", sentence)
