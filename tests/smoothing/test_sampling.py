"""The engine of votes against literal sums: what an image gets does not depend on who shares its passes."""

import pytest
import torch
from torch import nn

from smoothed import CNI, PNI, Fast, Gaussian, OneDraw, inject
from smoothed.errors import ArgumentError
from smoothed.rng.sources import Keyed
from smoothed.smoothing.sampling import Ballot, Drawer, count_votes
from smoothed.smoothing.stopping import Exact
from smoothed.smoothing.votes import VOTES
from smoothed.utils.modes import evaluating

SEED, MOST = 5, 24


class Until:
    """Settled once a class has that score: what the stopping time is of a stream is then easy to say."""

    def __init__(self, score):
        self.score = score

    def watch(self, question):
        def needs(seen):
            assert 0 < seen.drawn < question.total
            assert len(seen.scores) <= question.images
            return (seen.scores.amax(1) < self.score).long()

        return needs


class Recorder(nn.Module):
    """A network that remembers the number of rows of each pass."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.rows = []

    def forward(self, inputs):
        self.rows.append(len(inputs))
        return self.network(inputs)


@pytest.fixture(params=["input", "activations", "weights"])
def draw(request, network):
    """One draw of a network with that noise, and noise on its input."""
    if request.param == "activations":
        inject(network, activations=PNI())
    elif request.param == "weights":
        inject(network, weights=CNI(rank=2))
    draw = OneDraw(Recorder(network), Gaussian(0.5))
    with evaluating(draw), torch.no_grad():
        yield draw


def packs(draw):
    return not any(type(module).__name__ == "CNILayer" for module in draw.modules())


def streams(draw, images, vote):
    """The scores of each image at each draw, (M, N, K), one image and one draw a pass."""
    rows = [
        [draw.keyed(image[None], Keyed(SEED, number, [place])) for place, image in enumerate(images)]
        for number in range(MOST)
    ]
    draw.model.rows.clear()
    return torch.stack([torch.cat([VOTES[vote](logits) for logits in row]) for row in rows])


def drawer(draw, chunk_size, **options):
    return Drawer(draw, SEED, chunk_size, packs(draw), **options)


def literal(stream, total, score):
    """The sums and the numbers of draws of a vote that stops at `score`, image by image."""
    sums, taken = [], []
    for scores in stream[:total].cumsum(0).unbind(1):
        reached = (scores.amax(1) >= score).nonzero()
        taken.append(int(reached[0]) + 1 if len(reached) else total)
        sums.append(scores[taken[-1] - 1])
    return torch.stack(sums), taken


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_each_image_stops_where_its_own_stream_says(draw, images, chunk_size):
    votes = {"prediction": VOTES["prediction"], "soft": VOTES["soft"]}
    expected = {
        (name, total): literal(streams(draw, images, name), total, 5.5) for name in votes for total in (4, 15, MOST)
    }
    assert len(set(expected["prediction", MOST][1])) > 2  # images stop at different times, or this says little
    tallies = count_votes(drawer(draw, chunk_size), images, Ballot((4, 15, MOST), votes, Until(5.5)))
    for (name, total), (scores, taken) in expected.items():
        assert tallies[name][total].num_samples.tolist() == taken
        assert torch.allclose(tallies[name][total].scores, scores, atol=1e-4)


def test_an_image_goes_on_while_one_question_is_open(draw, images):
    """A settled vote keeps the scores it had, though draws go on for another."""
    votes = {"quick": lambda logits: 10 * VOTES["prediction"](logits), "slow": VOTES["prediction"]}
    tallies = count_votes(drawer(draw, 8), images, Ballot((MOST,), votes, Until(10)))
    assert tallies["quick"][MOST].num_samples.tolist() == [1] * len(images)
    assert tallies["quick"][MOST].scores.sum(1).tolist() == [10] * len(images)
    assert tallies["slow"][MOST].num_samples.min() >= 10


@pytest.mark.parametrize("vote", VOTES)
def test_a_rule_sees_the_sums_and_the_squares_of_the_images_that_go_on(draw, images, vote):
    stream, looks = streams(draw, images, vote), []

    class Halving:
        """The first half of the images stops at every fourth draw."""

        def watch(self, question):
            going = torch.arange(question.images)

            def needs(seen):
                nonlocal going
                looks.append((going, seen))
                if seen.drawn % 4:
                    return torch.ones(len(going), dtype=torch.int64)
                stays = torch.arange(len(going)) >= len(going) // 2
                going = going[stays]
                return stays.long()

            return needs

    count_votes(drawer(draw, 5), images, Ballot((MOST,), {vote: VOTES[vote]}, Halving()))
    assert len({len(going) for going, _ in looks}) > 2
    for going, seen in looks:
        own = stream[: seen.drawn, going]
        assert torch.allclose(seen.scores, own.sum(0), atol=1e-4)
        assert torch.allclose(seen.squares, own.square().sum(0), atol=1e-4)


def test_passes_stay_full_as_images_leave(draw, images):
    stream = streams(draw, images, "prediction")
    _, taken = literal(stream, MOST, 6)
    count_votes(drawer(draw, 4), images, Ballot((MOST,), {"prediction": VOTES["prediction"]}, Until(6)))
    rows, active = draw.model.rows, [sum(stop > number for stop in taken) for number in range(max(taken))]
    assert max(rows) <= 4
    if packs(draw):  # the last few images take several draws a pass, as many again as they had at most
        assert sum(active) <= sum(rows) <= 2 * sum(active)
        assert len(rows) <= sum(-(-count // 4) for count in active)
    else:
        assert sum(rows) == sum(active)
        assert len(rows) == sum(-(-count // 4) for count in active)


def test_without_a_rule_nothing_is_drawn_in_vain(draw, images):
    count_votes(drawer(draw, 100), images, Ballot((2, 10), VOTES))
    assert sum(draw.model.rows) == 10 * len(images)
    assert len(draw.model.rows) == (-(-10 // (100 // len(images))) if packs(draw) else 10)


class Sure:
    """Needs that many draws, and says so; counts how often it is asked."""

    def __init__(self, *draws):
        self.draws = torch.tensor(draws)
        self.asked = []

    def watch(self, question):
        assert question.images == len(self.draws)
        going = self.draws

        def needs(seen):
            nonlocal going
            assert len(seen.scores) == len(going)
            self.asked.append(seen.drawn)
            left = going - seen.drawn
            going = going[left > 0]
            return left

        return needs


def test_a_rule_that_looks_ahead_costs_no_draw_in_vain_and_is_asked_when_one_may_stop(draw, images):
    rule, vote = Sure(5, 5, 9, 20), {"prediction": VOTES["prediction"]}
    tally = count_votes(drawer(draw, 1000), images[:4], Ballot((MOST,), vote, rule))["prediction"][MOST]
    assert tally.num_samples.tolist() == [5, 5, 9, 20]
    assert torch.equal(tally.scores.sum(1), torch.tensor([5.0, 5, 9, 20]))
    assert rule.asked == [1, 5, 9, 20]
    assert sum(draw.model.rows) == 5 + 5 + 9 + 20 + (packs(draw) and sum(draw.model.rows) - 39)
    if packs(draw):  # one, then four, then some more than four of two images, then the rest of one
        assert draw.model.rows[:2] == [4, 16]
        assert sum(draw.model.rows) <= 39 + 3


def test_draws_for_another_question_are_never_in_vain(draw, images):
    """A question that may stop soon waits for one that may not."""
    votes = {"long": VOTES["soft"], "short": VOTES["prediction"]}

    class Both:
        def watch(self, question):
            wanted = 20 if question.vote is VOTES["soft"] else 2
            return lambda seen: torch.full((len(seen.scores),), max(0, wanted - seen.drawn))

    tallies = count_votes(drawer(draw, 1000), images[:3], Ballot((MOST,), votes, Both()))
    assert tallies["long"][MOST].num_samples.tolist() == [20] * 3
    assert tallies["short"][MOST].num_samples.tolist() == [2] * 3
    assert sum(draw.model.rows) == 60


def test_the_first_image_and_the_first_draw_move_the_keys(draw, images):
    whole = count_votes(drawer(draw, 8), images, Ballot((MOST,), {"soft": VOTES["soft"]}))["soft"][MOST].scores
    parts = [
        torch.cat(
            [
                count_votes(
                    drawer(draw, 8, first_image=place, first_draw=first),
                    image[None],
                    Ballot((count,), {"s": VOTES["soft"]}),
                )["s"][count].scores
                for place, image in enumerate(images)
            ]
        )
        for first, count in ((0, 9), (9, MOST - 9))
    ]
    assert torch.allclose(sum(parts), whole, atol=1e-4)
    assert not torch.allclose(parts[0] / 9, parts[1] / (MOST - 9), atol=1e-3)


def test_what_is_no_number_is_refused_after_one_pass_of_each_image(images):
    recorder = Recorder(lambda inputs: inputs.mean((2, 3)) * torch.nan)
    with pytest.raises(ArgumentError, match="finite logits"):
        count_votes(Drawer(OneDraw(recorder), SEED, 2, packs=False), images, Ballot((50,), VOTES))
    assert sum(recorder.rows) == len(images)


@pytest.mark.parametrize(("stop", "passes"), [(None, 1 + 16 + 16 + 8), (Exact(), None)])
def test_draws_that_are_sure_to_count_fill_passes(images, stop, passes):
    recorder = Recorder(lambda inputs: inputs.mean((2, 3)))
    one = Drawer(OneDraw(recorder, Gaussian(0.1)), SEED, 20, packs=True)
    counted = count_votes(one, images, Ballot((50,), {"v": VOTES["prediction"]}, stop))["v"][50].num_samples
    assert max(recorder.rows) <= 20
    if passes:  # of 16 images: one draw to see logits, then 20 draws in passes of 20 rows
        assert len(recorder.rows) == passes
        assert sum(recorder.rows) == 50 * 16
    assert sum(recorder.rows) <= 1.5 * counted.sum()


def test_scores_of_another_shape_are_refused(draw, images):
    with pytest.raises(ArgumentError, match="vote: expected scores of shape"):
        count_votes(drawer(draw, 8), images, Ballot((2,), {"own": lambda logits: logits[:, 0]}))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sigma", [0.5, 0.0])
def test_a_fast_network_gets_its_rows_laid_out_and_images_stay_as_they_were(network, images, order, sigma):
    fast, seen = Fast(network.eval()), []
    fast.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inputs = images.to(memory_format=order)
    before, ballot = inputs.clone(), Ballot((6,), {"soft": VOTES["soft"]})
    for packed in (True, False):
        for chunk_size in (5, 100):
            own = count_votes(Drawer(OneDraw(network, Gaussian(sigma)), SEED, chunk_size, packed), images, ballot)
            seen.clear()
            ours = count_votes(Drawer(OneDraw(fast, Gaussian(sigma)), SEED, chunk_size, packed), inputs, ballot)
            assert torch.allclose(ours["soft"][6].scores, own["soft"][6].scores, atol=1e-4)
            assert sum(map(len, seen)) == 6 * len(images)
            assert all(rows.is_contiguous(memory_format=torch.channels_last) for rows in seen)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("noise", [None, Gaussian(0.0), Gaussian(0.5)])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_a_model_may_write_to_what_it_gets(images, noise, packed, chunk_size):
    """Neither the images nor the next draws see it."""
    before, seen = images.clone(), []

    def careless(inputs):
        seen.append(inputs.clone())
        return inputs.sub_(1).flatten(1)[:, :3]

    ballot = Ballot((4,), {"soft": VOTES["soft"]})
    count_votes(Drawer(OneDraw(careless, noise), SEED, chunk_size, packed), images, ballot)
    assert torch.equal(images, before)
    if not isinstance(noise, Gaussian) or not noise.sigma:
        draws = torch.cat(seen)
        assert torch.equal(draws, images.repeat(4, 1, 1, 1))


class TestFewImages:
    """Draws of weights that share a pass are the draws they would be one by one."""

    @pytest.fixture
    def fast(self, network, monkeypatch):
        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", lambda _: [2.0, 1.0])
        inject(network, weights=CNI(rank=2))
        return Fast(network)

    def test_each_image_stops_where_its_own_stream_says(self, fast, images, monkeypatch):
        images, passes = images[:3], []
        draw = OneDraw(Recorder(fast.network.model), Gaussian(0.5))
        quick, stacked = OneDraw(fast, Gaussian(0.5)), type(fast).stacked
        monkeypatch.setattr(type(fast), "stacked", lambda *given: passes.append(given[1].shape[:2]) or stacked(*given))
        with evaluating(draw), evaluating(quick), torch.no_grad():
            expected = literal(streams(draw, images, "prediction"), MOST, 5.5)
            ballot = Ballot((MOST,), {"prediction": VOTES["prediction"]}, Until(5.5))
            tally = count_votes(drawer(quick, 48), images, ballot)["prediction"][MOST]
            assert tally.num_samples.tolist() == expected[1]
            assert torch.allclose(tally.scores, expected[0], atol=1e-4)
            assert max(draws for draws, _ in passes) > 1
            assert {count for _, count in passes} <= {1, 2, 3}
            every = count_votes(drawer(quick, 48, first_image=5, first_draw=2), images, Ballot((20,), VOTES))
            assert passes[-2:] == [(16, 3), (4, 3)]
            plain = count_votes(drawer(draw, 8, first_image=5, first_draw=2), images, Ballot((20,), VOTES))
            assert torch.allclose(every["soft"][20].scores, plain["soft"][20].scores, atol=1e-3)

    def test_passes_stay_within_the_chunk(self, fast, images, monkeypatch):
        passes, stacked = [], type(fast).stacked
        monkeypatch.setattr(type(fast), "stacked", lambda *given: passes.append(given[1].shape[:2]) or stacked(*given))
        quick = OneDraw(fast, Gaussian(0.5))
        for rows, expected in ((1, []), (5, []), (6, [(2, 3)] * 10), (20, [(6, 3)] * 3 + [(2, 3)])):
            passes.clear()
            with evaluating(quick), torch.no_grad():
                quick.draws_of_a_pass(images[:3], rows)  # the trial
                passes.clear()
                count_votes(drawer(quick, rows), images[:3], Ballot((20,), VOTES))
            assert passes == expected

    def test_one_draw_is_not_worth_a_trial(self, fast, images, monkeypatch):
        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", lambda _: pytest.fail("tried"))
        quick = OneDraw(fast, Gaussian(0.5))
        with evaluating(quick), torch.no_grad():
            count_votes(drawer(quick, 256), images[:1], Ballot((1,), VOTES))

    def test_gradients_need_draws_one_by_one(self, fast, images):
        quick = OneDraw(fast, Gaussian(0.5))
        inputs = images[:1].clone().requires_grad_()
        with evaluating(quick):
            assert quick.draws_of_a_pass(inputs, 256) == 1
            shares = count_votes(drawer(quick, 8), inputs, Ballot((3,), {"soft": VOTES["soft"]}))["soft"][3].scores
            assert torch.autograd.grad(shares[0, 0], inputs)[0].abs().max() > 0
