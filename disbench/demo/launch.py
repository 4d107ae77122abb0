"""Start the demo: method, photos, server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from disbench.baselines.cards import method_spec
from disbench.core.budgets import BUDGETS
from disbench.core.choices import Exif
from disbench.core.errors import InputError

DEFAULT_METHOD = "geodesic"
"""It needs no weights, and answers at once with one candidate."""


def demo(
    images: Sequence[Path] = (),
    method: str = DEFAULT_METHOD,
    overrides: Sequence[str] = (),
    *,
    port: int = 0,
    out: Path | None = None,
    ready: Callable[[str], None] = print,
    exif: Exif = "ignore",
) -> None:
    """Serve the demo until the process is interrupted.

    Args:
        images: photos to choose from; default: the embedded ones.
        method: a card's name, a card, or a class (`disbench.baselines.cards.method_spec`).
        overrides: options of the method, `option=value` each.
        port: on 127.0.0.1; 0 takes a free one.
        out: folder for saved masks and clicks; None: the browser downloads them.
        ready: gets the page's address once it is served.
        exif: show and segment the photos as stored, or turned by their EXIF orientation.

    Raises:
        InputError: an unreadable image, an unknown method, a port that is taken, or the extra `demo` is missing.
    """
    try:
        from disbench.demo.server import Demo, serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiohttp":
            raise
        raise InputError('the demo needs aiohttp; run: pip install "disbench[demo]"') from error
    from disbench.demo.pictures import Pictures  # noqa: PLC0415

    spec = method_spec(method, overrides)
    if spec.budget:
        raise InputError(
            f"{method} gets {BUDGETS[spec.budget].words} at once, so there is nothing to refine; use disbench predict"
        )
    pictures = Pictures(images, exif)
    title = str(spec.card.get("title", spec.name))
    shown = Demo(spec.build(), method, spec.name, title, spec.threshold, pictures, overrides, out)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(shown, port, ready))
