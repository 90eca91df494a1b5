"""Stability training and MaxUp against their published objectives, read literally in float64: value and gradient."""

import pytest
import torch
from torch import nn

from smoothed.rng.rows import RowGenerator, normal_
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import NoisyExamples, WorstCropExamples, WorstNoisyExamples
from smoothed.training.examples.copies import cropped_copy, noisy_copy
from smoothed.training.losses import TRAINING_LOSSES

IMAGES, CLASSES, SIGMA = 9, 4, 0.3


@pytest.fixture
def linear(generator):
    """A linear network in float64, (N, 3, 4, 4) to four logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return model


@pytest.fixture
def batch(generator):
    images = torch.rand(IMAGES, 3, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(CLASSES, (IMAGES,), generator=generator)


def options(**changes):
    return TrainingConfig(**{"injection": "none", "copy_sigma": SIGMA, "adversarial_weight": 1.0, **changes})


def draws(count, images, seed=0, first=0):
    """The noise of the first requests to a part's generator."""
    rows = RowGenerator(seed, first)
    return [normal_(torch.empty_like(images), rows) for _ in range(count)]


def probabilities(model, image):
    powers = (model[1].weight @ image.flatten() + model[1].bias).exp()
    return powers / powers.sum()


def assert_same(model, found, expected):
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, list(model.parameters())) for value in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-13)


def loss_of(config, model, examples, part):
    adversarial = examples.make(model, part)
    return TRAINING_LOSSES[config.loss](config)(model, part.clean, adversarial, part.labels, part.row_generator)


def test_stability_training(linear, batch, make_part):
    """CE(p(x), y) + 2 KL(p(x) || p(x + sigma n)); the gradient flows through both outputs."""
    config = options(loss="trades", attack="noisy", beta=2.0)
    found = loss_of(config, linear, NoisyExamples(config, IMAGES), make_part(*batch))
    (noise,) = draws(1, batch[0])
    expected = 0
    for image, unit, label in zip(batch[0], noise, batch[1].tolist(), strict=True):
        p, q = probabilities(linear, image), probabilities(linear, image + SIGMA * unit)
        expected = expected - p[label].log() + 2 * sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True))
    assert_same(linear, found, expected / IMAGES)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("copies", [1, 4])
def test_maxup(linear, batch, make_part, copies, smoothing):
    """The mean over images of the largest loss of its copies; the gradient is that of the largest."""
    config = options(attack="maxup", copies=copies, label_smoothing=smoothing)
    found = loss_of(config, linear, WorstNoisyExamples(config, IMAGES), make_part(*batch))
    noises, expected, chosen = draws(copies, batch[0]), 0, set()
    for i, label in enumerate(batch[1].tolist()):
        losses = []
        for noise in noises:
            p = probabilities(linear, batch[0][i] + SIGMA * noise[i])
            losses.append(-(1 - smoothing) * p[label].log() - smoothing * p.log().mean())
        worst = max(range(copies), key=lambda j: losses[j].item())
        chosen.add(worst)
        expected = expected + losses[worst]
    assert_same(linear, found, expected / IMAGES)
    assert len(chosen) == min(copies, len(chosen))
    assert copies == 1 or len(chosen) > 1  # copies differ in which images they are worst for


def shifted(image, down, right):
    """The image moved by whole pixels, with zeros where it leaves them."""
    result = torch.zeros_like(image)
    for row in range(4):
        for column in range(4):
            if 0 <= row - down < 4 and 0 <= column - right < 4:
                result[:, row, column] = image[:, row - down, column - right]
    return result


def test_maxup_of_crops(linear, batch, make_part):
    config = options(attack="maxup-crop")
    found = loss_of(config, linear, WorstCropExamples(config, IMAGES), make_part(*batch))
    places = [(down, right) for down in range(-4, 5) for right in range(-4, 5)]
    copies = [cropped_copy(make_part(*batch), number) for number in range(4)]
    expected = 0
    for i, label in enumerate(batch[1].tolist()):
        for copy in copies:  # each is a shift by up to four pixels
            assert any(torch.equal(copy[i], shifted(batch[0][i], *place)) for place in places)
        losses = [-probabilities(linear, copy[i])[label].log() for copy in copies]
        expected = expected + max(losses, key=lambda loss: loss.item())
    assert_same(linear, found, expected / IMAGES)
    assert not torch.equal(copies[0], copies[1])


@pytest.mark.parametrize("kind", [NoisyExamples, WorstNoisyExamples, WorstCropExamples])
def test_parts_of_a_batch_have_the_copies_of_the_whole(kind, linear, batch, make_part):
    config = options(attack="maxup")
    whole = kind(config, IMAGES).make(linear, make_part(*batch))
    for cut in (1, 4):
        pieces = [(slice(None, cut), 0), (slice(cut, None), cut)]
        parts = [make_part(batch[0][rows], batch[1][rows], first=first, total=IMAGES) for rows, first in pieces]
        assert torch.equal(torch.cat([kind(config, IMAGES).make(linear, part) for part in parts]), whole)


def test_copies_are_not_clipped_and_keep_nothing(batch, make_part):
    part = make_part(*batch)
    noise = noisy_copy(part, 0.5) - part.clean
    assert noise.std().item() == pytest.approx(0.5, rel=0.15)
    examples = NoisyExamples(options(attack="noisy"), IMAGES)
    made = examples.make(None, part)
    assert made.min() < 0
    assert made.max() > 1
    assert examples.state() == {}
    assert examples.reference(part) is part.clean


def test_the_choice_leaves_the_network_as_it_was(batch, make_part, network):
    images, labels = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 4
    before = {name: tensor.clone() for name, tensor in network.train().state_dict().items()}
    WorstNoisyExamples(options(attack="maxup"), 6).make(network, make_part(images, labels))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    del batch
