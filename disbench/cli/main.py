"""The command line: every command is a thin call of a library function, imported on use."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from disbench import __version__
from disbench.cli.cards import clicks_app, data_app, methods_app
from disbench.cli.leaderboard import import_app, leaderboard_app
from disbench.cli.options import opt
from disbench.cli.results import ambiguity, compare, failures, pack, published, report, reproduce, verify
from disbench.cli.run import demo, predict, run, speed
from disbench.cli.shards import export, inspect, merge, quickstart, sample, split_app
from disbench.cli.train import ablate, profile, train
from disbench.core.errors import CONTROL, InputError, error_message
from disbench.io import addresses
from disbench.io.files import is_utf8

_INTERRUPTED = 130


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"disbench {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, opt("Print the version.", "--version", callback=_print_version, is_eager=True)] = False,
    debug: Annotated[bool, opt("Show a traceback instead of a one-line error (with any command).", "--debug")] = False,
) -> None:
    pass


COMMANDS: list[Callable[..., None]] = [sample, merge, inspect, export, quickstart, run, report, predict, ambiguity]
COMMANDS += [pack, verify, compare, failures, demo, reproduce, published, speed, train, ablate]
GROUPS = {"data": data_app, "methods": methods_app, "split": split_app}
GROUPS |= {"leaderboard": leaderboard_app, "import": import_app, "clicks": clicks_app}
methods_app.command("profile")(profile)


def app_for(asked: str | None = None) -> typer.Typer:
    """Build the command line; if `asked` names a command, others are only listed: parsing all options takes long."""
    program = typer.Typer(
        help="Datasets of diverse ground truth and an exact benchmark for click-based segmentation.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(_options)
    for command in COMMANDS:
        name = command.__name__
        program.command(name, help=command.__doc__)(command if asked in (None, name) else _nothing)
    for name, group in GROUPS.items():
        program.add_typer(group if asked in (None, name) else typer.Typer(help=group.info.help), name=name)
    return program


def _nothing() -> None:
    """Placeholder for a command that is only listed."""


app = app_for()


def main() -> None:
    """Entry point; errors that a user can fix give one line and exit code 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        if odd := next((argument for argument in arguments if not is_utf8(argument)), None):
            raise InputError(f"{odd!a}: its name is not UTF-8; rename the file or folder")
        asked = next((argument for argument in arguments if not argument.startswith("-")), "")
        app_for(None if "_DISBENCH_COMPLETE" in os.environ else asked)(args=arguments)
    except (InputError, OSError) as error:
        if debug:
            raise
        print(f"error: {addresses.restore_addresses(error_message(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except Exception as error:
        problem = None if debug else _environment_problem(error)
        if not problem:
            raise
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # typer's exit code for Ctrl-C
            print("interrupted; run the same command again to resume", file=sys.stderr)  # noqa: T201
        raise


def _environment_problem(error: Exception) -> str | None:
    """One line about incompatible installed packages; None if the error has another cause."""
    from importlib import metadata

    from packaging.requirements import Requirement

    with contextlib.suppress(metadata.PackageNotFoundError):
        for needed in map(Requirement, metadata.requires("disbench") or []):
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            version = metadata.version(needed.name)
            if not needed.specifier.contains(version, prereleases=True):
                wanted = f"{needed.name}{needed.specifier}"
                return f"{needed.name} {version} is installed, but disbench needs {wanted}; run: pip install '{wanted}'"
    if isinstance(error, ImportError):
        words = CONTROL.sub(" ", str(error))
        fix = "pip install --upgrade --upgrade-strategy eager disbench"
        return f"{words}; the installed packages do not fit each other, run: {fix}"
    return None
