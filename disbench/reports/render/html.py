"""Templates, and what HTML pages share: tables, embedded pictures, the content security policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from disbench.core.errors import InputError
from disbench.reports.render.table import Table, plain, visible

if TYPE_CHECKING:
    from markupsafe import Markup

Picture = tuple[str, bytes]
"""A caption, and an image as PNG, JPEG or WebP."""
_SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}


def table_section(table: Table) -> Markup:
    """A table under its title, with caption and footnotes, as escaped HTML."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    return Markup(page("table.html.jinja", {"table": table}))


def page(name: str, values: Mapping[str, Any]) -> str:
    """An HTML template in `templates/`, filled in; texts are escaped except `Markup`, invisible characters removed."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    return render(name, values, autoescape=True, finalize=lambda v: v if isinstance(v, Markup) else visible(str(v)))


def text_of(name: str) -> str:
    """The text of a file in `templates/`."""
    return resources.files("disbench.reports").joinpath("templates", name).read_text(encoding="utf-8")


def embedded(picture: Picture, where: str) -> tuple[str, Markup]:
    """Caption and data URI of a picture; `InputError` names `where` it is from if it has another form."""
    from markupsafe import Markup  # noqa: PLC0415  (comes with jinja2)

    title, content = picture
    for kind, signature in _SIGNATURES.items():
        if content.startswith(signature) and (kind != "webp" or content[8:12] == b"WEBP"):
            return plain(title), Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
    raise InputError(f"picture {plain(title)!r} of {where}: neither PNG nor JPEG nor WebP; save it as one of them")


def content_policy(style: str, script: str = "") -> str:
    """The content security policy: the page's own style and script, and embedded images."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    scripts = f"script-src 'sha256-{digest(script)}'; " if script else ""
    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; {scripts}img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def render(
    name: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None, **escaping: Any
) -> str:
    """A template in `templates/`, filled in; plain text without `escaping`."""
    import jinja2  # noqa: PLC0415  (heavy)

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined, **escaping
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters.update(filters or {})
    return environment.from_string(text_of(name)).render(values)
