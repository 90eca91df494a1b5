"""Carlini and Wagner's L-inf attack against closed forms and a grid."""

import pytest
import torch

from nearest import grid_norms, linear_model, linear_norms, random_images, relu_network
from refusing import check_refusals
from smoothed.attacks.min_norm.carlini_wagner_linf import carlini_wagner_linf
from smoothed.attacks.min_norm.minimum import norms

OPTIONS = {"steps": 60, "search_steps": 15, "initial_const": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_linear_inside_the_box(targeted):
    """The gap over the slope's L1 norm, of the nearest of the hyperplanes."""
    model = linear_model(2 if targeted else 4, 12)
    inputs = random_images(16, 3, 2, 2, low=0.4, high=0.6)
    labels = model(inputs).argmax(1)
    expected = linear_norms(model, inputs, labels, "linf", box=False)
    attacked = carlini_wagner_linf(model, inputs, 1 - labels if targeted else labels, targeted=targeted, **OPTIONS)
    ratio = norms(attacked - inputs, "linf") / expected
    assert (model(attacked).argmax(1) != labels).all()
    assert ratio.min() > 1
    assert ratio.max() < 1.06


@pytest.mark.slow
def test_linear_at_the_box():
    """Where pixels end at 0 or 1: the smallest tolerance whose box reaches the half-space, by bisection."""
    model, inputs = linear_model(3, 48), random_images(16, 3, 4, 4)
    labels = model(inputs).argmax(1)
    expected = linear_norms(model, inputs, labels, "linf")
    assert (expected > 1.001 * linear_norms(model, inputs, labels, "linf", box=False)).float().mean() > 0.3
    ratio = norms(carlini_wagner_linf(model, inputs, labels, **OPTIONS) - inputs, "linf") / expected
    assert ratio.min() > 1 - 1e-9
    assert ratio.median() < 1.03
    assert ratio.max() < 1.2  # tanh is slow to reach an end


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_relu_network_on_a_grid(targeted):
    network, inputs = relu_network(), random_images(24, 1, 1, 2)
    labels = network(inputs).argmax(1)
    targets = (labels + 1) % 3
    nearest = grid_norms(
        network, inputs, lambda got: got == targets[:, None] if targeted else got != labels[:, None], "linf"
    )
    attacked = carlini_wagner_linf(network, inputs, targets if targeted else labels, targeted=targeted, **OPTIONS)
    success = (network(attacked).argmax(1) == targets) if targeted else (network(attacked).argmax(1) != labels)
    sizes = norms(attacked - inputs, "linf")[success]
    assert success.float().mean() > 0.8
    assert (sizes / nearest[success] < 1.05).float().mean() > 0.8
    assert (sizes > nearest[success] - 2 / 800).all()


@pytest.mark.slow
def test_more_attempts_come_closer():
    """Each attempt starts from the best image so far: norms never grow with their number."""
    model, inputs = linear_model(3, 48), random_images(8, 3, 4, 4)
    labels = model(inputs).argmax(1)
    sizes = [
        norms(carlini_wagner_linf(model, inputs, labels, steps=40, search_steps=number) - inputs, "linf")
        for number in (1, 4, 12)
    ]
    sizes = [size.masked_fill(size == 0, torch.inf) for size in sizes]
    assert (sizes[1] <= sizes[0]).all()
    assert (sizes[2] <= sizes[1]).all()
    assert sizes[2].median() < 0.95 * sizes[0].median()


def test_errors():
    def call(**change):
        carlini_wagner_linf(linear_model(2, 4), random_images(2, 1, 2, 2), torch.tensor([0, 1]), **change)

    check_refusals(
        call,
        [
            ({"search_steps": 0}, "search_steps: expected an integer of at least 1, got 0"),
            ({"initial_const": -1.0}, "initial_const: expected a finite number of at least 0, got -1"),
            ({"step_size": float("nan")}, "step_size: expected a finite number of at least 0, got nan"),
            ({"confidence": -1.0}, "confidence: expected a finite number of at least 0, got -1"),
            ({"decrease_factor": 1.5}, r"decrease_factor: expected a number in \[0, 1\], got 1.5"),
        ],
    )
