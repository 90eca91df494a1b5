"""Rules that say when the vote on an image may stop, and what each of them guarantees."""

from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping.budget import Budget
from smoothed.smoothing.stopping.confident import Confident
from smoothed.smoothing.stopping.exact import Exact
from smoothed.smoothing.stopping.rule import Question, Seen, Stop, Watch
from smoothed.smoothing.stopping.true_mode import TrueMode

__all__ = ["Budget", "Confident", "Exact", "Question", "Seen", "Stop", "TrueMode", "Watch", "resolve_stop"]


def resolve_stop(stop: str | Stop | None) -> Stop | None:
    """The rule of that name, or the rule itself; None for all draws.

    Raises:
        ArgumentError: an unknown name, or no rule.
    """
    if stop == "exact":
        return Exact()
    if isinstance(stop, type) or (stop is not None and not callable(getattr(stop, "watch", None))):
        raise ArgumentError("stop", "exact, a rule of smoothed.stopping or None", repr(stop))
    return stop  # pyright: ignore[reportReturnType]
