"""The `smoothed` command: its subcommands, and how errors are printed."""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import typer

from smoothed.cli.console import errors, is_main_process
from smoothed.errors import ArgumentError, SmoothedError
from smoothed.utils.memory import keep_memory

# Recent versions of Typer bundle click under another module name; the exception class has the same name in both.
ClickException: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

# Commands that several processes can share.
SHARED = ("certify", "evaluate", "sweep", "train", "worst-case")

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_app() -> typer.Typer:
    """The command with its subcommands. It is built when called, so that importing this module is fast."""
    from smoothed.cli.attack import attack
    from smoothed.cli.certify import certify
    from smoothed.cli.check import check
    from smoothed.cli.demo import demo
    from smoothed.cli.download import download
    from smoothed.cli.evaluate import evaluate
    from smoothed.cli.recipes import recipes
    from smoothed.cli.sweep import sweep
    from smoothed.cli.train import train
    from smoothed.cli.worst_case import worst_case

    app = typer.Typer(
        help="Train, attack and evaluate classifiers that vote over noisy copies of their input.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    for command in (demo, evaluate, worst_case, sweep, attack, check, certify, train, recipes, download):
        app.command(command.__name__.replace("_", "-"), help=_paragraphs(command.__doc__ or ""))(command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with code 0, with 2 after an error (printed in one line), or with 130 after Ctrl-C."""
    try:
        _require_single_process(sys.argv[1:] if arguments is None else arguments)
        # OpenMP threads that spin while they wait double the time of a run beside one busy process.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, which is later
        keep_memory()
        with _process_group():
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
    if code == EXIT_INTERRUPTED and is_main_process():  # some versions of Typer return this code, others raise
        errors.print("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _paragraphs(docstring: str) -> str:
    """The docstring with each paragraph in one line, so that only the width of the terminal breaks it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _process_group() -> AbstractContextManager[None]:
    """Leave the process group at the end, where there is one. A single process needs none of it, nor torch for it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from smoothed.utils.distributed import leaving_process_group

    return leaving_process_group()


def _require_single_process(arguments: Sequence[str]) -> None:
    """Raise `ArgumentError` where several processes would each do the whole work of a command."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1" and arguments and not arguments[0].startswith("-") and arguments[0] not in SHARED:
        raise ArgumentError("processes", f"one for {arguments[0]}, or {', '.join(SHARED)}", f"{count} processes")


def _usage(error: BaseException) -> str:
    """The message of Typer's error in one line."""
    message = getattr(error, "format_message", lambda: str(error))()
    return " ".join(message.split())
