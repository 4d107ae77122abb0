"""Commands as a user types them, each in a process of its own.

Importing takes longer than most commands; so the processes are forked from one that has imported the libraries
(`tests.forked`). `tests/end_to_end/test_command_line.py` tells what is started anew: what a command imports is tested
there.
"""

from __future__ import annotations

import io
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn
from unittest import mock

from disbench.cli.main import main
from tests.forked import Result, output_of


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


def printed(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a command prints that succeeds."""
    done = disbench(*arguments, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def disbench_anew(*arguments: str | Path, cwd: Path | None = None, before: Callable[[], None] | None = None) -> Result:
    """The same in a process that is started anew, and first does what `before` says (limits, rights)."""
    return subprocess.run(
        typed(*arguments), capture_output=True, text=True, check=False, cwd=cwd, env=_environment(), preexec_fn=before
    )


def in_this_process(*arguments: str | Path) -> tuple[int, str, str]:
    """The same in this process, for what takes long to import: exit code, output, errors."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", ["disbench", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def refused(result: Result, *mentions: str | Path) -> None:
    """Check that a command refused in one line that names all of these."""
    lines = result.stderr.splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    for mention in mentions:
        assert str(mention) in lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Each file's bytes, by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _environment() -> dict[str, str]:
    """With what this process imports, the tests' own methods among it."""
    kept = {key: value for key, value in os.environ.items() if key != "DISBENCH_DATA"}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _run(command: list[str], cwd: Path, environment: dict[str, str]) -> Result:
    if sys.platform != "linux":
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    return output_of(_become, command[3:], cwd, environment)


def _become(arguments: list[str], cwd: Path, environment: dict[str, str]) -> NoReturn:
    """Become the process of a command."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["disbench", *arguments]
    runpy.run_module("disbench", run_name="__main__", alter_sys=True)
    raise SystemExit
