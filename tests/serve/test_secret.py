"""The secret seed: renewed after a time, and no draw of it is given out twice."""

from smoothed.serve.secret import SecretSeeds


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_new_seed_after_its_time():
    clock = Clock()
    seeds = SecretSeeds(60, clock)
    first = seeds.current()
    clock.now = 59.9
    assert seeds.current() is first
    clock.now = 60.0
    second = seeds.current()
    assert second is not first
    assert second.value != first.value
    clock.now = 119.0
    assert seeds.current() is second


def test_draws_are_given_out_once():
    seed = SecretSeeds(60).current()
    taken = [(first, count) for count in (1, 5, 2, 1) for first in [seed.take(count)]]
    numbers = [first + step for first, count in taken for step in range(count)]
    assert numbers == list(range(9))


def test_seeds_of_two_services_differ_and_are_large():
    values = {SecretSeeds(60).current().value for _ in range(20)}
    assert len(values) == 20
    assert max(values) > 2**55
    assert max(values) < 2**63


def test_no_text_shows_the_seed():
    seed = SecretSeeds(60).current()
    assert str(seed.value) not in f"{seed!r} {seed}"
