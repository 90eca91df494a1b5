"""Networks of one's own: what is refused before the first step."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject
from smoothed.training.own_parts import check_own_network

FLAT = 3 * 8 * 8


def flat(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


class Wrapped(nn.Module):
    """A network whose output is an object, as those of transformers."""

    def __init__(self, inner, key):
        super().__init__()
        self.inner, self.key = inner, key

    def forward(self, inputs):
        return SimpleNamespace(**{self.key: self.inner(inputs)})


def test_networks(image_set):
    data = image_set(12)  # four classes
    cases = [
        (flat(nn.Linear(FLAT, 3)), "at least 4 outputs, one for each class of random, got 3; give the network a last"),
        (flat(nn.Linear(FLAT, 4)).half(), r"weights in float32, got torch.float16; call network.float\(\)"),
        (flat(nn.Linear(FLAT, 4), nn.Softmax(1)), "expected logits, got probabilities"),
        (nn.Conv2d(1, 4, 3), "inputs: expected the number of channels that the model accepts, got shape"),
        (flat(nn.Linear(5, 4)), r"a network for images of shape \(3, 8, 8\), got RuntimeError: mat1 and mat2"),
        (
            nn.Conv2d(3, 4, 3),
            r"float logits of shape \(12, K\), K >= 2, from the model, got torch.float32 \(12, 4, 6, 6\)",
        ),
        (Wrapped(flat(nn.Linear(FLAT, 4)), "scores"), "float logits of shape .* got an object of type SimpleNamespace"),
    ]
    check_refusals(lambda network: check_own_network(network, data), [({"network": n}, m) for n, m in cases])
    for network in (flat(nn.Linear(FLAT, 4)), flat(nn.Linear(FLAT, 9)), Wrapped(flat(nn.Linear(FLAT, 4)), "logits")):
        check_own_network(network, data)


def test_a_network_is_left_as_it_was(image_set, network):
    inject(network, weights=PNI())
    network.train()[1].eval()
    modes = [module.training for module in network.modules()]
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.random.get_rng_state()
    check_own_network(network, image_set(12))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_attack_goes_with_a_recipe_that_attacks(image_set, network, make_run):
    settings = {"architecture": "custom", "injection": "none"}
    with pytest.raises(
        ArgumentError, match="attack: expected an attack of your own with attack custom, got none; pass"
    ):
        make_run(image_set(8), network, **settings, attack="custom")
