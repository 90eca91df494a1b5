"""Output of the command line: results on standard output, progress and errors on standard error."""

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def is_main_process() -> bool:
    """Whether this process prints: the only process, or the first of those that Accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


def progress_bar() -> Progress:
    """A progress bar with a description, a count, the elapsed time and the time left, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not is_main_process(),
    )
