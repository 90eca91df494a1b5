"""DDN against its algorithm read literally, closed forms, and a grid."""

import math

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from nearest import grid_norms, linear_model, linear_norms, random_images, relu_network
from refusing import check_refusals
from smoothed.attacks.min_norm.ddn import ddn
from smoothed.attacks.min_norm.minimum import norms


def rony(model, image, label, *, steps, eps, gamma, levels, targeted):
    """Algorithm 1 of Rony et al. for one image, keeping the smallest adversarial iterate."""
    delta, best = torch.zeros_like(image), None
    for step in range(steps):
        moved = (image + delta).requires_grad_()
        logits = model(moved[None])
        (slope,) = torch.autograd.grad(functional.cross_entropy(logits, label[None]), moved)
        adversarial = (logits.argmax(1) == label).item() == targeted
        if adversarial and (best is None or delta.norm() < best.norm()):
            best = delta
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        delta = delta + (-1 if targeted else 1) * alpha * slope / slope.norm()
        eps *= 1 - gamma if adversarial else 1 + gamma
        end = (image + eps * delta / delta.norm()).clamp(0, 1)
        if levels is not None:
            end = (end * (levels - 1)).round() / (levels - 1)
        delta = end - image
    return image if best is None else image + best


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("levels", [None, 256, 16])
def test_is_the_published_algorithm(targeted, levels, network, images):
    network, images = network.double(), images.double()
    labels = network(images).argmax(1)
    wanted = (labels + 1) % 4 if targeted else labels
    options = {"steps": 25, "gamma": 0.1, "levels": levels, "targeted": targeted}
    expected = [rony(network, image, label, eps=0.7, **options) for image, label in zip(images, wanted, strict=True)]
    attacked = ddn(network, images, wanted, initial_eps=0.7, **options)
    assert (norms(attacked - images, "l2") > 0).float().mean() > 0.5
    assert_close(attacked, torch.stack(expected), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_linear_inside_the_box(targeted):
    """Of two classes the gradient never turns: the distance to the hyperplane, but for the radius's step of 1 %."""
    model, inputs = linear_model(2, 12), random_images(16, 3, 2, 2, low=0.4, high=0.6)
    labels = model(inputs).argmax(1)
    expected = linear_norms(model, inputs, labels, "l2", box=False)
    options = {"steps": 400, "gamma": 0.01, "initial_eps": 0.2}
    attacked = ddn(model, inputs, 1 - labels if targeted else labels, targeted=targeted, **options)
    ratio = norms(attacked - inputs, "l2") / expected
    assert ratio.min() > 1
    assert ratio.max() < 1.03


@pytest.mark.slow
def test_linear_at_the_box():
    model, inputs = linear_model(2, 48), random_images(16, 3, 4, 4)
    labels = model(inputs).argmax(1)
    expected = linear_norms(model, inputs, labels, "l2")
    assert (expected > 1.001 * linear_norms(model, inputs, labels, "l2", box=False)).float().mean() > 0.3
    attacked = ddn(model, inputs, labels, steps=400, gamma=0.01, initial_eps=0.2)
    ratio = norms(attacked - inputs, "l2") / expected
    assert ratio.min() > 1 - 1e-9
    assert ratio.max() < 1.05


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_relu_network_on_a_grid(targeted):
    network, inputs = relu_network(), random_images(24, 1, 1, 2)
    labels = network(inputs).argmax(1)
    targets = (labels + 1) % 3
    nearest = grid_norms(
        network, inputs, lambda got: got == targets[:, None] if targeted else got != labels[:, None], "l2"
    )
    options = {"steps": 300, "initial_eps": 0.3, "gamma": 0.02}
    attacked = ddn(network, inputs, targets if targeted else labels, targeted=targeted, **options)
    success = (network(attacked).argmax(1) == targets) if targeted else (network(attacked).argmax(1) != labels)
    sizes = norms(attacked - inputs, "l2")[success]
    assert success.float().mean() > 0.8
    assert (sizes / nearest[success] < 1.05).float().mean() > 0.7
    assert (sizes > nearest[success] - 2 / 800).all()


def test_quantised_images_lie_on_the_levels(network, images):
    inputs = (images * 255).round() / 255
    attacked = ddn(network, inputs, network(inputs).argmax(1), steps=30, levels=256)
    assert (norms(attacked - inputs, "l2") > 0).all()
    assert_close(attacked * 255, (attacked * 255).round(), rtol=0, atol=1e-4)


def test_errors():
    def call(**change):
        ddn(linear_model(2, 4), random_images(2, 1, 2, 2), torch.tensor([0, 1]), **change)

    check_refusals(
        call,
        [
            ({"initial_eps": -1.0}, "initial_eps: expected a finite number of at least 0, got -1"),
            ({"gamma": 1.5}, r"gamma: expected a number in \[0, 1\], got 1.5"),
            ({"levels": 1}, "levels: expected an integer of at least 2, or None, got 1"),
            ({"levels": 2.5}, "levels: expected an integer of at least 1, got 2.5"),
        ],
    )
