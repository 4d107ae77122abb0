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


def _print_version(is_set: bool) -> None:
    if is_set:
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


def build_app(name: str | None = None) -> typer.Typer:
    """Build the command line; with the `name` of a command, others are only listed: parsing all options takes long."""
    program = typer.Typer(
        help="Datasets of diverse ground truth and an exact benchmark for click-based segmentation.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(_options)
    for command in COMMANDS:
        command_name = command.__name__
        program.command(command_name, help=command.__doc__)(command if name in (None, command_name) else _placeholder)
    for command_name, group in GROUPS.items():
        program.add_typer(
            group if name in (None, command_name) else typer.Typer(help=group.info.help), name=command_name
        )
    return program


def _placeholder() -> None:
    """Placeholder for a command that is only listed."""


app = build_app()


def main() -> None:
    """Entry point; errors that a user can fix give one line and exit code 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        if invalid := next((argument for argument in arguments if not is_utf8(argument)), None):
            raise InputError(f"{invalid!a}: its name is not UTF-8; rename the file or folder")
        command = next((argument for argument in arguments if not argument.startswith("-")), "")
        build_app(None if "_DISBENCH_COMPLETE" in os.environ else command)(args=arguments)
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
    except SystemExit as error:
        if error.code == _INTERRUPTED:  # typer's exit code for Ctrl-C
            print("interrupted; run the same command again to resume", file=sys.stderr)  # noqa: T201
        raise


def _environment_problem(error: Exception) -> str | None:
    """One line about incompatible installed packages; None if the error has another cause."""
    from importlib import metadata

    from packaging.requirements import Requirement

    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in map(Requirement, metadata.requires("disbench") or []):
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            name, version = requirement.name, metadata.version(requirement.name)
            if not requirement.specifier.contains(version, prereleases=True):
                required = f"{name}{requirement.specifier}"
                return f"{name} {version} is installed, but disbench needs {required}; run: pip install '{required}'"
    if isinstance(error, ImportError):
        message = CONTROL.sub(" ", str(error))
        fix = "pip install --upgrade --upgrade-strategy eager disbench"
        return f"{message}; the installed packages do not fit each other, run: {fix}"
    return None
