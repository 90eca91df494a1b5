"""Adversarial noise propagation against its algorithm, written out for a network of two layers."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothed.training.config import TrainingConfig
from smoothed.training.hidden_noise import HiddenNoise, noisy_layers, phase
from smoothed.training.step import take_step

IMAGES, CLASSES, RATE = 24, 4, 0.5
SETTINGS = {
    **{"architecture": "custom", "injection": "none", "attack": "none", "adversarial_weight": 0.0, "epochs": 5},
    **{"batch_size": IMAGES, "lr": RATE, "momentum": 0.0, "weight_decay": 0.0, "augmentation": "none"},
    **{"hidden_noise": 1.0},
}
# Steps of a run of five: 0 has no noise, 2 has eps 0.3 and alpha 0.7, 3 has eps 1 and alpha 1.
CLEAN, FIRST_NOISE, STRONG_NOISE = 0, 2, 3


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, CLASSES))


def liu(images, labels, weights, *, eps, alpha, steps, layers=2):
    """The weights after K passes on a batch, and the noise r after each pass, image first."""
    (first, bias), (second, other) = weights
    registers, history = [0.0, 0.0, 0.0], []
    for _ in range(steps):
        noise = [eps / steps * r if i <= layers else 0.0 for i, r in enumerate(registers)]
        x = images + noise[0]
        hidden = np.tanh(x @ first.T + bias + noise[1])
        scores = np.exp(hidden @ second.T + other + noise[2])
        last = (scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / len(labels)
        middle = (last @ second) * (1 - hidden**2)
        slopes = [middle @ first, middle, last]
        registers = [
            alpha * r + g / np.sqrt((g**2).sum(1, keepdims=True)) for r, g in zip(registers, slopes, strict=True)
        ]
        history.append(registers)
        second, other = second - RATE * last.T @ hidden, other - RATE * last.sum(0)
        first, bias = first - RATE * middle.T @ x, bias - RATE * middle.sum(0)
    return (first, bias, second, other), history


def after(make_run, data, step, **settings):
    """The weights after one step, in float64, and the run."""
    run = make_run(data, network(), **{**SETTINGS, **settings})
    take_step(run, next(run.plan.batches(data, run.share, step)))
    return [parameter.detach().double().numpy() for parameter in run.model.parameters()], run


def expected(data, **options):
    images, labels = data.images.flatten(1).double().numpy() / 255, data.labels.numpy()
    layers = [layer for layer in network() if isinstance(layer, nn.Linear)]
    weights = [(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in layers]
    return liu(images, labels, weights, **options)[0]


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize(("step", "eps", "alpha"), [(FIRST_NOISE, 0.3, 0.7), (STRONG_NOISE, 1.0, 1.0)])
@pytest.mark.parametrize("factor", [1.0, 20.0])
def test_a_step_is_the_published_algorithm(factor, step, eps, alpha, layers, steps, make_run, image_set):
    data = image_set(IMAGES)
    schedule = {"schedule": "steps", "epochs": 5} if step == FIRST_NOISE else {"lr": 10 * RATE}  # the rate has dropped
    found, _ = after(make_run, data, step, hidden_noise=factor, hidden_steps=steps, hidden_layers=layers, **schedule)
    wanted = expected(data, eps=factor * eps, alpha=alpha, steps=steps, layers=layers)
    without = expected(data, eps=0.0, alpha=alpha, steps=steps)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.abs(ours - theirs).max() < 2e-6
    difference = max(np.abs(a - b).max() for a, b in zip(wanted, without, strict=True))
    assert difference > 5e-6 * factor  # the noise shows


def test_epochs_without_noise_use_each_batch_once(make_run, image_set):
    data = image_set(IMAGES)
    found, run = after(make_run, data, CLEAN)
    plain, _ = after(make_run, data, CLEAN, hidden_noise=0.0)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, plain, strict=True))
    assert [run.hidden_noise.passes(progress) for progress in (0.0, 0.4, 0.9)] == [1, 3, 1]


def test_the_schedule_is_that_of_120_epochs():
    """The published code's (eps, alpha) by epoch."""
    published = [(0, 0)] * 40 + [(0.3, 0.7)] * 20 + [(1.0, 1.0)] * 20 + [(0.3, 0.7)] * 20 + [(0, 0)] * 20
    assert [phase((epoch + 0.5) / 120) for epoch in range(120)] == published
    assert [phase(epoch / 12) for epoch in range(12)] == published[::10]
    assert phase(1.0) == (0, 0)


@pytest.mark.parametrize("settings", [{"accumulation": 2}, {"accumulation": 3, "batch_size": 23}])
def test_the_division_of_a_batch_does_not_matter(settings, make_run, image_set):
    data = image_set(IMAGES)
    whole = {**settings, "accumulation": 1, "hidden_noise": 20.0, "lr": 10 * RATE}
    for ours, theirs in zip(
        after(make_run, data, STRONG_NOISE, **{**whole, **settings})[0],
        after(make_run, data, STRONG_NOISE, **whole)[0],
        strict=True,
    ):
        assert np.abs(ours - theirs).max() < 1e-6


def test_the_loss_of_a_step_is_the_mean_over_its_passes(make_run, image_set):
    data = image_set(IMAGES)
    losses = []
    for steps in (2, 4):
        settings = {**SETTINGS, "hidden_steps": steps, "lr": 0.0, "hidden_noise": 1e-6}
        run = make_run(data, network(), **settings)
        losses.append(take_step(run, next(run.plan.batches(data, run.share, STRONG_NOISE))).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.fixture
def noise():
    """Noise of a network in float64, with its part of the third step."""
    model = network().double()
    return HiddenNoise(model, TrainingConfig(**{**SETTINGS, "hidden_layers": 2}))


def part_of(make_part, images, labels, repetition):
    part = make_part(images, labels, progress=0.6)
    return type(part)(**{**vars(part), "repetition": repetition})


def test_each_pass_of_a_loss_has_noise_of_its_own(noise, make_part, generator):
    """Two sets of images in one loss meet the noise that each would meet alone."""
    sets = [torch.rand(5, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    labels = torch.randint(CLASSES, (5,), generator=generator)

    def outputs(*together):
        other = HiddenNoise(noise.model, noise.options)
        for repetition in range(3):
            with other.propagated(part_of(make_part, sets[0], labels, repetition), 0):
                logits = [noise.model(images) for images in together]
                sum(nn.functional.cross_entropy(each, labels) for each in logits).backward()
        return logits

    both = outputs(*sets)
    for images, found in zip(sets, both, strict=True):
        (alone,) = outputs(images)
        assert torch.allclose(found, alone, atol=1e-12)
        assert not torch.allclose(found, noise.model(images), atol=1e-3)


def test_a_batch_starts_without_the_noise_of_the_last(noise, make_part, generator):
    images = torch.rand(5, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (5,), generator=generator)
    for _ in range(2):
        with noise.propagated(part_of(make_part, images, labels, 0), 0):
            logits = noise.model(images)
            nn.functional.cross_entropy(logits, labels).backward()
        assert torch.equal(logits, noise.model(images))


def test_images_without_a_gradient_get_no_noise(noise, make_part):
    images, labels = torch.zeros(2, 3, 8, 8, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    for repetition in range(2):
        with noise.propagated(part_of(make_part, images, labels, repetition), 0):
            logits = noise.model(images)
            (0 * logits).sum().backward()
    assert torch.equal(logits, noise.model(images))


def test_the_network_is_left_without_hooks_and_attacks_never_meet_them(make_run, image_set):
    data, seen = image_set(IMAGES), []
    run = make_run(data, network(), **{**SETTINGS, "attack": "pgd", "adversarial_weight": 0.5})
    make = run.examples.make

    def watched(model, part):
        seen.append(hooks(run.model))
        return make(model, part)

    run.examples.make = watched
    take_step(run, next(run.plan.batches(data, run.share, STRONG_NOISE)))
    assert seen == [0, 0, 0]
    assert hooks(run.model) == 0


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_the_first_layers_in_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Linear(4, 2))
    assert noisy_layers(model, 2) == [model[0], model[2][0]]
    assert noisy_layers(model, 9) == [model[0], model[2][0], model[3]]
