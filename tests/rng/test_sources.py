"""Keys to seeds to normals: against the standard normal law, and against batches cut another way."""

import itertools

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.rng import counter_based
from smoothed.rng.counter_based import normals, numbers, positions
from smoothed.rng.rows import RowGenerator, normal_, uniform_
from smoothed.rng.seeds import mix, mix_rows, seed_from, seeded
from smoothed.rng.sources import Fresh, Keyed, Pool, ShardSource, shared_at, shared_positions

laws = pytest.mark.parametrize("law", [counter_based.normal, counter_based.uniform, counter_based.laplace])


class TestMix:
    def test_same_keys_same_seed(self):
        assert mix(3, 1, 4) == mix(3, 1, 4)

    def test_order_and_number_of_keys_count(self):
        seeds = [mix(), mix(0), mix(0, 0), mix(1), mix(1, 2), mix(2, 1), mix(1, 2, 0), mix(0, 1, 2)]
        assert len(set(seeds)) == len(seeds)

    @pytest.mark.slow
    def test_small_keys_do_not_collide(self):
        seeds = {mix(*keys) for keys in itertools.product(range(18), repeat=4)}
        assert len(seeds) == 18**4

    def test_seeds_fit_a_generator(self):
        for keys in [(-1,), (2**63, 5), (-(2**62), -7)]:
            assert 0 <= mix(*keys) < 2**63
            seeded(mix(*keys))

    def test_each_bit_is_even(self):
        # 20000 seeds, 63 bits: a fair bit's mean has deviation 0.0035; six deviations.
        seeds = [mix(0, image) for image in range(20_000)]
        for bit in range(63):
            assert abs(sum(seed >> bit & 1 for seed in seeds) / len(seeds) - 0.5) < 0.021

    def test_mix_rows_is_mix_of_each_row_with_all_bits(self):
        keys = [(-5, 2**63 + 1, 7), (3, 1, -1), (0, 2**62, 2)]
        for one in keys:
            assert (int(mix_rows(*one)) & 2**64 - 1) >> 1 == mix(*one)
        many = mix_rows(6, [3, 4, 5], 2, torch.tensor([8, 8, -9]))
        assert [(int(state) & 2**64 - 1) >> 1 for state in many] == [mix(6, 3, 2, 8), mix(6, 4, 2, 8), mix(6, 5, 2, -9)]

    def test_seed_from_follows_its_generator_and_advances_it(self, generator):
        first, second = seed_from(generator), seed_from(generator)
        assert first != second
        assert first == seed_from(torch.Generator().manual_seed(0))


class TestKeyed:
    def test_rows_are_of_all_of_their_key(self):
        draws, images = [3, 3, 8, 8, 3, 1], [5, 6, 5, 6, 5, 0]
        drawn = Keyed(11, draws, images).rows(4, (6, 7), torch.empty(0))
        for row, draw, image in zip(drawn, draws, images, strict=True):
            assert_close(row, normals(mix_rows(11, draw, 4, image), positions(7, row.device))[0], rtol=0, atol=0)

    @laws
    def test_rows_may_be_of_another_law(self, law):
        like = torch.empty(0, dtype=torch.float64)
        drawn = Keyed(11, [3, 8], [5, 6]).rows(4, (2, 3, 7), like, law)
        assert drawn.dtype == torch.float64
        for row, draw, image in zip(drawn, [3, 8], [5, 6], strict=True):
            expected = numbers(law, mix_rows(11, draw, 4, image), positions(21, like.device), torch.float64)
            assert_close(row.flatten(), expected[0], rtol=0, atol=1e-12)

    @laws
    def test_a_layer_that_asks_again_in_a_pass_gets_others(self, law):
        like, key = torch.empty(0), Keyed(3, 2, [4, 5])
        once = key.for_one_pass()
        first, second, elsewhere = (once.rows(layer, (2, 50), like, law) for layer in (1, 1, 2))
        assert torch.equal(first, key.rows(1, (2, 50), like, law))
        assert torch.equal(elsewhere, key.rows(2, (2, 50), like, law))
        assert (first - second).abs().max() > 0.1
        assert_close(
            second, numbers(law, mix_rows(mix_rows(3, 2, 1, [4, 5]), 1), positions(50, like.device)), rtol=0, atol=2e-6
        )

    @laws
    def test_rows_have_the_batch_first(self, law):
        with pytest.raises(ArgumentError, match="first dimension is the batch of 2 rows, got 6 rows in noise layer 1"):
            Keyed(3, 2, [4, 5]).rows(1, (6, 3), torch.empty(0), law)

    def test_generators_are_of_the_same_keys(self):
        draws, images = [3, 8, 3], [5, 6, 5]
        seeds = [generator.initial_seed() for generator in Keyed(11, draws, images).generators(4, 3, "cpu")]
        assert seeds == [mix(11, draw, 4, image) for draw, image in zip(draws, images, strict=True)]

    def test_keys_of_many_batches_are_those_of_each(self):
        keys = [Keyed(7, draw, [4, 2]) for draw in (9, 1, 3)]
        together = Keyed.of_all(keys, 2).rows(1, (6, 5), torch.empty(0))
        assert_close(together, torch.cat([key.rows(1, (2, 5), torch.empty(0)) for key in keys]), rtol=0, atol=0)
        unnumbered = [Keyed(7, draw) for draw in (9, 1)]
        together = Keyed.of_all(unnumbered, 3).rows(1, (6, 5), torch.empty(0))
        assert_close(together, torch.cat([key.rows(1, (3, 5), torch.empty(0)) for key in unnumbered]), rtol=0, atol=0)

    def test_shared_at_is_shared_at_those_places_of_those_layers(self):
        keys, like = [Keyed(1, 2), Keyed(1, 5), Keyed(8, 2)], torch.empty(0)
        spots = torch.cat(
            [shared_positions(3, positions(10, like.device)[4:7]), shared_positions(1, positions(2, like.device))]
        )
        drawn = shared_at(keys, spots, like)
        for key, row in zip(keys, drawn, strict=True):
            assert_close(row, torch.cat([key.shared(3, (2, 5), like).flatten()[4:7], key.shared(1, (2,), like)]))
        scale, shift = torch.arange(5.0), torch.linspace(-1, 1, 5)
        assert_close(shared_at(keys, spots, like, (scale, shift)), drawn * scale + shift)

    @pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
    def test_batches_cut_another_way_meet_the_same_noise(self, shape):
        draws, images = [0, 0, 1, 1, 2, 2], [7, 3, 7, 3, 7, 3]
        whole = Keyed(5, draws, images).rows(4, (6, *shape), torch.empty(0))
        order = [5, 0, 3, 1, 4, 2]
        shuffled = Keyed(5, [draws[i] for i in order], [images[i] for i in order]).rows(4, (6, *shape), torch.empty(0))
        assert torch.equal(shuffled, whole[order])
        for row in range(6):
            alone = Keyed(5, [draws[row]], [images[row]]).rows(4, (1, *shape), torch.empty(0))
            assert torch.equal(alone[0], whole[row])

    def test_seed_draw_image_and_layer_all_count(self):
        like = torch.empty(0)
        keys = itertools.product((0, 1), (0, 1), (0, 1), (0, 1))
        noises = [Keyed(seed, draw, [image]).rows(layer, (1, 8), like) for seed, draw, image, layer in keys]
        for one, other in itertools.combinations(noises, 2):
            assert (one - other).abs().max() > 0.1

    def test_without_images_rows_are_numbered(self):
        like = torch.empty(0)
        assert torch.equal(Keyed(1).rows(2, (3, 5), like), Keyed(1, 0, [0, 1, 2]).rows(2, (3, 5), like))

    def test_shared_is_a_function_of_seed_draw_and_layer_alone(self):
        like = torch.empty(0)
        same = Keyed(1, 2).shared(3, (5,), like), Keyed(1, [2, 2], [8, 9]).shared(3, (5,), like)
        assert torch.equal(*same)
        others = [Keyed(*keys[:2]).shared(keys[2], (5,), like) for keys in [(0, 2, 3), (1, 0, 3), (1, 2, 0)]]
        for other in others:
            assert (other - same[0]).abs().max() > 0.1

    @pytest.mark.slow
    def test_rows_and_shared_are_standard_normal_and_independent(self):
        # KS at 1e-3, seed fixed; with 200000 numbers a deviation of 1.03 has p < 1e-8.
        rows = Keyed(11, range(2000), [5] * 2000).rows(1, (2000, 100), torch.empty(0, dtype=torch.float64))
        shared = torch.stack(
            [Keyed(11, draw).shared(1, (100,), torch.empty(0, dtype=torch.float64)) for draw in range(2000)]
        )
        for drawn in (rows, shared):
            assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
            assert stats.kstest(1.03 * drawn.flatten().numpy(), "norm").pvalue < 1e-8
            # Neighbouring draws: 199900 products of mean 0 and deviation 1; five deviations of their mean.
            assert abs((drawn[1:] * drawn[:-1]).mean().item()) < 5 / 199_900**0.5

    def test_dtype_follows(self):
        assert Keyed(0).rows(1, (2, 3), torch.empty(0, dtype=torch.float64)).dtype == torch.float64

    def test_the_global_generator_is_left_alone(self):
        before = torch.get_rng_state()
        Keyed(0).rows(1, (2, 3), torch.empty(0))
        Keyed(0).shared(1, (2, 3), torch.empty(0))
        assert torch.equal(torch.get_rng_state(), before)


class TestFresh:
    @pytest.mark.parametrize("method", ["rows", "shared"])
    def test_uses_its_generator_and_leaves_the_global_one_alone(self, method):
        before = torch.get_rng_state()
        source = Fresh(seeded(3))
        first, second = (getattr(source, method)(1, (4, 5), torch.empty(0)) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(first, second)
        expected = torch.randn(4, 5, generator=seeded(3))
        assert_close(first, expected, rtol=0, atol=0)

    def test_without_a_generator_it_follows_the_global_one(self):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            expected = torch.randn(6)
            torch.manual_seed(7)
            assert torch.equal(Fresh().rows(1, (6,), torch.empty(0)), expected)

    def test_standard_normal(self, generator):
        normals = Fresh(generator).rows(1, (200_000,), torch.empty(0))
        assert stats.kstest(normals.numpy(), "norm").pvalue > 1e-3


def uniform(shape, randomness, dtype=torch.float32):
    return uniform_(torch.empty(shape, dtype=dtype), -2, 3, randomness)


def normal(shape, randomness, dtype=torch.float32):
    return normal_(torch.empty(shape, dtype=dtype), randomness)


draws = pytest.mark.parametrize("draw", [uniform, normal])


@draws
class TestRows:
    @pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 2, 5)])
    @pytest.mark.parametrize("cuts", [[1], [64], [63, 65], [10, 64, 65, 100, 128, 149]])
    def test_rows_are_the_same_wherever_the_batch_is_cut(self, draw, shape, cuts):
        whole = RowGenerator(5)
        expected = [draw((150, *shape), whole) for _ in range(3)]
        for start, stop in itertools.pairwise([0, *cuts, 150]):
            part = RowGenerator(5, start)
            for request in range(3):
                assert torch.equal(draw((stop - start, *shape), part), expected[request][start:stop])

    def test_a_part_may_be_far_from_the_start(self, draw):
        first = RowGenerator(1, 10**9 + 7)
        assert torch.equal(draw((80, 3), first)[40:], draw((40, 3), RowGenerator(1, 10**9 + 47)))

    def test_seed_request_and_row_all_count(self, draw):
        rows = torch.cat([draw((130, 4), RowGenerator(seed)) for seed in (0, 1)])
        first = RowGenerator(0)
        draw((2, 4), first)
        rows = torch.cat([rows, draw((130, 4), first)])
        assert len(rows.unique(dim=0)) == 390
        assert torch.equal(draw((130, 4), RowGenerator(0)), rows[:130])

    @pytest.mark.parametrize("first", [0, 30, 64])
    @pytest.mark.parametrize("shape", [(0,), (0, 3), (5, 0), (1, 2, 0)])
    def test_nothing_to_draw(self, draw, shape, first):
        rows = RowGenerator(3, first)
        assert draw(shape, rows).shape == shape
        assert rows.requests == 1  # of a process without rows, too

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_dtype_and_the_global_generator(self, draw, dtype):
        before = torch.get_rng_state()
        numbers = draw((70, 3), RowGenerator(0), dtype)
        assert numbers.dtype == dtype
        assert len(numbers.unique()) > 50
        assert torch.equal(torch.get_rng_state(), before)

    def test_law(self, draw):
        """KS at 1e-3, seed fixed; rows, blocks and requests are independent: five deviations of a mean of products."""
        rows = RowGenerator(11)
        numbers = torch.stack([draw((2000, 50), rows, torch.float64) for _ in range(2)])
        law = stats.norm if draw is normal else stats.uniform(-2, 5)
        assert stats.kstest(numbers.flatten().numpy(), law.cdf).pvalue > 1e-3
        assert stats.kstest(1.03 * numbers.flatten().numpy(), law.cdf).pvalue < 1e-8
        centred = (numbers - law.mean()) / law.std()
        pairs = {
            "rows": (centred[:, 1:], centred[:, :-1]),
            "blocks": (centred[:, 64:], centred[:, :-64]),
            "requests": (centred[0], centred[1]),
            "entries": (centred[..., 1:], centred[..., :-1]),
        }
        for name, (one, other) in pairs.items():
            assert abs((one * other).mean()) < 5 / one.numel() ** 0.5, name

    def test_rows_can_be_taken_back(self, draw):
        rows = RowGenerator(2)
        draw((3,), rows)
        back = rows.snapshot()
        first = draw((3,), rows)
        back()
        assert torch.equal(draw((3,), rows), first)


class TestFilling:
    def test_from_a_generator(self):
        expected = torch.empty(7, 2).uniform_(-2, 3, generator=seeded(4))
        assert torch.equal(uniform((7, 2), seeded(4)), expected)
        assert torch.equal(normal((7, 2), seeded(4)), torch.empty(7, 2).normal_(generator=seeded(4)))

    @draws
    def test_from_the_default_generator(self, draw):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            numbers = draw((7, 2), None)
        assert torch.equal(numbers, draw((7, 2), seeded(4)))

    @draws
    @pytest.mark.parametrize("randomness", [lambda: None, lambda: seeded(1), lambda: RowGenerator(1)])
    def test_in_place(self, draw, randomness):
        fill = uniform_ if draw is uniform else normal_
        bounds = (0, 1) if draw is uniform else ()
        tensor = torch.zeros(5, 2)
        assert fill(tensor, *bounds, randomness()) is tensor
        assert tensor.all()


class Counting(Fresh):
    """A source that says what it was asked for."""

    def __init__(self, seed=0):
        super().__init__(seeded(seed))
        self.shapes = []

    def shared(self, layer, shape, like):
        self.shapes.append((layer, shape, like.dtype))
        return super().shared(layer, shape, like)


class TestPool:
    def test_one_draw_serves_many_layers(self):
        source, like = Counting(), torch.empty(0)
        pool = Pool(source, 12)
        parts = [pool.shared(1, (3,), like), pool.shared(2, (2, 2), like), pool.shared(3, [5], like)]
        assert [part.shape for part in parts] == [(3,), (2, 2), (5,)]
        assert source.shapes == [(1, (12,), torch.float32)]
        assert torch.equal(torch.cat([part.flatten() for part in parts]), torch.randn(12, generator=seeded(0)))
        pool.shared(4, (1,), like)
        assert len(source.shapes) == 2

    def test_what_is_left_is_dropped_where_it_does_not_suffice(self):
        source, like = Counting(), torch.empty(0)
        pool = Pool(source, 10)
        taken = [pool.shared(1, (8,), like), pool.shared(2, (3,), like), pool.shared(3, (7,), like)]
        stream = torch.randn(10, generator=(generator := seeded(0))), torch.randn(10, generator=generator)
        assert torch.equal(taken[0], stream[0][:8])
        assert torch.equal(torch.cat(taken[1:]), stream[1])

    def test_more_than_the_pool_holds(self):
        source, like = Counting(), torch.empty(0)
        pool = Pool(source, 4)
        assert pool.shared(1, (3, 5), like).shape == (3, 5)
        assert pool.shared(1, (), like).shape == ()
        assert [shape for _, shape, _ in source.shapes] == [(15,), (4,)]

    def test_nothing(self):
        assert Pool(Counting(), 0).shared(1, (0, 3), torch.empty(0)).shape == (0, 3)

    def test_another_dtype_or_device_is_another_draw(self):
        pool = Pool(Fresh(), 10)
        for options in ({}, {"dtype": torch.float64}, {"dtype": torch.float64, "device": "meta"}):
            like = torch.empty(0, **options)
            drawn = pool.shared(1, (4,), like)
            assert (drawn.dtype, drawn.device) == (like.dtype, like.device)

    def test_law(self):
        """KS at 1e-3, seed fixed; layers and passes are independent: five deviations of a mean of products."""
        pool, like = Pool(Fresh(seeded(1)), 500), torch.empty(0, dtype=torch.float64)
        passes = torch.stack([torch.stack([pool.shared(k, (10, 10), like) for k in range(4)]) for _ in range(500)])
        assert stats.kstest(passes.flatten().numpy(), "norm").pvalue > 1e-3
        for one, other in ((passes[:, 1:], passes[:, :-1]), (passes[1:], passes[:-1])):
            assert abs((one * other).mean()) < 5 / one.numel() ** 0.5

    def test_rows_go_past_it(self):
        pool, like = Pool(Fresh(seeded(1)), 50), torch.empty(0)
        assert torch.equal(pool.rows(1, (3, 4), like), torch.randn(3, 4, generator=seeded(1)))

    def test_it_can_be_taken_back(self):
        pool, like = Pool(Fresh(seeded(1)), 5), torch.empty(0)
        pool.shared(1, (2,), like)
        back = pool.snapshot()
        first = [pool.shared(1, (2,), like) for _ in range(4)]
        back()
        assert all(torch.equal(pool.shared(1, (2,), like), each) for each in first)


class TestInBatch:
    def test_what_is_shared_is_the_same_in_every_part_and_rows_follow(self):
        like = torch.empty(0, dtype=torch.float64)

        def part(first, rows):
            source = ShardSource(seeded(3), RowGenerator(4, first))
            return [
                source.shared(1, (5,), like),
                source.rows(1, (rows, 3), like),
                source.rows(2, (rows, 2, 2), like),
                source.shared(2, (2, 2), like),
            ]

        whole, parts = part(0, 100), [part(0, 10), part(10, 60), part(70, 30)]
        for each in parts:
            assert torch.equal(each[0], whole[0])
            assert torch.equal(each[3], whole[3])
        for index in (1, 2):
            assert torch.equal(torch.cat([each[index] for each in parts]), whole[index])
            assert whole[index].dtype == torch.float64
        assert torch.equal(whole[0], torch.randn(5, generator=seeded(3), dtype=torch.float64))
        assert not torch.equal(whole[1][:, :2], whole[2][:, 0])

    def test_it_can_be_taken_back(self):
        source, like = ShardSource(seeded(3), RowGenerator(4)), torch.empty(0)

        def numbers():
            return torch.cat([source.shared(1, (3,), like), source.rows(1, (3,), like)])

        numbers()
        back = source.snapshot()
        first = numbers()
        back()
        assert torch.equal(numbers(), first)


def test_functions_of_torch_take_a_row_generator():
    def numbers(*arguments):
        return torch.rand(50, generator=RowGenerator(*arguments))

    assert torch.equal(numbers(3, 10), numbers(3, 10))
    assert not torch.equal(numbers(3, 10), numbers(3, 11))
    assert not torch.equal(numbers(3, 10), numbers(4, 10))
    rows = RowGenerator(3, 10)
    expected = uniform((4, 2), rows)
    again = RowGenerator(3, 10)
    torch.rand(5, generator=again)
    assert torch.equal(uniform((4, 2), again), expected)  # neither changes what the other one draws
    restore = again.snapshot()
    drawn = torch.randperm(9, generator=again), uniform((4, 2), again)
    restore()
    repeated = torch.randperm(9, generator=again), uniform((4, 2), again)
    assert all(map(torch.equal, drawn, repeated))
