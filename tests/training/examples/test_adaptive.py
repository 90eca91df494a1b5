"""Instance-adaptive training against its algorithm, with a network whose every image has a known robust radius."""

import pytest
import torch
from torch import nn

from smoothed.training.config import TrainingConfig
from smoothed.training.examples import AdaptiveExamples

EPS = 8 / 255
# The authors' numbers for CIFAR-10: gamma, beta, and the epochs before any radius changes.
GAMMA, BETA, WARMUP = 1.9 / 255, 0.1, 5
# How far each image of the training set is from the boundary; the last one is on the wrong side.
MARGINS = [20 / 255, 11 / 255, 9 / 255, 7 / 255, 4 / 255, 1 / 255, -5 / 255]


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above 0.5: under an attack of radius r every pixel moves by r."""

    def forward(self, inputs):
        mean = inputs.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def options(**changes):
    # 10 steps of eps / 4 reach the far side of the ball from any start in it.
    return TrainingConfig(**{"attack": "iaat", "eps": EPS, "attack_steps": 10, **changes})


def images_of(index):
    """Constant images (n, 3, 2, 2) at their margins above the threshold; all of class 1."""
    return torch.tensor([0.5 + MARGINS[i] for i in index]).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


@pytest.fixture
def part_of(make_part):
    """A function (index, epoch) that gives a part with those images of the training set."""

    def make(index, epoch, progress=0.0):
        labels = torch.ones(len(index), dtype=torch.int64)
        return make_part(images_of(index), labels, index=torch.tensor(index), epoch=epoch, progress=progress)

    return make


def alone(rows):
    """What `GatherRows` does in one process."""
    return rows


def balaji(radius, margin):
    """Algorithm 2 of Balaji et al., 2019: the radius that this epoch uses and keeps."""

    def is_robust(candidate):
        return margin > max(0.0, candidate)

    if is_robust(radius + GAMMA):
        chosen = radius + GAMMA
    elif is_robust(radius):
        chosen = radius
    else:
        chosen = max(0.0, radius - GAMMA)
    return (1 - BETA) * radius + BETA * chosen


@pytest.mark.slow
def test_sixty_epochs_are_algorithm_2(part_of):
    """The radius of each image, and the examples, which are attacked at just that radius."""
    examples, expected = AdaptiveExamples(options(), len(MARGINS)), [EPS] * len(MARGINS)
    for epoch in range(60):
        for index in ([5, 0, 3], [6, 2], [1, 4]):
            part = part_of(index, epoch)
            adversarial = examples.make(Threshold(), part)
            examples.learn(part, adversarial, alone)
            if epoch >= WARMUP:
                for i in index:
                    expected[i] = balaji(expected[i], MARGINS[i])
            moved = (part.clean - adversarial).flatten(1)
            for row, i in zip(moved, index, strict=True):
                assert row.tolist() == pytest.approx([expected[i]] * 12, abs=2e-6)
        assert examples.radii.tolist() == pytest.approx(expected, abs=1e-6)
        if epoch == WARMUP - 1:
            assert examples.radii.tolist() == pytest.approx([EPS] * len(MARGINS))
    robust, fragile, wrong = (examples.radii[i].item() for i in (0, 4, 6))
    assert robust > EPS + GAMMA
    assert MARGINS[4] - GAMMA < fragile < MARGINS[4]
    assert 0 <= wrong < EPS / 10


def test_the_first_epoch_that_adapts(part_of):
    """From eps: a tenth of gamma up for an image robust at eps + gamma, as much down for one not robust at eps."""
    examples = AdaptiveExamples(options(), len(MARGINS))
    part = part_of([0, 2, 3], WARMUP)
    examples.learn(part, examples.make(Threshold(), part), alone)
    change = BETA * GAMMA
    assert examples.radii.tolist() == pytest.approx([EPS + change, EPS, EPS, EPS - change, EPS, EPS, EPS], abs=1e-8)


def test_steps_may_grow_and_the_radius_of_the_run_does_not_count(part_of):
    """Each of the three attacks takes one step at the start of the run: three forward passes, and two to classify."""
    calls = []
    network = Threshold()
    network.register_forward_hook(lambda *_: calls.append(1))
    examples = AdaptiveExamples(options(steps_warmup=0.5, eps_warmup=0.5), len(MARGINS))
    examples.make(network, part_of([0, 1], WARMUP, progress=0.0))
    assert len(calls) == 3 * 1 + 2
    assert examples.radii.tolist() == pytest.approx([EPS] * len(MARGINS))


def test_the_network_keeps_its_mode(part_of):
    network = nn.Sequential(nn.Dropout(0.5), Threshold()).train()
    AdaptiveExamples(options(), len(MARGINS)).make(network, part_of([0, 6], WARMUP))
    assert all(module.training for module in network.modules())


def test_what_one_remembers_another_goes_on_with(part_of):
    first, second = AdaptiveExamples(options(), len(MARGINS)), AdaptiveExamples(options(), len(MARGINS))
    part = part_of([0, 6], WARMUP)
    first.learn(part, first.make(Threshold(), part), alone)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert torch.equal(second.radii, first.radii)
    assert not torch.equal(second.radii, torch.full((7,), EPS))


def test_processes_tell_each_other(part_of, in_processes):
    """Two processes with two images each, and one with all four, remember the same."""
    whole, processes = (
        AdaptiveExamples(options(), len(MARGINS)),
        [AdaptiveExamples(options(), len(MARGINS)) for _ in range(2)],
    )

    def step(examples, index, gather):
        part = part_of(index, WARMUP)
        examples.learn(part, examples.make(Threshold(), part), gather)

    for _ in range(2):
        step(whole, [0, 6, 4, 1], alone)
        in_processes(lambda process, gather: step(processes[process], [[0, 6], [4, 1]][process], gather))
        for other in processes:
            assert torch.allclose(other.radii, whole.radii, rtol=0, atol=1e-7)


def test_nothing_is_learned_before_anything_is_made(part_of):
    examples = AdaptiveExamples(options(), len(MARGINS))
    examples.learn(part_of([0], WARMUP), images_of([0]), alone)
    assert examples.radii.tolist() == pytest.approx([EPS] * len(MARGINS))
