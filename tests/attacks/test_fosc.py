"""FOSC against its definition as a maximum, and its arguments."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from optima import Linear
from smoothed.attacks import fgsm, fosc, one_draw_loss, pgd
from smoothed.attacks.losses import margin
from smoothed.errors import ArgumentError

EPS = 0.1


@pytest.fixture
def curved(generator):
    """A smooth network in float64, (N, 1, 2, 2) to three logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


@pytest.mark.parametrize("loss", [None, margin])
def test_it_is_the_maximum_over_the_corners_of_the_ball(curved, generator, loss):
    """A linear function is largest at a corner; there are 16 of them."""
    inputs = torch.rand(5, 1, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.arange(5) % 3
    adversarial = inputs + EPS * (2 * torch.rand(inputs.shape, generator=generator, dtype=torch.float64) - 1)
    objective = None if loss is None else one_draw_loss(loss)
    found = fosc(curved, inputs, labels, adversarial=adversarial, eps=EPS, objective=objective)
    for i in range(5):
        at = adversarial[i : i + 1].clone().requires_grad_()
        logits = curved(at)
        value = functional.cross_entropy(logits, labels[i : i + 1]) if loss is None else loss(logits, labels[i : i + 1])
        (gradient,) = torch.autograd.grad(value.sum(), at)
        corners = [inputs[i].flatten() + EPS * torch.tensor(s, dtype=torch.float64) for s in product((-1, 1), repeat=4)]
        expected = max(((z - at.detach().flatten()) @ gradient.flatten()).item() for z in corners)
        assert found[i].item() == pytest.approx(expected, rel=1e-10)


def test_it_is_zero_where_pgd_has_converged_and_falls_on_the_way(generator):
    inputs = torch.rand(16, 3, 2, 2, generator=generator, dtype=torch.float64)
    labels, linear = torch.arange(16) % 2, Linear(classes=2)
    corner = inputs + (fgsm(linear, inputs, labels, eps=EPS) - inputs).sign() * EPS  # not cut off at 0 and 1
    assert fosc(linear, inputs, labels, adversarial=corner, eps=EPS).abs().max() < 1e-9
    start = fosc(linear, inputs, labels, adversarial=inputs, eps=EPS)
    assert (start > 0.01).all()
    between = fosc(linear, inputs, labels, adversarial=(inputs + corner) / 2, eps=EPS)
    assert (between < start).all()


def test_a_radius_for_each_image(curved, generator):
    inputs, labels = torch.rand(2, 1, 2, 2, generator=generator, dtype=torch.float64), torch.tensor([0, 1])
    radii = torch.tensor([0.1, 0.3], dtype=torch.float64)
    found = fosc(curved, inputs, labels, adversarial=inputs, eps=radii)
    apart = [fosc(curved, inputs, labels, adversarial=inputs, eps=radius)[i] for i, radius in enumerate((0.1, 0.3))]
    assert_close(found, torch.stack(apart))


def test_the_model_stays_as_it_was(network, images, labels):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attacked = pgd(network, images, labels, eps=EPS, steps=1)
    fosc(network, images, labels, adversarial=attacked, eps=EPS)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": -1.0}, "eps: expected"),
        ({"adversarial": torch.rand(1, 3, 2, 2)}, "adversarial: expected a float tensor of images of shape"),
        ({"adversarial": "x"}, "adversarial: expected a float tensor of images of shape .*, got str"),
        ({"objective": 3}, "objective: expected"),
    ],
)
def test_rejects(changes, message, network, images, labels):
    with pytest.raises(ArgumentError, match=message):
        fosc(network, images, labels, **{"adversarial": images, "eps": EPS, **changes})
