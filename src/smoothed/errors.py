"""One exception tree: every error a user can cause derives from `SmoothedError` and fits in one line."""


class SmoothedError(Exception):
    """Base of everything this package raises on purpose. The command line prints it and exits with code 2."""


class ArgumentError(SmoothedError, ValueError):
    """An argument is not what was expected. The message names the argument, what was expected and what came."""

    def __init__(self, argument: str, expected: str, got: object, hint: str = "") -> None:
        self.argument = argument
        super().__init__(f"{argument}: expected {expected}, got {got}" + (f"; {hint}" if hint else ""))


class DataError(SmoothedError):
    """A data set is missing, truncated, or not what it claims to be."""


class CheckpointError(SmoothedError):
    """A checkpoint or a training state is missing, truncated, foreign, or does not fit the network."""


class OutputError(SmoothedError):
    """A result could not be written: full disk, read-only folder, a folder in place of a file."""


class DivergedError(SmoothedError):
    """Training met a loss that is no number. The message says at which step, and how to go on."""


class ProcessError(SmoothedError):
    """One of several processes that share a work is gone, and the others can't go on without it."""
