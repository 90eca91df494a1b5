"""Noise that hides a gradient: from one draw, from any mean of draws, and not from those who look behind it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from flawed import Backward, Few
from smoothed.evaluation.gradient_masking.noise import (
    averaging_over_draws,
    noise_gain_under_transfer,
    transfer_from_mean_network,
)
from smoothed.injection import NoiseLayer

CHECKS = [averaging_over_draws, noise_gain_under_transfer, transfer_from_mean_network]


class Ripples(NoiseLayer):
    """Adds waves of random height, 0.001 or so, and so short that their slope is a hundred times the image's own."""

    def __init__(self):
        super().__init__(per_row=True)

    def noise(self, tensor):
        return 1e-3 * self.normals(tensor.shape, tensor) * (1e5 * tensor).sin()

    def scale_(self, factor):
        raise NotImplementedError


class Cover(NoiseLayer):
    """Puts grey in place of the second six pixels, and a trace of noise everywhere."""

    def __init__(self):
        super().__init__(per_row=True)

    def noise(self, tensor):
        covered = torch.zeros(tensor[0].numel()).index_fill(0, torch.arange(6, 12), 1.0).view_as(tensor[0])
        return covered * (0.5 - tensor) + 1e-4 * self.normals(tensor.shape, tensor)

    def scale_(self, factor):
        raise NotImplementedError


def noisy(gradient, _):
    """Each draw's gradient is three times as much noise as gradient: the sign is right in 63 % of draws."""
    return gradient + 3 * gradient.abs() * torch.randn_like(gradient)


def spoilt_by_one(gradient, images):
    """One draw in six, of each image, is a huge step back: one draw mostly has the right sign, a mean has not."""
    back = torch.rand(len(images), 1, 1, 1) < 1 / 6
    return torch.where(back, -100 * gradient, gradient)


@pytest.fixture(autouse=True)
def seeded_default():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_one_draw_per_gradient_overestimates_accuracy(defence, few):
    finding = averaging_over_draws(defence(Backward(few, noisy), steps=4))
    assert finding.verdict == "suspicious"
    one, four, sixteen, lead = (figure.value for figure in finding.figures)
    assert one > four > sixteen
    assert lead == pytest.approx(one - sixteen, abs=1e-6)
    assert f"under one draw per gradient is too high by {100 * lead:.1f} points" in finding.meaning


def test_a_mean_that_is_worse(defence, few):
    finding = averaging_over_draws(defence(Backward(few, spoilt_by_one)))
    assert finding.verdict == "suspicious"
    assert "Averaging over draws weakens the attack" in finding.meaning


def test_noise_that_hides_the_gradient_is_seen_through_from_behind(defence, few):
    tried = defence(nn.Sequential(Ripples(), few))
    assert transfer_from_mean_network(tried).verdict == "suspicious"
    gain = noise_gain_under_transfer(tried)
    assert gain.verdict == "suspicious"
    mean, noisy, transfer_accuracy, gained, kept = (figure.value for figure in gain.figures)
    assert gained == pytest.approx(noisy - mean, abs=1e-6)
    assert kept == pytest.approx((transfer_accuracy - mean) / (noisy - mean), abs=1e-6)
    assert kept < 0.1


@pytest.mark.parametrize("check", CHECKS)
def test_without_noise_there_is_nothing_to_hide_behind(check, defence, few):
    finding = check(defence(few))
    assert (finding.verdict, finding.figures) == ("pass", ())


def test_a_gain_that_stays_is_no_flaw(defence, few):
    """Noise that covers six pixels which only help the attacker: the worst case is the same without it."""
    double = Few()
    double.weight.data[:, 6:12] = few.weight.data[:, :6]
    tried = defence(nn.Sequential(Cover(), double), images=300)
    inputs = tried.inputs.clone()
    inputs.flatten(1)[:, 6:12] = 0.5
    tried = replace(tried, inputs=inputs)
    mean, noisy, _, gained, kept = (figure.value for figure in noise_gain_under_transfer(tried).figures)
    assert gained > 0.1
    assert kept == pytest.approx(1, abs=0.1)
    assert noisy > mean
    assert {check(tried).verdict for check in CHECKS} == {"pass"}
