"""The leader that TrueMode stops with, against the most probable class; 10,000 trials for each setting."""

import pytest
import torch

from quick import first
from smoothed import votes
from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping import TrueMode
from smoothing.stopping.streams import TRIALS, allowed, counts, run, shares

TOTAL = 150


@pytest.mark.parametrize("delta", [0.1, 0.01])
@pytest.mark.parametrize(
    "probabilities",
    first(
        2,
        [
            [0.3, 0.6, 0.1],
            [0.4999, 0.5001],
            [0.05, 0.95],
            [0.42, 0.48, 0.1],
            [0.4499, 0.4501, 0.1],
            [0.33, 0.34, 0.33],
        ],
    ),
    ids=str,
)
def test_it_hardly_ever_stops_with_another_class(probabilities, delta, generator):
    scores = counts(probabilities, TRIALS, TOTAL, generator)
    decided, drawn = run(TrueMode(delta), votes.prediction, scores)
    stopped = drawn < TOTAL
    assert int((stopped & (decided != 1)).sum()) <= allowed(delta)
    if probabilities[1] > 0.55:
        assert stopped.float().mean() > 0.5


@pytest.mark.slow
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


def test_draws_that_hardly_differ_need_fewer(generator):
    """Soft votes with a steady lead of 0.3: taken for votes of all or nothing they would take some 200 draws."""
    scores = shares([0.6, 0.3, 0.1], 500, TOTAL, generator, noise=0.1)
    decided, drawn = run(TrueMode(0.001), votes.soft, scores)
    assert decided.unique().tolist() == [0]
    assert 30 < drawn.float().mean() < 80


def test_a_rival_that_varies_more_is_not_overlooked():
    """The second best rival is nearly as good, and all that there is to say of it is that it may be anything."""
    steady = torch.tensor([0.5, 0.3, 0.0]).expand(1, TOTAL, 3).clone()
    wild = steady.clone()
    wild[0, :, 2] = torch.where(torch.arange(TOTAL) % 4 == 0, 1.0, 0.0)  # a mean of 0.25
    vote = votes.with_bound(lambda logits: logits, spread=1)
    ((_, alone), (_, beside)) = (run(TrueMode(0.001), vote, scores) for scores in (steady, wild))
    assert int(alone) + 30 < int(beside)


@pytest.mark.parametrize(("offset", "spread"), [(300.0, 1.0), (1000.3, 1.0), (0.0, 1e-23)])
def test_scores_that_float32_can_hardly_tell_apart(offset, spread, generator):
    """Level classes, so that nearly none may stop: not where sums of squares are rounded away either."""
    vote = votes.with_bound(lambda logits: logits, spread=spread)
    scores = offset + spread * torch.randint(2, (400, 300, 2), generator=generator).float()
    _, drawn = run(TrueMode(0.01), vote, scores)
    assert int((drawn < 300).sum()) <= 0.01 * 400


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
