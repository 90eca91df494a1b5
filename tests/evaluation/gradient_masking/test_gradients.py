"""Gradients that vanish, that noise drowns, and that are not the loss's: each check finds its own flaw."""

import pytest
import torch
from torch import nn

from flawed import Backward
from smoothed.evaluation.gradient_masking.gradients import (
    agreement_of_draws,
    gradients_against_finite_differences,
    vanishing_gradients,
)

CHECKS = {"there": vanishing_gradients, "slope": gradients_against_finite_differences, "draws": agreement_of_draws}


def noisy(gradient, _):
    """Ten times as much noise as gradient: a cosine between draws of 1 / 101."""
    return gradient + 10 * gradient.square().mean().sqrt() * torch.randn_like(gradient)


def straight_through(gradient, _):
    return gradient


class Scaled(nn.Module):
    """Logits so large that float32's softmax is exactly 0 or 1."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return 1e4 * self.network(inputs)


class Quantised(nn.Module):
    """Five grey levels; the backward pass pretends that there are no steps between them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs + ((inputs * 4).round() / 4 - inputs).detach())


FLAWS = {
    "zero": (lambda few: Backward(few, lambda gradient, _: torch.zeros_like(gradient)), {"there", "slope"}),
    "not a number": (lambda few: Backward(few, lambda gradient, _: gradient * torch.nan), {"there", "slope"}),
    "saturated": (Scaled, {"there"}),
    "flipped": (lambda few: Backward(few, lambda gradient, _: -gradient), {"slope"}),
    "shattered": (Quantised, {"slope"}),
    "noisy": (lambda few: Backward(few, noisy), {"slope", "draws"}),
    "none": (lambda few: few, set()),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_is_found_by_its_checks(flaw, defence, few):
    make, finds = FLAWS[flaw]
    tried = defence(make(few))
    verdicts = {name: check(tried).verdict for name, check in CHECKS.items()}
    assert {name for name, verdict in verdicts.items() if verdict == "suspicious"} == finds
    assert {name for name, verdict in verdicts.items() if verdict == "unclear"} == set()


def test_the_figures_are_the_flaw(defence, few):
    half = Backward(few, lambda gradient, images: gradient * (torch.arange(len(images)) % 2).view(-1, 1, 1, 1))
    zero, broken = vanishing_gradients(defence(half)).figures
    assert (zero.value, broken.value) == (0.5, 0.0)
    assert gradients_against_finite_differences(defence(half)).figures[0].value == pytest.approx(0.5, abs=0.01)
    flipped = Backward(few, lambda gradient, _: -gradient)
    assert gradients_against_finite_differences(defence(flipped)).figures[0].value == pytest.approx(-1, abs=0.01)


def test_the_cosine_is_that_of_all_pairs(defence, few):
    """Noise of m times the gradient's power: the cosine is 1 / (1 + m), and m draws outweigh it."""

    def change(gradient, _):
        return gradient + 2 * gradient.square().mean((1, 2, 3), keepdim=True).sqrt() * torch.randn_like(gradient)

    tried = defence(Backward(few, change))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        finding = agreement_of_draws(tried)
    cosine, draws = finding.figures
    assert cosine.value == pytest.approx(1 / 5, abs=0.02)
    assert draws.value == pytest.approx(4, abs=0.5)


def test_more_draws_in_the_attack_make_up_for_noise(defence, few):
    def change(gradient, _):
        return gradient + 3 * gradient.square().mean((1, 2, 3), keepdim=True).sqrt() * torch.randn_like(gradient)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        verdicts = [agreement_of_draws(defence(Backward(few, change), eot_samples=draws)).verdict for draws in (1, 100)]
    assert verdicts == ["suspicious", "pass"]


def test_noise_that_cannot_be_repeated_gives_no_slope(defence, few):
    generator = torch.Generator().manual_seed(0)  # where nobody can find it

    def restless(inputs):
        return few(inputs) + torch.randn(len(inputs), 3, generator=generator)

    finding = gradients_against_finite_differences(defence(restless))
    assert finding.verdict == "unclear"
    assert "the noise can't be repeated" in finding.meaning


def test_noise_of_the_defence_can_be_repeated(defence, few):
    assert gradients_against_finite_differences(defence(few, sigma=0.2)).verdict == "pass"
    assert (
        gradients_against_finite_differences(defence(nn.Sequential(nn.Dropout(0.5), few), sigma=0.2)).verdict == "pass"
    )
