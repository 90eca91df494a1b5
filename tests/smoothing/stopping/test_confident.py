"""What Confident promises, by simulation; 10,000 trials for each setting."""

import pytest
import torch

from quick import first
from refusing import check_refusals
from smoothed import votes
from smoothed.smoothing.stopping import Confident, Exact
from smoothing.stopping.streams import TRIALS, allowed, counts, run, shares, winners

# Certain, likely, near ties of two, of three and of all, and ties.
GRID = [
    [0.98, 0.01, 0.01],
    [0.6, 0.3, 0.1],
    [0.48, 0.42, 0.1],
    [0.46, 0.44, 0.1],
    [0.45, 0.45, 0.1],
    [0.34, 0.33, 0.33],
    [0.251, 0.25, 0.25, 0.249],
    [0.5, 0.5],
    [0.55, 0.45],
]


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.05, 0.005])
@pytest.mark.parametrize("classes", [2, 10])
def test_on_average_over_the_prior_no_more_than_delta_changes(classes, delta, generator):
    torch.manual_seed(0)
    probabilities = torch.distributions.Dirichlet(torch.full((classes,), 1.0 / classes)).sample((TRIALS,))
    scores = counts(probabilities, TRIALS, 128, generator)
    decided, drawn = run(Confident(delta), votes.prediction, scores)
    changed = int((decided != winners(scores)).sum())
    assert changed <= allowed(delta)
    assert changed >= delta * TRIALS / 20  # nor does it waste draws
    _, exact = run(Exact(), votes.prediction, scores)
    assert drawn.float().mean() < exact.float().mean() / 2


@pytest.mark.parametrize("delta", [0.05, pytest.param(0.005, marks=pytest.mark.slow)])
@pytest.mark.parametrize("probabilities", GRID, ids=str)
def test_of_each_image_no_more_than_delta_changes(probabilities, delta, generator):
    scores = counts(probabilities, TRIALS, 96, generator)
    decided, drawn = run(Confident(delta, "each"), votes.prediction, scores)
    assert int((decided != winners(scores)).sum()) <= allowed(delta)
    if probabilities[0] > 0.9:
        assert drawn.float().mean() < 20


def scores_of(kind, probabilities, generator, trials=TRIALS, noise=2.0):
    """Votes of that kind, and their scores."""
    vote = {**votes.VOTES, "top two": votes.top_two(0.5)}[kind]
    logits = shares(probabilities, trials, 96, generator, noise).log()
    return vote, vote(logits.flatten(0, 1)).view(logits.shape)


@pytest.mark.parametrize("kind", ["soft", "weighted", "top two"])
@pytest.mark.parametrize("probabilities", first(1, [[0.6, 0.3, 0.1], [0.46, 0.44, 0.1], [0.34, 0.33, 0.33]]), ids=str)
def test_of_each_image_no_more_than_delta_changes_under_other_votes(probabilities, kind, generator):
    vote, scores = scores_of(kind, probabilities, generator)
    decided, drawn = run(Confident(0.05, "each"), vote, scores)
    assert int((decided != winners(scores)).sum()) <= allowed(0.05)
    assert drawn.float().mean() < 95.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["soft", "weighted", "top two"])
def test_on_average_over_images_no_more_than_delta_changes_under_other_votes(kind, generator):
    """Images of all kinds: from sure to close, from draws that hardly differ to draws that say anything."""
    trials = 10_000
    vote = {**votes.VOTES, "top two": votes.top_two(0.5)}[kind]
    means = 2 * torch.randn(trials, 1, 5, generator=generator)
    noise = 4 * torch.rand(trials, 1, 1, generator=generator)
    logits = means + noise * torch.randn(trials, 128, 5, generator=generator)
    scores = vote(logits.flatten(0, 1)).view(logits.shape)
    for delta in (0.05, 0.005):
        decided, drawn = run(Confident(delta), vote, scores)
        changed = int((decided != winners(scores)).sum())
        assert changed <= allowed(delta, trials)
        assert changed >= delta * trials / 20
        _, exact = run(Exact(), vote, scores)
        assert drawn.float().mean() < 0.75 * exact.float().mean()


@pytest.mark.parametrize("kind", ["soft", "weighted", "top two"])
@pytest.mark.parametrize("probabilities", first(1, [[0.45, 0.45, 0.1], [0.34, 0.33, 0.33], [0.52, 0.48]]), ids=str)
def test_close_to_a_tie_other_votes_are_as_cautious_as_predictions(probabilities, kind, generator):
    """There more than delta may change; what the prior of counts lets change is the measure."""
    trials = 4000
    predicted = counts(probabilities, trials, 96, generator)
    (by_counts, _), (vote, scores) = (
        run(Confident(0.05), votes.prediction, predicted),
        scores_of(kind, probabilities, generator, trials),
    )
    decided, _ = run(Confident(0.05), vote, scores)
    most = (by_counts != winners(predicted)).double().mean()
    assert (decided != winners(scores)).double().mean() < 1.25 * most


def test_votes_that_hardly_differ_from_draw_to_draw_stop_as_soon_as_votes_that_agree(generator):
    """The lead is 0.3 of a vote; taken for votes of all or nothing, it would take most of the draws."""
    vote, scores = scores_of("soft", [0.6, 0.3, 0.1], generator, 500, noise=0.1)
    decided, drawn = run(Confident(0.001), vote, scores)
    assert torch.equal(decided, winners(scores))
    assert drawn.float().mean() < 16


@pytest.mark.parametrize("guarantee", ["average", "each"])
def test_it_never_takes_more_draws_than_exact(guarantee, generator):
    scores = counts([0.5, 0.3, 0.2], 500, 64, generator)
    _, drawn = run(Confident(1e-9, guarantee), votes.prediction, scores)
    _, exact = run(Exact(), votes.prediction, scores)
    assert (drawn <= exact).all()


def test_more_draws_than_the_chance_is_solved_for(generator):
    scores = counts([0.8, 0.1, 0.1], 50, 1500, generator)
    decided, drawn = run(Confident(0.001), votes.prediction, scores)
    assert decided.tolist() == [0] * 50
    assert drawn.float().mean() < 40


@pytest.mark.parametrize("guarantee", ["average", "each"])
def test_a_vote_of_unknown_bound_takes_all_draws(guarantee, generator):
    scores = counts([1.0, 0.0], 3, 30, generator)
    assert run(Confident(0.1, guarantee), lambda logits: logits, scores)[1].tolist() == [30] * 3
    certain = votes.with_bound(lambda logits: logits, spread=1)
    assert run(Confident(0.1, guarantee), certain, scores)[1].max() < 16


def test_a_vote_of_no_spread_is_a_tie():
    scores = torch.ones(2, 9, 3)
    decided, drawn = run(Confident(), votes.by_rank([1, 1, 1]), scores)
    assert (decided.tolist(), drawn.tolist()) == ([0, 0], [1, 1])


def test_bad_options():
    check_refusals(
        Confident,
        [
            ({"delta": 0}, r"delta: expected a number in \(0, 1\), got 0"),
            ({"delta": 1.0}, "delta"),
            ({"guarantee": "all"}, "guarantee: expected one of average, each"),
            ({"prior_weight": 0}, "prior_weight: expected a finite number above 0, got 0"),
            ({"prior_weight": float("nan")}, "prior_weight"),
        ],
    )
