"""The leader that TrueMode stops with, against the most probable class; 10,000 trials for each setting."""

import pytest
import torch

from smoothed import votes
from smoothed.errors import ArgumentError
from smoothed.stopping import TrueMode
from stopping.streams import TRIALS, allowed, counts, run, shares

TOTAL = 150


@pytest.mark.parametrize("delta", [0.1, 0.01])
@pytest.mark.parametrize(
    "probabilities",
    [[0.05, 0.95], [0.3, 0.6, 0.1], [0.42, 0.48, 0.1], [0.4499, 0.4501, 0.1], [0.4999, 0.5001], [0.33, 0.34, 0.33]],
    ids=str,
)
def test_it_hardly_ever_stops_with_another_class(probabilities, delta, generator):
    scores = counts(probabilities, TRIALS, TOTAL, generator)
    decided, drawn = run(TrueMode(delta), votes.prediction, scores)
    stopped = drawn < TOTAL
    assert int((stopped & (decided != 1)).sum()) <= allowed(delta)
    if probabilities[1] > 0.55:
        assert stopped.float().mean() > 0.5


@pytest.mark.parametrize("kind", ["soft", "weighted"])
@pytest.mark.parametrize("probabilities", [[0.1, 0.9], [0.3, 0.6, 0.1], [0.4499, 0.4501, 0.1]], ids=str)
def test_it_keeps_that_for_other_votes(probabilities, kind, generator):
    logits = shares(probabilities, TRIALS, TOTAL, generator).log()
    scores = votes.VOTES[kind](logits.flatten(0, 1)).view(logits.shape)
    decided, drawn = run(TrueMode(0.05), votes.VOTES[kind], scores)
    stopped = drawn < TOTAL
    assert int((stopped & (decided != 1)).sum()) <= allowed(0.05)
    if probabilities[1] == 0.9:
        assert stopped.float().mean() > 0.5


def test_the_number_of_draws_plays_no_part(generator):
    scores = counts([0.8, 0.1, 0.1], 200, 400, generator)
    decided, drawn = run(TrueMode(), votes.prediction, scores)
    assert drawn.max() < 200
    again, same = run(TrueMode(), votes.prediction, scores[:, :200])
    assert torch.equal(drawn, same)
    assert torch.equal(decided, again)


def test_bad_delta():
    with pytest.raises(ArgumentError, match=r"delta: expected a number in \(0, 1\), got True"):
        TrueMode(True)
