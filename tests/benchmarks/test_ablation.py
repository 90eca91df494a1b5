"""Switching a technique off changes no vote, takes effect, and ends with its block."""

import importlib
from pathlib import Path

import pytest
import torch

from smoothed import Fast, Gaussian, Smoothed, load
from smoothed.rng import counter_based
from smoothed.rng.seeds import mix_rows, seeded
from smoothed.smoothing import sampling

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# bf16 rounds; the tests of its own code check it.
INEXACT = {"bf16", "exact ends"}


@pytest.fixture
def techniques(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("techniques")


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("ablation")
    monkeypatch.setattr(module, "NUM_IMAGES", 5)
    return module


def scores(ablation, on, images):
    """The summed probabilities of two draws, (images, 10), with these techniques on."""
    with ablation.only(frozenset(on)):
        variant = ablation.Variant(frozenset(on))
        vote = Smoothed(variant.network("CNI"), Gaussian(0.06), seed=0)
        tally = vote.tally(variant.images[:images], [2], votes=["soft"], generator=seeded(1))
    return tally["soft"][2].scores


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 5])
def test_the_full_stack_gives_the_votes_of_the_plain_network(ablation, techniques, images):
    """One image has several draws in a pass, five images have not."""
    exact = techniques.FULL_STACK - INEXACT
    assert (scores(ablation, exact, images) - scores(ablation, (), images)).abs().max() < 1e-4


@pytest.mark.slow
def test_no_technique_changes_the_votes(ablation, techniques):
    images = 5  # too many for `Fast` to try several draws in a pass, which takes long
    plain, exact = scores(ablation, (), images), techniques.FULL_STACK - INEXACT
    for technique in techniques.TECHNIQUES:
        if technique.name in exact and {"vote", "image"} & set(technique.jobs):
            removed = techniques.variants(technique.name, memory_kept=False)[2] & exact
            assert (scores(ablation, removed, images) - plain).abs().max() < 1e-4, technique.name


def states(techniques):
    """All attributes of the package's modules and of the classes whose methods are replaced."""
    modules = [module for name, module in techniques.sys.modules.items() if name.partition(".")[0] == "smoothed"]
    classes = [techniques.Fast, techniques.FusedLayer, techniques.FusedWeights, techniques.ScaledNoise]
    return [(owner, dict(vars(owner))) for owner in (*modules, *classes)]


def test_every_switch_takes_effect_and_comes_back(techniques):
    before = states(techniques)
    for technique in techniques.TECHNIQUES:
        if technique.off is None:
            continue
        with techniques.only(frozenset(techniques.BY_NAME) - {technique.name}):
            changed = [
                name
                for owner, attributes in before
                for name, value in attributes.items()
                if vars(owner)[name] is not value
            ]
        assert changed, technique.name
        for owner, attributes in before:
            assert all(vars(owner)[name] is value for name, value in attributes.items()), technique.name


def test_off_is_off(techniques):
    with techniques.only(frozenset()):
        assert Fast(load("resnet20-cni-w")).reason == "an ablation"
        assert sampling._MAX_PASSES == 0
    assert Fast(load("resnet20-cni-w")).reason is None
    assert sampling._MAX_PASSES > 0


def test_numbers_are_compiled_only_if_that_technique_is_on(techniques):
    for on in ((), ("compiled normals",)):
        with techniques.only(frozenset(on)):
            techniques.fast.compile_numbers()  # what `Fast(compile=True)` calls
            assert counter_based._compilation["enabled"] == bool(on)
        assert not counter_based._compilation["enabled"]


def test_keys_by_torch_are_those_by_numpy(techniques):
    arguments = (2**63 + 5, torch.arange(7), -3, range(7))
    assert torch.equal(techniques.mix_rows_by_torch(*arguments), mix_rows(*arguments))


def test_what_builds_on_a_technique_is_removed_with_it(techniques):
    plain, added, removed, full = techniques.variants("fused network", memory_kept=True)
    assert plain == {"kept memory"}
    assert added == {"kept memory", "fused network"}
    assert full - removed >= {"fused network", "weight vector", "stacked draws"}
    assert "channels-last" in removed


def test_small_techniques_are_added_and_removed_together(techniques):
    parts = techniques.parts_of("small techniques")
    assert len(parts) == 7
    plain, added, removed, full = techniques.variants("small techniques", memory_kept=False)
    assert added - plain == parts
    assert not removed & parts
    assert full == techniques.FULL_STACK
    assert {"fused network", "weight vector", "stacked draws"} <= removed
    assert techniques.variants("cached draw", memory_kept=False)[3] == techniques.FULL_STACK


def test_techniques_come_after_those_that_they_need(techniques):
    names = list(techniques.BY_NAME)
    for technique in techniques.TECHNIQUES:
        assert all(names.index(needed) < names.index(technique.name) for needed in technique.needs)
        assert set(technique.jobs) <= set(techniques.JOBS)
