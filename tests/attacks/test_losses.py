"""The losses against numbers by hand and against a literal reading of their papers, class by class."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks.losses import LOSSES, cross_entropy, dlr, margin, targeted_dlr, targeted_margin
from smoothed.errors import ArgumentError

CLASSES = 6


@pytest.fixture
def batch():
    """Random logits (64, 6) in float64, labels, and another class of each."""
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(64, CLASSES)) * 3, random.integers(CLASSES, size=64)
    targets = (labels + random.integers(1, CLASSES, size=64)) % CLASSES
    return torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(targets)


def by_hand(batch, value):
    """`value` of each image's logits as a list, its label, its target, and the logits from the best to the worst."""
    rows = zip(*(tensor.tolist() for tensor in batch), strict=True)
    return torch.tensor([value(z, y, t, sorted(z, reverse=True)) for z, y, t in rows], dtype=torch.float64)


def best_wrong(z, y):
    return max(z[:y] + z[y + 1 :])


LITERAL = {
    "cross entropy": (lambda _: cross_entropy, lambda z, y, *_: np.log(np.sum(np.exp(z))) - z[y]),
    "margin": (lambda _: margin, lambda z, y, *_: best_wrong(z, y) - z[y]),
    "dlr": (lambda _: dlr, lambda z, y, _, s: -(z[y] - best_wrong(z, y)) / (s[0] - s[2])),
    "targeted margin": (targeted_margin, lambda z, y, t, _: z[t] - z[y]),
    "targeted dlr": (targeted_dlr, lambda z, y, t, s: -(z[y] - z[t]) / (s[0] - (s[2] + s[3]) / 2)),
}


@pytest.mark.parametrize(("loss", "literal"), LITERAL.values(), ids=LITERAL)
def test_each_is_what_its_paper_says(loss, literal, batch):
    logits, labels, targets = batch
    assert_close(loss(targets)(logits, labels), by_hand(batch, literal))


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_above_0_where_misclassified_and_nowhere_else(name, batch):
    logits, labels, _ = batch
    assert torch.equal(LOSSES[name](logits, labels) > 0, logits.argmax(1) != labels)


def test_dlr_is_unchanged_by_scale_and_shift(batch):
    logits, labels, targets = batch
    for loss in (dlr, targeted_dlr(targets)):
        assert_close(loss(1e3 * logits - 7, labels), loss(logits, labels))


@pytest.mark.parametrize("loss", [dlr, targeted_dlr(torch.tensor([1, 0]))])
def test_equal_logits_give_finite_values_and_gradients(loss):
    logits = torch.zeros(2, 5, requires_grad=True)
    value = loss(logits, torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("loss", "needed"), [(dlr, 3), (targeted_dlr(torch.tensor([0])), 4)])
def test_too_few_classes(loss, needed):
    with pytest.raises(
        ArgumentError,
        match=f"loss: expected at least {needed} classes for the DLR loss, got {needed - 1}; use the margin",
    ):
        loss(torch.zeros(1, needed - 1), torch.tensor([0]))
