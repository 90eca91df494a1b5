"""Answers to votes: classes by their shares, with intervals."""

import math
from statistics import NormalDist
from typing import Any

from smoothed.serve.turns import VoteOutcome
from smoothed.smoothing.tally import Tally
from smoothed.smoothing.votes import Vote, vote_bound

DIGITS = 6
"""Number of digits after the point in answers."""

_Z = NormalDist().inv_cdf(0.975)


def bounds_of_shares(tally: Tally, vote: Vote) -> list[tuple[float, float]] | None:
    """The 95 % intervals (Wilson, 1927) of one image's shares, one for each class; None for a vote without them.

    The share of a class is a mean over draws of scores in [0, 1] if the scores of a draw sum to 1. For the prediction
    vote the interval is that of a proportion. For the soft vote it is wider than needed, because probabilities vary
    less than votes of the same mean.

    Args:
        tally: scores (1, K) of the draws.
        vote: the vote, which knows whether its scores sum to 1.
    """
    draws = int(tally.num_samples[0])
    scores: list[float] = tally.scores[0].tolist()
    if not draws or not vote_bound(vote, len(scores)).sums_to_one:
        return None
    return [_wilson(score / draws, draws) for score in scores]


def _wilson(share: float, draws: int) -> tuple[float, float]:
    """The interval of `utils.intervals.interval`, whose call of scipy takes longer than a draw."""
    shrunk = 1 + _Z**2 / draws
    centre = (share + _Z**2 / (2 * draws)) / shrunk
    half_width = _Z / shrunk * math.sqrt(max(share * (1 - share), 0.0) / draws + _Z**2 / (4 * draws**2))
    return round(max(centre - half_width, 0.0), DIGITS), round(min(centre + half_width, 1.0), DIGITS)


def answer(outcome: VoteOutcome, vote: Vote, classes: tuple[str, ...], **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """The answer to a vote, as JSON values (`schemas.Prediction`).

    Args:
        outcome: the votes and why they ended.
        vote: the vote.
        classes: names of the classes.
        more: further fields.
    """
    tally = outcome.tally
    shares: list[float] = tally.shares[0].tolist()
    bounds = bounds_of_shares(tally, vote)
    # Ties go to the lowest class, as in `Tally.classes`.
    best = sorted(range(len(shares)), key=lambda number: (-shares[number], number))
    winner = int(tally.classes()[0])
    return {
        "class": winner,
        "class_name": classes[winner],
        "shares": [
            {
                "class": number,
                "name": classes[number],
                "share": round(shares[number], DIGITS),
                "low": None if bounds is None else bounds[number][0],
                "high": None if bounds is None else bounds[number][1],
            }
            for number in best
        ],
        "draws": int(tally.num_samples[0]),
        "ended": outcome.ended,
        "margin": round(shares[best[0]] - shares[best[1]], DIGITS),
        **more,
    }
