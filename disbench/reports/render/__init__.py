"""Tables and pages as Markdown, LaTeX, CSV, HTML, and text for a terminal; this file has their templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

Picture = tuple[str, bytes]
"""A caption, and an image as PNG or WebP."""


def text_of(name: str) -> str:
    """The text of a file in `templates/`."""
    return resources.files("disbench.reports").joinpath("templates", name).read_text(encoding="utf-8")


def template(name: str, filters: Mapping[str, Callable[..., Any]] | None = None, **options: Any) -> Template:
    """A template in `templates/`; `options` are those of `jinja2.Environment`."""
    import jinja2  # noqa: PLC0415  (heavy)

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined, **options
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters.update(filters or {})
    return environment.from_string(text_of(name))
