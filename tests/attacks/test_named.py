"""Every name builds an attack that runs; the names mean what the paper means."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from smoothed.attacks import ATTACKS, EVALUATION_ATTACKS, expected_logits, expected_loss, named_attack, pgd
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, drawing, inject
from smoothed.randomness import Fresh, seeded

EPS = 8 / 255


@pytest.mark.parametrize("name", ATTACKS)
def test_every_name_raises_the_loss_within_its_budget(name, network, images, labels, generator):
    attack = named_attack(name, eps=EPS, steps=4, num_samples=2)
    attacked = attack(network, images, labels, generator)
    assert (attacked - images).abs().max() <= (3 if name == "nfgsm" else 1) * EPS + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    clean, after = (functional.cross_entropy(network(at), labels) for at in (images, attacked))
    assert after > clean


@pytest.mark.parametrize("name", ATTACKS)
def test_the_generator_decides(name, network, images, labels):
    attack = named_attack(name, eps=EPS, steps=2, num_samples=2)
    before = torch.get_rng_state()
    first, second = (attack(network, images, labels, generator=seeded(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["epgd", "epgd-loss", "smoothadv"])
def test_one_sample_on_a_deterministic_model_is_pgd(name, network, images, labels):
    one, plain = named_attack(name, eps=EPS, steps=5, num_samples=1), named_attack("pgd", eps=EPS, steps=5)
    assert_close(one(network, images, labels, seeded(1)), plain(network, images, labels, seeded(1)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        # eq. 25: minus the log of the mean softmax, written out
        ("epgd", lambda model, x, y: -sum(model(x).softmax(1) for _ in range(3)).div(3)[range(len(x)), y].log()),
        ("epgd-loss", expected_loss(3)),
        ("smoothadv", expected_logits(3)),
    ],
)
def test_names_mean_their_expectation(name, objective, network, images, labels):
    inject(network, weights=PNI())
    results = []
    for attack in (
        lambda: named_attack(name, eps=EPS, steps=3, num_samples=3)(network, images, labels, seeded(1)),
        lambda: pgd(network, images, labels, eps=EPS, steps=3, objective=objective, generator=seeded(1)),
    ):
        with drawing(network, Fresh(seeded(2))):
            results.append(attack())
    # Gradients that almost vanish may round to either sign.
    assert ((results[0] - results[1]).abs() > 1e-6).float().mean() < 0.005


def test_evaluation_attacks_stay_in_the_ball():
    assert set(ATTACKS) - set(EVALUATION_ATTACKS) == {"nfgsm"}


def test_unknown_name():
    with pytest.raises(ArgumentError, match=r"attack: expected one of fgsm, nfgsm, pgd, .*, got 'cw'"):
        named_attack("cw", eps=EPS)
