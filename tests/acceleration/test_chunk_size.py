"""The probe of chunk sizes, on machines whose speed is a formula."""

import pytest
import torch

from smoothed.acceleration.chunk_size import find_chunk_size


class Machine:
    """A pass of n rows takes `seconds(n)`, the first one of a size ten times that; more than `memory` don't fit."""

    def __init__(self, seconds, memory=10**9):
        self.seconds, self.memory, self.now, self.sizes = seconds, memory, 0.0, []

    def run(self, size):
        if size > self.memory:
            raise torch.OutOfMemoryError("no memory")
        self.now += self.seconds(size) * (10 if size not in self.sizes else 1)
        self.sizes.append(size)

    def find(self, **options):
        return find_chunk_size(self.run, clock=lambda: self.now, **options)


def test_rows_are_added_while_they_hide_what_a_pass_costs():
    # Rows a second are n / (1 + n / 64): from 64 to 128 they grow by 1.33, from 2048 to 4096 by 1.02.
    machine = Machine(lambda n: 1 + n / 64)
    best = machine.find()
    assert best == 2048
    speeds = {n: n / (1 + n / 64) for n in set(machine.sizes)}
    assert max(speeds.values()) < 1.05 * speeds[best]


def test_rows_beyond_the_cache_are_not_added():
    machine = Machine(lambda n: n if n <= 128 else 1.3 * n)
    assert machine.find() == 16  # all are equal until then: the smallest needs the least memory
    assert max(machine.sizes) == 64


def test_one_bad_size_does_not_end_the_probe():
    assert Machine(lambda n: {16: 1, 32: 2.2}.get(n, n / 32)).find() == 64


def test_memory_ends_it():
    assert Machine(lambda n: 1 + n / 1000, memory=300).find() == 256
    with pytest.raises(torch.OutOfMemoryError):
        Machine(float, memory=8).find()


@pytest.mark.parametrize("largest", [1, 10, 100])
def test_no_more_rows_than_there_are(largest):
    machine = Machine(lambda n: 1 + 0 * n)
    assert machine.find(largest=largest) == largest
    assert max(machine.sizes) == largest
