"""The `smoothed` command: its subcommands, and how errors look."""

import sys

import click
import typer

from smoothed.cli.console import errors
from smoothed.errors import SmoothedError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_app() -> typer.Typer:
    """The command with its subcommands. Built when called, so that importing this file costs nothing."""
    from smoothed.cli.demo import demo
    from smoothed.cli.download import download
    from smoothed.cli.evaluate import evaluate
    from smoothed.cli.train import train

    app = typer.Typer(
        help="Classifiers that vote over noisy copies of their input: train, attack and measure them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    for command in (demo, evaluate, train, download):
        app.command()(command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 if all went well, 2 after an error (one line), 130 after Ctrl-C."""
    try:
        code = typer.main.get_command(build_app()).main(arguments, prog_name="smoothed", standalone_mode=False)
    except SmoothedError as error:
        errors.print(f"error: {error}", style="red")
        code = EXIT_ERROR
    except click.ClickException as error:
        errors.print(f"error: {error.format_message()}", style="red")
        code = EXIT_ERROR
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        errors.print(f"error: {where}{error.strerror or error}", style="red")
        code = EXIT_ERROR
    except (KeyboardInterrupt, click.Abort):
        errors.print("interrupted")
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
