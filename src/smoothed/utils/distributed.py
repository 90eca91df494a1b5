"""Division of work among the processes that Accelerate launched, exchange of results, and clean shutdown."""

import gc
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
    """This process's place among the processes that share work; a single process by default.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> "Processes":
        """Join the process group of `accelerate launch` (or torchrun); may be called repeatedly."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState  # noqa: PLC0415 - the import takes a second; a single process needs none

        # On CPUs Accelerate forms a group only if told so; on GPUs it assigns one to each process. The timeout is long
        # because a slow process is no error; one that exits closes its connections or is reported by its launcher.
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))
        return cls(state.process_index, state.num_processes)

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each process, ordered by rank, in every process.

        Args:
            value: any object that can be pickled; tensors must be on the CPU.

        Raises:
            ProcessError: another process has exited.
        """
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:  # the communication backends raise different subclasses
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ProcessError(f"processes: expected {self.count} running, but one has exited ({reason})") from error
        return values  # pyright: ignore[reportReturnType] - all_gather_object fills every entry

    def divide(self, work: Sequence[Callable[[], T]]) -> list[T]:
        """Call each function of `work` in one of the processes; every process receives all results.

        Args:
            work: the same functions in every process; any number of them. Function i runs in the process of rank
                i mod `count`.

        Returns:
            The results in the order of `work`.

        Raises:
            ProcessError: another process has exited.
        """
        results = self.gather([piece() for piece in work[self.rank :: self.count]])
        return [results[index % self.count][index // self.count] for index in range(len(work))]


SINGLE_PROCESS = Processes()


@contextmanager
def leaving_process_group() -> Iterator[None]:
    """Leave the process group at the end of the block, also after an exception; no effect for a single process.

    Without this, a process that exits may abort, because the communication threads are not stopped.

    Raises:
        ProcessError: raised inside the block when this process receives SIGTERM, which launchers send after another
            process has exited.
    """
    handles_sigterm = (
        int(os.environ.get("WORLD_SIZE", "1")) > 1 and threading.current_thread() is threading.main_thread()
    )
    final_handler = signal.signal(signal.SIGTERM, _raise_on_sigterm) if handles_sigterm else None
    try:
        yield
    except ProcessError:
        final_handler = signal.SIG_IGN  # the process is ending anyway and must still report the error
        raise
    finally:
        if handles_sigterm:
            signal.signal(signal.SIGTERM, final_handler)
        if distributed.is_available() and distributed.is_initialized():
            gc.collect()  # a trained network in a reference cycle would keep the threads of the group alive
            distributed.destroy_process_group()


def _raise_on_sigterm(*_: object) -> None:
    raise ProcessError("processes: received SIGTERM, because another process has exited or the job was cancelled")
