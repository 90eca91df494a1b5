"""The processes that Accelerate started: what each does of a common work, what all of them know then, how they part."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from smoothed.errors import ProcessError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that share a work; by itself where nobody started others.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> "Processes":
        """Those that `accelerate launch` (or torchrun) started, met here for the first time or again."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState  # noqa: PLC0415 - takes a second, and one process needs none of it

        # Processes on CPUs would not find each other without the word; on GPUs each gets its own. To wait for a slow
        # one is no error: one that is gone closes its connections, or its launcher tells.
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))
        return cls(state.process_index, state.num_processes)

    def gather(self, value: T) -> list[T]:
        """The `value` of each process, in their order, known to all. It may be anything of the CPU that pickles.

        Raises:
            ProcessError: another process is gone.
        """
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:  # whatever the library that carries messages makes of it
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ProcessError(f"processes: expected {self.count} at work, lost one ({reason})") from error
        return values  # pyright: ignore[reportReturnType] - each is filled by its process

    def divide(self, work: Sequence[Callable[[], T]]) -> list[T]:
        """Do each piece of `work` in one of the processes, in turn, and let all know what all gave.

        There may be fewer pieces than processes, or a number that does not divide.

        Raises:
            ProcessError: as `gather`.
        """
        own = [piece() for piece in work[self.rank :: self.count]]
        given = self.gather(own)
        return [given[place % self.count][place // self.count] for place in range(len(work))]


ALONE = Processes()


@contextmanager
def parting() -> Iterator[None]:
    """Leave the other processes, where there are any, at the end of the block, however it ends.

    A process that exits while still among them may abort: the threads that carry its messages are not told to stop.

    Raises:
        ProcessError: in the block, where this process is told to stop (SIGTERM), as launchers do when another is gone.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and threading.current_thread() is threading.main_thread()
    after = signal.signal(signal.SIGTERM, _stop) if several else None
    try:
        yield
    except ProcessError:
        after = signal.SIG_IGN  # this process is ending anyway, and has something to say
        raise
    finally:
        if several:
            signal.signal(signal.SIGTERM, after)
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def _stop(*_: object) -> None:
    raise ProcessError("processes: told to stop: another of them is gone, or the job was cancelled")
