"""Keys to seeds to normals: against the standard normal law, and against batches cut another way."""

import itertools

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from smoothed.randomness import Fresh, Keyed, mix, seed_from, seeded


class TestMix:
    def test_same_keys_same_seed(self):
        assert mix(3, 1, 4) == mix(3, 1, 4)

    def test_order_and_number_of_keys_count(self):
        seeds = [mix(), mix(0), mix(0, 0), mix(1), mix(1, 2), mix(2, 1), mix(1, 2, 0), mix(0, 1, 2)]
        assert len(set(seeds)) == len(seeds)

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

    def test_seed_from_follows_its_generator_and_advances_it(self, generator):
        first, second = seed_from(generator), seed_from(generator)
        assert first != second
        assert first == seed_from(torch.Generator().manual_seed(0))


class TestKeyed:
    @pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])  # torch draws fewer than 16 numbers another way
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

    def test_rows_and_shared_are_standard_normal_and_independent(self):
        # KS at 1e-3, seed fixed; with 200000 numbers a deviation of 1.03 has p < 1e-8.
        rows = Keyed(11, range(2000), [5] * 2000).rows(1, (2000, 100), torch.empty(0, dtype=torch.float64))
        shared = torch.stack(
            [Keyed(11, draw).shared(1, (100,), torch.empty(0, dtype=torch.float64)) for draw in range(2000)]
        )
        for normals in (rows, shared):
            assert stats.kstest(normals.flatten().numpy(), "norm").pvalue > 1e-3
            assert stats.kstest(1.03 * normals.flatten().numpy(), "norm").pvalue < 1e-8
            # Neighbouring draws: 199900 products of mean 0 and deviation 1; five deviations of their mean.
            assert abs((normals[1:] * normals[:-1]).mean().item()) < 5 / 199_900**0.5

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
