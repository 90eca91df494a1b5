"""An substitute_attack of linear targets, whose best attack is known: it comes near it without a gradient of theirs."""

import inspect

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.attacks import Queries, named_attack, pgd, substitute_attack, train_substitute, transfer
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded

WEIGHT = torch.randn(3, 12, generator=seeded(9))
EPS = 0.15


def target(images):
    """Three classes, none of them rare."""
    return 3 * (images - 0.5).flatten(1) @ WEIGHT.T


def asked(images):
    """The target as one that only answers: no gradient comes back."""
    return target(images.detach())


def attack(model, inputs, labels, generator=None):
    return pgd(model, inputs, labels, eps=EPS, step_size=EPS / 4, steps=7, generator=generator)


def accuracy(images, labels):
    return (target(images).argmax(1) == labels).double().mean()


@pytest.fixture
def seeds(generator):
    return torch.rand(60, 3, 2, 2, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("sees", ["labels", "logits"])
def test_it_lowers_accuracy_nearly_as_far_as_the_targets_own_gradient(sees, seeds):
    """By name, with the network that it brings itself: 60 images, 32 answers each. Random signs do far less."""
    labels = target(seeds).argmax(1)
    by_name = named_attack("substitute", eps=EPS, eot_samples=1, sees=sees)
    made = by_name(asked, seeds, labels, seeded(1))
    assert (made - seeds).abs().max() <= EPS + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    best = accuracy(attack(target, seeds, labels, seeded(1)), labels)
    signs = accuracy((seeds + EPS * torch.randn(seeds.shape, generator=seeded(2)).sign()).clamp(0, 1), labels)
    assert accuracy(made, labels) < best + 0.25 * (1 - best)
    assert accuracy(made, labels) < signs - 0.2


def test_targeted(seeds):
    wanted = (target(seeds).argmax(1) + 1) % 3

    def towards(model, inputs, labels, generator=None):
        return pgd(model, inputs, labels, eps=EPS, step_size=EPS / 4, steps=7, targeted=True, generator=generator)

    made = substitute_attack(asked, seeds, wanted, attack=towards, rounds=4, generator=seeded(1))
    best = accuracy(towards(target, seeds, wanted, seeded(1)), wanted)
    assert accuracy(made, wanted) > 0.7 * best > 0


def test_it_is_a_substitute_and_a_transfer(seeds):
    """With the same network and the same seeds, which the generator gives first to the one and then to the other."""
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    labels = target(seeds).argmax(1)
    options = {"rounds": 3, "epochs": 2}
    made = substitute_attack(asked, seeds, labels, attack=attack, substitute=student, generator=seeded(5), **options)
    generator = seeded(5)
    seed = int(torch.empty(1, dtype=torch.float64).uniform_(0, 2**52, generator=generator))
    learned = train_substitute(asked, seeds, student, generator=seeded(seed), **options)
    assert torch.equal(made, transfer(target, seeds, labels, sources=learned, attack=attack, generator=generator))


@pytest.mark.parametrize(("bound", "samples", "spent"), [(None, 1, 8), (5, 1, 5), (5, 2, 4), (3, 3, 3)])
def test_queries_stay_within_their_bound(bound, samples, spent, seeds):
    queries = Queries(asked, max_queries=bound)
    labels = target(seeds).argmax(1)
    substitute_attack(
        queries, seeds, labels, attack=attack, rounds=4, epochs=1, eot_samples=samples, generator=seeded(0)
    )
    assert queries.spent.tolist() == [spent] * 60


def test_the_source_of_randomness_decides_and_nothing_else_is_touched(network, images, labels):
    before = torch.get_rng_state()
    network.train()
    for source in (seeded, RowGenerator):
        first, again, other = (
            substitute_attack(network, images, labels, attack=attack, rounds=2, epochs=1, generator=source(seed))
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_errors():
    def call(**change):
        good = {"model": target, "inputs": torch.full((2, 3, 2, 2), 0.5), "labels": torch.zeros(2, dtype=torch.int64)}
        inspect.unwrap(substitute_attack)(**{**good, "attack": attack, **change})

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 2, 2), 2.0)}, "inputs: expected images in"),
            ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels: expected int64 classes of shape \(2,\)"),
            ({"rounds": 0}, "rounds: expected an integer of at least 1, got 0"),
            ({"eot_samples": 0}, "eot_samples: expected an integer of at least 1, got 0"),
            (
                {"model": Queries(target, max_queries=1), "eot_samples": 2},
                "max_queries: expected at least eot_samples, 2",
            ),
        ],
    )
