"""Votes with kept images, taken by one process and shared by two, beside the two tallies they stand for."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import torch

import known
from smoothed.evaluation.kept_votes import joined_records, recorded_samples, tally_and_keep, tally_and_record
from smoothed.rng.seeds import seeded
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import Uniform
from smoothed.smoothing.votes import prediction, soft
from smoothed.utils.distributed import SINGLE_PROCESS, Processes

X = torch.linspace(0.1, 0.9, 30).view(-1, 1, 1, 1)
VOTES = {"prediction": prediction, "soft": soft}


class OneOfTwo(Processes):
    """One of two processes, which are threads here."""

    values, barrier = [None, None], Barrier(2)

    def gather(self, value):
        self.values[self.rank] = value
        self.barrier.wait(30)
        values = list(self.values)
        self.barrier.wait(30)
        return values


def options():
    return {"votes": VOTES, "generator": torch.Generator().manual_seed(3)}


def taken(kept, processes, images=X):
    tally = partial(Smoothed(known.Threshold(), Uniform(known.SIGMA)).tally, images, (4, 41), **options())
    take_tally = lambda rule: tally(stop=rule, processes=processes)  # noqa: E731
    return tally_and_keep(take_tally, VOTES, len(images), kept, processes)


@pytest.mark.parametrize("kept", [0, 8, 25, 30])
@pytest.mark.parametrize("count", [1, 2])
def test_kept_images_have_the_tallies_of_all_draws_and_the_stops_of_the_exact_rule(kept, count):
    """The second of two processes has images 15 to 29."""
    smoothed = Smoothed(known.Threshold(), Uniform(known.SIGMA))
    whole, stopped = (smoothed.tally(X, (4, 41), stop=stop, **options()) for stop in (None, "exact"))
    if count == 1:
        found = [taken(kept, SINGLE_PROCESS)]
    else:
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda rank: taken(kept, OneOfTwo(rank, 2)), range(2)))
    for tallies, draws in found:
        for vote in VOTES:
            for total in (4, 41):
                tally, all_draws, exact = tallies[vote][total], whole[vote][total], stopped[vote][total]
                expected = torch.cat([all_draws.scores[:kept], exact.scores[kept:]])
                torch.testing.assert_close(tally.scores, expected, atol=1e-4, rtol=0)
                assert torch.equal(draws[vote][total], exact.num_samples)


def test_processes_that_divide_the_draws_of_an_image_make_all_of_them():
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda rank: taken(1, OneOfTwo(rank, 2), X[:1]), range(2)))
    assert all(draws["prediction"] == {4: torch.tensor([4]), 41: torch.tensor([41])} for _, draws in found)


@pytest.mark.parametrize(
    ("total", "expected"), [(1, (1,)), (2, (1, 2)), (5, (1, 2, 4, 5)), (64, (1, 2, 4, 8, 16, 32, 64))]
)
def test_votes_are_recorded_at_powers_of_two_and_at_the_end(total, expected):
    assert recorded_samples(total) == expected


def decided_after(smoothed, images, total, seed):
    """Draws after which the class of the prediction vote is certain: a literal reading, draw by draw, (N,)."""
    counts = tuple(range(1, total + 1))
    tallies = smoothed.tally(images, counts, votes=("prediction",), generator=seeded(seed))["prediction"]
    found = []
    for image in range(len(images)):
        for count in counts:
            first, second = tallies[count].scores[image].tolist()
            rest = total - count
            if first >= second + rest or second > first + rest:  # a tie goes to the first class
                found.append(count)
                break
    return found


@pytest.mark.parametrize("vote", ["prediction", "soft"])
def test_a_record_is_read_off_the_draws_of_the_same_seed(vote):
    smoothed = Smoothed(known.Threshold(), Uniform(known.SIGMA), vote="weighted", num_samples=2)
    whole, record = tally_and_record(smoothed, X, vote, 11, kept=20, generator=seeded(5))
    tallies = smoothed.tally(X, (1, 2, 4, 8, 11), votes=(vote, "prediction"), generator=seeded(5))
    torch.testing.assert_close(whole["vote"].scores, tallies[vote][11].scores, atol=1e-4, rtol=0)
    assert torch.equal(whole["prediction"].scores, tallies["prediction"][11].scores)
    for place, count in enumerate((1, 2, 4, 8, 11)):
        torch.testing.assert_close(record["shares"][place], tallies[vote][count].shares[:20])
        if vote == "prediction":
            assert record["decided_after"][place].tolist() == decided_after(smoothed, X[:20], count, 5)
    assert record["shares"].shape == (5, 20, 2)
    assert 1 < int(record["decided_after"][-1].min()) < int(record["decided_after"][-1].max()) <= 11


def test_records_of_batches_are_joined_and_those_without_one_are_left_out():
    parts = [{"shares": torch.rand(2, count, 3), "decided_after": torch.ones(2, count).int()} for count in (4, 1)]
    joined = joined_records([*parts, {}])
    assert torch.equal(joined["shares"], torch.cat([part["shares"] for part in parts], 1))
    assert joined["decided_after"].shape == (2, 5)
    assert joined_records([{}, {"right": torch.ones(3)}]) == {}
