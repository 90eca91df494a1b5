"""The processes that Accelerate started, and how they part."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed


@contextmanager
def parting() -> Iterator[None]:
    """Leave the other processes, where there are any, at the end of the block, however it ends.

    A process that exits while still among them may abort: the threads that carry its messages are not told to stop.
    """
    try:
        yield
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
