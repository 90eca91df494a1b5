"""One step, many steps, small and large balls: each check finds the defence that is made against its attack."""

import pytest
import torch
from torch import nn

from flawed import EPS, Backward
from smoothed.evaluation.gradient_masking.budgets import falling_accuracy, one_step_against_many, unbounded_budget


def astray_off_the_grid(gradient, images):
    """The true gradient at images of 256 grey levels, the opposite one anywhere else."""
    on = ((images * 255 - (images * 255).round()).abs() < 1e-3).flatten(1).all(1)
    return torch.where(on.view(-1, 1, 1, 1), gradient, -gradient)


class AtOneRadius(nn.Module):
    """Knows its clean images, and answers for them where an input lies at the radius it was made for."""

    def __init__(self, network, clean, radius):
        super().__init__()
        self.network, self.clean, self.radius = network, clean, radius

    def forward(self, inputs):
        distance, nearest = torch.cdist(inputs.detach().flatten(1), self.clean.flatten(1), p=torch.inf).min(1)
        known = ((distance - self.radius).abs() < 0.1 * self.radius).view(-1, 1)
        return torch.where(known, self.network(self.clean[nearest]), self.network(inputs))


def test_one_step(defence, few):
    finding = one_step_against_many(defence(Backward(few, astray_off_the_grid)))
    assert finding.verdict == "suspicious"
    many, one, ahead = finding.figures
    assert ahead.value == pytest.approx(many.value - one.value, abs=1e-6)
    assert many.value == 1.0  # with the gradient the wrong way round, no image is lost
    honest = one_step_against_many(defence(few))
    assert honest.verdict == "pass"
    assert honest.figures[1].value == pytest.approx(one.value)


def test_unbounded(defence, few):
    hidden = unbounded_budget(defence(Backward(few, lambda gradient, _: torch.zeros_like(gradient))))
    assert hidden.verdict == "suspicious"
    assert hidden.figures[0].value > 0.5
    honest = unbounded_budget(defence(few, sigma=0.1))
    assert (honest.verdict, honest.figures[0].value) == ("pass", 0.0)
    assert honest.figures[1].value == pytest.approx(1 / 3)


def test_falling(defence, few):
    honest = defence(few)
    assert falling_accuracy(honest).verdict == "pass"
    made_for = AtOneRadius(few, honest.inputs, EPS)
    finding = falling_accuracy(defence(made_for))
    assert finding.verdict == "suspicious"
    clean, half, at, double, _, rise = finding.figures
    assert (clean.value, at.value) == (1.0, 1.0)
    assert half.value < 0.9
    assert double.value < half.value
    assert rise.value == pytest.approx(1 - half.value, abs=1e-6)


def test_the_linear_curve_is_exact(defence, few):
    """PGD reaches a linear network's worst case: the corner that the slope of each other class points to."""
    tried = defence(few, steps=12)
    logits, weight = few(tried.inputs), few.weight.detach()
    found = falling_accuracy(tried).figures
    for figure, eps in zip(found[1:5], (0.5, 1, 2, 4), strict=True):
        survives = torch.ones(len(tried.labels), dtype=torch.bool)
        for other in range(3):
            slope = weight[other] - weight[tried.labels]
            worst = (tried.inputs + eps * EPS * slope.sign().view_as(tried.inputs)).clamp(0, 1)
            gap = few(worst).gather(1, tried.labels[:, None])[:, 0] - few(worst)[:, other]
            survives &= (gap > 0) | (tried.labels == other)
        assert figure.value == pytest.approx(survives.float().mean().item(), abs=0.03), eps
    assert found[0].value == (logits.argmax(1) == tried.labels).float().mean()
