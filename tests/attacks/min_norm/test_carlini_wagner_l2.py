"""Carlini and Wagner's L2 attack against closed forms, a grid, and what its search must do with c."""

import pytest
import torch

from nearest import grid_norms, linear_model, linear_norms, random_images, relu_network
from refusing import check_refusals
from smoothed.attacks.min_norm.carlini_wagner_l2 import carlini_wagner_l2
from smoothed.attacks.min_norm.minimum import norms

OPTIONS = {"steps": 100, "binary_search_steps": 6, "initial_const": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_linear_inside_the_box(targeted):
    """Half-way to the border nothing reaches 0 or 1: the distance to the nearest of the hyperplanes."""
    model = linear_model(2 if targeted else 4, 12)
    inputs = random_images(16, 3, 2, 2, low=0.4, high=0.6)
    labels = model(inputs).argmax(1)
    expected = linear_norms(model, inputs, labels, "l2", box=False)
    attacked = carlini_wagner_l2(model, inputs, 1 - labels if targeted else labels, targeted=targeted, **OPTIONS)
    ratio = norms(attacked - inputs, "l2") / expected
    assert (model(attacked).argmax(1) != labels).all()
    assert ratio.min() > 1
    assert ratio.max() < 1.03


@pytest.mark.slow
def test_linear_at_the_box():
    """Where pixels end at 0 or 1: the nearest point of the half-space in the box, by bisection."""
    model, inputs = linear_model(3, 48), random_images(16, 3, 4, 4)
    labels = model(inputs).argmax(1)
    expected = linear_norms(model, inputs, labels, "l2")
    assert (expected > 1.001 * linear_norms(model, inputs, labels, "l2", box=False)).float().mean() > 0.3
    ratio = norms(carlini_wagner_l2(model, inputs, labels, **OPTIONS) - inputs, "l2") / expected
    assert ratio.min() > 1 - 1e-9
    assert ratio.median() < 1.02
    assert ratio.max() < 1.15  # tanh is slow to reach an end


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_relu_network_on_a_grid(targeted):
    network, inputs = relu_network(), random_images(24, 1, 1, 2)
    labels = network(inputs).argmax(1)
    targets = (labels + 1) % 3
    nearest = grid_norms(
        network, inputs, lambda got: got == targets[:, None] if targeted else got != labels[:, None], "l2"
    )
    attacked = carlini_wagner_l2(network, inputs, targets if targeted else labels, targeted=targeted, **OPTIONS)
    success = (network(attacked).argmax(1) == targets) if targeted else (network(attacked).argmax(1) != labels)
    ratio = norms(attacked - inputs, "l2")[success] / nearest[success]
    assert success.float().mean() > 0.8
    assert (ratio < 1.05).float().mean() > 0.8
    # The grid's own error: its nearest point lies up to a cell's diagonal beyond the border.
    assert (norms(attacked - inputs, "l2")[success] > nearest[success] - 2 / 800).all()


@pytest.mark.slow
def test_confidence_is_exceeded_and_costs_distance():
    """On a linear model of two classes the distance grows by confidence / ||w||."""
    model, inputs = linear_model(2, 12), random_images(8, 3, 2, 2, low=0.45, high=0.55)
    labels = model(inputs).argmax(1)
    attacked = carlini_wagner_l2(model, inputs, labels, confidence=0.1, **OPTIONS)
    logits = model(attacked)
    assert (logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None]) > 0.1).all()
    weight = model[1].weight.detach()
    further = linear_norms(model, inputs, labels, "l2", box=False) + 0.1 / (weight[0] - weight[1]).norm()
    assert (norms(attacked - inputs, "l2") / further).max() < 1.02


@pytest.mark.slow
def test_the_search_raises_c_until_it_suffices():
    """One attempt at too small a c finds nothing; further ones get there by tens, and then come closer."""
    model, inputs = linear_model(3, 12), random_images(8, 3, 2, 2, low=0.4, high=0.6)
    labels = model(inputs).argmax(1)
    sizes, options = [], {"steps": 60, "initial_const": 1e-4, "step_size": 0.02}
    for binary_search_steps in (1, 7, 10):
        attacked = carlini_wagner_l2(model, inputs, labels, binary_search_steps=binary_search_steps, **options)
        sizes.append(norms(attacked - inputs, "l2"))
    assert (sizes[0] == 0).all()
    assert (sizes[1] > 0).all()
    assert (sizes[2] <= sizes[1]).all()
    assert sizes[2].mean() < sizes[1].mean()


def test_errors():
    def call(**change):
        carlini_wagner_l2(linear_model(2, 4), random_images(2, 1, 2, 2), torch.tensor([0, 1]), **change)

    check_refusals(
        call,
        [
            ({"binary_search_steps": 0}, "binary_search_steps: expected an integer of at least 1, got 0"),
            ({"initial_const": -1.0}, "initial_const: expected a finite number of at least 0, got -1"),
            ({"step_size": float("nan")}, "step_size: expected a finite number of at least 0, got nan"),
            ({"confidence": -1.0}, "confidence: expected a finite number of at least 0, got -1"),
        ],
    )
