"""A technique that is switched off changes no vote, and off is really off."""

import importlib
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# A compiler takes long, and bf16 rounds: what these give is tested beside their own code.
ELSEWHERE = {"compiled normals", "places as float64", "bf16", "exact ends"}


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("ablation")
    monkeypatch.setattr(module, "VOTED", 5)
    return module


def scores(ablation, on, images):
    """The summed probabilities of two draws, (images, 10), with these techniques on."""
    with ablation.only(frozenset(on)):
        variant = ablation.Variant(frozenset(on))
        vote = ablation.Smoothed(variant.network("CNI"), ablation.Gaussian(0.06), seed=0)
        tally = vote.tally(variant.images[:images], [2], votes=["soft"], generator=ablation.seeded(1))
    return tally["soft"][2].scores


def test_no_technique_changes_what_is_computed(ablation):
    images = 5  # more than share a pass with others of their draws, which is tried first
    plain = scores(ablation, (), images)
    usual = {technique.name for technique in ablation.TECHNIQUES if technique.usual} - ELSEWHERE
    assert (scores(ablation, usual, images) - plain).abs().max() < 1e-4
    for technique in ablation.TECHNIQUES:
        if technique.name in usual and "vote" in technique.jobs:
            removed = ablation.variants(technique.name, kept=False)[2] & usual
            assert (scores(ablation, removed, images) - plain).abs().max() < 1e-4, technique.name
    assert (scores(ablation, usual, 1) - scores(ablation, (), 1)).abs().max() < 1e-4


def test_off_is_off_and_comes_back(ablation):
    with ablation.only(frozenset()):
        reason = ablation.Fast(ablation.load("resnet20-cni-w")).reason
        passes = ablation.smoothed.voting._PASSES
    assert (reason, passes) == ("an ablation", 0)
    assert ablation.Fast(ablation.load("resnet20-cni-w")).reason is None
    assert ablation.smoothed.voting._PASSES > 0


def test_keys_by_torch_are_those_by_numpy(ablation):
    arguments = (2**63 + 5, torch.arange(7), -3, range(7))
    assert torch.equal(ablation.mixed_by_torch(*arguments), ablation.smoothed.randomness.mixed(*arguments))


def test_what_is_removed_takes_along_what_builds_on_it(ablation):
    plain, added, removed, full = ablation.variants("fx tracing", kept=True)
    assert plain == {"kept memory"}
    assert added == {"kept memory", "fx tracing"}
    assert full - removed >= {"fx tracing", "flat weights", "stacked draws"}
    assert "channels-last" in removed
