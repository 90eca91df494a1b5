"""Learning-rate schedules, as functions of the progress of the run; they have no state to save."""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]
"""Function from the finished share of the run, in [0, 1], to a factor on the peak learning rate, in [0, 1]."""


def steps(progress: float) -> float:
    """The paper's schedule: 1, then 0.1 from half of the run (epoch 200 of 400), then 0.01 from three quarters."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def one_cycle(progress: float, warmup: float = 0.2) -> float:
    """Linear rise to 1 over the share `warmup` of the run, then half a cosine to 0 (after Smith and Topin, 2018)."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


SCHEDULES: dict[str, Schedule] = {"steps": steps, "onecycle": one_cycle}
