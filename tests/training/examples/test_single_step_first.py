"""N-FGSM before the run's own attack: which of the two a step uses, and what becomes of the state of the second."""

import pytest
import torch
from torch import nn

from smoothed.attacks import nfgsm, pgd
from smoothed.errors import ArgumentError
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import AdaptiveExamples, AttackedExamples, SingleStepFirst

EPS = 0.08


@pytest.fixture
def network(generator):
    """A network with a hidden layer, whose gradient depends on the image, and a batch of 12 images for it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 4))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    images = 0.3 + 0.4 * torch.rand(12, 3, 4, 4, generator=generator)
    return model, images, torch.randint(4, (12,), generator=generator)


def options(**changes):
    return TrainingConfig(**{"attack": "pgd", "eps": EPS, "nfgsm_warmup": 0.6, **changes})


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.599])
def test_the_first_part_of_the_run_uses_nfgsm(network, make_part, progress):
    model, images, labels = network
    settings = options()
    part = make_part(images, labels, progress=progress)
    made = SingleStepFirst(settings, AttackedExamples(settings, 12)).make(model, part)
    expected = nfgsm(model, images, labels, eps=EPS, generator=make_part(images, labels).row_generator)
    assert torch.equal(made, expected)
    # N-FGSM leaves the ball of PGD, so the two cannot be confused.
    assert (made - images).abs().max() > 1.5 * EPS


@pytest.mark.parametrize("progress", [0.6, 0.8, 1.0])
def test_the_rest_uses_the_attack_of_the_run(network, make_part, progress):
    model, images, labels = network
    settings = options()
    part = make_part(images, labels, progress=progress)
    made = SingleStepFirst(settings, AttackedExamples(settings, 12)).make(model, part)
    start = make_part(images, labels).row_generator
    expected = pgd(model, images, labels, eps=EPS, step_size=EPS / 4, steps=7, generator=start)
    assert torch.equal(made, expected)


def test_the_radius_of_nfgsm_grows_too(network, make_part):
    model, images, labels = network
    settings = options(eps_warmup=0.4)
    examples = SingleStepFirst(settings, AttackedExamples(settings, 12))
    made = examples.make(model, make_part(images, labels, progress=0.1))
    expected = nfgsm(model, images, labels, eps=EPS / 4, generator=make_part(images, labels).row_generator)
    torch.testing.assert_close(made, expected)


def test_the_state_of_the_attack_changes_after_its_first_examples(network, make_part):
    model, images, labels = network
    settings = options(attack="iaat", attack_steps=1)
    after = AdaptiveExamples(settings, 12)
    examples = SingleStepFirst(settings, after)
    for progress, changes in ((0.5, False), (0.7, True)):
        before = after.state()["radii"].clone()
        part = make_part(images, labels, progress=progress, epoch=10)
        examples.learn(part, examples.make(model, part), lambda rows: rows)
        assert torch.equal(after.state()["radii"], before) is not changes
    assert examples.state() is not None
    assert torch.equal(examples.state()["radii"], after.radii)
    examples.restore({"radii": torch.zeros(12)})
    assert after.radii.count_nonzero() == 0


@pytest.mark.parametrize(
    "settings", [{"attack": "free"}, {"attack": "none"}, {"attack": "maxup"}, {"norm": "l2", "eps": 0.5}]
)
def test_attacks_that_nfgsm_cannot_stand_in_for(settings):
    with pytest.raises(ArgumentError, match=r"^nfgsm_warmup: expected 0 with attack .* cannot stand in for, got 0\.6$"):
        options(**settings)
