"""Attacks of one's own: how they are called, and what is refused."""

from functools import partial

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.attacks import nfgsm, pgd
from smoothed.attacks.own import as_attack


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
    found = as_attack(attack)(None, images, labels, generator)
    assert torch.equal(found, 1 - images + (drawn + (expected - 1) if expected else 0))


def test_the_packages_attacks_are_attacks_of_ones_own(network, images, labels, generator):
    for attack in (partial(pgd, eps=0.1, steps=2), partial(nfgsm, eps=0.1)):
        state = generator.get_state()
        found = as_attack(attack)(network, images, labels, generator)
        assert torch.equal(found, attack(network, images, labels, generator=generator.set_state(state)))


def nothing(model, inputs, labels):
    del model, inputs, labels


def first(model, inputs, labels):
    return three(model, inputs, labels)[:1]


def as_bytes(model, inputs, labels):
    return (three(model, inputs, labels) * 255).byte()


def test_what_is_no_attack(network, images, labels):
    refused = [
        ({"attack": "pgd"}, "attack: expected a function .*, got 'pgd'"),
        ({"attack": nn.Flatten}, "attack: expected a function .*, got <class"),
        ({"attack": lambda model: model}, r"attack: expected a function .*, got <lambda>\(model\)"),
        ({"attack": nothing}, "attack: expected float images of shape .*, got an object of type NoneType from nothing"),
        ({"attack": first}, r"float images of shape .*, got torch.float32 \(1, 3, 8, 8\) from first"),
        ({"attack": as_bytes}, r"float images of shape .*, got torch.uint8 \(16, 3, 8, 8\) from as_bytes"),
    ]
    check_refusals(lambda attack: as_attack(attack)(network, images, labels), refused)


def test_results_of_evaluations_are_in_range(network, images, labels):
    """Rounding errors are clipped; training examples may leave the range."""
    images[0, 0, 0, 0] = 0
    moved = partial(by_name, shift=2e-7)
    assert as_attack(moved)(network, images, labels).max() > 1
    assert as_attack(moved, in_range=True)(network, images, labels).max() == 1
    refused = [
        ({"shift": 1.0}, r"attack: expected images in \[0, 1\], got values in .* from by_name; clip them"),
        ({"shift": float("nan")}, r"attack: expected images in \[0, 1\], got NaN from by_name"),
    ]
    check_refusals(
        lambda shift: as_attack(partial(by_name, shift=shift), in_range=True)(network, images, labels), refused
    )
