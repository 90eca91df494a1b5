"""Votes with kept images, taken by one process and shared by two, beside the two tallies they stand for."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import torch

import known
from smoothed.evaluation.kept_votes import tally_and_keep
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
