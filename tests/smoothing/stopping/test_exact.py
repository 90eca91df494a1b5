"""Exact against all draws, and against the first draw after which every rest of the stream gives the same class."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothed import votes
from smoothed.smoothing.stopping import Exact, StoppingProblem
from smoothing.stopping.streams import counts, run, state

# Few distinct logits, so that ties of ranks and of tallies are common.
streams = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 2), min_size=k, max_size=k), min_size=1, max_size=40)
)
KINDS = {
    **votes.VOTES,
    "top two": votes.top_two(0.5),
    "by rank": votes.by_rank([1.0, 0.7, 0.7, 0.2]),
    "half": votes.with_bound(lambda logits: 0.5 - votes.prediction(logits), spread=1),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(streams)
def test_the_class_is_that_of_all_draws(kind, logits):
    scores = KINDS[kind](torch.tensor(logits, dtype=torch.float32)).unsqueeze(0)
    classes, drawn = run(Exact(), KINDS[kind], scores)
    total = torch.zeros_like(scores[:, 0])
    for draw in scores.unbind(1):  # in the order of the engine, so that rounding is the same
        total = total + draw
    assert classes.tolist() == total.argmax(1).tolist()
    assert 1 <= int(drawn) <= len(logits)


@settings(max_examples=50)
@given(st.integers(2, 3), st.integers(1, 5), st.data())
def test_prediction_votes_stop_at_the_first_draw_that_decides(classes, total, data):
    stream = data.draw(st.lists(st.integers(0, classes - 1), min_size=total, max_size=total))

    def winners(number):
        """The classes that any continuation of the first draws ends with."""
        ends = itertools.product(range(classes), repeat=total - number)
        tallies = ([*stream[:number], *end] for end in ends)
        return {min(range(classes), key=lambda c: (-tally.count(c), c)) for tally in tallies}

    first = next(number for number in range(1, total + 1) if len(winners(number)) == 1)
    scores = torch.eye(classes)[stream].unsqueeze(0)
    decided, drawn = run(Exact(), votes.prediction, scores)
    assert int(drawn) == first
    assert {int(decided)} == winners(first)


@pytest.mark.parametrize("kind", ["prediction", "weighted", "soft", "top two", "by rank"])
def test_the_worst_rest_of_a_stream_is_just_not_enough(kind):
    """What the bound of a vote implies is tight: one draw less, and the rest could have changed the class."""
    vote, classes, total = KINDS[kind], 4, 60
    bound = votes.spread(vote, classes)
    # The scores of a draw that is all for class 2, and of one that is as bad for it and as good for class 1 as can be.
    up = vote(torch.tensor([[-2.0, -1.0, 80.0, -3.0]]))[0]
    down = vote(torch.tensor([[-2.0, 80.0, -90.0, -3.0]]))[0]
    assert float((down[1] - down[2]) / bound) == pytest.approx(1, abs=1e-6)
    scores = torch.stack([up] * total).unsqueeze(0)
    decided, drawn = run(Exact(), vote, scores)
    drawn = int(drawn)
    assert decided.item() == up.argmax()
    for number, same in ((drawn, True), (drawn - 2, False)):
        end = torch.cat([torch.stack([up] * number), torch.stack([down] * (total - number))]).sum(0)
        assert (int(end.argmax()) == int(up.argmax())) is same


def test_a_vote_of_unknown_bound_takes_all_draws():
    scores = counts([0.9, 0.1], 3, 20, torch.Generator().manual_seed(0))
    _, drawn = run(Exact(), lambda logits: logits, scores)
    assert drawn.tolist() == [20] * 3
    needs = Exact().monitor(StoppingProblem(lambda logits: logits, 20, 3))(state(scores[:, 0], 1))
    assert needs.tolist() == [19] * 3


def test_draws_that_look_ahead_are_never_in_vain():
    """Of M draws that all agree, half and one are needed, and the watch says so at once."""
    needs = Exact().monitor(StoppingProblem(votes.prediction, 512, 1))
    assert [needs(state([[0.0, n]], n)).item() for n in (1, 100, 256, 257)] == [256, 157, 1, 0]
    assert [needs(state([[n, 0.0]], n)).item() for n in (1, 100, 255, 256)] == [255, 156, 1, 0]


def test_sums_of_many_small_rounding_errors_are_allowed_for():
    """A lead that rounding could turn is no lead."""
    monitor = Exact().monitor(StoppingProblem(votes.soft, 100_000, 1))
    assert monitor(state([[50_000.3, 49_999.7]], 99_999)).item() == 1
    assert monitor(state([[50_001.5, 49_998.5]], 99_999)).item() == 0
    assert math.isinf(votes.spread(lambda logits: logits, 3))
