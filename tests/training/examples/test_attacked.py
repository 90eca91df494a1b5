"""Examples of an attack that forgets: how its radius, its steps and its draws follow the run."""

import pytest
import torch
from torch import nn

from smoothed.attacks import TRAINING_ATTACKS, pgd
from smoothed.rng.rows import RowGenerator
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import (
    EXAMPLES,
    AdaptiveExamples,
    AttackedExamples,
    CleanExamples,
    DynamicExamples,
    FreeExamples,
    LearnedExamples,
    NoisyExamples,
    PriorExamples,
    VoronoiBallExamples,
    VoronoiExamples,
    WorstCropExamples,
    WorstNoisyExamples,
    make_examples,
)
from smoothed.training.examples.examples import linear_warmup, scheduled_attack

EPS = 0.08


@pytest.fixture
def linear(generator):
    """A linear network, (N, 3, 4, 4) to four logits, that counts its passes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    with torch.no_grad():
        model[1].weight.normal_(generator=generator)
    model.calls = 0

    def count(*_):
        model.calls += 1

    model.register_forward_hook(count)
    return model


@pytest.fixture
def batch(generator):
    """Images that no attack of these tests takes out of [0, 1], and labels."""
    return 0.3 + 0.4 * torch.rand(70, 3, 4, 4, generator=generator), torch.randint(4, (70,), generator=generator)


def options(**changes):
    return TrainingConfig(**{"attack": "pgd", "eps": EPS, **changes})


@pytest.mark.parametrize(
    ("progress", "warmup", "share"),
    [(0.0, 0.0, 1), (0.7, 0.0, 1), (0.0, 0.5, 0), (0.1, 0.5, 0.2), (0.5, 0.5, 1), (0.9, 0.5, 1), (0.25, 1.0, 0.25)],
)
def test_linear_warmup(progress, warmup, share):
    assert linear_warmup(8.0, progress, warmup) == pytest.approx(8.0 * share)


def test_every_name_makes_examples():
    kinds = {name: type(make_examples(options(attack=name), 10)) for name in (*TRAINING_ATTACKS, *EXAMPLES)}
    assert kinds == dict.fromkeys(TRAINING_ATTACKS, AttackedExamples) | {
        "none": CleanExamples,
        "free": FreeExamples,
        "iaat": AdaptiveExamples,
        "noisy": NoisyExamples,
        "maxup": WorstNoisyExamples,
        "maxup-crop": WorstCropExamples,
        "dynamic": DynamicExamples,
        "fgsm-pgi": PriorExamples,
        "voronoi": VoronoiExamples,
        "voronoi-ball": VoronoiBallExamples,
        "l2l": LearnedExamples,
        "l2l-2": LearnedExamples,
    }


def test_clean_images_stand_in(linear, batch, make_part):
    clean = CleanExamples(options(attack="none"), 70)
    assert torch.equal(clean.make(linear, make_part(*batch)), batch[0])
    clean.learn(make_part(*batch), batch[0], lambda rows: rows)
    clean.restore({})
    assert clean.state() == {}
    assert linear.calls == 0


@pytest.mark.parametrize(("progress", "radius"), [(0.0, 0.0), (0.05, 0.02), (0.2, EPS), (0.8, EPS)])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_the_radius_grows(linear, batch, make_part, attack, progress, radius):
    """A linear network's images reach it: 20 steps of eps / 4 cross the ball."""
    examples = AttackedExamples(options(attack=attack, eps_warmup=0.2, attack_steps=20), 70)
    part = make_part(*batch, progress=progress)
    moved = (examples.make(linear, part) - part.clean).flatten(1)
    assert moved.abs().amax(1).tolist() == pytest.approx([radius] * 70, abs=1e-6)


@pytest.mark.parametrize(("progress", "steps"), [(0.0, 1), (0.04, 2), (0.1, 5), (0.2, 10), (0.8, 10)])
def test_the_steps_grow(linear, batch, make_part, progress, steps):
    AttackedExamples(options(attack_steps=10, steps_warmup=0.2), 70).make(linear, make_part(*batch, progress=progress))
    assert linear.calls == steps


@pytest.mark.parametrize(("attack", "calls"), [("epgd", 6), ("epgd-loss", 6), ("smoothadv", 6), ("pgd", 2), ("kl", 3)])
def test_the_draws_of_an_expectation(linear, batch, make_part, attack, calls):
    """Two steps of three draws; `kl` asks once for the clean answer."""
    AttackedExamples(options(attack=attack, attack_steps=2, eot_samples=3), 70).make(linear, make_part(*batch))
    assert linear.calls == calls


def test_the_norm(linear, batch, make_part):
    examples = AttackedExamples(options(norm="l2", eps=0.5, attack_steps=20), 70)
    part = make_part(*batch)
    lengths = (examples.make(linear, part) - part.clean).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([0.5] * 70, abs=1e-5)


def test_a_radius_for_each_image_takes_the_place_of_the_runs(linear, batch):
    """And PGD takes the place of the attack, whatever its name."""
    radii = torch.linspace(0, EPS, 70)
    attack = scheduled_attack(options(attack="iaat", attack_steps=20, eps_warmup=1.0), 0.5, eps=radii)
    moved = (attack(linear, *batch, RowGenerator(0)) - batch[0]).flatten(1)
    assert moved.abs().amax(1).tolist() == pytest.approx(radii.tolist(), abs=1e-6)


@pytest.mark.parametrize("attack", ["pgd", "pgd-accumulated", "fgsm-rs", "nfgsm", "kl"])
def test_the_starts_follow_the_images(linear, batch, make_part, attack):
    """An image is attacked alike wherever its batch is cut."""
    examples, (images, labels) = AttackedExamples(options(attack=attack, attack_steps=2), 70), batch
    whole = examples.make(linear, make_part(images, labels))
    parts = [make_part(images[:9], labels[:9], total=70), make_part(images[9:], labels[9:], first=9)]
    assert torch.allclose(torch.cat([examples.make(linear, part) for part in parts]), whole, atol=1e-6)
    other = examples.make(linear, make_part(images, labels, seed=1))
    assert not torch.allclose(other, whole, atol=1e-6)


def test_ones_own_attack(linear, batch, make_part):
    def darker(model, inputs, labels, generator=None):
        assert model is linear
        assert isinstance(generator, RowGenerator)
        assert torch.equal(labels, batch[1])
        return inputs - 0.1

    examples = AttackedExamples(options(eps_warmup=1.0), 70, darker)
    assert torch.equal(examples.make(linear, make_part(*batch)), batch[0] - 0.1)


@pytest.mark.parametrize("share", [0.25, 0.1])
def test_it_is_the_named_attack(linear, batch, make_part, share):
    """With the configuration's radius, steps and their length, and the part's own randomness."""
    made = AttackedExamples(options(attack_steps=3, relative_step_size=share), 70).make(
        linear, make_part(*batch, seed=5)
    )
    expected = pgd(linear, *batch, eps=EPS, step_size=share * EPS, steps=3, generator=RowGenerator(5))
    assert torch.equal(made, expected)
