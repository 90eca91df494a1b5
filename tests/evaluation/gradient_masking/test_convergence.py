"""The check of convergence: what attacks of a linear network reach, and the condition written out pixel by pixel."""

import pytest
import torch
from torch import nn

from flawed import EPS, Backward
from smoothed import PNI, Smoothed, inject
from smoothed.evaluation.gradient_masking import CheckSettings, Defence
from smoothed.evaluation.gradient_masking.convergence import converged_attack, gain_left


def numbers(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_gain_left_is_that_of_the_best_and_the_worst_corner():
    """Of four pixels, all 16 corners of what the ball leaves of [0, 1]."""
    inputs = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    examples = (inputs + 0.3 * numbers(30, 1, 2, 2, seed=2).clamp(-1, 1)).clamp(0, 1)
    gradients = numbers(30, 1, 2, 2, seed=3)
    found = gain_left(gradients, examples, inputs, 0.3)
    for i in range(30):
        pixels, slope = inputs[i].flatten().tolist(), gradients[i].flatten().tolist()
        values = []
        for corner in range(16):
            ends = [min(1.0, p + 0.3) if corner >> k & 1 else max(0.0, p - 0.3) for k, p in enumerate(pixels)]
            values.append(sum(z * g for z, g in zip(ends, slope, strict=True)))
        here = sum(z * g for z, g in zip(examples[i].flatten().tolist(), slope, strict=True))
        assert found[i].item() == pytest.approx((max(values) - here) / (max(values) - min(values)), abs=1e-12)
    best = torch.where(gradients > 0, (inputs + 0.3).clamp_max(1), (inputs - 0.3).clamp_min(0))
    assert gain_left(gradients, best, inputs, 0.3).abs().max() < 1e-12
    assert gain_left(-gradients, best, inputs, 0.3).sub(1).abs().max() < 1e-12


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_an_attack_of_a_linear_network_converges(sigma, defence, few):
    finding = converged_attack(defence(few, sigma))
    condition, left = finding.figures
    assert (finding.name, finding.verdict) == ("the attack has converged", "pass")
    assert left.value < 0.05
    assert condition.value >= 0


def test_the_condition_is_the_published_one(few):
    """eps |g|_1 - <x' - x, g>, from the closed form of the gradient of a linear network, on average."""
    inputs = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    tried = Defence(
        Smoothed(few, num_samples=1, seed=0), inputs, few(inputs).argmax(1), CheckSettings(eps=EPS, steps=2)
    )
    finding = converged_attack(tried)
    weight, conditions = few.weight.detach().double(), []
    for image, example, label in zip(inputs, tried.white_box_examples, tried.labels.tolist(), strict=True):
        scores = (weight @ (example.flatten().double() - 0.5)).softmax(0)
        scores[label] -= 1
        gradient = weight.T @ scores
        moved = (example - image).flatten().double()
        conditions.append(EPS * gradient.abs().sum() - moved @ gradient)
    assert finding.figures[0].value == pytest.approx(torch.stack(conditions).mean().item(), rel=1e-3)


def test_too_few_steps_leave_gain(defence, few):
    """One step of eps / 4 from a random start moves each pixel by a part of the way alone."""
    settings = {"steps": 1, "images": 256}
    finding = converged_attack(defence(few, **settings))
    assert finding.verdict == "suspicious"
    assert "take more steps" in finding.meaning
    assert finding.figures[1].value == pytest.approx(3 / 8, abs=0.06)


def test_an_attack_that_does_not_follow_the_gradient_is_far_from_converging(defence, few):
    """A backward pass of the wrong sign at the start, of the right one at the end: the worst corner."""
    calls = []

    def change(gradient, _):
        calls.append(1)
        return -gradient if len(calls) <= 8 else gradient

    tried = defence(Backward(few, change))
    object.__setattr__(tried, "is_random", False)  # known, so that nothing is to be probed
    finding = converged_attack(tried)
    assert finding.verdict == "suspicious"
    assert finding.figures[1].value > 0.9


def test_noise_in_gradients_leaves_gain(defence, few):
    """Ten times as much noise as gradient: examples follow the noise of their own draws."""

    def change(gradient, _):
        return gradient + 10 * gradient.square().mean().sqrt() * torch.randn_like(gradient)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        finding = converged_attack(defence(Backward(few, change), steps=2))
    assert finding.verdict == "suspicious"
    assert finding.figures[1].value == pytest.approx(0.5, abs=0.1)


def test_no_gradient_at_all(defence, few):
    finding = converged_attack(defence(Backward(few, lambda gradient, _: torch.zeros_like(gradient))))
    assert (finding.verdict, finding.figures) == ("suspicious", ())
    assert finding.meaning == "No example has a usable gradient."


def test_images_without_a_gradient_are_left_out(defence, few):
    half = Backward(few, lambda gradient, images: gradient * (torch.arange(len(images)) % 2).view(-1, 1, 1, 1))
    assert converged_attack(defence(half)).verdict == "pass"


def test_noise_inside_the_network_is_averaged(defence, few):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    network[1].weight.data, network[1].bias.data = few.weight.data.clone(), -0.5 * few.weight.data.sum(1)
    inject(network, weights=PNI("layer"))
    assert converged_attack(defence(network)).verdict == "pass"
