"""What the pages of reports share: tables, pictures that the page itself holds, and what a browser lets a page do."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from disbench.core.errors import InputError
from disbench.reports.render.table import Table
from disbench.reports.render.text import plain, visible

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


def text_of(name: str) -> str:
    """The text of a file in `templates/`."""
    return resources.files("disbench.reports").joinpath("templates", name).read_text(encoding="utf-8")


def render(
    name: str,
    values: Mapping[str, Any],
    *,
    autoescape: bool = False,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    finalize: Callable[[Any], Any] | None = None,
) -> str:
    """A template of Jinja, filled in.

    Args:
        name: of a file in `templates/`.
        values: by the names that the template uses; a name that is missing is an error.
        autoescape: whether texts are escaped for HTML.
        filters: the template's own, by name.
        finalize: what is done to each value before it is escaped and set.
    """
    import jinja2  # noqa: PLC0415  (heavy)

    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=autoescape,
        finalize=finalize,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters.update(filters or {})
    return environment.from_string(text_of(name)).render(values)
