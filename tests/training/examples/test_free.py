"""Free adversarial training against its algorithm, written out for a linear network with closed-form gradients."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.training.batch import Share
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import FreeExamples
from smoothed.training.step import take_step

EPS = 0.1
SETTINGS = {
    **{"architecture": "custom", "injection": "none", "attack": "free", "adversarial_weight": 1.0, "eps": EPS},
    **{"replays": 3, "batch_size": 10, "epochs": 3, "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0},
}


def options(**changes):
    return TrainingConfig(**{**SETTINGS, **changes})


@pytest.fixture
def linear(generator):
    """A linear network in float64, (N, 3, 4, 4) to four logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).double()
    with torch.no_grad():
        model[1].weight.normal_(0, 0.1, generator=generator)
        model[1].bias.zero_()
    return AtDouble(model)


class AtDouble(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(inputs.double())


def alone(rows):
    """What `GatherRows` does in one process."""
    return rows


def descend(examples, model, part, gather=alone):
    """One forward and backward pass through the examples; returns them."""
    adversarial = examples.make(model, part)
    functional.cross_entropy(model(adversarial), part.labels).backward()
    examples.learn(part, adversarial, gather)
    return adversarial.detach()


def shafahi(batches, replays, weight, bias, eps, rates):
    """Algorithm 1 of Shafahi et al., 2019, for softmax regression; yields x + delta and delta at every step.

    As there, one gradient serves both: that of the weights before their step, at x + delta.
    """
    delta = None
    for images, labels in batches:
        delta = np.zeros_like(images) if delta is None else delta
        for _ in range(replays):
            inputs = np.clip(images + delta, 0, 1)
            scores = np.exp(inputs @ weight.T + bias)
            errors = (scores / scores.sum(1, keepdims=True) - np.eye(len(bias))[labels]) / len(labels)
            slope = errors @ weight
            yield inputs, delta
            rate = next(rates)
            weight -= rate * errors.T @ inputs
            bias -= rate * errors.sum(0)
            delta = np.clip(delta + eps * np.sign(slope), -eps, eps)
    yield weight, bias


def test_a_run_is_algorithm_1(image_set, make_run, linear):
    """Of whole steps: images are seen thrice in a row, the perturbation goes on to the next batch of other images."""
    data = image_set(20, size=4)
    weight, bias = (p.detach().numpy().copy() for p in linear.parameters())
    run = make_run(data, linear, **SETTINGS)
    steps, batches = list(run.plan.batches(data, run.share, 0)), []
    for batch in steps[::3]:
        (part,) = batch.parts(Share(), run.config.seed)
        batches.append((part.clean.contiguous().flatten(1).double().numpy(), part.labels.numpy()))
    rates = iter([0.5] * 9 + [0.05] * 5 + [0.005] * 4)  # a tenth from half of the run, a hundredth from three quarters
    expected = list(shafahi(batches, 3, weight, bias, EPS, rates))
    for batch, (inputs, delta) in zip(steps, expected, strict=False):
        if batch.step:
            assert torch.allclose(run.examples.perturbation.flatten(1).double(), torch.from_numpy(delta), atol=1e-7)
        (part,) = batch.parts(Share(), run.config.seed)
        made = run.examples.make(run.model, part).detach()
        assert torch.allclose(made.flatten(1).double(), torch.from_numpy(inputs), atol=1e-6)
        take_step(run, batch)
    assert len(steps) == 18
    for parameter, wanted in zip(run.model.parameters(), expected[-1], strict=True):
        assert torch.allclose(parameter.detach(), torch.from_numpy(wanted), atol=1e-5)


def test_the_perturbation_stays_in_the_ball_and_images_in_their_range(linear, make_part, generator):
    free, images = FreeExamples(options(), 100), torch.rand(10, 3, 4, 4, generator=generator)
    moved = []
    for step in range(6):
        labels = torch.randint(4, (10,), generator=generator)
        adversarial = descend(free, linear, make_part(images, labels))
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        assert (adversarial - images).abs().max() <= EPS + 1e-6
        assert set(free.perturbation.unique().tolist()) <= {-np.float32(EPS), 0.0, np.float32(EPS)}
        moved.append(adversarial)
        assert step == 0 or not torch.equal(moved[-1], moved[-2])
    assert torch.equal(moved[0], images)


def test_what_one_remembers_another_goes_on_with(linear, make_part, generator):
    images, labels = torch.rand(10, 3, 4, 4, generator=generator), torch.randint(4, (10,), generator=generator)
    part, first = make_part(images, labels), FreeExamples(options(), 100)
    assert first.state() == {}
    descend(first, linear, part)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = FreeExamples(options(), 100)
    second.restore(state)
    assert torch.equal(second.make(linear, part), first.make(linear, part))
    assert not torch.equal(second.make(linear, part), images)
    second.restore({})
    assert torch.equal(second.make(linear, part), images)


def test_the_radius_grows_with_the_run(linear, make_part, generator):
    """Linearly over the first half; the perturbation is cut back to the radius of its step."""
    images, labels = torch.rand(10, 3, 4, 4, generator=generator), torch.randint(4, (10,), generator=generator)
    free = FreeExamples(options(eps_warmup=0.5), 100)
    for progress, radius in ((0.0, 0.0), (0.1, 0.02), (0.25, 0.05), (0.5, 0.1), (0.9, 0.1), (0.3, 0.06)):
        descend(free, linear, make_part(images, labels, progress=progress))
        assert free.perturbation.abs().max().item() == pytest.approx(radius, abs=1e-7)


def test_parts_of_a_batch_remember_what_the_whole_one_does(linear, make_part, generator, in_processes):
    """One after the other in one process, and at once in two, which tell each other their rows."""
    images, labels = torch.rand(10, 3, 4, 4, generator=generator), torch.randint(4, (10,), generator=generator)
    whole, cut, processes = (
        FreeExamples(options(), 100),
        FreeExamples(options(), 100),
        [FreeExamples(options(), 100) for _ in range(2)],
    )
    for _ in range(3):
        descend(whole, linear, make_part(images, labels))
        parts = [make_part(images[:6], labels[:6], total=10), make_part(images[6:], labels[6:], first=6)]
        for part in parts:
            descend(cut, linear, part)
        in_processes(lambda process, gather: descend(processes[process], linear, parts[process], gather))  # noqa: B023
        for other in (cut, *processes):
            assert torch.equal(other.perturbation, whole.perturbation)
    assert whole.perturbation.abs().max() > 0


def test_nothing_is_learned_without_a_gradient(linear, make_part, generator):
    images, labels = torch.rand(10, 3, 4, 4, generator=generator), torch.randint(4, (10,), generator=generator)
    free, part = FreeExamples(options(), 100), make_part(images, labels)
    free.learn(part, images, alone)
    assert free.state() == {}
    free.learn(part, free.make(linear, part), alone)
    assert torch.equal(free.perturbation, torch.zeros(10, 3, 4, 4))


def test_another_ball_is_refused():
    with pytest.raises(ArgumentError, match="norm: expected linf with attack free, got l2"):
        FreeExamples(options(norm="l2"), 100)
