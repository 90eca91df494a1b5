"""Carlini and Wagner's L0 attack against closed forms, a search of every pair of pixels, and its manners."""

from itertools import combinations

import pytest
import torch

from nearest import linear_model, linear_norms, random_images, relu_network
from refusing import check_refusals
from smoothed.attacks.min_norm.carlini_wagner_l0 import carlini_wagner_l0
from smoothed.attacks.min_norm.minimum import norms

OPTIONS = {"steps": 40, "step_size": 0.2, "initial_const": 0.1, "largest_const": 1e3}


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("spread", [0.1, 0.5], ids=["middle", "anywhere"])
def test_linear(targeted, spread):
    """The best positions at their best ends, sorted; the attack needs at most one more, mostly none."""
    model = linear_model(2 if targeted else 3, 48)
    inputs = random_images(8, 3, 4, 4, low=0.5 - spread, high=0.5 + spread)
    labels = model(inputs).argmax(1)
    fewest = linear_norms(model, inputs, labels, "l0")
    attacked = carlini_wagner_l0(model, inputs, 1 - labels if targeted else labels, targeted=targeted, **OPTIONS)
    sizes = norms(attacked - inputs, "l0")
    assert (model(attacked).argmax(1) != labels).all()
    assert (sizes >= fewest).all()
    assert (sizes <= fewest + 1).all()
    assert (sizes == fewest).float().mean() > 0.7


def test_a_pixel_is_a_position():
    """One position decides by its three channels together: the other positions are untouched, bit for bit."""

    def model(inputs):
        score = inputs[:, :, 1, 0].sum(1) - 2.5 + 0.01 * inputs.sum((1, 2, 3))
        return torch.stack([-score, score], 1)

    inputs = random_images(4, 3, 3, 3, high=0.5)
    attacked = carlini_wagner_l0(model, inputs, torch.zeros(4, dtype=torch.int64), **OPTIONS)
    changed = (attacked != inputs).any(1)
    assert changed.flatten(1).sum(1).tolist() == [1] * 4
    assert changed[:, 1, 0].all()


def test_relu_network_on_lines():
    """Of two pixels: one suffices where a line through the input, tried point by point, meets another class."""
    network, inputs = relu_network(), random_images(24, 1, 1, 2)
    labels = network(inputs).argmax(1)
    one = torch.zeros(24, dtype=torch.bool)
    for pixel in (0, 1):
        for value in torch.linspace(0, 1, 401, dtype=torch.float64):
            moved = inputs.clone()
            moved[..., pixel] = value
            one |= network(moved).argmax(1) != labels
    attacked = carlini_wagner_l0(network, inputs, labels, **OPTIONS)
    success = network(attacked).argmax(1) != labels
    sizes = norms(attacked - inputs, "l0")[success]
    assert success.float().mean() > 0.8
    assert (sizes >= torch.where(one, 1, 2)[success]).all()
    assert (sizes == torch.where(one, 1, 2)[success]).float().mean() > 0.8


def test_interacting_pixels():
    """Two positions work only together: every pair tried at its ends says that two is the least."""

    def model(inputs):
        score = (inputs[:, 0, 0, 0] - 0.4).relu() * (inputs[:, 0, 2, 2] - 0.4).relu() + 0.01 * inputs.mean((1, 2, 3))
        return torch.stack([score.new_full((len(score),), 0.1), score], 1)

    inputs = random_images(4, 1, 3, 3, low=0.42, high=0.5)
    places = [(row, column) for row in range(3) for column in range(3)]
    pairs = []
    for pair in combinations(places, 2):
        moved = inputs.clone()
        for row, column in pair:
            moved[:, :, row, column] = 1
        pairs.append(bool((model(moved).argmax(1) == 1).all()))
    assert sum(pairs) == 1
    attacked = carlini_wagner_l0(model, inputs, torch.zeros(4, dtype=torch.int64), **OPTIONS)
    assert norms(attacked - inputs, "l0").tolist() == [2] * 4


def test_errors():
    def call(**change):
        carlini_wagner_l0(linear_model(2, 4), random_images(2, 1, 2, 2), torch.tensor([0, 1]), **change)

    check_refusals(
        call,
        [
            ({"search_steps": 0}, "search_steps: expected an integer of at least 1, got 0"),
            ({"initial_const": -1.0}, "initial_const: expected a finite number of at least 0, got -1"),
            ({"largest_const": -1.0}, "largest_const: expected a finite number of at least 0, got -1"),
            ({"step_size": float("nan")}, "step_size: expected a finite number of at least 0, got nan"),
            ({"confidence": -1.0}, "confidence: expected a finite number of at least 0, got -1"),
        ],
    )
