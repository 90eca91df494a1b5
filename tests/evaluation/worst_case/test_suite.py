"""The suite's declarations: names, order, costs that are counted, and what each attack does to a known optimum."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import known
from smoothed import Uniform
from smoothed.attacks.objectives import MAX_STORED_DRAWS
from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.evaluation.worst_case.suite import (
    Cost,
    attack_cost,
    deterministic_suite,
    eot_sweep_attack,
    expectation_suite,
    total_cost,
)

WHITE_BOX = ["pgd-ce", "pgd-margin", "pgd-dlr", "pgd-vote", "apgd-ce", "apgd-dlr", "targeted"]
PROTOCOL = replace(known.QUICK, steps=6, restarts=2, queries=9, targets=2)


class Counting(nn.Module):
    """A linear classifier of four pixels that counts the images that pass, and the gradients that come back."""

    def __init__(self):
        super().__init__()
        self.forward_passes = self.backward_passes = 0

    def forward(self, inputs):
        self.forward_passes += len(inputs)
        logits = inputs.flatten(1) + torch.tensor([9.0, 0, 0, 0])
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient):
        self.backward_passes += len(gradient)


def test_names_and_order():
    assert [entry.name for entry in expectation_suite(PROTOCOL, 4, 10)] == [*WHITE_BOX, "transfer", "square"]
    assert [entry.name for entry in deterministic_suite(PROTOCOL, 10)] == [*WHITE_BOX, "square"]
    assert not any("dlr" in entry.name for entry in expectation_suite(PROTOCOL, 4, 2))
    assert {entry.name for entry in expectation_suite(PROTOCOL, 4, 10) if entry.source == "mean"} == {"transfer"}
    assert {entry.eot_samples for entry in expectation_suite(PROTOCOL, 4, 10)} == {4, 1}
    assert {entry.eot_samples for entry in deterministic_suite(PROTOCOL, 10)} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 3, MAX_STORED_DRAWS + 1])
def test_costs_are_what_is_counted(draws):
    inputs, labels = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(5).long()
    suite = deterministic_suite(PROTOCOL, 4) if draws == 1 else expectation_suite(PROTOCOL, draws, 4)
    for entry in [*suite, eot_sweep_attack(PROTOCOL, draws)]:
        model = Counting()
        noise = None if entry.source == "mean" else Uniform(0.1)
        attack_noisy_classifier(model, noise, entry.attack, inputs, labels, seed=0)
        counted = Cost(model.forward_passes, model.backward_passes)
        assert counted == entry.cost.times(5), entry.name


def test_the_total_is_the_sum_of_its_parts():
    protocol = known.quick(
        num_samples=8, steps=6, restarts=2, queries=9, targets=2, eot_samples=(1, 3), runs=2, resubmissions=(1, 20)
    )
    one_run = Cost(2 * 20 * 8)
    for entry in expectation_suite(protocol, 3, 4):
        one_run = one_run.plus(entry.cost).plus(Cost(5 * 8))
    for entry in deterministic_suite(protocol, 4):
        one_run = one_run.plus(entry.cost)
    swept = [attack_cost(protocol, eot_sweep_attack(protocol, draws)) for draws in (1, 3)]
    assert total_cost(protocol, 50, 4, 3) == one_run.times(100).plus(swept[0].plus(swept[1]).times(40))
    assert total_cost(protocol, 50, 4, 3, [1]) == one_run.times(100).plus(swept[0].times(40))
    assert total_cost(replace(protocol, eot_samples=(3,)), 50, 4, 3) == one_run.times(100)


LONG = replace(PROTOCOL, steps=9, queries=60)


@pytest.mark.parametrize("entry", expectation_suite(LONG, 4, 2), ids=lambda entry: entry.name)
def test_each_attack_reaches_the_known_optimum(entry):
    inputs = torch.linspace(0.3, 0.9, 30).view(-1, 1, 1, 1)
    noise = None if entry.source == "mean" else Uniform(known.SIGMA)
    attacked = attack_noisy_classifier(known.Threshold(), noise, entry.attack, inputs, torch.zeros(30).long(), seed=0)
    moved = (inputs - attacked).flatten()
    assert float(moved.abs().max()) <= LONG.eps + 1e-6
    # Square sees noisy answers of a classifier with few moves to make; the others have the gradient's sign for certain.
    assert float(moved.mean()) > (0.5 if entry.name == "square" else 0.97) * LONG.eps
