"""The mean is kept, and spent on close votes."""

import pytest
import torch

from smoothed import votes
from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping import Budget
from smoothing.stopping.streams import counts, run, shares, state, winners


@pytest.fixture
def probabilities(generator):
    """Of 2,000 images: a third close, the others clear."""
    first = torch.where(torch.arange(2000) % 3 == 0, 0.5 + 0.1 * torch.rand(2000, generator=generator), 0.95)
    return torch.stack([first, 0.9 * (1 - first), 0.1 * (1 - first)], 1)


@pytest.mark.parametrize("mean", [1, 1.5, 2, 3, 8, 32, 47.3, 100, 1000])
@pytest.mark.parametrize("kind", ["prediction", "soft"])
def test_the_mean_is_never_exceeded_and_well_used(kind, mean, probabilities, generator):
    scores = counts(probabilities, 2000, 100, generator)
    if kind == "soft":
        scores = shares([0.35, 0.34, 0.31], 300, 100, generator)
    _, drawn = run(Budget(mean), votes.VOTES[kind], scores)
    assert drawn.float().mean() <= mean
    if kind == "soft":  # all are close
        assert drawn.float().mean() > 0.75 * min(mean, 100)


def test_close_votes_get_more_and_fewer_classes_change(probabilities, generator):
    scores = counts(probabilities, 2000, 256, generator)
    decided, drawn = run(Budget(32), votes.prediction, scores)
    close = torch.arange(2000) % 3 == 0
    assert drawn[close].float().mean() > 4 * drawn[~close].float().mean()
    changed = (decided != winners(scores)).sum()
    flat = (winners(scores[:, :32]) != winners(scores)).sum()
    assert changed < 0.7 * flat
    assert drawn.min() == 8


def test_rounds_by_hand():
    """Four images, M = 16, a mean of 4: one draw each, then rounds of equal cost, of the closest images."""
    ahead = torch.tensor([1, 1, 1, 1]), torch.tensor([0, 0, 0, 0])
    monitor = Budget(4).monitor(problem := _question(16, 4))
    # After 1 draw 12 are left for 4 rounds: 3 images of one draw more. All are as close, and the first ones go on.
    assert monitor(state(torch.stack(ahead, 1), 1)).tolist() == [1, 1, 1, 0]
    # After 2 draws 9 are left for 3 rounds, of two draws more: 1 image, the one that is level.
    assert monitor(state([[2, 0], [1, 1], [2, 0]], 2)).tolist() == [0, 2, 0]
    # After 4 draws 7 are left for 2 rounds, of four more: less than one image a round, but enough for one.
    assert monitor(state([[2, 2]], 4)).tolist() == [4]
    # After 8 draws 3 are left, and the next round has eight more.
    assert monitor(state([[4, 4]], 8)).tolist() == [0]
    assert problem.images == 4


@pytest.mark.parametrize(("mean", "drawn"), [(1, 1), (4, 4), (32, 32), (47.3, 44)])
def test_a_close_vote_on_a_single_image_uses_its_budget(mean, drawn):
    """Its draws double from a quarter of the mean on, as long as the budget pays for it: 11, 22 and 44 of 47."""
    level = torch.eye(2).repeat(50, 1)[None]  # the classes win in turn
    assert run(Budget(mean), votes.prediction, level)[1].tolist() == [drawn]


def _question(total, images):
    from smoothed.smoothing.stopping import StoppingProblem

    return StoppingProblem(votes.prediction, total, images)


def test_a_vote_of_unknown_bound_takes_the_mean(generator):
    scores = counts([0.5, 0.5], 5, 60, generator)
    assert run(Budget(7.5), lambda logits: logits, scores)[1].tolist() == [7] * 5
    assert run(Budget(70), lambda logits: logits, scores)[1].tolist() == [60] * 5


@pytest.mark.parametrize("mean", [0.5, float("inf"), "32", float("nan")])
def test_bad_mean(mean):
    with pytest.raises(ArgumentError, match="mean: expected a finite number of draws of at least 1"):
        Budget(mean)
