"""What the pages of reports share: tables, pictures that the page itself holds, and what a browser lets a page do."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from disbench.core.errors import InputError
from disbench.reports.render.templates import render
from disbench.reports.render.text import plain, visible
from disbench.reports.table import Table

if TYPE_CHECKING:
    from markupsafe import Markup

Picture = tuple[str, bytes]
"""A caption, and an image as PNG, JPEG or WebP."""
_SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}


def table_section(table: Table) -> Markup:
    """A table under its title, with caption and footnotes: HTML, in which every text is escaped."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    return Markup(page("table.html.jinja", {"table": table}))


def page(name: str, values: Mapping[str, Any]) -> str:
    """A template of HTML, filled in: every text is escaped, and what is not printable is shown as what it is.

    Args:
        name: of a file beside this module.
        values: by the names that the template uses; of `Markup` what is HTML already.
    """
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    return render(
        name,
        values,
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )


def embedded(picture: Picture, where: str) -> tuple[str, Markup]:
    """Caption and data URI.

    Args:
        picture: to embed.
        where: it is from, for the message.

    Raises:
        InputError: neither PNG nor JPEG nor WebP.
    """
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    title, content = picture
    for kind, signature in _SIGNATURES.items():
        if content.startswith(signature) and (kind != "webp" or content[8:12] == b"WEBP"):
            return plain(title), Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
    raise InputError(f"picture {plain(title)!r} of {where}: neither PNG nor JPEG nor WebP; save it as one of them")


def content_policy(style: str, script: str = "") -> str:
    """What the browser lets a page do: its own style and script, and the images that it holds; nothing else.

    Args:
        style: the text of its style element.
        script: of its script element; "" where it has none.
    """
    scripts = f"script-src 'sha256-{_digest(script)}'; " if script else ""
    return (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; {scripts}img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
