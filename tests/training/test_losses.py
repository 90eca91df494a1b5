"""Eq. 6 against a literal reading in float64, value and gradient."""

import pytest
import torch
from torch import nn

from smoothed.training.losses import adversarial_loss


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_equation_6(generator, weight):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    clean, adversarial = (torch.rand(7, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(5, (7,), generator=generator)

    def cross_entropy(inputs):
        total = 0
        for image, label in zip(inputs, labels, strict=True):
            logits = model[1].weight @ image.flatten() + model[1].bias
            total = total + torch.log(torch.exp(logits).sum()) - logits[label]
        return total / len(inputs)

    expected = (1 - weight) * cross_entropy(clean) + weight * cross_entropy(adversarial)
    expected_gradient = torch.autograd.grad(expected, model[1].weight)[0]
    found = adversarial_loss(model, clean, adversarial, labels, weight)
    gradient = torch.autograd.grad(found, model[1].weight)[0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)  # losses are taken in float32
    assert torch.allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-8)


def test_a_term_of_weight_zero_costs_nothing(generator):
    calls = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    model.register_forward_pre_hook(lambda _, args: calls.append(args))
    images, labels = torch.rand(2, 3, 2, 2, generator=generator), torch.zeros(2, dtype=torch.int64)
    adversarial_loss(model, images, images, labels, 1.0)
    assert len(calls) == 1
