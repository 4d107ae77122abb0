"""What the server of `tests.forked` imports, and what is slow the first time."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io

import typer.main

from disbench.cli.main import app
from tests.forked import fork_workers

IMPORTED = (
    *("cv2", "pandas", "pyarrow.pandas_compat", "pyarrow.parquet", "scipy.ndimage", "scipy.stats", "jinja2.compiler"),
    *("torch", "matplotlib.backends.backend_agg", "disbench.sampling.job", "disbench.sampling.sources"),
    *("disbench.shards.contact_sheet", "disbench.harness.run", "disbench.harness.predict"),
    *("disbench.harness.verification", "disbench.io.outputs", "disbench.baselines.classical.disk"),
    *("disbench.reports.report", "disbench.reports.samples", "disbench.reports.samples"),
    *("disbench.reports.ambiguity.report", "disbench.reports.ambiguity.pictures"),
)


def _use_once() -> None:
    """Build the commands, find the readers of images and the fonts of figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    typer.main.get_command = functools.cache(typer.main.get_command)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app(["data", "list"])
    Image.init()
    figure = Figure()
    figure.subplots().set_title("$1$")
    for form in ("png", "svg"):
        FigureCanvasAgg(figure).print_figure(io.BytesIO(), format=form)


for name in IMPORTED:
    with contextlib.suppress(ImportError):  # a process that needs what cannot be imported says so itself
        importlib.import_module(name)
_use_once()
fork_workers()
gc.freeze()  # a process would go through all that is imported, and copy it
