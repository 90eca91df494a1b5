"""Functions that run in a process of their own, so that their time does not depend on what ran in it before.

For example, `keep_memory()` and the sizes of earlier allocations decide how fast later code of a process gets memory.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

Actions = Mapping[str, Callable[..., object]]


class Alone:
    """A process that runs functions on request; it ends when the present process ends.

    Args:
        make: returns the functions by name. It is called in the new process, so it must be importable there.
    """

    def __init__(self, make: Callable[[], Actions]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        context.Process(target=_serve, args=(child_end, make), daemon=True).start()
        child_end.close()  # the child then holds the only copy, so the pipe ends when the child ends

    def action(self, name: str, *arguments: object) -> Callable[[], None]:
        """Return a function that runs the named function in the other process and waits for its end.

        It raises `EOFError` if the other process has ended.
        """

        def run() -> None:
            self._pipe.send((name, arguments))
            self._pipe.recv()

        return run


def _serve(pipe: Connection, make: Callable[[], Actions]) -> None:
    actions = make()
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:  # the process that sends the requests has ended
            return
        actions[name](*arguments)
        pipe.send(None)
