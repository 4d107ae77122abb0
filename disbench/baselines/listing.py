"""The cards of methods as text: a list of all, and one in full."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from disbench.baselines.cards import STANDARD_THRESHOLD, MethodCard, card_names, load_card
from disbench.baselines.weights import is_right, weights_folder

_WIDTH = 110
_FACTS = (
    "status",
    "year",
    "venue",
    "authors",
    "citation",
    "doi",
    "url",
    "code",
    "licence",
    "backbone",
    "training_data",
    "input_size",
    "seeds",
    "notes",
)


def list_methods() -> Iterator[str]:
    """A head line, then a line a card: name, year, status, backbone, weights, title."""
    rows = [("name", "year", "status", "backbone", "weights", "title")]
    for name in card_names():
        card = load_card(name)
        year, backbone = str(card.content.get("year", "")), card.text("backbone") or "-"
        rows.append((name, year, card.text("status"), backbone, _weights(card), card.text("title")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def show_method(name: str) -> Iterator[str]:
    """All that a card knows, its options, and the commands that run it.

    Raises:
        InputError: no such card, or one that is not as it should be.
    """
    card = load_card(name)
    yield f"{card.name}: {card.text('title')}"
    for key in _FACTS:
        value = card.content.get(key)
        if value not in (None, "", []):
            yield from _wrapped(
                key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value)
            )
    yield from _wrapped("threshold", f"{card.content.get('threshold', STANDARD_THRESHOLD):g}")
    if card.weights or card.text("hub"):
        where = card.text("hub") or weights_folder(card.name)
        yield from _wrapped("weights", f"{_weights(card)}; {where}")
    for option, table in card.content.get("options", {}).items():
        default = table["default"]
        shown = str(default).lower() if isinstance(default, bool) else default
        choices = f" (one of {', '.join(map(str, table['choices']))})" if "choices" in table else ""
        yield from _wrapped(f"--set {option}={shown}", f"{table.get('help', '')}{choices}")
    if card.text("status") == "native":
        yield "  commands:"
        if card.text("extra"):
            yield f'    pip install "disbench[{card.text("extra")}]"'
        if card.weights or card.text("hub"):
            yield f"    disbench methods fetch {name}"
        yield f"    disbench run --method {name} --dataset grabcut --out runs/{card.name}-grabcut"
        yield f"    disbench predict IMAGE --click x,y,+ --method {name} --out mask.png"


def _weights(card: MethodCard) -> str:
    """In a few words: whether a method needs weights, and whether they are here."""
    if card.text("hub"):
        return "Hugging Face"
    if not card.weights:
        return "none needed" if card.text("status") == "native" else "-"
    folder = weights_folder(card.name)
    return "here" if all(is_right(folder / w.file, w) for w in card.weights) else "to be fetched"


def _wrapped(key: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{key}: {' '.join(text.split())}", _WIDTH, initial_indent="  ", subsequent_indent="    "
    )
