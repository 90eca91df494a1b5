"""The best wrong classes against a sort in plain Python."""

from functools import partial

import pytest
import torch

from smoothed.attacks import expected_loss
from smoothed.attacks.max_loss.targets import best_wrong_classes
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded

LABELS = torch.tensor([3, 0, 2])


def answers(count):
    return torch.randn(count, 3, 5, generator=seeded(0))


def by_hand(logits, labels):
    ranked = [sorted(range(5), key=lambda c, row=row: -row[c]) for row in logits.tolist()]
    return [[c for c in row if c != label] for row, label in zip(ranked, labels.tolist(), strict=True)]


@pytest.mark.parametrize(("num_targets", "found"), [(None, 4), (1, 1), (3, 3), (9, 4)])
def test_best_first_and_never_the_label(num_targets, found):
    logits = answers(1)[0]
    targets = best_wrong_classes(lambda _: logits, torch.zeros(3, 1, 1, 1), LABELS, num_targets)
    assert targets.T.tolist() == [row[:found] for row in by_hand(logits, LABELS)]


def test_by_the_mean_of_the_draws():
    logits = answers(6)
    calls = iter(logits)
    inputs = torch.zeros(3, 1, 1, 1)
    targets = best_wrong_classes(lambda _: next(calls), inputs, LABELS, make_objective=partial(expected_loss, 6))
    assert targets.T.tolist() == by_hand(logits.mean(0), LABELS)
    assert targets.T.tolist() != by_hand(logits[0], LABELS)


def test_no_targets(network, images, labels):
    with pytest.raises(ArgumentError, match="num_targets: expected an integer of at least 1, got 0"):
        best_wrong_classes(network, images, labels, 0)
