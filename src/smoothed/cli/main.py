"""The `smoothed` command: its subcommands, and how errors are printed."""

import difflib
import inspect
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.cli.console import errors, invocation, invoked, is_main_process, output, warnings_in_a_line
from smoothed.errors import ArgumentError, SmoothedError
from smoothed.utils.memory import keep_memory

if TYPE_CHECKING:
    from smoothed.cli.options import QuietOptions

# Recent versions of Typer bundle click under another module name; the exception class has the same name in both.
ClickException: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

# Commands that several processes can share.
SHARED = ("certify", "evaluate", "paper run", "sweep", "train", "worst-case")

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
    from smoothed.cli.grouping import expanded
    from smoothed.cli.options import Device, Quiet, QuietOptions, SharedOptions
    from smoothed.cli.paper import paper_app
    from smoothed.cli.recipes import recipes
    from smoothed.cli.report import compare, report
    from smoothed.cli.serve import serve
    from smoothed.cli.sweep import sweep
    from smoothed.cli.train import train
    from smoothed.cli.worst_case import worst_case
    from smoothed.cli.zoo import zoo

    app = typer.Typer(
        help="Train, attack and evaluate classifiers that vote over noisy copies of their input.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )

    @app.callback(invoke_without_command=True)
    def start(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
        device: Device = "auto",
        quiet: Quiet = False,
    ) -> None:
        if version:
            _print_version()
            raise typer.Exit
        if context.invoked_subcommand is None:
            if text := context.get_help():  # Typer prints it itself where it uses Rich
                output.print(text)
            raise typer.Exit
        invocation().device, invocation().quiet = device, quiet

    computing = (demo, evaluate, worst_case, sweep, attack, check, certify, train, serve)
    for command in (*computing, report, compare, recipes, zoo, download):
        name, text = command.__name__.replace("_", "-"), _paragraphs(command.__doc__ or "")
        shared = SharedOptions if command in computing else QuietOptions
        app.command(name, help=text)(expanded(command, shared, _prepared))
    app.add_typer(paper_app(lambda command: expanded(command, SharedOptions, _prepared), _paragraphs), name="paper")
    return app


@contextmanager
def _prepared(options: "QuietOptions") -> Iterator[None]:
    """Set the device and whether the command is quiet, which may be given before or after the command."""
    from smoothed.smoothing.classifier import SigmaWarning

    warnings.simplefilter("ignore", SigmaWarning)  # `inputs.warn_of_unit` names the options of the command line
    shared = invocation()
    shared.quiet |= options.quiet
    given = getattr(options, "device", "auto")
    name = shared.device if given == "auto" else given
    if name == "auto":
        yield
        return
    from smoothed.utils.devices import preferring_device

    with preferring_device(name):
        yield


def _print_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        output.print(f"smoothed {version('smoothed')}")
    except PackageNotFoundError:
        output.print("smoothed, version unknown: it is not installed")


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with code 0, with 2 after an error (printed in one line), or with 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    command: Any = None
    try:
        _require_single_process(given)
        # OpenMP threads that spin while they wait double the time of a run beside one busy process.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, which is later
        keep_memory()
        _require_values(given)
        with invoked(given), warnings_in_a_line(), _process_group():
            command = typer.main.get_command(build_app())
            code = command.main(given, prog_name="smoothed", standalone_mode=False)
    except SmoothedError as error:
        errors.print(f"error: {_with_option(error, command, given)}", style="red")
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
    """The docstring with each paragraph in one line, so that only the width of the terminal breaks it.

    Examples keep their lines: paragraphs whose lines after the first are indented.
    """
    paragraphs = [paragraph.splitlines() for paragraph in inspect.cleandoc(docstring).split("\n\n")]
    is_example = [len(lines) > 1 and all(line.startswith(" ") for line in lines[1:]) for lines in paragraphs]
    return "\n\n".join(
        "\n".join(lines) if keep else " ".join(lines) for lines, keep in zip(paragraphs, is_example, strict=True)
    )


def _process_group() -> AbstractContextManager[None]:
    """Leave the process group at the end, where there is one. A single process needs none of it, nor torch for it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from smoothed.utils.distributed import leaving_process_group

    return leaving_process_group()


def _require_single_process(arguments: Sequence[str]) -> None:
    """Raise `ArgumentError` where several processes would each do the whole work of a command."""
    count = os.environ.get("WORLD_SIZE", "1")
    words = [word for before, word in zip(["", *arguments], arguments, strict=False) if before != "--device"]
    named = [word for word in words if not word.startswith("-")]
    command = " ".join(named[: 2 if named[:1] == ["paper"] else 1]) or None
    if count != "1" and command is not None and command not in SHARED:
        raise ArgumentError("processes", f"one for {command}, or {', '.join(SHARED)}", f"{count} processes")


def _require_values(arguments: Sequence[str]) -> None:
    """Raise `ArgumentError` for an option with an empty value, which commands would take for no value."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        name, sign, value = word.partition("=")
        given = name if sign and not value else before if not word else ""
        if given.startswith("--") and "=" not in given:
            raise ArgumentError(given.removeprefix("--"), "a value", "an empty one")


def _with_option(error: SmoothedError, command: Any, arguments: Sequence[str]) -> str:  # noqa: ANN401 - typer's type
    """The message; an argument that it begins with has the name of its option, without the dashes."""
    argument, sign, rest = str(error).partition(": ")
    if not argument.isidentifier():
        return str(error)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    options = {each.name: each.opts[0] for each in getattr(command, "params", ())}
    return options.get(argument, argument).removeprefix("--").replace("_", "-") + sign + rest


def _usage(error: BaseException) -> str:
    """The message of Typer's error in one line, with the option that was probably meant."""
    given, options = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if type(error).__name__ == "NoSuchOption" and given and options:
        return f"No such option: {given}{_meant(given, options)}"
    message = getattr(error, "format_message", lambda: str(error))()
    return " ".join(message.split())


def _meant(given: str, options: Sequence[str]) -> str:
    if given.removesuffix("s") in options:
        return f"; did you mean {given.removesuffix('s')}, which takes one value?"
    if f"{given}s" in options:
        return f"; did you mean {given}s?"
    similar = difflib.get_close_matches(given, options, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""
