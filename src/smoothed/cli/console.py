"""Where the command line writes: results to standard output, progress and errors to standard error."""

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def speaks() -> bool:
    """Whether this is the process that prints: the only one, or the first of those that Accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


def progress_bar() -> Progress:
    """A bar with a description, a count, the time taken and the time left, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not speaks(),
    )
