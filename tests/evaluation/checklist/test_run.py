"""All checks together: on honest networks they pass, whatever the noise; the same seed finds the same."""

import copy

import pytest
import torch
from torch import nn

from smoothed import PNI, inject
from smoothed.errors import ArgumentError
from smoothed.evaluation.checklist import CHECKS, Defence, Finding, Settings, run_checks, summary


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_an_honest_network_passes(sigma, defence, few):
    """Linear: its gradient is known, so every attack that follows it is as good as any."""
    done = []
    findings = run_checks(
        defence(few, sigma, images=400, queries=20, tries=10), on_progress=lambda *progress: done.append(progress)
    )
    assert {finding.name: finding.verdict for finding in findings if finding.verdict != "pass"} == {}
    assert done == [(number, 11) for number in range(1, 12)]
    assert len({finding.name for finding in findings}) == 11
    assert summary(findings).startswith("Passed: none of 11 checks")


def test_an_honest_network_with_noise_inside_passes(defence, few):
    """Linear still, and each draw has its own weights: a deviation of a quarter of theirs."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    network[1].weight.data, network[1].bias.data = few.weight.data.clone(), -0.5 * few.weight.data.sum(1)
    inject(network, weights=PNI("layer"))
    findings = run_checks(defence(network, images=400, queries=20, tries=10))
    assert {finding.name: finding.verdict for finding in findings if finding.verdict != "pass"} == {}


def test_same_seed_same_findings_and_nothing_is_touched(defence, network):
    inject(network, weights=PNI())
    network.train()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    state = torch.get_rng_state()
    small = {"steps": 1, "queries": 3, "tries": 2, "attack_samples": 1, "votes": 1, "images": 30}
    first, second = (run_checks(defence(network, 0.05, seed=3, **small)) for _ in range(2))
    assert first == second
    assert run_checks(defence(network, 0.05, seed=4, **small)) != first
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_summary_is_about_the_worst():
    findings = [Finding("a", (), "", "pass"), Finding("b", (), "", "unclear"), Finding("c", (), "", "suspicious")]
    assert summary(findings).startswith("Suspicious: 1 of 3 do not hold (c);")
    assert summary(findings[:2]).startswith("Unclear: 1 of 2 checks passed")
    assert summary(findings[:1]).startswith("Passed: none of 1")
    assert len(CHECKS) == 11


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"eps": 0.0}, "eps: expected a radius above 0"),
        ({"eps": -1.0}, "eps: expected a finite number of at least 0"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"votes": 0}, "votes: expected an integer of at least 1"),
        ({"tolerance": -0.1}, "tolerance: expected a finite number of at least 0"),
    ],
)
def test_bad_settings(options, match):
    with pytest.raises(ArgumentError, match=match):
        Settings(**options)


def test_bad_images(defence, few):
    good = defence(few)
    with pytest.raises(ArgumentError, match="inputs: expected images in"):
        Defence(good.smoothed, good.inputs * 2, good.labels)
    with pytest.raises(ArgumentError, match="labels: expected int64 classes"):
        Defence(good.smoothed, good.inputs, good.labels[:5])
