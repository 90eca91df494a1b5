"""Short trials of what is faster here: how many rows a pass should have, this way or that."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FIRST, LARGEST = 16, 4096
# A size must beat the best one before it by so much; two that don't end the probe.
_GAIN = 1.03
_REPEATS = 3

Pass = Callable[[int], object]
"""Makes one forward pass of so many rows, and waits for it."""


def find_chunk_size(run: Pass, *, largest: int = LARGEST, clock: Callable[[], float] = time.perf_counter) -> int:
    """The number of rows at which `run` makes the most rows a second.

    Sizes double from 16. The probe ends at the second one in a row that brings less than 3 %, or where memory does, and
    the smallest of equals wins: it needs the least memory.

    Args:
        run: makes a pass.
        largest: no more rows than this; at least 1.
        clock: seconds.

    Raises:
        torch.OutOfMemoryError: the first size is too large already.
    """
    best, fastest, misses = 0, 0.0, 0
    size = min(FIRST, largest)
    while True:
        try:
            run(size)  # the first pass of a size sets things up
            speed = size / statistics.median([_seconds(run, size, clock) for _ in range(_REPEATS)])
        except torch.OutOfMemoryError:
            if not best:
                raise
            return best
        misses = misses + 1 if speed < _GAIN * fastest else 0
        if not misses:
            best, fastest = size, speed
        if misses == 2 or size == largest:
            return best
        size = min(2 * size, largest)


def _seconds(run: Pass, size: int, clock: Callable[[], float]) -> float:
    start = clock()
    run(size)
    return max(clock() - start, 1e-9)


def seconds_in_turn(actions: Sequence[Callable[[], Tensor]], repeats: int = _REPEATS) -> list[float]:
    """The median seconds of each action, after a first run of each; a device is waited for by the number it gives."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(1 + repeats):
        for times, action in zip(taken, actions, strict=True):
            start = time.perf_counter()
            action().sum().item()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in taken]
