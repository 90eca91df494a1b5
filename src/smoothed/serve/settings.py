"""Limits of the service: what one request may ask for, and how much the service takes at once."""

from dataclasses import dataclass

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_flag, check_positive

PICTURES = 64
"""Largest number of noisy copies that one race of shares sends."""

DRAWS_OF_A_STEP = 16
"""Largest number of draws of the vote after each step of an attack."""


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the service.

    Attributes:
        body_bytes: largest body of a request.
        pixels: largest width times height of an image file, read from its header before it is decoded.
        num_samples: largest number of draws of a vote, M.
        steps: largest number of gradient steps of an attack.
        eot_samples: largest number of draws for one gradient of an attack.
        queue: largest number of votes that are waiting or running; further requests get status 503.
        streams: largest number of races and attacks that run at the same time, each with a stream of events.
        body_seconds: time in which a client must have sent its request.
        stream_seconds: longest time of one stream of events.
        deadline_seconds: longest deadline of a request.
        grace_seconds: time after SIGTERM in which requests that were taken may end.
        seed_seconds: time after which the secret seed is replaced.
        predict_only: whether clients send images alone and get the model's own vote. Requests that choose how to vote
            are refused, and the explorer is left out.

    Raises:
        ArgumentError: a limit is not positive, or `predict_only` is not True or False.
    """

    body_bytes: int = 8 * 2**20
    pixels: int = 2**24
    num_samples: int = 512
    steps: int = 100
    eot_samples: int = 32
    queue: int = 64
    streams: int = 4
    body_seconds: float = 10.0
    stream_seconds: float = 300.0
    deadline_seconds: float = 60.0
    grace_seconds: float = 10.0
    seed_seconds: float = 60.0
    predict_only: bool = False

    def __post_init__(self) -> None:
        for name in ("body_bytes", "pixels", "num_samples", "steps", "eot_samples", "queue", "streams"):
            check_positive(getattr(self, name), name)
        for name in ("body_seconds", "stream_seconds", "deadline_seconds", "grace_seconds", "seed_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ArgumentError(name, "a finite number of seconds above 0", repr(value))
        check_flag(self.predict_only, "predict_only")

    @property
    def held_bytes(self) -> int:
        """Largest number of bytes of bodies that are held at the same time, over all requests."""
        return 32 * self.body_bytes

    def shown(self) -> dict[str, int]:
        """The limits that clients are told."""
        names = ("num_samples", "steps", "eot_samples", "pixels", "body_bytes")
        return {name: getattr(self, name) for name in names}
