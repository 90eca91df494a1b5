"""Every name builds an attack that runs; the names mean what the paper means."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from smoothed.attacks import (
    ATTACKS,
    EVALUATION_ATTACKS,
    SINGLE_DRAW_ATTACKS,
    SINGLE_STEP_ATTACKS,
    TRAINING_ATTACKS,
    divergence_pgd,
    expected_logits,
    expected_loss,
    fgsm_random_start,
    named_attack,
    nfgsm,
    pgd,
)
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS = 8 / 255


def configured(name, network, **budget):
    """The attack of a small budget, with `network` as the source of transfer."""
    few = {"eps": EPS, "steps": 4, "eot_samples": 2, "max_queries": 60, "sources": [network]}
    return named_attack(name, **{**few, **budget})


def sizes(images, attacked, norm):
    """The norm of each perturbation: the largest change, the length, or the number of pixels changed."""
    delta = (attacked - images).flatten(2)
    if norm == "l0":
        return (delta != 0).any(1).sum(1)
    return delta.flatten(1).norm(dim=1) if norm == "l2" else delta.abs().amax((1, 2))


@pytest.mark.parametrize("name", ATTACKS)
def test_every_name_raises_the_loss_within_its_budget(name, network, images, generator):
    """The loss of the network's own answer, which `kl` moves away from."""
    labels = network(images).argmax(1)
    norm = ATTACKS[name].norm or "linf"
    eps = {"linf": EPS, "l2": 0.5, "l0": 3}[norm]
    attacked = configured(name, network, eps=eps)(network, images, labels, generator)
    assert sizes(images, attacked, norm).max() <= (3 if name == "nfgsm" else 1) * eps + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    clean, after = (functional.cross_entropy(network(at), labels) for at in (images, attacked))
    assert after > clean


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_the_generator_decides(name, network, images, labels):
    attack = configured(name, network, steps=2)
    before = torch.get_rng_state()
    first, second = (attack(network, images, labels, generator=seeded(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["epgd", "epgd-loss", "smoothadv"])
def test_one_sample_on_a_deterministic_model_is_pgd(name, network, images, labels):
    one, plain = named_attack(name, eps=EPS, steps=5, eot_samples=1), named_attack("pgd", eps=EPS, steps=5)
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
        lambda: named_attack(name, eps=EPS, steps=3, eot_samples=3)(network, images, labels, seeded(1)),
        lambda: pgd(network, images, labels, eps=EPS, steps=3, objective=objective, generator=seeded(1)),
    ):
        with noise_from(network, Fresh(seeded(2))):
            results.append(attack())
    # Gradients that almost vanish may round to either sign.
    assert ((results[0] - results[1]).abs() > 1e-6).float().mean() < 0.005


def accumulated_by_hand(network, images, labels, *, eps, steps, draws, start):
    """The attack of the paper's code: autograd adds each mean cross-entropy's gradient to those of the steps before."""
    attacked = start.clone().requires_grad_()
    for _ in range(steps):
        sum(functional.cross_entropy(network(attacked), labels) for _ in range(draws)).div(draws).backward()
        network.zero_grad()
        with torch.no_grad():
            attacked += eps / 4 * attacked.grad.sign()
            attacked.copy_((images + (attacked - images).clamp(-eps, eps)).clamp(0, 1))
    return attacked.detach()


@pytest.mark.parametrize(("name", "draws"), [("pgd-accumulated", 1), ("epgd-accumulated", 3)])
def test_accumulated_names_are_the_attack_of_the_papers_code(name, draws, network, images, labels):
    """From a uniform start in the ball, on a noisy network, in float64."""
    network, images = network.double(), images.double()
    inject(network, weights=PNI())
    start = images + torch.empty_like(images).uniform_(-EPS, EPS, generator=seeded(1))
    options = {"eps": EPS, "steps": 6}
    with noise_from(network, Fresh(seeded(2))):
        expected = accumulated_by_hand(network, images, labels, draws=draws, start=start.clamp(0, 1), **options)
    with noise_from(network, Fresh(seeded(2))):
        attacked = named_attack(name, eot_samples=draws, **options)(network, images, labels, seeded(1))
    assert_close(attacked, expected, rtol=0, atol=1e-9)
    cleared = {"pgd-accumulated": "pgd", "epgd-accumulated": "epgd-loss"}[name]
    with noise_from(network, Fresh(seeded(2))):
        other = named_attack(cleared, eot_samples=draws, **options)(network, images, labels, seeded(1))
    assert ((other - expected).abs() > EPS / 8).float().mean() > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_mi_fgsm_is_algorithm_1(norm, network, images, labels):
    """Dong et al. (2018): alpha = eps / T, from the image, decay 1, gradients divided by their L1 norms."""
    network, images = network.double(), images.double()
    eps, steps = {"linf": EPS, "l2": 0.3}[norm], 5
    attacked, total = images, 0
    for _ in range(steps):
        leaf = attacked.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(network(leaf), labels), leaf)
        total = total + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        direction = total.sign() if norm == "linf" else total / total.square().sum((1, 2, 3), keepdim=True).sqrt()
        attacked = (attacked + eps / steps * direction).clamp(0, 1)
    made = named_attack("mi-fgsm", eps=eps, steps=steps, norm=norm, relative_step_size=0.9)(network, images, labels)
    assert_close(made, attacked, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("name", "method"), [("pgd", pgd), ("kl", divergence_pgd)])
def test_norm_and_steps_reach_the_attack(name, method, norm, network, images, labels):
    attacked = named_attack(name, eps=0.3, steps=3, norm=norm)(network, images, labels, seeded(1))
    expected = method(network, images, labels, eps=0.3, steps=3, norm=norm, generator=seeded(1))
    assert torch.equal(attacked, expected)
    length = (attacked - images).flatten(1).norm(dim=1)
    assert (length > 0.31).all() if norm == "linf" else (length < 0.301).all()


@pytest.mark.parametrize(("name", "method"), [("fgsm-rs", fgsm_random_start), ("nfgsm", nfgsm)])
def test_single_steps_take_the_radius_alone(name, method, network, images, labels):
    attacked = named_attack(name, eps=EPS, steps=9)(network, images, labels, seeded(1))
    assert torch.equal(attacked, method(network, images, labels, eps=EPS, generator=seeded(1)))


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd", "epgd", "epgd-loss", "smoothadv", "pgd-accumulated", "epgd-accumulated", "mi-fgsm"]
)
def test_one_radius_an_image(name, network, images, labels):
    eps = torch.linspace(0, EPS, 16)
    attacked = named_attack(name, eps=eps, steps=8, eot_samples=2)(network, images, labels, seeded(1))
    distance = (attacked - images).abs().amax((1, 2, 3))
    assert (distance <= eps + 1e-6).all()
    assert (distance >= 0.99 * eps - 1e-6).all()


def test_groups():
    without_momentum = ["fgsm", "fgsm-rs", "nfgsm", "pgd", "kl", "epgd", "epgd-loss", "smoothadv"]
    assert list(TRAINING_ATTACKS) == [*without_momentum, "pgd-accumulated", "epgd-accumulated", "mi-fgsm"]
    assert set(ATTACKS) - set(EVALUATION_ATTACKS) == {"fgsm-rs", "nfgsm", "kl"}
    assert set(SINGLE_STEP_ATTACKS) < set(SINGLE_DRAW_ATTACKS) < set(ATTACKS)


def count_passes(network):
    """A list that grows with each pass."""
    passes = []
    network.register_forward_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("name", TRAINING_ATTACKS)
def test_groups_say_how_many_passes_an_attack_takes(name, network, images, labels):
    passes = count_passes(network)
    named_attack(name, eps=EPS, steps=3, eot_samples=2)(network, images, labels, seeded(1))
    steps, draws = 1 if name in SINGLE_STEP_ATTACKS else 3, 1 if name in SINGLE_DRAW_ATTACKS else 2
    assert len(passes) == steps * draws + (name == "kl")  # which looks at the clean images once


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.uses_queries])
def test_queries_are_bounded_and_show_what_the_budget_says(name, network, images, labels):
    """Images (16 at most in a pass) are asked about at most `max_queries` times; labels alone suffice one attack."""
    seen = []
    network.register_forward_hook(lambda _, inputs, logits: seen.append((len(inputs[0]), logits.requires_grad)))
    configured(name, network, eot_samples=1, max_queries=12, sees="shares")(network, images, labels, seeded(1))
    assert 16 <= sum(count for count, _ in seen) <= 16 * 12
    assert not any(differentiable for _, differentiable in seen)
    if name == "substitute":
        assert not torch.equal(configured(name, network, sees="labels")(network, images, labels, seeded(1)), images)
        return
    with pytest.raises(ArgumentError, match="sees: expected logits or shares, since"):
        configured(name, network, sees="labels")(network, images, labels, seeded(1))


def test_transfer_needs_a_source_and_differentiates_it_alone(network, images, labels):
    passes = count_passes(network)
    source = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    attacked = configured("transfer", source, eot_samples=1)(network, images, labels, seeded(1))
    assert torch.equal(
        attacked, named_attack("epgd-loss", eps=EPS, steps=4, eot_samples=1)(source, images, labels, seeded(1))
    )
    assert not passes
    with pytest.raises(
        ArgumentError, match="sources: expected at least one network on which to make the examples, got none"
    ):
        named_attack("transfer", eps=EPS)


def test_the_answers_of_a_query_are_averaged_and_counted(network, images, labels):
    """A substitute asks 3 times about each of 16 images and of 3 versions of each: 12 of 14 queries, in batches."""
    passes = []
    network.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    configured("substitute", network, eot_samples=3, max_queries=14)(network, images, labels, seeded(1))
    assert passes == [16] * 3 + [16] * 3 + [32] * 3
    with pytest.raises(ArgumentError, match="max_queries: expected at least eot_samples, 9, got 8"):
        configured("substitute", network, eot_samples=9, max_queries=8)(network, images, labels, seeded(1))


@pytest.mark.parametrize(
    ("name", "budget", "message"),
    [
        ("ddn", {"eps": torch.ones(16)}, r"eps: expected one number for all images, got shape \(16,\)"),
        (
            "square",
            {"eps": EPS, "sees": "labels"},
            "sees: expected logits or shares, since square compares scores",
        ),
        ("pgd", {"eps": EPS, "sees": "nothing"}, "sees: expected one of logits, shares, labels, got 'nothing'"),
        ("mi-fgsm", {"eps": EPS, "steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ("pgd", {"eps": EPS, "max_queries": 0}, "max_queries: expected an integer of at least 1, got 0"),
        ("bayes", {"eps": EPS, "norm": "l2"}, "norm: expected linf, the only norm that bayes supports, got l2"),
    ],
)
def test_budgets_that_an_attack_cannot_keep(name, budget, message):
    with pytest.raises(ArgumentError, match=message):
        named_attack(name, **budget)


def test_unknown_name():
    with pytest.raises(ArgumentError, match=r"attack: expected one of .*, got 'cw'"):
        named_attack("cw", eps=EPS)
