"""Short measurements of speed on the present machine: the best chunk size, and the times of several functions."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Sizes of the first and of the largest chunk that are tried, in rows.
FIRST_CHUNK_SIZE, LARGEST_CHUNK_SIZE = 16, 4096
# Smallest speed-up over the best smaller size that counts.
_MIN_SPEEDUP = 1.03
_REPEATS = 3

ForwardPass = Callable[[int], object]
"""Function that makes one forward pass with the given number of rows and waits for its end."""


def find_chunk_size(
    run: ForwardPass, *, largest: int = LARGEST_CHUNK_SIZE, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Find the number of rows per pass at which `run` processes the most rows per second.

    Sizes double from 16. The search ends at the second size in succession that is not at least 3 % faster than the
    best one so far, or where memory runs out. Of sizes with about the same speed the smallest is chosen, because it
    needs the least memory.

    Args:
        run: makes one forward pass with a given number of rows.
        largest: largest number of rows to try, at least 1.
        clock: returns the time in seconds.

    Raises:
        torch.OutOfMemoryError: memory does not suffice for the first size.
    """
    best, best_speed, failures = 0, 0.0, 0
    size = min(FIRST_CHUNK_SIZE, largest)
    while True:
        try:
            run(size)  # not measured: the first pass of a size includes initialisation
            speed = size / statistics.median([_seconds(run, size, clock) for _ in range(_REPEATS)])
        except torch.OutOfMemoryError:
            if not best:
                raise
            return best
        failures = failures + 1 if speed < _MIN_SPEEDUP * best_speed else 0
        if not failures:
            best, best_speed = size, speed
        if failures == 2 or size == largest:
            return best
        size = min(2 * size, largest)


def _seconds(run: ForwardPass, size: int, clock: Callable[[], float]) -> float:
    start = clock()
    run(size)
    return max(clock() - start, 1e-9)


def seconds_in_turn(actions: Sequence[Callable[[], Tensor]], repeats: int = _REPEATS) -> list[float]:
    """Measure functions in turn and return the shortest time of each in seconds, which other work disturbs least.

    Args:
        actions: functions that return a tensor; its sum is read, which waits for the device.
        repeats: number of measured rounds; one round before them is not measured.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(1 + repeats):
        for times, action in zip(seconds, actions, strict=True):
            start = time.perf_counter()
            action().sum().item()
            times.append(time.perf_counter() - start)
    return [min(times[1:]) for times in seconds]
