"""Randomised discretisation against its definition in float64, its stand-in gradients, and where it may be."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

from smoothed import Gaussian, Smoothed
from smoothed.attacks import expected_probabilities, pgd
from smoothed.checkpoint import describe, load, save
from smoothed.errors import ArgumentError
from smoothed.injection import (
    CNI,
    Additive,
    RandomizedDiscretization,
    frozen,
    inject,
    inject_preset,
    injected_noise,
    noise_from,
    noise_layers,
    noiseless,
    reinject,
)
from smoothed.injection.discretization import draw_colors, numbers_of_a_draw
from smoothed.models import Normalize, build
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh, Keyed

SHAPE, COLORS, CANDIDATES, SPREAD, SIGMA, SEED = (3, 4, 5), 3, 7, 6.0, 0.25, 11
MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.5, 2.0)


def law(**options):
    given = {"sigma": SIGMA, "colors": COLORS, "candidates": CANDIDATES, "spread": SPREAD}
    return RandomizedDiscretization(**{**given, **options})


def layer_of(**options):
    return law(**options).for_activation(3, 2).double()


def images_of(count=3, seed=3):
    return torch.rand((count, *SHAPE), generator=seeded(seed), dtype=torch.float64)


def literal(image, numbers):
    """The noisy image and the colours of one image, pixel by pixel, from the normal numbers of its draw."""
    channels, height, width = image.shape
    pixels, places, noise, choices = np.split(numbers, np.cumsum(numbers_of_a_draw(SHAPE, COLORS, CANDIDATES))[:-1])
    candidates = []
    for i in range(CANDIDATES):
        place = int(stats.norm.cdf(places[i]) * height * width)
        pixel = image[:, place // width, place % width]
        candidates.append([pixel[c] + SIGMA * noise[c * CANDIDATES + i] for c in range(channels)])
    colors = []
    for j in range(COLORS):
        logits = []
        for i, candidate in enumerate(candidates):
            apart = min(
                (sum((a - b) ** 2 for a, b in zip(candidate, color, strict=True)) for color in colors), default=0
            )
            logits.append(SPREAD * apart - math.log(-stats.norm.logcdf(choices[j * CANDIDATES + i])))
        colors.append(candidates[max(range(CANDIDATES), key=logits.__getitem__)])
    return image + SIGMA * pixels.reshape(image.shape), colors


def literal_nearest(image, numbers):
    noisy, colors = literal(image, numbers)
    result = np.empty_like(noisy)
    for row in range(noisy.shape[1]):
        for column in range(noisy.shape[2]):
            apart = [sum((noisy[:, row, column] - color) ** 2) for color in np.array(colors)]
            result[:, row, column] = colors[apart.index(min(apart))]
    return result


def literal_mixture(image, numbers):
    noisy, colors = literal(image, numbers)
    result = np.empty_like(noisy)
    for row in range(noisy.shape[1]):
        for column in range(noisy.shape[2]):
            weights = [math.exp(-40 * sum((noisy[:, row, column] - color) ** 2)) for color in np.array(colors)]
            result[:, row, column] = sum(w * np.array(c) for w, c in zip(weights, colors, strict=True)) / sum(weights)
    return result


def numbers_of(images):
    total = sum(numbers_of_a_draw(SHAPE, COLORS, CANDIDATES))
    return Keyed(SEED).rows(1, (len(images), total), images).numpy()


def test_value_is_the_definition():
    images = images_of()
    with frozen(layer := layer_of(), SEED):
        found = layer(images)
    expected = [literal_nearest(image, row) for image, row in zip(images.numpy(), numbers_of(images), strict=True)]
    assert_close(found, torch.from_numpy(np.stack(expected)), rtol=1e-9, atol=1e-12)
    assert all(len({tuple(color) for color in image.flatten(1).T.tolist()}) > 1 for image in found)


def test_the_gradient_of_the_identity_is_one():
    images, upstream = images_of().requires_grad_(), images_of(seed=4)
    values = layer_of()(images)
    assert torch.equal(torch.autograd.grad((values * upstream).sum(), images)[0], upstream)


def test_the_gradient_of_the_mixture_is_that_of_its_definition():
    """By finite differences of the literal mixture; the value stays that of the nearest colours."""
    images, upstream, step = images_of().requires_grad_(), images_of(seed=4), 1e-6
    layer, numbers = layer_of(stand_in="mixture"), numbers_of(images.detach())
    with frozen(layer, SEED), frozen(twin := layer_of(), SEED):
        values = layer(images)
        assert torch.equal(values, twin(images))
    (gradient,) = torch.autograd.grad((values * upstream).sum(), images)
    assert gradient.abs().max() > 0.1
    for row, index in ((0, (0, 0, 0)), (0, (2, 3, 4)), (1, (1, 2, 0)), (1, (0, 1, 3)), (2, (2, 0, 2)), (2, (1, 3, 1))):
        ends = []
        for sign in (1, -1):
            moved = images.detach()[row].numpy().copy()
            moved[index] += sign * step
            ends.append((literal_mixture(moved, numbers[row]) * upstream[row].numpy()).sum())
        assert gradient[row][index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("spread", [0.0, SPREAD])
def test_colours_are_drawn_with_their_probabilities(spread):
    """The first uniformly, the second in proportion to exp(spread d^2); of 40,000 draws, within five deviations."""
    draws, candidates = 40_000, 4
    image, given = torch.rand(1, 3, 1, candidates, generator=seeded(1), dtype=torch.float64), torch.float64
    # Each place is in the middle of its quarter of the uniform distribution, so that each pixel is one candidate.
    places = torch.special.ndtri((torch.arange(candidates, dtype=given) + 0.5) / candidates).expand(draws, -1)
    noise = torch.zeros(draws, 3 * candidates, dtype=given)
    choices = torch.randn(draws, 2 * candidates, generator=seeded(2), dtype=given)
    colors = draw_colors(image.expand(draws, -1, -1, -1), [places, noise, choices], sigma=0.0, count=2, spread=spread)
    pixels = image[0, :, 0]
    chosen = (colors[:, :, :, None] == pixels[:, None]).all(1).long().argmax(2)
    for first in range(candidates):
        rows = chosen[chosen[:, 0] == first, 1]
        expected = (spread * (pixels - pixels[:, first, None]).square().sum(0)).softmax(0)
        for second in range(candidates):
            share, p = (rows == second).double().mean().item(), expected[second].item()
            assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / len(rows)) + 1e-12
        assert abs(len(rows) / draws - 1 / candidates) < 5 * math.sqrt(0.25 * 0.75 / draws)


def test_places_are_uniform(generator):
    """Each of 20 pixels is a candidate equally often: a chi-squared test at 1e-3, seed fixed."""
    image = torch.arange(20.0).view(1, 1, 4, 5).expand(5000, 1, 4, 5)
    sizes = numbers_of_a_draw((1, 4, 5), 1, 1)
    numbers = torch.randn(5000, sum(sizes[1:]), generator=generator).split(sizes[1:], 1)
    drawn = draw_colors(image, numbers, sigma=0.0, count=1, spread=1.0)
    assert stats.chisquare(drawn.flatten().long().bincount(minlength=20).numpy()).pvalue > 1e-3


def test_extreme_numbers_are_no_accident():
    """Normal numbers of 6.7 in either direction, the largest of the counter-based generator, in float32."""
    for value in (-6.7, 6.7):
        sizes = numbers_of_a_draw(SHAPE, 2, 3)
        numbers = torch.full((1, sum(sizes[1:])), value).split(sizes[1:], 1)
        colors = draw_colors(images_of(1).float(), numbers, sigma=0.0, count=2, spread=1.0)
        assert colors.isfinite().all()


class TestAsNoise:
    """What holds for all noise inside a network."""

    def test_it_is_fresh_each_images_own_and_can_be_switched_off(self):
        layer, image = layer_of(), images_of(1)
        repeated = layer(image.repeat(4, 1, 1, 1))
        assert not torch.equal(layer(image), layer(image))
        assert all(not torch.equal(repeated[i], repeated[j]) for i in range(4) for j in range(i))
        with noiseless(layer):
            assert layer(image) is image

    def test_it_follows_the_image_and_not_its_batch(self):
        layer, images = layer_of(), images_of(6)
        with noise_from(layer, Keyed(9, 2, range(10, 16))):
            whole = layer(images)
        with noise_from(layer, Keyed(9, 2, [13, 10])):
            assert torch.equal(layer(images[[3, 0]]), whole[[3, 0]])

    def test_a_generator_decides(self):
        layer, images, ends = layer_of(), images_of(), []
        for _ in range(2):
            with noise_from(layer, Fresh(seeded(4))):
                ends.append(layer(images))
        assert torch.equal(*ends)

    def test_strength_scales_the_noise_of_the_pixels(self):
        layer, weaker = layer_of(sigma=0.4), layer_of(sigma=0.2)
        layer.scale_(0.5)
        assert law(sigma=0.4).scaled(0.5) == law(sigma=0.2)
        with frozen(layer), frozen(weaker):
            assert torch.equal(layer(images_of()), weaker(images_of()))

    def test_its_noise_is_what_it_adds(self):
        layer, images = layer_of(), images_of()
        with frozen(layer):
            assert_close(images + layer.noise(images), layer(images))


class TestInANetwork:
    def test_it_acts_on_pixels_in_front_of_normalize(self, images):
        """The image that the first convolution sees, taken back to pixel units, has at most five colours."""
        network = nn.Sequential(Normalize(MEAN, STD), nn.Conv2d(3, 4, 3))
        injection = inject(network, activations=RandomizedDiscretization(sigma=0.0))
        assert [(change.layer, change.target) for change in injection.changes] == [("0", "activation")]
        seen = []
        network[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        network(images)
        pixels = seen[0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        for found, image in zip(pixels, images, strict=True):
            colors = found.flatten(1).T.mul(1e4).round().unique(dim=0)
            assert 1 < len(colors) <= 5
            apart = torch.cdist(colors / 1e4, image.flatten(1).T).min(1).values
            assert apart.max() < 1e-3  # without noise, the colours are pixels of the image
        injection.undo()
        assert list(network.state_dict()) == ["0.mean", "0.std", "1.weight", "1.bias"]
        assert torch.equal(network(images), network(images))

    def test_without_normalize_it_acts_on_the_first_convolution(self, network, images):
        assert [change.layer for change in inject(network, activations=law()).changes] == ["0"]
        assert not torch.equal(network(images), network(images))

    def test_where_it_is_named(self, network, images):
        assert [change.layer for change in inject(network, activations=law(), layers=["4"]).changes] == ["4"]
        assert not torch.equal(network(images), network(images))

    def test_other_noise_may_be_named_for_normalize(self, images):
        network = nn.Sequential(Normalize(MEAN, STD), nn.Flatten(), nn.Linear(192, 4))
        inject(network, activations=Additive(0.3), layers=["0"])
        assert not torch.equal(network(images), network(images))
        plain = nn.Sequential(Normalize(MEAN, STD), nn.Flatten(), nn.Linear(192, 4))
        assert [change.layer for change in inject(plain, activations=Additive(0.3)).changes] == ["2"]

    def test_json_and_checkpoints(self, tmp_path):
        network = build("resnet20")
        injection = inject(network, activations=law(stand_in="mixture"))
        assert injected_noise(network).changes == injection.changes
        noise_layers(network)[0].scale_(0.5)
        save(tmp_path / "a.safetensors", network, describe("resnet20", network, injection.to_json(), ("a",) * 10))
        loaded, inputs = load(tmp_path / "a.safetensors"), torch.rand(3, 3, 32, 32, generator=seeded(1))
        with frozen(network.eval()), frozen(loaded):
            assert torch.equal(network(inputs), loaded(inputs))
        bare = build("resnet20")
        reinject(bare, injection.to_json())
        assert injected_noise(bare).changes == injection.changes

    def test_votes_do_not_depend_on_chunks(self, network, images):
        """With input noise and noise on the weights beside it."""
        inject(network, weights=CNI(rank=2), strength=0.1)
        inject(network, activations=law())
        tallies = [
            Smoothed(network, Gaussian(0.1), num_samples=6, chunk_size=chunk, seed=3).tally(images, votes=["soft"])
            for chunk in (5, 64)
        ]
        first, second = (tally["soft"][6].scores for tally in tallies)
        assert_close(first, second)
        assert first.std() > 0

    def test_pgd_needs_the_stand_in(self, images):
        """Against uniform noise of the same radius; without a stand-in there is no gradient at all."""
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 4)).eval()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            for layer in (network[0], network[2]):
                layer.reset_parameters()
        inject(network, activations=RandomizedDiscretization(sigma=0.05))
        vote = Smoothed(network, num_samples=32, seed=1)
        labels, eps = vote.predict(images), 0.15
        moved = (images + torch.empty_like(images).uniform_(-eps, eps, generator=seeded(5))).clamp(0, 1)
        with noise_from(network, Fresh(seeded(6))):
            attacked = pgd(
                network, images, labels, eps=eps, steps=8, objective=expected_probabilities(4), generator=seeded(7)
            )
        right = [(vote.predict(each) == labels).double().mean().item() for each in (moved, attacked)]
        assert right[0] > 0.7
        assert right[1] < 0.2


def test_presets(network, images):
    for name, count in (("randdisc", 1), ("cni-w+randdisc", 4)):
        noisy = copy.deepcopy(network)
        assert len(inject_preset(noisy, name).changes) == count
        assert not torch.equal(noisy(images), noisy(images))


def test_errors(network):
    with pytest.raises(ArgumentError, match="weights: expected PNI or CNI, got RandomizedDiscretization; pass it as"):
        inject(network, weights=law())
    with pytest.raises(ArgumentError, match="weights: expected None beside RandomizedDiscretization on the image, got"):
        inject(network, weights=CNI(), activations=law())
    with pytest.raises(ArgumentError, match="layers: expected a layer whose input is images, got one with 0 spatial"):
        inject(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), activations=law())
    with pytest.raises(ArgumentError, match=r"layers: expected names of convolutions or linear layers .*, got '0'"):
        inject(nn.Sequential(Normalize(MEAN, STD), nn.Conv2d(3, 4, 3)), weights=CNI(), layers=["0"])
    assert not noise_layers(network)
    with pytest.raises(ArgumentError, match=r"inputs: expected images of shape \(N, C, H, W\), got shape \(3, 4, 5\)"):
        layer_of()(images_of(1)[0])
    inject(network, activations=law())
    with pytest.raises(ArgumentError, match=r"model: expected layers without noise, got 0\.activation"):
        inject(network, activations=law())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sigma": -0.1}, "sigma: expected a finite number of at least 0, got -0.1"),
        ({"colors": 0}, "colors: expected an integer of at least 1, got 0"),
        ({"candidates": 1.5}, "candidates: expected an integer of at least 1, got 1.5"),
        ({"spread": float("nan")}, "spread: expected a finite number of at least 0, got nan"),
        ({"stand_in": "none"}, "stand_in: expected one of identity, mixture, got 'none'"),
    ],
)
def test_options_out_of_range(options, expected):
    with pytest.raises(ArgumentError, match=expected):
        RandomizedDiscretization(**options)
