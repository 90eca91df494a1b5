"""Learning rates as pure functions of progress in [0, 1]: a factor of the peak, nothing to save or resume."""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]
"""From progress through the run, in [0, 1], to a factor of the peak learning rate."""


def steps(progress: float) -> float:
    """The paper's: a tenth from half of the run, a hundredth from three quarters (400 epochs: 200 and 300)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def one_cycle(progress: float, warmup: float = 0.2) -> float:
    """A linear rise over the first fifth, then half a cosine down to 0 (after Smith and Topin, 2018)."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


SCHEDULES: dict[str, Schedule] = {"steps": steps, "onecycle": one_cycle}
