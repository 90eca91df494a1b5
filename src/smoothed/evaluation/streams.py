"""Numbers of all random streams of the evaluations.

A key is `mix(seed, ..., stream, ...)`: streams with different numbers under the same prefix are independent, so a vote
that measures an attack never uses draws that the attack has seen. Changing a number changes all results of its kind.
"""

from enum import IntEnum


class BatchStream(IntEnum):
    """Streams of a batch in the paper protocol, sweeps, evaluations of saved examples and gradient-masking checks."""

    ATTACK = 0
    CLEAN_VOTES = 1
    ATTACKED_VOTES = 2
    SAVED_CLEAN_VOTES = 10
    SAVED_ATTACKED_VOTES = 11


class CertificationStream(IntEnum):
    """Streams of a batch in a certification."""

    SELECTION = 0
    ESTIMATION = 1


class WorstCaseStream(IntEnum):
    """Parts of a worst-case evaluation."""

    EOT_SWEEP = 0
    RANDOMNESS_PROBE = 1
    MEAN_NETWORK = 2
    SMOOTHED = 3


class WorstCaseBatchStream(IntEnum):
    """Streams of a batch in one part of a worst-case evaluation."""

    ATTACK = 0
    SELECTION_VOTES = 1
    CLEAN_VOTES = 2
    FINAL_VOTES = 3
