"""Rules that stop the vote on an image early, each with its guarantee."""

from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping.budget import Budget
from smoothed.smoothing.stopping.confident import Confident
from smoothed.smoothing.stopping.exact import Exact
from smoothed.smoothing.stopping.rule import Monitor, StoppingProblem, StoppingRule, VoteState
from smoothed.smoothing.stopping.true_mode import TrueMode

__all__ = [
    "Budget",
    "Confident",
    "Exact",
    "Monitor",
    "StoppingProblem",
    "StoppingRule",
    "TrueMode",
    "VoteState",
    "resolve_stopping_rule",
]


def resolve_stopping_rule(stop: str | StoppingRule | None) -> StoppingRule | None:
    """Return the rule of the given name, or `stop` itself if it is a rule or None (all draws).

    Raises:
        ArgumentError: the name is not "exact", or the object has no method `monitor`.
    """
    if stop == "exact":
        return Exact()
    if isinstance(stop, type) or (stop is not None and not callable(getattr(stop, "monitor", None))):
        hint = "pass an instance of the rule, not its class" if isinstance(stop, type) else ""
        raise ArgumentError("stop", "exact, a rule of smoothed.stopping or None", repr(stop), hint)
    return stop  # pyright: ignore[reportReturnType]
