"""The command `demo`: a page to click on photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from disbench.cli.options import ExifOption, MethodOption, SetOption, local_path, path, say
from disbench.core.errors import extra_module
from disbench.io import addresses


def demo(
    images: Annotated[list[Path] | None, Argument(parser=path, help="Photos (default: the embedded ones).")] = None,
    method: MethodOption = "geodesic",
    set_: SetOption = None,
    port: Annotated[int, Option(min=0, max=65535, help="Port on 127.0.0.1 (default: a free one).")] = 0,
    browser: Annotated[bool, Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    out: Annotated[
        Path | None,
        Option(parser=local_path, help="Folder for saved masks and clicks (default: the browser downloads them)."),
    ] = None,
    exif: ExifOption = "ignore",
) -> None:
    """Segment photos by clicks in a local page: choose a candidate, refine it, save mask and clicks."""
    extra_module("aiohttp", "demo", "the demo")
    from disbench.datasets.images import turned  # noqa: PLC0415
    from disbench.demo.server import demo as serve_demo  # noqa: PLC0415

    def ready(address: str) -> None:
        typer.echo(f"{address} shows {method}; end it with Ctrl+C")
        if browser:
            import webbrowser  # noqa: PLC0415

            webbrowser.open(address)

    photos = [addresses.here(image) for image in images or ()]
    if exif == "ignore" and (note := turned(photos, "--exif apply turns them")):
        say(note, err=True)
    serve_demo(photos, method, set_ or [], port=port, out=out, ready=ready, exif=exif)
    typer.echo("the demo has ended")
