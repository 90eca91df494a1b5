"""Output of the command line: results on standard output, progress, notes and errors on standard error."""

import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from smoothed.cli.time_left import TimeLeftColumn

output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


@dataclass
class Invocation:
    """What the command was called with.

    Attributes:
        arguments: arguments of the command, without `smoothed` itself.
        device: device by name; `auto` for the best one.
        quiet: whether progress and notes are left out.
    """

    arguments: tuple[str, ...] = ()
    device: str = "auto"
    quiet: bool = False


_invocation: ContextVar[Invocation] = ContextVar("invocation")
_DEFAULT = Invocation()


@contextmanager
def invoked(arguments: Sequence[str]) -> Iterator[Invocation]:
    """Make `arguments` those of the command inside the block."""
    token = _invocation.set(Invocation(tuple(arguments)))
    try:
        yield _invocation.get()
    finally:
        _invocation.reset(token)


def invocation() -> Invocation:
    """What the command was called with; empty outside a command."""
    return _invocation.get(_DEFAULT)


def command_line() -> str:
    """The command as a line for the shell, for the provenance of results."""
    return shlex.join(["smoothed", *invocation().arguments])


def is_main_process() -> bool:
    """Whether this process prints: the only process, or the first of those that Accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


def show(part: RenderableType) -> None:
    """Print a table or a sentence on standard output; a terminal's lines end between words."""
    output.print(part, soft_wrap=not output.is_terminal)


def note(text: str) -> None:
    """Print a note on standard error, unless `--quiet` was given or another process prints."""
    if is_main_process() and not invocation().quiet:
        errors.print(text)


def warn(text: str) -> None:
    """Print a warning in one line on standard error, unless another process prints."""
    if is_main_process():
        errors.print(f"warning: {' '.join(text.split())}", style="yellow")


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Print Python's warnings in one line each, as errors are printed, inside the block."""

    def show_warning(message: Warning | str, *where: object) -> None:
        del where
        warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        yield


def progress_bar() -> Progress:
    """A progress bar with a description, a count, the elapsed time and the time left, on standard error.

    In a narrow terminal, the bar is short and the description is wrapped, so that the numbers are complete.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", table_column=Column(overflow="fold")),
        BarColumn(min(40, max(10, console.width // 2 - 30)), table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeLeftColumn(table_column=Column(no_wrap=True)),
        console=console,
        disable=not is_main_process() or invocation().quiet,
    )


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar inside the block.

    Args:
        description: what is being done.

    Yields:
        Function that receives the finished amount of work and its total. Outside a terminal, the bar is written only
        once work has been done, so that an error before it stands alone.
    """
    bar = progress_bar()
    task = bar.add_task(description, total=None)

    def update(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    if bar.console.is_terminal:
        bar.start()
    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()
