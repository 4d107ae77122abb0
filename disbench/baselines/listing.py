"""Method cards as text: a table of all cards, and the details of one."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import get_args

from disbench.baselines.cards import MethodCard, Variant, card_names, load_card
from disbench.baselines.weights import is_fetched, weights_folder
from disbench.core.choices import MethodStatus
from disbench.core.click_policies import BUDGETS
from disbench.core.errors import unknown_name

_WIDTH = 110
_FACTS = (
    *("status", "year", "venue", "authors", "citation", "doi", "url", "code", "licence", "backbone", "training_data"),
    *("input_size", "protocol", "selection", "tricks", "seeds", "notes"),
)


def list_methods(status: str | None = None, width: int | None = None) -> Iterator[str]:
    """A header, then one line per card (of `status`, if given), cut at `width` characters or the terminal's width."""
    if status is not None and status not in get_args(MethodStatus):
        raise unknown_name("status", status, get_args(MethodStatus))
    cards = [card for card in map(load_card, card_names()) if status in (None, card.status)]
    facts = ("name", "year", "status", "backbone", "training_data", "title")
    rows = [tuple(key.replace("_", " ") for key in facts)]
    rows += [tuple(_text(getattr(card, key)) or "-" for key in facts) for card in cards]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = (width or shutil.get_terminal_size((_WIDTH, 24)).columns) - sum(widths[:3]) - 10
    share = max(room // 4, 8)
    widths[3:] = [share, share, max(room - 2 * share, 8)]
    for row in rows:
        yield "  ".join(_cut(text, width).ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def show_method(name: str, published: Sequence[str] = ()) -> Iterator[str]:
    """A card's facts and options, the `published` lines, and the commands that run the method."""
    card = load_card(name)
    yield f"{card.name}: {card.title}"
    wrapper = textwrap.TextWrapper(
        _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    for key, text in _facts(card):
        if text:
            yield from wrapper.wrap(f"{key}: {' '.join(text.split())}")
    if published:
        yield "  published numbers:"
        yield from (f"    {line}" for line in published)
    yield from _commands(card, name)


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value or "")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip(' ,')}…"


def _facts(card: MethodCard) -> Iterator[tuple[str, str]]:
    for key in _FACTS:
        yield key.replace("_", " "), "; ".join(card.tricks) if key == "tricks" else _text(getattr(card, key))
    runs = card.status != "published-only"
    yield "threshold", f"{card.standard_threshold:g}" if runs else ""
    yield "budget", f"{BUDGETS[card.budget].title}, given at once" if card.budget else ""
    if card.weights or card.hub or card.status == "native":
        yield "weights", _weights(card)
    yield from ((f"network {variant.name}".rstrip(), _variant(variant)) for variant in card.variants)
    for name, option in card.all_options().items() if runs else ():
        default = str(option.default).lower() if isinstance(option.default, bool) else option.default
        choices = f" (one of {', '.join(map(str, option.choices))})" if option.choices else ""
        yield f"--set {name}={default}", f"{option.help}{choices}"


def _weights(card: MethodCard) -> str:
    if card.hub:
        return f"Hugging Face; {card.hub}"
    if not card.weights:
        return "none needed"
    return f"{'here' if is_fetched(card) else 'to be fetched'}; {weights_folder(card.name)}"


def _variant(variant: Variant) -> str:
    file = variant.file or ("file name not known" if variant.url else "")
    known = f"SHA-256 {variant.sha256}" if variant.sha256 else ""
    parts = (f"{variant.backbone} on {', '.join(variant.training_data)}", variant.notes, file, variant.url, known)
    return "; ".join(filter(None, parts))


def _commands(card: MethodCard, name: str) -> Iterator[str]:
    if card.status == "published-only":
        yield f"  it cannot be run here: {card.reason}"
        return
    terms = f"--protocol {card.protocol} " if card.protocol else ""
    run, out = f"    disbench run --method {name}", f"{terms}--dataset grabcut --out runs/{card.name}-grabcut"
    yield "  commands:"
    if card.extra:
        yield f'    pip install "disbench[{card.extra}]"'
    named = next((variant.name for variant in card.variants if variant.name), "NAME")
    if card.install:
        yield f"    disbench methods install {name} --variant {named}"
        yield f"{run} --variant {named} {out}"
        return
    if card.status == "bridge":
        yield from (f"    git clone {address}" for address in (card.code,) if address)
        checkpoint = next((variant.file for variant in card.variants if variant.file), "FILE")
        yield f"{run} --set repo=PATH --set python=PATH/bin/python --set checkpoint={checkpoint} \\"
        yield f"      {out}"
        return
    if card.weights or card.hub:
        yield f"    disbench methods fetch {name}"
    yield f"{run} {out}"
    yield f"    disbench predict IMAGE --click x,y,+ --method {name} --out mask.png"
