"""Noise on the input while training: its law, which calls share a draw, and whose noise it is."""

import pytest
import torch
from torch import nn

from smoothed.models import CIFAR10_STD
from smoothed.rng.rows import RowGenerator
from smoothed.training.noisy_input import NoisyInput
from smoothed.training.step import take_step

SIGMA = (0.1, 0.25, 0.5)


@pytest.fixture
def identity():
    """A network whose logits are its inputs, (N, 3 * 4 * 4)."""
    return nn.Flatten()


def seen(noisy, inputs, calls=1):
    """The noise that the network behind `noisy` met at each call, (calls, N, 3, 4, 4)."""
    return torch.stack([noisy(inputs).view_as(inputs) - inputs for _ in range(calls)])


def test_the_law(identity):
    """3,000 images of 16 pixels: a mean has deviation sigma / 219, a deviation one of sigma / 310."""
    noise = seen(NoisyInput(identity, SIGMA, RowGenerator(0)), torch.zeros(3000, 3, 4, 4))[0]
    for channel, sigma in zip(noise.unbind(1), SIGMA, strict=True):
        assert channel.mean().item() == pytest.approx(0, abs=4 * sigma / 219)
        assert channel.std().item() == pytest.approx(sigma, abs=4 * sigma / 310)
        fourth = (channel / sigma).pow(4).mean().item()
        assert fourth == pytest.approx(3, abs=4 * (96 / 48000) ** 0.5)  # a Gaussian's, of variance 105 - 9
    correlations = torch.corrcoef(noise.flatten(1).T) - torch.eye(48)
    assert correlations.abs().max().item() < 5 / 3000**0.5


def test_it_is_added_and_not_clipped(identity):
    inputs = torch.full((64, 3, 4, 4), 0.98, requires_grad=True)
    noisy = NoisyInput(identity, SIGMA, RowGenerator(0))(inputs)
    assert noisy.max() > 1.5
    (gradient,) = torch.autograd.grad(noisy.sum(), inputs)
    assert torch.equal(gradient, torch.ones_like(inputs))
    assert NoisyInput(identity, SIGMA, RowGenerator(0))(inputs.double()).dtype == torch.float64


def test_no_noise_of_deviation_zero(identity):
    assert torch.equal(
        seen(NoisyInput(identity, (0.0, 0.0, 0.0), RowGenerator(0)), torch.ones(4, 3, 4, 4))[0], torch.zeros(4, 3, 4, 4)
    )


def test_fresh_draws_never_come_back(identity):
    noise = seen(NoisyInput(identity, SIGMA, RowGenerator(0)), torch.zeros(8, 3, 4, 4), calls=6).flatten(1)
    assert all(not torch.equal(noise[i], noise[j]) for i in range(6) for j in range(i))


def test_fixed_draws_take_turns(identity):
    noise = seen(NoisyInput(identity, SIGMA, RowGenerator(0), draws=3), torch.zeros(8, 3, 4, 4), calls=8)
    for call in range(8):
        assert torch.equal(noise[call], noise[call % 3])
    assert all(not torch.equal(noise[i], noise[j]) for i in range(3) for j in range(i))
    assert noise[:3].std(dim=(0, 1, 3, 4)).tolist() == pytest.approx(SIGMA, rel=0.2)


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_another_network_shares_the_fixed_draws_and_starts_over(identity, calls):
    """However often the first network was asked, the second meets the same draws, from the first of them on."""
    inputs = torch.zeros(8, 3, 4, 4)
    first = NoisyInput(identity, SIGMA, RowGenerator(0), draws=3)
    if calls:
        seen(first, inputs, calls)
    second = first.with_network(nn.Sequential(nn.Flatten(), nn.Identity()))
    found = seen(second, inputs, 6)
    assert torch.equal(found, seen(NoisyInput(identity, SIGMA, RowGenerator(0), draws=3), inputs, 6))
    assert torch.equal(seen(first, inputs, 1)[0], found[calls % 3])


def test_another_network_meets_other_fresh_noise(identity):
    first = NoisyInput(identity, SIGMA, RowGenerator(0))
    inputs = torch.zeros(8, 3, 4, 4)
    noise = [seen(noisy, inputs)[0] for noisy in (first, first.with_network(identity), first)]
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])


@pytest.mark.parametrize("draws", [None, 2])
@pytest.mark.parametrize("cut", [1, 64, 100])
def test_the_noise_follows_the_images(identity, draws, cut):
    """Wherever a batch of 150 is cut, an image's noise is the one it has in the whole batch, call by call."""
    inputs = torch.rand(150, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = seen(NoisyInput(identity, SIGMA, RowGenerator(5), draws), inputs, 3)
    parts = [(inputs[:cut], RowGenerator(5)), (inputs[cut:], RowGenerator(5, cut))]
    pieces = [seen(NoisyInput(identity, SIGMA, generator, draws), images, 3) for images, generator in parts]
    assert torch.equal(torch.cat(pieces, dim=1), whole)


def test_channels_last_images_meet_the_same_noise(identity):
    inputs = torch.zeros(8, 3, 4, 4)
    plain = NoisyInput(identity, SIGMA, RowGenerator(0))(inputs)
    assert torch.equal(
        NoisyInput(identity, SIGMA, RowGenerator(0))(inputs.to(memory_format=torch.channels_last)), plain
    )


@pytest.mark.parametrize("draws", [None, 3])
@pytest.mark.parametrize("calls", [0, 2, 4])
def test_a_snapshot_is_restored(identity, draws, calls):
    """To where it was when told to remember, after however many calls: the same draws come again."""
    inputs, noisy = torch.zeros(8, 3, 4, 4), NoisyInput(identity, SIGMA, RowGenerator(0), draws)
    for _ in range(calls):
        noisy(inputs)
    restore = noisy.snapshot()
    first = seen(noisy, inputs, 4)
    restore()
    assert torch.equal(seen(noisy, inputs, 4), first)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"input_sigma": 0.3}, [0.3, 0.3, 0.3]),
        ({"input_sigma_normalized": 0.5}, [0.5 * deviation for deviation in CIFAR10_STD]),
        ({}, [0.0, 0.0, 0.0]),
    ],
)
def test_a_step_adds_the_noise_of_its_configuration(image_set, make_run, settings, expected):
    """In pixel units, or in units of the data's deviation; of 16,384 pixels, a deviation has one of 0.6 %."""
    data, network, met = image_set(64, size=16), nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), []
    network.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))
    fixed = {"architecture": "custom", "injection": "none", "attack": "none", "adversarial_weight": 0.0}
    run = make_run(data, network, batch_size=64, **fixed, **settings)
    batch = next(run.plan.batches(data, run.share, 0))
    (part,) = batch.parts(run.share, run.config.seed)
    met.clear()
    take_step(run, batch)
    assert len(met) == 1
    assert (met[0] - part.clean).std(dim=(0, 2, 3)).tolist() == pytest.approx(expected, rel=0.025)
