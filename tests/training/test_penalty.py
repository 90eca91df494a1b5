"""The divergence of a posterior from its prior in training: its gradient in a step, its weight, and weight decay."""

import math

import pytest
import torch
from torch import nn

from smoothed.injection import noise_layers
from smoothed.injection.variational import COEFFICIENTS
from smoothed.training.step import take_step

IMAGES, RATE = 24, 0.5
SETTINGS = {
    **{"architecture": "custom", "injection": "vdo-w", "attack": "none", "adversarial_weight": 0.0, "epochs": 2},
    **{"batch_size": 8, "lr": RATE, "momentum": 0.0, "weight_decay": 0.0, "augmentation": "none"},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 4))


def after_a_step(make_run, data, **settings):
    """The run, its loss, and the strengths and weights after its first step."""
    run = make_run(data, network(), **{**SETTINGS, **settings})
    loss = take_step(run, next(run.plan.batches(data, run.share, 0)))
    strengths = [next(layer.parameters()).detach().clone() for layer in noise_layers(run.model)]
    weights = [p.detach().clone() for n, p in run.model.named_parameters() if "log_" not in n]
    return run, loss.item(), strengths, weights


@pytest.mark.parametrize(
    "settings", [{}, {"accumulation": 2}, {"batch_size": 7, "accumulation": 3}, {"loss_samples": 2}]
)
@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_a_step_follows_the_divergence_of_all_weights_per_training_image(weight, settings, make_run, image_set):
    data = image_set(IMAGES)
    _, loss, strengths, weights = after_a_step(make_run, data, kl_weight=weight, **settings)
    _, plain_loss, plain_strengths, plain_weights = after_a_step(make_run, data, kl_weight=0.0, **settings)
    alpha, (c1, c2, c3) = torch.tensor(0.0625, dtype=torch.float64), COEFFICIENTS
    slope = -(0.5 + c1 * alpha + 2 * c2 * alpha**2 + 3 * c3 * alpha**3).item()
    for with_term, without in zip(strengths, plain_strengths, strict=True):
        expected = torch.full_like(without, -RATE * weight / IMAGES * slope)
        assert torch.allclose(with_term - without, expected, rtol=2e-3, atol=1e-6)
    for with_term, without in zip(weights, plain_weights, strict=True):
        assert torch.allclose(with_term, without, atol=1e-6)
    value = -(0.5 * alpha.log() + c1 * alpha + c2 * alpha**2 + c3 * alpha**3).item()
    count = sum(strength.numel() for strength in strengths)
    assert loss - plain_loss == pytest.approx(weight * count * value / IMAGES, rel=1e-4)


@pytest.mark.parametrize(
    "settings", [{}, {"batch_size": 7, "accumulation": 3}, {"attack": "pgd", "adversarial_weight": 1.0}]
)
@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_a_step_follows_the_divergence_of_a_gaussian_posterior(weight, settings, make_run, image_set):
    """Of the deviations, s^2 / s_0^2 - 1, and of the means, mu / s_0^2; biases have none."""
    data, initial, prior, settings = image_set(IMAGES), 0.02, 0.05, {"injection": "bnn-w", **settings}
    settings["injection_strength"] = initial / prior
    before = [parameter.detach().clone() for parameter in network().parameters()]
    _, loss, strengths, weights = after_a_step(make_run, data, kl_weight=weight, **settings)
    _, plain_loss, plain_strengths, plain_weights = after_a_step(make_run, data, kl_weight=0.0, **settings)
    factor, value = -RATE * weight / IMAGES, 0.0
    for with_term, without in zip(strengths, plain_strengths, strict=True):
        expected = torch.full_like(without, factor * (initial**2 / prior**2 - 1))
        assert torch.allclose(with_term - without, expected, rtol=2e-3, atol=1e-6)
    for with_term, without in zip(sorted_by_size(weights), sorted_by_size(plain_weights), strict=True):
        mean = next(tensor for tensor in before if tensor.shape == without.shape)
        expected = factor * mean / prior**2 if mean.ndim > 1 else torch.zeros_like(mean)
        assert torch.allclose(with_term - without, expected, rtol=2e-3, atol=1e-5)
        if mean.ndim > 1:
            squares = (initial**2 + mean.double().square()).sum().item() / (2 * prior**2)
            value += mean.numel() * (math.log(prior / initial) - 0.5) + squares
    assert loss - plain_loss == pytest.approx(weight * value / IMAGES, rel=1e-4)


def sorted_by_size(tensors):
    return sorted(tensors, key=torch.Tensor.numel)


def test_noise_at_the_outputs_has_the_same_term(make_run, image_set):
    data = image_set(IMAGES)
    losses = [
        after_a_step(make_run, data, injection=injection, injection_strength=0.01, kl_weight=weight)[1]
        for injection in ("vdo-w", "vdo-a")
        for weight in (0.0, 1.0)
    ]
    assert losses[3] - losses[2] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def test_weight_decay_leaves_the_strengths_alone(make_run, image_set):
    data = image_set(IMAGES)
    _, _, strengths, weights = after_a_step(make_run, data, weight_decay=0.3)
    _, _, plain_strengths, plain_weights = after_a_step(make_run, data)
    assert all(torch.equal(a, b) for a, b in zip(strengths, plain_strengths, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights, plain_weights, strict=True))


def test_weight_decay_still_reaches_other_strengths(make_run, image_set):
    run = make_run(image_set(IMAGES), network(), **{**SETTINGS, "injection": "pni-w", "weight_decay": 0.3})
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.3, 0.3]
    run = make_run(image_set(IMAGES), network(), **{**SETTINGS, "weight_decay": 0.3, "noise_lr": 2.0})
    assert [(g["weight_decay"], g["lr_factor"]) for g in run.optimizer.param_groups] == [(0.3, 1.0), (0.0, 2.0)]


def test_training_keeps_alpha_at_most_one(make_run, image_set):
    data = image_set(IMAGES)
    run, _, strengths, _ = after_a_step(make_run, data, kl_weight=1e4)
    assert all((strength == 0).all() for strength in strengths)  # a huge step towards the prior
    assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())


def test_other_noise_has_no_term(make_run, image_set):
    for injection in ("none", "pni-w", "cni-w", "rse"):
        assert make_run(image_set(IMAGES), network(), **{**SETTINGS, "injection": injection}).penalised == []
