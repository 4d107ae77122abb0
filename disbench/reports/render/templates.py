"""Files of the package that a report is made from: templates, style, script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any


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
