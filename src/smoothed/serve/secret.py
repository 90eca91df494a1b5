"""The secret seed of votes whose requests name none, and the draws that it has given out."""

import secrets
import time
from collections.abc import Callable


class SecretSeed:
    """A seed of 63 bits that leaves the process in no answer, log or error, and a counter of its draws.

    Every pass takes draws of its own, so that no image ever sees a draw of this seed twice, even if it is sent again.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.value = secrets.randbits(63)
        self.made = clock()
        self._drawn = 0

    def take(self, draws: int) -> int:
        """Give out the numbers of `draws` draws that were not given out before; return the first."""
        first, self._drawn = self._drawn, self._drawn + draws
        return first


class SecretSeeds:
    """The seed of new requests, replaced after a time. Requests that have begun keep theirs.

    Args:
        seconds: time after which a new seed is made.
        clock: returns the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seed = SecretSeed(clock)

    def current(self) -> SecretSeed:
        """The seed of a request that begins now."""
        if self._clock() - self._seed.made >= self._seconds:
            self._seed = SecretSeed(self._clock)
        return self._seed
