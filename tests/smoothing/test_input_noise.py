"""The input noises against scipy's laws, from generators and from keys."""

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

from smoothed import NoisyClassifier, Smoothed, votes
from smoothed.errors import ArgumentError
from smoothed.models import CIFAR10_STD
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Keyed
from smoothed.smoothing.input_noise import NOISES, Gaussian, Laplace, ScaledNoise, Uniform, draw_noise, takes_generator

NOISE_LAWS = {
    Gaussian: lambda sigma: stats.norm(scale=sigma),
    Uniform: lambda sigma: stats.uniform(-math.sqrt(3) * sigma, 2 * math.sqrt(3) * sigma),
    Laplace: lambda sigma: stats.laplace(scale=sigma / math.sqrt(2)),
}
noises = pytest.mark.parametrize("noise", NOISE_LAWS)


@noises
class TestLaw:
    def test_mean_and_deviation(self, noise, generator):
        # 300000 numbers: the mean's deviation is sigma / 548; the deviation's at most 0.0021 sigma (Laplace).
        values = noise(0.1)(torch.zeros(1000, 3, 10, 10), generator)
        assert abs(values.mean().item()) < 5 * 0.1 / 548
        assert abs(values.std().item() / 0.1 - 1) < 0.01

    @pytest.mark.slow
    def test_law(self, noise, generator):
        # KS at 1e-3, seed fixed. The last lines show its power: a bias of 3 % of sigma would fail.
        values = noise(0.1)(torch.zeros(1000, 3, 10, 10, dtype=torch.float64), generator).flatten().numpy()
        law = NOISE_LAWS[noise](0.1).cdf
        assert stats.kstest(values, law).pvalue > 1e-3
        for biased in (1.03 * values, 0.97 * values, values + 0.003):
            assert stats.kstest(biased, law).pvalue < 1e-4

    def test_pixels_are_independent(self, noise, generator):
        # Correlations of 20000 pairs have deviation 0.0071; five deviations.
        values = noise(0.1)(torch.zeros(20_000, 2, 1, 2), generator).flatten(1)
        assert (torch.corrcoef(values.T) - torch.eye(4)).abs().max() < 5 * 0.0071

    def test_one_sigma_a_channel(self, noise, generator):
        sigmas = (0.02, 0.2, 0.5)
        values = noise(sigmas)(torch.zeros(1000, 3, 10, 10, dtype=torch.float64), generator)
        for channel, sigma in enumerate(sigmas):
            assert stats.kstest(values[:, channel].flatten().numpy(), NOISE_LAWS[noise](sigma).cdf).pvalue > 1e-3

    def test_normalized_is_the_papers_unit(self, noise, generator):
        values = noise.normalized(0.24, CIFAR10_STD)(torch.zeros(1000, 3, 10, 10), generator)
        expected = 0.24 * torch.tensor([0.247, 0.243, 0.262])  # about 15 / 255
        assert_close(values.std((0, 2, 3)), expected, rtol=0.02, atol=0)

    def test_inputs_give_shape_and_dtype_and_nothing_else(self, noise):
        first, second = (torch.Generator().manual_seed(2) for _ in range(2))
        inputs = torch.rand(2, 3, 4, 5)
        kept = inputs.clone()
        from_images, from_zeros = noise(0.1)(inputs, first), noise(0.1)(torch.zeros_like(inputs), second)
        assert torch.equal(from_images, from_zeros)
        assert torch.equal(inputs, kept)
        assert noise((0.1,) * 3)(torch.zeros(2, 3, 4, 5, dtype=torch.float64), first).dtype == torch.float64

    def test_the_generator_decides_and_the_global_one_is_left_alone(self, noise):
        before = torch.get_rng_state()
        generator = torch.Generator().manual_seed(2)
        first, second = (noise(0.1)(torch.zeros(2, 3, 4, 4), generator) for _ in range(2))
        again = noise(0.1)(torch.zeros(2, 3, 4, 4), torch.Generator().manual_seed(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), before)

    def test_without_a_generator_it_follows_the_global_one(self, noise):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            first = noise(0.1)(torch.zeros(1, 1, 4, 4))
            torch.manual_seed(4)
            assert torch.equal(noise(0.1)(torch.zeros(1, 1, 4, 4)), first)

    @pytest.mark.parametrize("sigma", [0, 0.0, (0.0, 0.0, 0.0)])
    def test_zero(self, noise, sigma, generator):
        zero = noise(sigma)
        assert zero.is_zero
        assert torch.equal(zero(torch.rand(2, 3, 4, 4), generator), torch.zeros(2, 3, 4, 4))

    def test_one_channel_may_be_zero(self, noise, generator):
        some = noise((0.0, 0.1))
        assert not some.is_zero
        values = some(torch.zeros(2, 2, 4, 4), generator)
        assert not values[:, 0].any()
        assert values[:, 1].all()

    @pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf, (0.1, -0.1, 0.1), (0.1, 0.1, math.nan)])
    def test_bad_sigma(self, noise, sigma):
        with pytest.raises(ArgumentError, match="sigma: expected a finite number of at least 0, got"):
            noise(sigma)

    def test_bad_normalized_sigma(self, noise):
        with pytest.raises(ArgumentError, match=r"sigma: expected a finite number of at least 0, got -0\.24"):
            noise.normalized(-0.24, CIFAR10_STD)

    def test_wrong_number_of_channels(self, noise):
        with pytest.raises(
            ArgumentError,
            match=r"sigma: expected one number per channel of inputs of shape \(2, 1, 4, 4\), got 3 numbers",
        ):
            noise((0.1, 0.1, 0.1))(torch.zeros(2, 1, 4, 4))


def no_generators(*_):
    raise AssertionError("a generator was asked for")


@noises
class TestKeyed:
    """Rows that are functions of a key."""

    def test_law_of_a_pixel_over_draws_and_of_an_image(self, noise):
        # KS at 1e-3, seed fixed; five deviations of the mean and of the variance, whose kurtosis is 6 at most.
        like = torch.empty(2000, 3, 8, 8)
        drawn = noise(0.1).unit_rows(Keyed(5, range(2000), [7] * 2000), 0, like).double()
        assert stats.kstest(drawn.flatten().numpy(), NOISE_LAWS[noise](1).cdf).pvalue > 1e-3
        assert stats.kstest(drawn[:, 1, 2, 3].numpy(), NOISE_LAWS[noise](1).cdf).pvalue > 1e-3
        assert abs(drawn.mean()) < 5 / drawn.numel() ** 0.5
        assert abs(drawn.square().mean() - 1) < 5 * (5 / drawn.numel()) ** 0.5
        for one, other in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1]), (drawn[..., 1:], drawn[..., :-1])):
            assert abs((one * other).mean()) < 5 / one.numel() ** 0.5

    def test_all_rows_are_made_at_once_wherever_the_batch_is_cut(self, noise, monkeypatch):
        monkeypatch.setattr(Keyed, "generators", no_generators)
        draws, images = [0, 0, 1, 1, 2, 2], [7, 3, 7, 3, 7, 3]
        whole = noise(0.1).unit_rows(Keyed(5, draws, images), 0, torch.empty(6, 3, 5, 5))
        for row, (draw, image) in enumerate(zip(draws, images, strict=True)):
            alone = noise(0.1).unit_rows(Keyed(5, draw, [image]), 0, torch.empty(1, 3, 5, 5))
            assert_close(alone[0], whole[row], rtol=0, atol=2e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_like_gives_shape_and_dtype_and_nothing_else(self, noise, dtype):
        before = torch.get_rng_state()
        like = torch.full((2, 3, 4, 5), torch.nan, dtype=dtype).to(memory_format=torch.channels_last)
        drawn = noise(0.1).unit_rows(Keyed(1), 0, like)
        assert (drawn.shape, drawn.dtype) == (like.shape, dtype)
        assert drawn.is_contiguous()
        exact = noise(0.1).unit_rows(Keyed(1), 0, torch.empty(2, 3, 4, 5, dtype=torch.float64))
        assert_close(drawn.double(), exact, rtol=torch.finfo(dtype).eps, atol=2e-6)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("sigma", [0.1, (0.1, 0.0, 0.3)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_noisy_rows_are_the_inputs_and_their_noise_laid_out_as_they_are(self, noise, order, sigma, dtype):
        inputs = torch.rand(4, 3, 5, 7, dtype=torch.float64).to(memory_format=order)
        key, law = Keyed(5, [0, 0, 1, 2], [7, 3, 7, 3]), noise(sigma)
        expected = inputs + law.scale_(law.unit_rows(key, 0, inputs))
        before, rows = inputs.to(dtype), inputs.to(dtype, copy=True)
        noisy = law.noisy_rows(key, 0, rows)
        assert_close(noisy.double(), expected, rtol=torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps)
        assert (noisy.shape, noisy.dtype) == (inputs.shape, dtype)
        assert noisy.is_contiguous(memory_format=order)
        assert torch.equal(rows, before)

    def test_what_a_subclass_does_to_noise_is_done_with_and_without_gradients(self, noise):
        class Clipped(noise):
            def scale_(self, noise):
                return super().scale_(noise).clamp_(-0.05, 0.05)

        class Positive(noise):
            def unit_rows(self, key, layer, like):
                return super().unit_rows(key, layer, like).abs()

        inputs, key = torch.full((3, 2, 4, 4), 0.5), Keyed(5, 2, [7, 3, 1])
        for law in (Clipped(0.5), Positive(0.5)):
            draw = NoisyClassifier(nn.Identity(), law)
            with torch.no_grad():
                quick = draw.with_key(inputs, key)
            assert_close(quick, draw.with_key(inputs, key))
            assert quick.min() >= 0.45

    def test_noisy_rows_of_a_part_of_features_of_any_shape(self, noise):
        key, law = Keyed(5, 2, [7, 3]), noise((0.1, 0.2, 0.3))
        for features in (torch.rand(2, 3), torch.rand(2, 5, 3).mT, torch.rand(3, 2, 5, 4).transpose(0, 1)):
            noisy = law.noisy_rows(key, 1, features)
            assert_close(noisy, features + law.scale_(law.unit_rows(key, 1, features)), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("chunk_size", [1, 3, 7, 1000])
    def test_same_votes_whatever_the_chunk(self, noise, network, images, chunk_size):
        counts = []
        for size in (16, chunk_size):
            smoothed = Smoothed(network, noise((0.1, 0.3, 0.2)), num_samples=9, chunk_size=size, seed=3)
            counts.append(smoothed.tally(images, num_samples=[1, 4, 9]))
        for vote in votes.VOTES:
            for count in (1, 4, 9):
                assert_close(counts[0][vote][count].scores, counts[1][vote][count].scores, rtol=0, atol=1e-4)

    def test_images_tallied_one_by_one_get_the_votes_of_the_batch(self, noise, network, images):
        smoothed = Smoothed(network, noise(0.2), num_samples=5)

        def scores(part, first):
            return smoothed.tally(part, generator=seeded(1), first_image=first)["soft"][5].scores

        alone = torch.cat([scores(image[None], number) for number, image in enumerate(images)])
        assert_close(alone, scores(images, 0), rtol=0, atol=1e-5)

    def test_a_law_of_ones_own_is_drawn_row_by_row_from_generators(self, noise):
        """Whether it comes from another noise or from none."""

        class Coin(noise):
            def unit_(self, noise, generator):
                return noise.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)

        class Lone(ScaledNoise):
            unit_ = Coin.unit_

        class Later(Coin):
            pass

        for law in (Coin, Lone, Later):
            drawn = law(0.1).unit_rows(Keyed(5, [2, 3], [8, 9]), 0, torch.empty(2, 3, 4))
            noisy = law(0.1).noisy_rows(Keyed(5, [2, 3], [8, 9]), 0, torch.ones(2, 3, 4))
            assert_close(noisy, 1 + 0.1 * drawn)
            for row, draw, image in zip(drawn, (2, 3), (8, 9), strict=True):
                generator = seeded(mix(5, draw, 0, image))
                assert torch.equal(row, torch.empty(3, 4).bernoulli_(0.5, generator=generator).mul_(2).sub_(1))


def test_noise_that_is_a_module_is_in_eval_mode_for_a_vote(network, images):
    modes = []

    class Noise(nn.Module):
        def forward(self, inputs, generator=None):
            del generator
            modes.append(self.training)
            return torch.zeros_like(inputs)

    noise = Noise()
    Smoothed(network, noise, num_samples=2, chunk_size="auto").predict(images)
    assert set(modes) == {False}
    assert noise.training


def test_every_noise_has_a_name_and_a_law():
    assert set(NOISES.values()) == set(NOISE_LAWS)


def test_a_law_of_a_mixin_is_also_that_of_keyed_rows():
    class Zeros:
        def unit_(self, noise, generator):
            del generator
            return noise.zero_()

    class Mixed(Zeros, Uniform):
        pass

    like = torch.empty(3, 2, 4, 4)
    assert Mixed(1.0).unit_rows(Keyed(0), 0, like).abs().max() == 0
    assert Uniform(1.0).unit_rows(Keyed(0), 0, like).abs().max() > 0


class TestOwnNoise:
    """Functions of the images and a generator, or of the images alone."""

    @pytest.mark.parametrize(
        ("noise", "takes"),
        [
            (Gaussian(0.1), True),
            (lambda x, generator: (x, generator), True),
            (lambda x, g: (x, g), True),
            (lambda x, generator=None: (x, generator), True),
            (lambda *args: args[0], True),
            (torch.rand_like, False),  # written in C, without a signature
            (lambda x: x, False),
            (lambda x, strength=0.1: strength * x, False),
            (lambda x, *, strength=0.1: strength * x, False),
            (partial(Gaussian(0.1), generator=None), False),
        ],
    )
    def test_who_gets_a_generator(self, noise, takes):
        assert takes_generator(noise) == takes

    def test_a_function_of_the_images_alone_is_seeded_by_the_generator(self, images):
        def noise(inputs):
            return torch.randn_like(inputs)

        def of_rows(inputs, strength=0.5):
            return strength * torch.rand(inputs.shape)

        for each in (noise, of_rows):
            before = torch.get_rng_state()
            first, again, other = (draw_noise(each, images, seeded(seed)) for seed in (1, 1, 2))
            assert torch.equal(first, again)
            assert not torch.equal(first, other)
            assert torch.equal(torch.get_rng_state(), before)
            generator = seeded(1)
            assert torch.equal(draw_noise(each, images, generator), first)
            assert not torch.equal(draw_noise(each, images, generator), first)  # the generator has advanced
        assert abs(float(draw_noise(noise, images.expand(3, *images.shape).flatten(0, 1), seeded(0)).std()) - 1) < 0.03

    def test_without_a_generator_it_is_the_default_one(self, images):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            expected = torch.rand_like(images)
            torch.manual_seed(4)
            assert torch.equal(draw_noise(torch.rand_like, images, None), expected)

    def test_the_state_is_restored_after_an_error(self, images):
        def broken(inputs):
            torch.rand_like(inputs)
            raise RuntimeError("broken")

        before = torch.get_rng_state()
        with pytest.raises(RuntimeError, match="broken"):
            draw_noise(broken, images, seeded(0))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("noise", "got"),
        [
            (lambda x: x[:1], r"shape \(1, 3, 8, 8\)"),
            (lambda x, _: x.sum(), r"shape \(\)"),
            (lambda _: 0.1, "float"),
            (lambda _: None, "NoneType"),
        ],
    )
    def test_other_shapes_are_refused(self, noise, got, images):
        with pytest.raises(ArgumentError, match=rf"noise: expected noise of shape \(16, 3, 8, 8\), got {got}"):
            draw_noise(noise, images, seeded(0))

    def test_each_image_of_a_vote_has_noise_of_its_own(self, images):
        """Rows draw one by one, so that votes do not depend on the chunk size."""

        def noise(inputs):
            return 0.2 * torch.randn_like(inputs)

        def brightness(inputs):
            mean = inputs.mean((1, 2, 3)) - 0.55
            return torch.stack([mean, -mean], 1)

        tallies = [
            Smoothed(brightness, noise, chunk_size=size, seed=1).tally(images, [9], votes=["soft"])["soft"][9].scores
            for size in (1, 7, 1000)
        ]
        assert_close(tallies[0], tallies[1])
        assert_close(tallies[0], tallies[2])
        same = images[:1].expand(4, -1, -1, -1)
        scores = Smoothed(brightness, noise, num_samples=1, seed=1).tally(same, [1], votes=["soft"])["soft"][1].scores
        assert len({float(score) for score in scores[:, 0]}) == 4
