"""Secret seed of votes whose requests state no seed, and the numbers of the draws already used."""

import secrets
import time
from collections.abc import Callable


class SecretSeed:
    """A 63-bit seed that never appears in an answer, a log or an error, with a counter of its used draws.

    Each pass uses new draw numbers, so two votes on the same image never share a draw.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.value = secrets.randbits(63)
        self.made = clock()
        self._drawn = 0

    def take(self, draws: int) -> int:
        """Reserve `draws` unused draw numbers and return the first of them."""
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
