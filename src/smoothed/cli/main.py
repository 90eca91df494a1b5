"""The `smoothed` command: its subcommands, and how errors look."""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import typer

from smoothed.cli.console import errors, speaks
from smoothed.errors import ArgumentError, SmoothedError
from smoothed.utils.memory import keep_memory

# Typer brings click with it, of late under a name of its own; what both call a ClickException is what it can refuse.
ClickException: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

# Commands whose work several processes can share.
SHARED = ("certify", "evaluate", "sweep", "train")

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_app() -> typer.Typer:
    """The command with its subcommands. Built when called, so that importing this file costs nothing."""
    from smoothed.cli.attack import attack
    from smoothed.cli.certify import certify
    from smoothed.cli.check import check
    from smoothed.cli.demo import demo
    from smoothed.cli.download import download
    from smoothed.cli.evaluate import evaluate
    from smoothed.cli.judge import judge
    from smoothed.cli.recipes import recipes
    from smoothed.cli.sweep import sweep
    from smoothed.cli.train import train

    app = typer.Typer(
        help="Classifiers that vote over noisy copies of their input: train, attack and measure them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    for command in (demo, evaluate, sweep, attack, judge, check, certify, train, recipes, download):
        app.command()(command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 if all went well, 2 after an error (one line), 130 after Ctrl-C."""
    try:
        _require_alone(sys.argv[1:] if arguments is None else arguments)
        keep_memory()
        with _parting():
            code = typer.main.get_command(build_app()).main(arguments, prog_name="smoothed", standalone_mode=False)
    except SmoothedError as error:
        errors.print(f"error: {error}", style="red")
        code = EXIT_ERROR
    except ClickException as error:
        errors.print(f"error: {_usage(error)}", style="red")
        code = EXIT_ERROR
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        errors.print(f"error: {where}{error.strerror or error}", style="red")
        code = EXIT_ERROR
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED and speaks():  # some versions of Typer give it back, others raise
        errors.print("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _parting() -> AbstractContextManager[None]:
    """`processes.parting`, where there are processes to part from: it would bring torch with it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from smoothed.utils.distributed import parting

    return parting()


def _require_alone(arguments: Sequence[str]) -> None:
    """Refuse to do the same work in several processes."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1" and arguments and not arguments[0].startswith("-") and arguments[0] not in SHARED:
        raise ArgumentError("processes", f"one for {arguments[0]}, or {', '.join(SHARED)}", f"{count} processes")


def _usage(error: BaseException) -> str:
    """What Typer has to say, in one line."""
    message = getattr(error, "format_message", lambda: str(error))()
    return " ".join(message.split())
