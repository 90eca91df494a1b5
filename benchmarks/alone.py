"""What runs in a process of its own: it costs what it costs a program that has nothing of ours in it.

A process that has ours keeps memory for its passes (`smoothed.memory`), and so makes others faster, too.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

Actions = Mapping[str, Callable[..., object]]


class Alone:
    """A process that waits for what it is told to do; it ends with this one.

    Args:
        make: gives the actions by name. It is called in the new process, so it must be importable there.
    """

    def __init__(self, make: Callable[[], Actions]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, make), daemon=True).start()
        theirs.close()  # so that the end of the other process is the end of the pipe

    def action(self, name: str, *arguments: object) -> Callable[[], None]:
        """Runs that action there, and returns when it has ended; `EOFError` if the process has."""

        def run() -> None:
            self._pipe.send((name, arguments))
            self._pipe.recv()

        return run


def _serve(pipe: Connection, make: Callable[[], Actions]) -> None:
    actions = make()
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:  # the other process has ended
            return
        actions[name](*arguments)
        pipe.send(None)
