"""Learning to learn to defend against its formula, for softmax regression and an attacker of three numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothed.errors import ArgumentError
from smoothed.rng.rows import RowGenerator, uniform_
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import LearnedExamples
from smoothed.training.examples.attacker import new_attacker
from smoothed.training.examples.learned import NUMBER_OF_GRADIENTS
from smoothed.training.step import take_step

EPS, IMAGES = 0.1, 12
NAMES = pytest.mark.parametrize("name", NUMBER_OF_GRADIENTS)


def options(name="l2l", **changes):
    return TrainingConfig(**{"attack": name, "eps": EPS, "injection": "none", **changes})


@pytest.fixture
def linear(generator):
    """A linear network in float64, (N, 3, 4, 4) to four logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return model


@pytest.fixture
def batch(generator):
    images = torch.rand(IMAGES, 3, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (IMAGES,), generator=generator)


class ThreeNumbers(nn.Module):
    """tanh(a x + b g + c), an attacker whose formula can be written out."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([-0.6, 1.5, 0.2], dtype=torch.float64))

    def forward(self, images, gradients):
        a, b, c = self.numbers
        return (a * images + b * gradients + c).tanh()


def slope(at, labels, model):
    """The gradient of the sum of the losses with respect to images, and the mean loss."""
    weight, bias = (parameter.detach().numpy() for parameter in model[1].parameters())
    scores = np.exp(at @ weight.T + bias)
    scores /= scores.sum(1, keepdims=True)
    return (scores - np.eye(4)[labels]) @ weight, -np.log(scores[np.arange(len(at)), labels]).mean()


def jiang(images, labels, model, numbers, gradients, held=()):
    """The examples, their mean loss, and the gradient inputs; `held` replaces the gradients that are computed."""
    at, delta, used = images, np.zeros_like(images), []
    for i in range(gradients):
        g = slope(at, labels, model)[0] if len(held) <= i else held[i]
        used.append(g)
        a, b, c = numbers
        delta = np.clip(delta + EPS * np.tanh(a * at + b * g / np.abs(g).max(1, keepdims=True) + c), -EPS, EPS)
        at = np.clip(images + delta, 0, 1)
    return at, slope(at, labels, model)[1], used


@NAMES
def test_examples_are_the_published_formula(name, linear, batch, make_part):
    examples = LearnedExamples(options(name), IMAGES)
    examples.attacker = ThreeNumbers()
    made = examples.make(linear, make_part(*batch))
    flat, labels = batch[0].flatten(1).numpy(), batch[1].numpy()
    expected = jiang(flat, labels, linear, [-0.6, 1.5, 0.2], NUMBER_OF_GRADIENTS[name])[0]
    assert np.abs(made.flatten(1).numpy() - expected).max() < 1e-12
    assert not made.requires_grad
    assert ((made == 0) | (made == 1)).any()  # the clip shows


@NAMES
def test_the_attacker_ascends_the_loss_with_gradient_inputs_held(name, linear, batch, make_part):
    """Its gradient against central differences of the formula; gradients of gradients are no part of it."""
    examples = LearnedExamples(options(name), IMAGES)
    examples.attacker = ThreeNumbers()
    found = examples.gradient(linear, make_part(*batch))
    flat, labels = batch[0].flatten(1).numpy(), batch[1].numpy()
    at, count = np.array([-0.6, 1.5, 0.2]), NUMBER_OF_GRADIENTS[name]
    held = jiang(flat, labels, linear, at, count)[2]
    for i in range(3):
        step = 1e-6 * np.eye(3)[i]
        above, below = (jiang(flat, labels, linear, at + sign * step, count, held)[1] for sign in (1, -1))
        assert found[i].item() == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-8)
    assert all(parameter.grad is None for parameter in linear.parameters())


def test_ascending_is_adam(linear, batch, make_part, generator):
    examples = LearnedExamples(options(), IMAGES)
    examples.make(linear, make_part(*batch))
    weights = nn.utils.parameters_to_vector(examples.attacker.parameters()).detach()
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, 4):
        gradient = torch.randn(len(weights), generator=generator, dtype=torch.float64)
        examples.ascend(gradient)
        descent = -gradient + 2e-4 * weights
        first, second = 0.9 * first + 0.1 * descent, 0.999 * second + 0.001 * descent**2
        weights = weights - 1e-3 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        found = nn.utils.parameters_to_vector(examples.attacker.parameters())
        assert torch.allclose(found, weights, rtol=0, atol=1e-12)
        assert all(parameter.grad is None for parameter in examples.attacker.parameters())


@NAMES
def test_the_attacker_becomes_better_than_noise(name, linear, batch, make_part):
    """On a fixed classifier: its examples cost more than uniform noise, and more than its first ones."""
    examples, losses = LearnedExamples(options(name), IMAGES), []
    for seed in range(40):
        part = make_part(*batch, seed=seed)
        losses.append(nn.functional.cross_entropy(linear(examples.make(linear, part)), batch[1]).item())
        examples.ascend(examples.gradient(linear, part))
    noise = uniform_(torch.empty_like(batch[0]), -EPS, EPS, RowGenerator(0)).sign() * EPS
    assert losses[-1] > nn.functional.cross_entropy(linear((batch[0] + noise).clamp(0, 1)), batch[1]).item()
    assert losses[-1] > losses[0]


@NAMES
def test_examples_stay_in_the_ball_of_the_moment(name, linear, batch, make_part):
    examples = LearnedExamples(options(name, eps_warmup=0.5), IMAGES)
    for progress, radius in ((0.1, 0.02), (0.5, 0.1)):
        made = examples.make(linear, make_part(*batch, progress=progress))
        assert (made - batch[0]).abs().max() <= radius + 1e-12
        assert made.min() >= 0
        assert made.max() <= 1


@NAMES
def test_parts_of_a_batch_have_the_examples_and_the_gradient_of_the_whole(name, linear, batch, make_part):
    examples = LearnedExamples(options(name), IMAGES)
    whole = make_part(*batch)
    pieces = [(slice(None, 5), 0), (slice(5, None), 5)]
    parts = [make_part(batch[0][rows], batch[1][rows], first=first, total=IMAGES) for rows, first in pieces]
    made = torch.cat([examples.make(linear, part) for part in parts])
    assert torch.allclose(made, examples.make(linear, whole), rtol=0, atol=1e-12)
    summed = sum(examples.gradient(linear, part) * len(part.labels) / IMAGES for part in parts)
    assert torch.allclose(summed, examples.gradient(linear, whole), rtol=0, atol=1e-12)


def test_what_one_remembers_another_goes_on_with(linear, batch, make_part):
    first = LearnedExamples(options(), IMAGES)
    assert first.state() == {}
    for seed in range(2):
        first.make(linear, make_part(*batch, seed=seed))
        first.ascend(first.gradient(linear, make_part(*batch, seed=seed)))
    second = LearnedExamples(options(), IMAGES)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert second.state().keys() == first.state().keys()  # also before it meets images
    for _ in range(2):
        made = [examples.make(linear, make_part(*batch, seed=9)) for examples in (first, second)]
        assert torch.equal(*made)
        for examples in (first, second):
            examples.ascend(examples.gradient(linear, make_part(*batch, seed=9)))
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())


def test_the_seed_alone_decides_on_the_first_attacker(batch):
    weights = [nn.utils.parameters_to_vector(new_attacker(3, seed, batch[0]).parameters()) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    before = torch.random.get_rng_state()
    new_attacker(1, 5, batch[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_perturbation_is_bounded_and_does_not_depend_on_the_batch(batch):
    attacker, (images, _) = new_attacker(3, 0, batch[0]), batch
    gradients = images.flip(0) - images
    whole = attacker(images, gradients)
    assert whole.shape == images.shape
    assert whole.abs().max() <= 1
    assert torch.allclose(attacker(images[3:5], gradients[3:5]), whole[3:5], rtol=0, atol=1e-12)


@NAMES
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_trains_the_attacker_on_the_classifier_that_it_has_updated(name, accumulation, make_run, image_set):
    data = image_set(16)
    layers = nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 4)
    fixed = {"architecture": "custom", "batch_size": 16, "adversarial_weight": 1.0, "epochs": 2, "lr": 1.0}
    config = options(name, **fixed, accumulation=accumulation)
    run = make_run(data, nn.Sequential(*layers), **config.to_json())
    batch = next(run.plan.batches(data, run.share, 0))
    take_step(run, batch)
    by_hand, parts = LearnedExamples(config, 16), list(batch.parts(run.share, config.seed, config.augmentation))
    by_hand.ascend(sum(by_hand.gradient(run.model, part) * len(part.labels) / 16 for part in parts))
    assert run.examples.state().keys() == by_hand.state().keys()
    for key, tensor in by_hand.state().items():
        assert (run.examples.state()[key] - tensor).abs().mean() < 1e-5 * (
            1 if "attacker" in key else tensor.abs().mean()
        )


def test_another_ball_is_refused():
    with pytest.raises(ArgumentError, match="norm: expected linf with attack l2l-2, got l2; the attacker's tanh"):
        LearnedExamples(options("l2l-2", norm="l2", eps=0.5), IMAGES)
