"""FGSM-PGI against its algorithm, written out for softmax regression; what it remembers, and whose crop that is."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothed.data.augment import draw_augmentation
from smoothed.errors import ArgumentError
from smoothed.rng.rows import RowGenerator, uniform_
from smoothed.training.batch import Part
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import PriorExamples

EPS, IMAGES = 0.1, 10
# Memory is float16: a value of up to 0.1 is off by up to 3e-5, a momentum by up to 5e-4.
MEMORY_ERROR = 1e-4


def options(**changes):
    settings = {"attack": "fgsm-pgi", "loss": "consistency", "relative_step_size": 0.75, "eps": EPS, **changes}
    return TrainingConfig(**{"injection": "none", **settings})


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


def alone(rows):
    """What `GatherRows` does in one process."""
    return rows


def moved(model, seed):
    """Change the network, as training does between epochs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def jia(images, labels, weight, bias, eta, momentum):
    """One epoch of FGSM-MEP: x + eta, x + delta, and the next eta and momentum."""
    start = np.clip(images + eta, 0, 1)
    scores = np.exp(start @ weight.T + bias)
    slope = (scores / scores.sum(1, keepdims=True) - np.eye(4)[labels]) @ weight
    step = 0.75 * EPS
    delta = np.clip(eta + step * np.sign(slope), -EPS, EPS)
    momentum = 0.3 * momentum + np.sign(slope)
    return start, np.clip(images + delta, 0, 1), np.clip(eta + step * np.sign(momentum), -EPS, EPS), momentum


def test_epochs_are_the_published_algorithm(linear, batch, make_part):
    images, labels = batch
    examples = PriorExamples(options(), IMAGES)
    flat, classes = images.flatten(1).numpy(), labels.numpy()
    eta = (uniform_(torch.empty_like(images), -1, 1, RowGenerator(0)) * EPS).flatten(1).numpy()
    momentum = np.zeros_like(eta)
    for epoch in range(5):
        weight, bias = (parameter.detach().numpy() for parameter in linear[1].parameters())
        start, expected, eta, momentum = jia(flat, classes, weight, bias, eta, momentum)
        part = make_part(images, labels, epoch=epoch)
        made = examples.make(linear, part)
        assert np.abs(made.flatten(1).numpy() - expected).max() < MEMORY_ERROR
        assert np.abs(examples.reference(part).flatten(1).numpy() - start).max() < MEMORY_ERROR
        examples.learn(part, made, alone)
        state = examples.state()
        assert np.abs(state["starts"].flatten(1).numpy() - eta).max() < MEMORY_ERROR
        assert np.abs(state["momenta"].flatten(1).numpy() - momentum).max() < 1e-3
        moved(linear, epoch)
    assert 0 < (np.sign(momentum) != np.sign(np.where(eta > 0, 1, -1))).mean() < 1  # momentum and start are not one


def test_memory_is_in_the_coordinates_of_the_image(linear, batch, make_part):
    """A start of the whole image is cropped as the image is; what the crop leaves out stays."""
    images, labels = batch
    part = make_part(images, labels)
    drawn = draw_augmentation(torch.Generator().manual_seed(5), IMAGES, 2)
    cropped = Part(drawn.apply(images), *(getattr(part, n) for n in ("labels", "index", "positions", "total", "epoch")),
                   0.0, RowGenerator(0), drawn)  # fmt: skip
    examples = PriorExamples(options(), IMAGES)
    examples.learn(part, examples.make(linear, part), alone)
    before = {name: tensor.clone() for name, tensor in examples.state().items()}
    made = examples.make(linear, cropped)
    expected = (cropped.clean + drawn.apply(before["starts"].double())).clamp(0, 1)
    assert torch.allclose(examples.reference(cropped), expected)
    examples.learn(cropped, made, alone)
    seen = drawn.undo(torch.ones_like(images), torch.zeros_like(images)).bool()
    assert 0 < seen.double().mean() < 1
    for name, tensor in examples.state().items():
        assert torch.equal(tensor[~seen], before[name][~seen])
    changed = examples.state()["momenta"] != before["momenta"]
    assert changed[seen].double().mean() > 0.9


def test_new_images_start_anew_and_others_are_left_alone(linear, batch, make_part):
    images, labels = batch
    examples = PriorExamples(options(), 2 * IMAGES)
    first = make_part(images, labels, index=torch.arange(IMAGES))
    examples.learn(first, examples.make(linear, first), alone)
    state = {name: tensor.clone() for name, tensor in examples.state().items()}
    assert not state["momenta"][IMAGES:].any()
    second = make_part(images, labels, index=torch.arange(IMAGES, 2 * IMAGES), seed=3)
    made = examples.make(linear, second)
    uniform = uniform_(torch.empty_like(images), -1, 1, RowGenerator(3)) * EPS
    assert torch.allclose(examples.reference(second), (images + uniform).clamp(0, 1))
    examples.learn(second, made, alone)
    assert all(torch.equal(tensor[:IMAGES], state[name][:IMAGES]) for name, tensor in examples.state().items())


def test_examples_stay_in_the_ball_of_the_moment(linear, batch, make_part):
    examples = PriorExamples(options(eps_warmup=0.5), IMAGES)
    for progress, radius in ((0.1, 0.02), (0.5, 0.1), (0.2, 0.04)):
        part = make_part(*batch, progress=progress)
        made = examples.make(linear, part)
        for images in (made, examples.reference(part)):
            assert (images - batch[0]).abs().max() <= radius + 1e-9
            assert images.min() >= 0
            assert images.max() <= 1
        examples.learn(part, made, alone)


def test_what_one_remembers_another_goes_on_with(linear, batch, make_part):
    first, part = PriorExamples(options(), IMAGES), make_part(*batch)
    assert first.state() == {}
    assert first.reference(part) is part.clean
    first.learn(part, part.clean, alone)
    assert first.state() == {}
    first.learn(part, first.make(linear, part), alone)
    second = PriorExamples(options(), IMAGES)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    again = make_part(*batch, seed=9)
    assert torch.equal(second.make(linear, again), first.make(linear, again))


def test_parts_of_a_batch_remember_what_the_whole_one_does(linear, batch, make_part, in_processes):
    images, labels = batch
    whole, cut, processes = (
        PriorExamples(options(), IMAGES),
        PriorExamples(options(), IMAGES),
        [PriorExamples(options(), IMAGES) for _ in range(2)],
    )

    def go(examples, part, gather=alone):
        examples.learn(part, examples.make(linear, part), gather)

    for seed in range(3):
        go(whole, make_part(images, labels, seed=seed))
        pieces = [(slice(None, 6), 0), (slice(6, None), 6)]
        parts, again = (
            [make_part(images[rows], labels[rows], first=f, total=IMAGES, seed=seed) for rows, f in pieces]
            for _ in range(2)
        )
        for part in parts:
            go(cut, part)
        in_processes(lambda process, gather: go(processes[process], again[process], gather))  # noqa: B023
        for other in (cut, *processes):
            for name, tensor in whole.state().items():
                assert torch.equal(other.state()[name], tensor)
        moved(linear, seed)


def test_another_ball_is_refused():
    with pytest.raises(ArgumentError, match="norm: expected linf with attack fgsm-pgi, got l2; its steps follow"):
        PriorExamples(options(norm="l2"), IMAGES)
