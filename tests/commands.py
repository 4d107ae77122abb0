"""Commands as a user types them, each in a process of its own.

Importing takes longer than most commands; so the processes are forked from one that has imported the
libraries and done nothing else. `tests/end_to_end/test_command_line.py` tells what is started anew: what a
command imports is tested there.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

Result = subprocess.CompletedProcess[str]
IMPORTED = (
    *("cv2", "pandas", "pyarrow.pandas_compat", "pyarrow.parquet", "scipy.ndimage", "scipy.stats", "jinja2.compiler"),
    *("multiprocessing.popen_spawn_posix", "disbench.cli.main", "disbench.sampling.job", "disbench.sampling.sources"),
    *("disbench.shards.contact_sheet", "disbench.harness.run", "disbench.harness.predict"),
    *("disbench.harness.verification", "disbench.io.outputs", "disbench.baselines.classical.disk"),
    *("disbench.reports.report", "disbench.reports.failures", "disbench.reports.run_samples"),
    *("disbench.reports.ambiguity.report", "disbench.reports.ambiguity.pictures"),
)


def heed_interrupts() -> None:
    """Take Ctrl-C as a program in the foreground does; what a shell starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def typed(*arguments: str | Path) -> list[str]:
    """What starts a command anew."""
    return [sys.executable, "-m", "disbench", *map(str, arguments)]


def disbench(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Result:
    """Run a command to its end.

    Args:
        arguments: what stands behind `disbench`.
        cwd: folder to run in; otherwise the present one.
        environment: variables beside those of this process; DISBENCH_DATA is left out unless it is given here.

    Returns:
        Exit code, output and errors, as `subprocess.run` gives them.
    """
    return _run(typed(*arguments), cwd or Path.cwd(), _environment() | environment)


def disbench_anew(*arguments: str | Path, cwd: Path | None = None, before: Callable[[], None] | None = None) -> Result:
    """The same in a process that is started anew, and first does what `before` says (limits, rights)."""
    return subprocess.run(
        typed(*arguments), capture_output=True, text=True, check=False, cwd=cwd, env=_environment(), preexec_fn=before
    )


def _environment() -> dict[str, str]:
    """With what this process imports, the tests' own methods among it."""
    kept = {key: value for key, value in os.environ.items() if key != "DISBENCH_DATA"}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _run(command: list[str], cwd: Path, environment: dict[str, str]) -> Result:
    if sys.platform != "linux":
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    with tempfile.TemporaryDirectory() as folder:
        job = {"arguments": command[3:], "cwd": str(cwd), "environment": environment, "folder": folder}
        said, told = _server()
        said.write(json.dumps(job) + "\n")
        said.flush()
        code = int(told.readline())
        output, errors = (Path(folder, name).read_text() for name in ("output", "errors"))
    return Result(command, code, output, errors)


@functools.cache
def _server() -> tuple[IO[str], IO[str]]:
    """Where to write jobs, and where to read their exit codes."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.commands import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    assert process.stdin and process.stdout
    atexit.register(process.communicate)
    return process.stdin, process.stdout


def serve() -> None:
    """Run jobs that come by standard input, until it ends."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # what a command needs and cannot import, it tells itself
            importlib.import_module(name)
    _use_once()
    gc.freeze()  # a process that ends would go through all that is imported, and copy it
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _run_here(**json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _use_once() -> None:
    """Do what is slow the first time: build the commands, find the readers of images and the fonts of figures."""
    import typer.main
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    from disbench.cli.main import app

    typer.main.get_command = functools.cache(typer.main.get_command)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app(["data", "list"])
    Image.init()
    figure = Figure()
    figure.subplots().set_title("$1$")
    for form in ("png", "svg"):
        FigureCanvasAgg(figure).print_figure(io.BytesIO(), format=form)


def _run_here(arguments: list[str], cwd: str, environment: dict[str, str], folder: str) -> NoReturn:
    """Become the process of a command. It ends as a command does, but does not take all that is imported apart."""
    for number, (path, mode) in enumerate(
        ((os.devnull, os.O_RDONLY), (f"{folder}/output", os.O_WRONLY), (f"{folder}/errors", os.O_WRONLY))
    ):
        os.dup2(os.open(path, mode | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["disbench", *arguments]
    code = 0
    try:
        runpy.run_module("disbench", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        if not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
