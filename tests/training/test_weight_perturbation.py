"""Adversarial weight perturbation against its definition, and what it must leave alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothed.injection import frozen, inject_preset
from smoothed.training.batch import Share
from smoothed.training.step import take_step
from smoothed.training.weight_perturbation import perturb_weights, weights_to_perturb
from smoothed.utils.modes import batch_statistics

GAMMA = 0.01


@pytest.fixture
def noisy(network):
    """The small network with CNI on its convolutions and PNI on its last layer, whose strengths are matrices too."""
    inject_preset(network, "cni-w", 0.1)
    return network


@pytest.fixture
def loss(noisy, images, labels):
    """The cross-entropy of one frozen draw, the same at each call."""

    def evaluate():
        with frozen(noisy):
            return functional.cross_entropy(noisy(images), labels)

    return evaluate


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_weights_are_what_moves(noisy):
    """Not biases, not batch norm's, and no noise strength, of whatever shape: variance, factor, alpha."""
    names = {id(parameter): name for name, parameter in noisy.named_parameters()}
    assert [names[id(weight)] for weight in weights_to_perturb(noisy)] == [
        "0.parametrizations.weight.original",
        "4.parametrizations.weight.original",
        "7.parametrizations.weight.original",
    ]
    matrices = [name for name, parameter in noisy.named_parameters() if parameter.ndim > 1]
    assert {name.rpartition(".")[2] for name in matrices} == {"original", "variance", "factor", "alpha"}


def test_each_layer_moves_by_gamma_of_its_norm_along_its_gradient(noisy, loss):
    before, weights = values(noisy), weights_to_perturb(noisy)
    gradients = torch.autograd.grad(loss(), weights)
    moved = iter(gradients)
    with perturb_weights(weights, loss, GAMMA):
        for name, parameter in noisy.named_parameters():
            expected = before[name]
            if name.endswith("original"):
                gradient, weight = next(moved).double().flatten().tolist(), before[name].double().flatten().tolist()
                length = sum(w * w for w in weight) ** 0.5 / sum(g * g for g in gradient) ** 0.5
                at = [w + GAMMA * length * g for w, g in zip(weight, gradient, strict=True)]
                expected = torch.tensor(at, dtype=torch.float64).view_as(parameter).float()
                assert not torch.equal(parameter, before[name])
            assert torch.allclose(parameter, expected, rtol=1e-5, atol=1e-8)
    assert same(values(noisy), before)
    assert all(parameter.grad is None for parameter in noisy.parameters())


def test_the_weights_come_back_after_an_exception(noisy, loss):
    before, seen = values(noisy), []

    def stopped():
        seen.append(values(noisy))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), perturb_weights(weights_to_perturb(noisy), loss, GAMMA):
        stopped()
    assert not same(seen[0], before)
    assert same(values(noisy), before)
    with pytest.raises(KeyboardInterrupt), perturb_weights(weights_to_perturb(noisy), stopped, GAMMA):
        pass
    assert same(values(noisy), before)


def test_the_loss_rises_by_what_its_slope_says(noisy, loss):
    """To first order by gamma times the sum over layers of |w| |g|."""
    weights, start = weights_to_perturb(noisy), loss().item()
    gradients = torch.autograd.grad(loss(), weights)
    slope = sum((w.norm() * g.norm()).item() for w, g in zip(weights, gradients, strict=True))
    with perturb_weights(weights, loss, 1e-3):
        assert loss().item() - start == pytest.approx(1e-3 * slope, rel=0.05)
    with perturb_weights(weights, loss, 0.1):
        assert loss().item() > start + 0.05 * slope
    assert loss().item() == start


def test_a_layer_without_slope_stays():
    """One that the loss does not see, and one whose gradient is all zeros."""
    used, unused, flat = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))

    def loss():
        return (3 * used + 0 * flat).sum()

    with perturb_weights([used, unused, flat], loss, 0.5):
        assert torch.allclose(used, torch.full((2, 2), 1.5))
        assert torch.equal(unused, torch.ones(2, 2))
        assert torch.equal(flat, torch.ones(2, 2))


def test_gradients_are_averaged_before_their_norm_is_taken(noisy, loss):
    """With 3 for the mean over processes, the direction is that of the mean and the length is what it was."""
    weights = weights_to_perturb(noisy)
    with perturb_weights(weights, loss, GAMMA):
        expected = [weight.detach().clone() for weight in weights]
    with torch.no_grad(), perturb_weights(weights, loss, GAMMA, average=lambda gradient: 3 * gradient):
        assert all(torch.allclose(w, e, rtol=1e-5, atol=1e-8) for w, e in zip(weights, expected, strict=True))
    before = [weight.detach().clone() for weight in weights]
    with perturb_weights(weights, loss, GAMMA, average=torch.neg):
        for weight, there, old in zip(weights, expected, before, strict=True):
            assert torch.allclose(weight, 2 * old - there, rtol=1e-5, atol=1e-7)


def test_a_step_trains_the_old_weights_with_the_gradient_of_the_moved_ones(network, image_set, make_run):
    """Against the step written out: batch statistics are those of one pass, although there were two."""
    network = network.train()
    network[3].p = 0.0  # dropout, whose masks no two passes share
    literal, data = copy.deepcopy(network), image_set(16)
    settings = {"attack": "none", "adversarial_weight": 0.0, "injection": "none", "momentum": 0.0}
    run = make_run(
        data, network, architecture="custom", weight_perturbation=GAMMA, weight_decay=0.0, batch_size=16, **settings
    )
    (batch,) = [next(run.plan.batches(data, run.share, 0))]
    (part,) = batch.parts(Share(), run.config.seed)
    take_step(run, batch)

    def cross_entropy():
        return functional.cross_entropy(literal(part.clean), part.labels)

    weights = [p for p in literal.parameters() if p.ndim > 1]
    old = [p.detach().clone() for p in literal.parameters()]
    with batch_statistics(literal):
        gradients = torch.autograd.grad(cross_entropy(), weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.copy_(weight + GAMMA * weight.norm() * gradient / gradient.norm())
    gradients = torch.autograd.grad(cross_entropy(), list(literal.parameters()))
    with torch.no_grad():
        for parameter, value, gradient in zip(literal.parameters(), old, gradients, strict=True):
            parameter.copy_(value - 0.1 * gradient)
    for name, tensor in run.model.state_dict().items():
        assert torch.allclose(tensor, literal.state_dict()[name], rtol=1e-4, atol=1e-6), name
    assert run.model[1].num_batches_tracked == 1
