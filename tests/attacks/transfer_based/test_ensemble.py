"""The ensemble's logits and gradients in closed form on linear models, and its manners as a module."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.attacks import pgd
from smoothed.attacks.transfer_based.ensemble import Ensemble
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noiseless
from smoothed.rng.seeds import seeded
from smoothed.utils.modes import eval_mode


@pytest.fixture
def weights():
    """Three linear models W x, (3, 4, 192)."""
    return torch.randn(3, 4, 192, generator=seeded(2), dtype=torch.float64)


def linear(weight):
    return lambda inputs: inputs.flatten(1) @ weight.T


@pytest.fixture
def batch(images, labels):
    return (0.1 * images.double()).requires_grad_(), labels


def slope_of_loss(model, inputs, labels):
    loss = nn.functional.cross_entropy(model(inputs), labels, reduction="sum")
    return torch.autograd.grad(loss, inputs)[0].flatten(1)


class TestLinear:
    def test_probabilities(self, weights, batch):
        """-log of p = mean p_s: its gradient is the mean of p_s(y) (W_s^T p_s - w_sy), over p(y)."""
        inputs, labels = batch
        ensemble = Ensemble([linear(weight) for weight in weights])
        each = torch.stack([(inputs.flatten(1) @ weight.T).softmax(1) for weight in weights]).detach()
        assert_close(ensemble(inputs).softmax(1), each.mean(0))
        own = each[:, range(16), labels]
        slopes = torch.stack([p @ weight - weight[labels] for p, weight in zip(each, weights, strict=True)])
        expected = (own[:, :, None] * slopes).mean(0) / own.mean(0)[:, None]
        assert_close(slope_of_loss(ensemble, inputs, labels), expected)

    def test_logits(self, weights, batch):
        """The mean of linear models is linear: W^T p - w_y with W the mean."""
        inputs, labels = batch
        ensemble, mean = Ensemble([linear(weight) for weight in weights], average="logits"), weights.mean(0)
        assert_close(ensemble(inputs), inputs.flatten(1) @ mean.T)
        expected = (inputs.flatten(1) @ mean.T).softmax(1) @ mean - mean[labels]
        assert_close(slope_of_loss(ensemble, inputs, labels), expected.detach())

    def test_the_mean_of_logits_is_that_of_log_softmaxes_to_a_softmax(self, weights, batch):
        inputs, _ = batch
        ensemble = Ensemble([linear(weight) for weight in weights], average="logits")
        mean = torch.stack([(inputs.flatten(1) @ weight.T).log_softmax(1) for weight in weights]).mean(0)
        assert_close(ensemble(inputs).softmax(1), mean.softmax(1))

    def test_attack_reaches_the_optimum(self, weights, batch):
        """Two classes, mean of logits: every pixel at its end along the mean of the models' slopes."""
        inputs, labels = batch[0].detach(), batch[1] % 2
        ensemble = Ensemble([linear(weight[:2]) for weight in weights], average="logits")
        mean = weights.mean(0)
        slope = (mean[1 - labels] - mean[labels]).view_as(inputs)
        attacked = pgd(ensemble, inputs, labels, eps=0.05, steps=10, generator=seeded(0))
        assert_close(attacked, (inputs + 0.05 * slope.sign()).clamp(0, 1), rtol=0, atol=1e-9)


def test_one_model_is_itself(network, images):
    for average in ("probabilities", "logits"):
        assert_close(Ensemble([network], average=average)(images).softmax(1), network(images).softmax(1))


def test_modules_are_reached_and_functions_may_join(network, images):
    network.train()
    ensemble = Ensemble([network, lambda inputs: inputs.flatten(1)[:, :4]])
    assert ensemble.training
    with eval_mode(ensemble):
        assert not network.training
        first, second = ensemble(images), ensemble(images)
    assert network.training
    assert torch.equal(first, second)
    assert set(ensemble.state_dict()) == {f"members.0.{name}" for name in network.state_dict()}
    assert not Ensemble([network.eval()]).training


def test_noise_of_a_member_is_drawn_anew(network, images):
    inject(network, weights=PNI())
    ensemble = Ensemble([network])
    assert not torch.equal(ensemble(images), ensemble(images))
    with noiseless(ensemble):
        assert torch.equal(ensemble(images), ensemble(images))


def test_errors(images):
    with pytest.raises(ArgumentError, match="models: expected at least one callable"):
        Ensemble([])
    with pytest.raises(ArgumentError, match=r"models: expected at least one callable, got \['str'\]"):
        Ensemble(["resnet"])
    with pytest.raises(ArgumentError, match="average: expected one of probabilities, logits"):
        Ensemble([nn.Flatten()], average="votes")
    mixed = Ensemble([lambda inputs: inputs.flatten(1)[:, :3], lambda inputs: inputs.flatten(1)[:, :4]])
    with pytest.raises(ArgumentError, match=r"models: expected the same number of classes in all models, got \[3, 4\]"):
        mixed(images)
