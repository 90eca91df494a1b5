"""Processes that share a vote give what one gives. Here they are threads, with a gather of their own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from quick import first
from smoothed import Gaussian, Smoothed
from smoothed.smoothing.votes import VOTES
from smoothed.utils.distributed import Processes


class Threads:
    """Hands out `Processes` that meet in this one."""

    def __init__(self, count):
        self.count, self.barrier, self.values = count, threading.Barrier(count), [None] * count

    def process(self, rank):
        group = self

        class Thread(Processes):
            def gather(self, value):
                group.values[rank] = value
                group.barrier.wait(30)
                values = list(group.values)
                group.barrier.wait(30)
                return values

        return Thread(rank, self.count)

    def run(self, work):
        """What `work(processes)` gives in each of them."""
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(lambda rank: work(self.process(rank)), range(self.count)))


def linear(inputs):
    margin = inputs.flatten(1) @ torch.linspace(-1, 1, inputs[0].numel())
    return torch.stack([torch.zeros_like(margin), margin, -margin], 1)


def tally(images, processes=None, stop=None, num_samples=(1, 5, 40)):
    smoothed = Smoothed(linear, Gaussian(0.5), chunk_size=4)
    shared = {} if processes is None else {"processes": processes}
    return smoothed.tally(
        images, num_samples, stop=stop, generator=torch.Generator().manual_seed(3), first_image=7, **shared
    )


@pytest.mark.parametrize("stop", [None, "exact"])
@pytest.mark.parametrize(("images_count", "processes"), first(3, [(7, 3), (1, 2), (2, 5), (6, 2), (3, 3), (1, 50)]))
def test_all_get_the_tally_of_one(images, images_count, processes, stop):
    images = images[:images_count]
    alone = tally(images, stop=stop)
    for shared in Threads(processes).run(lambda one: tally(images, one, stop)):
        for vote in VOTES:
            for count in (1, 5, 40):
                if images_count >= processes:
                    assert torch.equal(shared[vote][count].num_samples, alone[vote][count].num_samples)
                    assert torch.allclose(shared[vote][count].scores, alone[vote][count].scores, atol=1e-4)
                else:  # all draws are made
                    assert shared[vote][count].num_samples.tolist() == [count] * images_count
                    assert torch.equal(shared[vote][count].classes(), alone[vote][count].classes())


def test_work_is_done_once_and_known_to_all():
    for pieces, count in ((7, 3), (2, 5), (0, 2), (4, 2)):
        done = []

        def work(processes, pieces=pieces, done=done):
            return processes.divide([lambda i=i: (done.append(i), i * i)[1] for i in range(pieces)])

        assert Threads(count).run(work) == [[i * i for i in range(pieces)]] * count
        assert sorted(done) == list(range(pieces))
