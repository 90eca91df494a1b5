"""Exceptions: every error that a user can cause derives from `SmoothedError` and has a message of one line."""


class SmoothedError(Exception):
    """Base class of this package's exceptions; the command line prints the message and exits with code 2."""


class ArgumentError(SmoothedError, ValueError):
    """An argument is invalid; the message names the argument, what was expected, what was given, and often a remedy.

    Args:
        argument: name of the argument as the user wrote it.
        expected: description of valid values.
        got: the invalid value or its description.
        hint: what the user can do; empty for no hint.
    """

    def __init__(self, argument: str, expected: str, got: object, hint: str = "") -> None:
        self.argument = argument
        got = _one_line(str(got))
        self._arguments = (argument, expected, got, hint)
        super().__init__(f"{argument}: expected {expected}, got {got}" + (f"; {hint}" if hint else ""))

    def named(self, argument: str) -> "ArgumentError":
        """The same error about an argument of another name, for functions that pass an argument on."""
        return type(self)(argument, *self._arguments[1:])

    def __reduce__(self) -> tuple[type["ArgumentError"], tuple[str, str, str, str]]:
        """Pickle the arguments rather than the message, for errors of other processes."""
        return type(self), self._arguments


def _one_line(text: str) -> str:
    """The beginning of a text of several lines, such as a printed network, as one line; other texts as they are."""
    if "\n" not in text:
        return text
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


class DataError(SmoothedError):
    """A data set is missing, truncated, or has unexpected contents."""


class CheckpointError(SmoothedError):
    """A checkpoint or a training state is missing, truncated, of another program, or does not fit the network."""


class OutputError(SmoothedError):
    """A file could not be written, for example because the disk is full or the folder is read-only."""


class DivergedError(SmoothedError):
    """A training loss became NaN or infinite; the message names the step and how to continue."""


class ProcessError(SmoothedError):
    """One of several cooperating processes has exited, so the others cannot continue."""
