"""Auto-PGD against a literal reading of its algorithm 1, one image and one step at a time, in numpy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks.losses import cross_entropy
from smoothed.attacks.max_loss.auto_ascent import ascend, make_problem
from smoothed.attacks.objectives import one_draw_loss
from smoothed.rng.seeds import seeded

EPS = {"linf": 8 / 255, "l2": 0.4}
norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def literal(value, gradient, x, start, eps, norm, steps):
    """Algorithm 1 of Croce and Hein (2020) for one image: the highest value's point, and how often eta was halved."""
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100)))
    marks = [math.ceil(share * steps) for share in shares if share <= 1]

    def project(z):
        delta = z - x
        if norm == "linf":
            delta = np.clip(delta, -eps, eps)
        elif np.linalg.norm(delta) > eps:
            delta = delta * eps / np.linalg.norm(delta)
        return np.clip(x + delta, 0, 1)

    def steepest(slope):
        return np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope)

    path, rises, eta, halvings = [start], [], 2 * eps, 0
    now, f_max, x_max, last = value(start), value(start), start, 0
    f_at_mark, halved = f_max, False
    for k in range(1, steps + 1):
        z = project(path[-1] + eta * steepest(gradient(path[-1])))
        if k > 1:
            z = project(path[-1] + 0.75 * (z - path[-1]) + 0.25 * (path[-1] - path[-2]))
        rises.append(value(z) > now)
        path.append(z)
        now = value(z)
        if now > f_max:
            f_max, x_max = now, z
        if k in marks and k > last:
            condition_1 = sum(rises[last:k]) < 0.75 * (k - last)
            condition_2 = not halved and f_max == f_at_mark
            halved = condition_1 or condition_2
            if halved:
                eta, halvings = eta / 2, halvings + 1
                path[-1], now = x_max, f_max
            last, f_at_mark = k, f_max
    return x_max, f_max, halvings


@norms
@pytest.mark.parametrize("targeted", [False, True])
def test_is_algorithm_1(norm, targeted, network, images, labels):
    network.double()
    inputs = images[:3].double().mul(1.2).sub(0.1).clamp(0, 1)
    labels, sign, eps, steps = labels[:3], -1 if targeted else 1, EPS[norm], 40
    objective = one_draw_loss()
    problem = make_problem(
        network,
        inputs,
        labels,
        eps=eps,
        norm=norm,
        objective=lambda _: objective,
        early_stop=False,
        targeted=targeted,
    )
    start = problem.start(seeded(1), random=True)
    found = ascend(problem, start, steps, torch.zeros(3, dtype=torch.bool))
    halvings = []
    for row in range(3):

        def loss(x, label=labels[row : row + 1]):
            return sign * cross_entropy(network(x[None]), label).sum()

        def value(x, loss=loss):
            return loss(torch.from_numpy(x)).item()

        def gradient(x, loss=loss):
            leaf = torch.from_numpy(x).requires_grad_()
            return torch.autograd.grad(loss(leaf), leaf)[0].numpy()

        arguments = inputs[row].numpy(), start[row].numpy(), eps, norm, steps
        expected, highest, count = literal(value, gradient, *arguments)
        assert_close(found.images[row], torch.from_numpy(expected), rtol=0, atol=1e-9)
        assert_close(found.values[row].item(), highest, rtol=1e-9, atol=0)
        halvings.append(count)
    assert max(halvings) > 1  # so that what follows a checkpoint was seen


def test_counts_one_forward_pass_a_point_and_no_gradient_of_the_last(network, images, labels):
    seen = []
    network.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))  # noqa: ARG005
    objective = one_draw_loss()
    problem = make_problem(
        network, images, labels, eps=0.1, norm="linf", objective=lambda _: objective, early_stop=False
    )
    ascend(problem, images, 5, torch.zeros(16, dtype=torch.bool))
    assert seen == [True] * 5 + [False]


def test_work_shrinks_to_the_images_that_are_left(network, images):
    """With labels of the model's own answers: each image is asked about until it is misclassified, no longer."""
    sizes = []
    labels = network(images).argmax(1)
    network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))  # noqa: ARG005
    rows_seen = []

    def objective(rows):
        rows_seen.append(len(rows))
        return one_draw_loss()

    problem = make_problem(network, images, labels, eps=0.05, norm="linf", objective=objective, early_stop=True)
    already = torch.arange(16) < 3
    found = ascend(problem, images, 30, already)
    assert sizes == rows_seen
    assert sizes[0] == 13
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 16 - found.done.sum() or found.done.all()
    assert found.done.sum() > 3
    assert torch.equal(found.images[:3], images[:3])
    assert torch.equal((network(found.images).argmax(1) != labels)[3:], found.done[3:])
