"""Numbers of all random streams of training.

A key is `mix(seed, ..., stream, ...)`: streams with different numbers under the same prefix are independent. Changing a
number changes all results of training.
"""

from enum import IntEnum


class TrainingStream(IntEnum):
    """Streams of a run, under its seed."""

    INITIAL_WEIGHTS = 0
    ORDER = 1
    CROPS = 2
    NOISE = 3
    ROWS = 4
    VALIDATION = 5
    OWN = 6
    INITIAL_ATTACKER = 101


class RowStream(IntEnum):
    """Streams of a part's rows, under the seed of their random numbers."""

    COPIES = 1
