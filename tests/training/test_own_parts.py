"""Networks and attacks of one's own: what is refused before the first step, and how attacks are called."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.attacks import nfgsm, pgd
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject
from smoothed.training.own_parts import check_own_network, own_attack

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


def three(model, inputs, labels):
    del model, labels
    return 1 - inputs


def four(model, inputs, labels, random):
    return three(model, inputs, labels) + (0 if random is None else torch.rand(1, generator=random))


def by_name(model, inputs, labels, *, generator=None, shift=0.0):
    return four(model, inputs, labels, generator) + shift


@pytest.mark.parametrize(
    ("attack", "expected"), [(three, 0), (four, 1), (by_name, 1), (partial(by_name, shift=0.5), 1.5)]
)
def test_attacks_of_any_signature(attack, expected, images, labels, generator):
    state = generator.get_state()
    drawn = torch.rand(1, generator=generator) if expected else torch.zeros(1)
    generator.set_state(state)
    found = own_attack(attack)(None, images, labels, generator)
    assert torch.equal(found, 1 - images + (drawn + (expected - 1) if expected else 0))


def test_the_packages_attacks_are_attacks_of_ones_own(network, images, labels, generator):
    for attack in (partial(pgd, eps=0.1, steps=2), partial(nfgsm, eps=0.1)):
        state = generator.get_state()
        found = own_attack(attack)(network, images, labels, generator)
        assert torch.equal(found, attack(network, images, labels, generator=generator.set_state(state)))


def nothing(model, inputs, labels):
    del model, inputs, labels


def first(model, inputs, labels):
    return three(model, inputs, labels)[:1]


def test_what_is_no_attack(network, images, labels):
    refused = [
        ({"attack": "pgd"}, "attack: expected a function .*, got 'pgd'"),
        ({"attack": nn.Flatten}, "attack: expected a function .*, got <class"),
        ({"attack": lambda model: model}, r"attack: expected a function .*, got <lambda>\(model\)"),
        ({"attack": nothing}, "images of shape .* from nothing, got an object of type NoneType"),
        ({"attack": first}, r"images of shape .* from first, got shape \(1, 3, 8, 8\)"),
    ]
    check_refusals(lambda attack: own_attack(attack)(network, images, labels), refused)


def test_an_attack_goes_with_a_recipe_that_attacks(image_set, network, make_run):
    settings = {"architecture": "custom", "injection": "none"}
    with pytest.raises(
        ArgumentError, match="attack: expected an attack of your own with attack custom, got none; pass"
    ):
        make_run(image_set(8), network, **settings, attack="custom")
