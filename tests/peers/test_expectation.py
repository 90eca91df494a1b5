"""`EOT` as the model of torchattacks' and foolbox's PGD, against this package's PGD with the same draws."""

import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks import expected_probabilities, pgd
from smoothed.attacks.eot import EOT
from smoothed.injection import CNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS, STEP, STEPS, DRAWS = 8 / 255, 2 / 255, 5, 12


@pytest.fixture
def noisy(network):
    inject(network, weights=CNI(initial_variance=0.05))
    return network


@pytest.fixture
def expected(noisy, images, labels):
    """EPGD (eq. 25) from the inputs themselves, whose draws the peers are to meet."""
    with noise_from(noisy, Fresh(seeded(3))):
        objective = expected_probabilities(DRAWS)
        options = {"eps": EPS, "step_size": STEP, "steps": STEPS, "random_start": False}
        return pgd(noisy, images, labels, objective=objective, **options)


@pytest.mark.parametrize("held", [1, DRAWS], ids=["replayed", "held"])
def test_torchattacks(held, noisy, images, labels, expected):
    torchattacks = pytest.importorskip("torchattacks")
    attack = torchattacks.PGD(EOT(noisy, DRAWS, max_stored_draws=held), EPS, STEP, STEPS, random_start=False)
    with noise_from(noisy, Fresh(seeded(3))):
        attacked = attack(images, labels)
    _close(attacked, expected)


@pytest.mark.parametrize("held", [1, DRAWS], ids=["replayed", "held"])
def test_foolbox(held, noisy, images, labels, expected):
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(EOT(noisy, DRAWS, max_stored_draws=held), bounds=(0, 1))
    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=STEP, steps=STEPS, random_start=False)
    with noise_from(noisy, Fresh(seeded(3))):
        attacked = attack.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=EPS)
    _close(attacked, expected)


def _close(attacked, expected):
    """Gradients that almost vanish may round to either sign."""
    assert ((attacked - expected).abs() > 1e-6).float().mean() < 0.005
    assert_close(attacked, expected, rtol=0, atol=2 * EPS)
    assert torch.isfinite(attacked).all()
