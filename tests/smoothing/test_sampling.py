"""The engine of votes against literal sums: what an image gets does not depend on who shares its passes."""

import pytest
import torch
from torch import nn

from smoothed import CNI, PNI, Fast, Gaussian, NoisyClassifier, Smoothed, inject
from smoothed.errors import ArgumentError
from smoothed.rng.sources import Keyed
from smoothed.smoothing.sampling import Sampler, VoteRequest, count_votes
from smoothed.smoothing.stopping import Exact
from smoothed.smoothing.votes import VOTES
from smoothed.utils.modes import eval_mode

SEED, MOST = 5, 24


class Until:
    """Settled once a class has that score: what the stopping time is of a stream is then easy to say."""

    def __init__(self, score):
        self.score = score

    def monitor(self, problem):
        def needs(seen):
            assert 0 < seen.drawn < problem.total
            assert len(seen.scores) <= problem.images
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
    draw = NoisyClassifier(Recorder(network), Gaussian(0.5))
    with eval_mode(draw), torch.no_grad():
        yield draw


def pack_draws(draw):
    return not any(type(module).__name__ == "CNILayer" for module in draw.modules())


def streams(draw, images, vote):
    """The scores of each image at each draw, (M, N, K), one image and one draw a pass."""
    rows = [
        [draw.with_key(image[None], Keyed(SEED, number, [place])) for place, image in enumerate(images)]
        for number in range(MOST)
    ]
    draw.model.rows.clear()
    return torch.stack([torch.cat([VOTES[vote](logits) for logits in row]) for row in rows])


def sampler(draw, chunk_size, **options):
    return Sampler(draw, SEED, chunk_size, pack_draws(draw), **options)


def literal(stream, total, score):
    """The sums and the numbers of draws of a vote that stops at `score`, image by image."""
    sums, taken = [], []
    for scores in stream[:total].cumsum(0).unbind(1):
        reached = (scores.amax(1) >= score).nonzero()
        taken.append(int(reached[0]) + 1 if len(reached) else total)
        sums.append(scores[taken[-1] - 1])
    return torch.stack(sums), taken


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_each_image_stops_where_its_own_stream_says(draw, images, chunk_size):
    votes = {"prediction": VOTES["prediction"], "soft": VOTES["soft"]}
    by_vote = {name: streams(draw, images, name) for name in votes}
    expected = {(name, total): literal(by_vote[name], total, 5.5) for name in votes for total in (4, 15, MOST)}
    assert len(set(expected["prediction", MOST][1])) > 2  # images stop at different times, or this says little
    tallies = count_votes(sampler(draw, chunk_size), images, VoteRequest((4, 15, MOST), votes, Until(5.5)))
    for (name, total), (scores, taken) in expected.items():
        assert tallies[name][total].num_samples.tolist() == taken
        assert torch.allclose(tallies[name][total].scores, scores, atol=1e-4)


def test_an_image_goes_on_while_one_question_is_open(draw, images):
    """A settled vote keeps the scores it had, though draws go on for another."""
    votes = {"quick": lambda logits: 10 * VOTES["prediction"](logits), "slow": VOTES["prediction"]}
    tallies = count_votes(sampler(draw, 8), images, VoteRequest((MOST,), votes, Until(10)))
    assert tallies["quick"][MOST].num_samples.tolist() == [1] * len(images)
    assert tallies["quick"][MOST].scores.sum(1).tolist() == [10] * len(images)
    assert tallies["slow"][MOST].num_samples.min() >= 10


@pytest.mark.slow
@pytest.mark.parametrize("vote", VOTES)
def test_a_rule_sees_the_sums_and_the_squares_of_the_images_that_go_on(draw, images, vote):
    stream, looks = streams(draw, images, vote), []

    class Halving:
        """The first half of the images stops at every fourth draw."""

        def monitor(self, problem):
            going = torch.arange(problem.images)

            def needs(seen):
                nonlocal going
                looks.append((going, seen))
                if seen.drawn % 4:
                    return torch.ones(len(going), dtype=torch.int64)
                stays = torch.arange(len(going)) >= len(going) // 2
                going = going[stays]
                return stays.long()

            return needs

    count_votes(sampler(draw, 5), images, VoteRequest((MOST,), {vote: VOTES[vote]}, Halving()))
    assert len({len(going) for going, _ in looks}) > 2
    for going, seen in looks:
        own = stream[: seen.drawn, going]
        assert torch.allclose(seen.scores, own.sum(0), atol=1e-4)
        assert torch.allclose(seen.squares, own.square().sum(0), atol=1e-4)


@pytest.mark.slow
def test_passes_stay_full_as_images_leave(draw, images):
    stream = streams(draw, images, "prediction")
    _, taken = literal(stream, MOST, 6)
    count_votes(sampler(draw, 4), images, VoteRequest((MOST,), {"prediction": VOTES["prediction"]}, Until(6)))
    rows, active = draw.model.rows, [sum(stop > number for stop in taken) for number in range(max(taken))]
    assert max(rows) <= 4
    if pack_draws(draw):  # the last few images take several draws a pass, as many again as they had at most
        assert sum(active) <= sum(rows) <= 2 * sum(active)
        assert len(rows) <= sum(-(-count // 4) for count in active)
    else:
        assert sum(rows) == sum(active)
        assert len(rows) == sum(-(-count // 4) for count in active)


def test_without_a_rule_nothing_is_drawn_in_vain(draw, images):
    count_votes(sampler(draw, 100), images, VoteRequest((2, 10), VOTES))
    assert sum(draw.model.rows) == 10 * len(images)
    assert len(draw.model.rows) == (-(-10 // (100 // len(images))) if pack_draws(draw) else 10)


class Sure:
    """Needs that many draws, and says so; counts how often it is asked."""

    def __init__(self, *draws):
        self.draws = torch.tensor(draws)
        self.asked = []

    def monitor(self, problem):
        assert problem.images == len(self.draws)
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
    tally = count_votes(sampler(draw, 1000), images[:4], VoteRequest((MOST,), vote, rule))["prediction"][MOST]
    assert tally.num_samples.tolist() == [5, 5, 9, 20]
    assert torch.equal(tally.scores.sum(1), torch.tensor([5.0, 5, 9, 20]))
    assert rule.asked == [1, 5, 9, 20]
    assert sum(draw.model.rows) == 5 + 5 + 9 + 20 + (pack_draws(draw) and sum(draw.model.rows) - 39)
    if pack_draws(draw):  # one, then four, then some more than four of two images, then the rest of one
        assert draw.model.rows[:2] == [4, 16]
        assert sum(draw.model.rows) <= 39 + 3


def test_draws_for_another_question_are_never_in_vain(draw, images):
    """A question that may stop soon waits for one that may not."""
    votes = {"long": VOTES["soft"], "short": VOTES["prediction"]}

    class Both:
        def monitor(self, problem):
            wanted = 20 if problem.vote is VOTES["soft"] else 2
            return lambda seen: torch.full((len(seen.scores),), max(0, wanted - seen.drawn))

    tallies = count_votes(sampler(draw, 1000), images[:3], VoteRequest((MOST,), votes, Both()))
    assert tallies["long"][MOST].num_samples.tolist() == [20] * 3
    assert tallies["short"][MOST].num_samples.tolist() == [2] * 3
    assert sum(draw.model.rows) == 60


@pytest.mark.slow
def test_the_first_image_and_the_first_draw_move_the_keys(draw, images):
    whole = count_votes(sampler(draw, 8), images, VoteRequest((MOST,), {"soft": VOTES["soft"]}))["soft"][MOST].scores
    parts = [
        torch.cat(
            [
                count_votes(
                    sampler(draw, 8, first_image=place, first_draw=first),
                    image[None],
                    VoteRequest((count,), {"s": VOTES["soft"]}),
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
        count_votes(Sampler(NoisyClassifier(recorder), SEED, 2, pack_draws=False), images, VoteRequest((50,), VOTES))
    assert sum(recorder.rows) == len(images)


@pytest.mark.parametrize(("stop", "passes"), [(None, 1 + 16 + 16 + 8), (Exact(), None)])
def test_draws_that_are_sure_to_count_fill_passes(images, stop, passes):
    recorder = Recorder(lambda inputs: inputs.mean((2, 3)))
    one = Sampler(NoisyClassifier(recorder, Gaussian(0.1)), SEED, 20, pack_draws=True)
    counted = count_votes(one, images, VoteRequest((50,), {"v": VOTES["prediction"]}, stop))["v"][50].num_samples
    assert max(recorder.rows) <= 20
    if passes:  # of 16 images: one draw to see logits, then 20 draws in passes of 20 rows
        assert len(recorder.rows) == passes
        assert sum(recorder.rows) == 50 * 16
    assert sum(recorder.rows) <= 1.5 * counted.sum()


def test_scores_of_another_shape_are_refused(draw, images):
    with pytest.raises(ArgumentError, match="vote: expected scores of shape"):
        count_votes(sampler(draw, 8), images, VoteRequest((2,), {"own": lambda logits: logits[:, 0]}))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sigma", [0.5, 0.0])
def test_a_fast_network_gets_its_rows_laid_out_and_images_stay_as_they_were(network, images, order, sigma):
    fast, seen = Fast(network.eval()), []
    fast.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inputs = images.to(memory_format=order)
    before, request = inputs.clone(), VoteRequest((6,), {"soft": VOTES["soft"]})
    for packed in (True, False):
        for chunk_size in (5, 100):
            own = count_votes(
                Sampler(NoisyClassifier(network, Gaussian(sigma)), SEED, chunk_size, packed), images, request
            )
            seen.clear()
            ours = count_votes(
                Sampler(NoisyClassifier(fast, Gaussian(sigma)), SEED, chunk_size, packed), inputs, request
            )
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

    request = VoteRequest((4,), {"soft": VOTES["soft"]})
    count_votes(Sampler(NoisyClassifier(careless, noise), SEED, chunk_size, packed), images, request)
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
        draw = NoisyClassifier(Recorder(fast.network.model), Gaussian(0.5))
        quick, stacked = NoisyClassifier(fast, Gaussian(0.5)), type(fast).stacked
        monkeypatch.setattr(type(fast), "stacked", lambda *given: passes.append(given[1].shape[:2]) or stacked(*given))
        with eval_mode(draw), eval_mode(quick), torch.no_grad():
            expected = literal(streams(draw, images, "prediction"), MOST, 5.5)
            request = VoteRequest((MOST,), {"prediction": VOTES["prediction"]}, Until(5.5))
            tally = count_votes(sampler(quick, 48), images, request)["prediction"][MOST]
            assert tally.num_samples.tolist() == expected[1]
            assert torch.allclose(tally.scores, expected[0], atol=1e-4)
            assert max(draws for draws, _ in passes) > 1
            assert {count for _, count in passes} <= {1, 2, 3}
            every = count_votes(sampler(quick, 48, first_image=5, first_draw=2), images, VoteRequest((20,), VOTES))
            assert passes[-2:] == [(16, 3), (4, 3)]
            plain = count_votes(sampler(draw, 8, first_image=5, first_draw=2), images, VoteRequest((20,), VOTES))
            assert torch.allclose(every["soft"][20].scores, plain["soft"][20].scores, atol=1e-3)

    def test_passes_stay_within_the_chunk(self, fast, images, monkeypatch):
        passes, stacked = [], type(fast).stacked
        monkeypatch.setattr(type(fast), "stacked", lambda *given: passes.append(given[1].shape[:2]) or stacked(*given))
        quick = NoisyClassifier(fast, Gaussian(0.5))
        for rows, expected in ((1, []), (5, []), (6, [(2, 3)] * 10), (20, [(6, 3)] * 3 + [(2, 3)])):
            passes.clear()
            with eval_mode(quick), torch.no_grad():
                quick.draws_per_pass(images[:3], rows)  # the trial
                passes.clear()
                count_votes(sampler(quick, rows), images[:3], VoteRequest((20,), VOTES))
            assert passes == expected

    def test_votes_of_few_draws_are_not_worth_a_trial(self, fast, images, monkeypatch):
        trials = []
        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", lambda _: trials.append(1) or [2.0, 1.0])
        few, many = (Smoothed(fast, Gaussian(0.5), num_samples=number) for number in (31, 32))
        few.predict(images[:1])
        assert not trials
        many.predict(images[:1])
        few.predict(images[:1])  # as before: the same seed gives the same sums of draws
        assert len(trials) == 1

    def test_one_draw_is_not_worth_a_trial(self, fast, images, monkeypatch):
        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", lambda _: pytest.fail("tried"))
        quick = NoisyClassifier(fast, Gaussian(0.5))
        with eval_mode(quick), torch.no_grad():
            count_votes(sampler(quick, 256), images[:1], VoteRequest((1,), VOTES))

    def test_gradients_need_draws_one_by_one(self, fast, images):
        quick = NoisyClassifier(fast, Gaussian(0.5))
        inputs = images[:1].clone().requires_grad_()
        with eval_mode(quick):
            assert quick.draws_per_pass(inputs, 256) == 1
            shares = count_votes(sampler(quick, 8), inputs, VoteRequest((3,), {"soft": VOTES["soft"]}))["soft"][
                3
            ].scores
            assert torch.autograd.grad(shares[0, 0], inputs)[0].abs().max() > 0
