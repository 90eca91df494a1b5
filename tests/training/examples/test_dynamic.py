"""Dynamic adversarial training against its algorithm, written out for softmax regression."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothed.errors import ArgumentError
from smoothed.rng.rows import RowGenerator, uniform_
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import DynamicExamples
from smoothed.training.examples.dynamic import largest_condition

EPS, STEPS, IMAGES = 0.1, 10, 24


def options(**changes):
    settings = {"attack": "dynamic", "attack_steps": STEPS, "eps": EPS, "injection": "none", **changes}
    return TrainingConfig(**settings)


@pytest.fixture
def linear(generator):
    """A linear network in float64, (N, 3, 4, 4) to four logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture
def batch(generator):
    images = torch.rand(IMAGES, 3, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (IMAGES,), generator=generator)


def wang(image, label, start, weight, bias, largest):
    """Algorithm 1 for one image: x', and the number of its steps."""
    at = np.clip(image + start, 0, 1)
    for step in range(STEPS):
        scores = np.exp(weight @ at + bias)
        gradient = weight.T @ (scores / scores.sum() - np.eye(4)[label])
        condition = EPS * np.abs(gradient).sum() - (at - image) @ gradient
        if step > 0 and condition <= largest:
            return at, step
        at = np.clip(image + np.clip(at + EPS / 4 * np.sign(gradient) - image, -EPS, EPS), 0, 1)
    return at, STEPS


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9, 1.0])
def test_each_image_ends_by_algorithm_1(linear, batch, make_part, progress):
    images, labels = batch
    found = DynamicExamples(options(), IMAGES).make(linear, make_part(images, labels, progress=progress))
    starts = uniform_(torch.empty_like(images), -1, 1, RowGenerator(0)) * EPS
    weight, bias = (parameter.detach().numpy() for parameter in linear[1].parameters())
    steps = set()
    for i in range(IMAGES):
        pair = images[i].flatten().numpy(), int(labels[i])
        expected, taken = wang(*pair, starts[i].flatten().numpy(), weight, bias, 0.5 * (1 - progress))
        steps.add(taken)
        assert torch.allclose(found[i].flatten(), torch.from_numpy(expected), atol=1e-12)
    assert progress in (0.0, 1.0) or len(steps) > 1  # images end at different steps


def test_the_bound_falls_linearly_from_a_half_to_nothing():
    assert [largest_condition(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.5, 0.375, 0.25, 0.0]


def test_later_examples_are_stronger(linear, batch, make_part):
    """The mean loss on examples of the same starts rises with the run."""
    losses = []
    for progress in (0.0, 0.5, 1.0):
        made = DynamicExamples(options(), IMAGES).make(linear, make_part(*batch, progress=progress))
        losses.append(nn.functional.cross_entropy(linear(made), batch[1]).item())
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]


def test_examples_stay_in_the_ball(linear, batch, make_part):
    made = DynamicExamples(options(eps_warmup=0.5), IMAGES).make(linear, make_part(*batch, progress=0.25))
    assert (made - batch[0]).abs().max() <= EPS / 2 + 1e-12
    assert made.min() >= 0
    assert made.max() <= 1


def test_parts_of_a_batch_have_the_examples_of_the_whole(linear, batch, make_part):
    examples = DynamicExamples(options(), IMAGES)
    whole = examples.make(linear, make_part(*batch, progress=0.5))
    pieces = [(slice(None, 7), 0), (slice(7, None), 7)]
    parts = [make_part(batch[0][rows], batch[1][rows], first=first, progress=0.5) for rows, first in pieces]
    assert torch.allclose(torch.cat([examples.make(linear, part) for part in parts]), whole, atol=1e-12)


def test_another_ball_is_refused():
    with pytest.raises(
        ArgumentError, match="norm: expected linf with attack dynamic, got l2; the condition is defined for"
    ):
        DynamicExamples(options(norm="l2"), IMAGES)
