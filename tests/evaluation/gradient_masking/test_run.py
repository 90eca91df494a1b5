"""All checks together: on honest networks they pass, whatever the noise; the same seed finds the same, also killed."""

import copy
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from flawed import EPS, Few
from launching import Started, run_script
from refusing import check_refusals
from smoothed import PNI, Gaussian, Smoothed, inject
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.gradient_masking import CHECKS, CheckSettings, Defence, Finding, run_checks, summary
from smoothed.rng.seeds import mix, seeded

SMALL = CheckSettings(eps=EPS, steps=2, eot_samples=2, queries=4, tries=3, votes=2, seed=3)


def defence_of_few(out=None, settings=SMALL, images=300, sigma=0.05, num_samples=3, keep_images=0):
    """A linear network with noise on its input, on a batch of images and a part of one."""
    pixels = torch.randint(256, (images, 3, 8, 8), generator=seeded(0)).to(torch.uint8)
    data = ImageSet("random", pixels, Few()(pixels / 255).argmax(1), ("a", "b", "c"))
    smoothed = Smoothed(Few(), Gaussian(sigma), num_samples=num_samples, seed=0)
    return Defence.of(smoothed, data, settings, name="few", out=out, keep_images=keep_images)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_an_honest_network_passes(sigma, defence, few):
    """Linear: its gradient is known, so every attack that follows it is as good as any."""
    done = []
    findings = run_checks(
        defence(few, sigma, images=400, queries=20, tries=10), on_progress=lambda *progress: done.append(progress)
    )
    assert {finding.name: finding.verdict for finding in findings if finding.verdict != "pass"} == {}
    assert done == [(number, 12) for number in range(1, 13)]
    assert len({finding.name for finding in findings}) == 12
    assert summary(findings).startswith("Passed: none of 12 checks")


@pytest.mark.slow
def test_an_honest_network_with_noise_inside_passes(defence, few):
    """Linear still, and each draw has its own weights: a deviation of a quarter of theirs."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    network[1].weight.data, network[1].bias.data = few.weight.data.clone(), -0.5 * few.weight.data.sum(1)
    inject(network, weights=PNI("layer"))
    findings = run_checks(defence(network, images=400, queries=20, tries=10))
    assert {finding.name: finding.verdict for finding in findings if finding.verdict != "pass"} == {}


@pytest.mark.slow
def test_same_seed_same_findings_and_nothing_is_touched(defence, network):
    inject(network, weights=PNI())
    network.train()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    state = torch.get_rng_state()
    small = {"steps": 1, "queries": 3, "tries": 2, "eot_samples": 1, "votes": 1, "images": 30}
    first, second = (run_checks(defence(network, 0.05, seed=3, **small)) for _ in range(2))
    assert first == second
    assert run_checks(defence(network, 0.05, seed=4, **small)) != first
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_killed_checks_go_on_and_find_the_same(tmp_path):
    """Killed after six findings, of which three took adversarial examples: of four attacks beside the white box."""
    assert Started(run_script, __file__, str(tmp_path), "6").end().returncode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert sum(name.startswith("finding") for name in before) == 6
    assert sum(name.startswith("examples") for name in before) == 5 * 2
    done = []
    found = run_checks(defence_of_few(tmp_path), on_progress=lambda *progress: done.append(progress))
    assert found == run_checks(defence_of_few())
    assert done[-1] == (12, 12)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert sum(name.startswith("finding") for name in after) == 12
    assert before.items() < after.items()
    assert run_checks(defence_of_few(tmp_path)) == found
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == after


def test_the_record_of_a_vote_is_that_of_a_tally_with_the_same_seed():
    plain, recorded = defence_of_few(images=20), defence_of_few(images=20, keep_images=6)
    assert torch.equal(plain.clean_accuracy, recorded.clean_accuracy)
    assert torch.equal(plain.white_box_accuracy, recorded.white_box_accuracy)
    assert plain.clean_record == plain.white_box_record == {}
    for images, record in (
        (recorded.inputs, recorded.clean_record),
        (recorded.white_box_examples, recorded.white_box_record),
    ):
        # Stream 2 of the seed 3, of all images of the defence; the first vote on them.
        tallies = recorded.smoothed.tally(images, (1, 2, 3), generator=seeded(mix(3, 2, 0, 0)))["prediction"]
        for place, tally in enumerate(tallies.values()):
            torch.testing.assert_close(record["shares"][place], tally.shares[:6])
        assert (torch.tensor([1, 2, 3]) >= record["decided_after"].T).all()
    calm = defence_of_few(images=20, sigma=0.0, keep_images=6)
    assert calm.clean_record["shares"].shape == (1, 6, 3)


@pytest.mark.slow
def test_examples_that_findings_share_are_made_once(tmp_path):
    """A finding that is missing is made of the examples that are there."""
    first = run_checks(defence_of_few(tmp_path))
    (tmp_path / "finding-one_step_against_many.safetensors").unlink()
    again = defence_of_few(tmp_path)
    object.__setattr__(again, "_run", lambda *_: pytest.fail("an attack was run again"))
    object.__setattr__(again, "is_random", True)  # known, so that nothing is to be probed
    assert run_checks(again) == first


def test_results_of_another_defence_are_refused(tmp_path):
    defence_of_few(tmp_path)
    defence_of_few(tmp_path)
    for options, message in (
        ({"settings": replace(SMALL, steps=3)}, "steps = 3, got one with 2"),
        ({"sigma": 0.1}, r"noise = 'Gaussian\(sigma=0.1\)', got one with 'Gaussian\(sigma=0.05\)'"),
        ({"num_samples": 4}, "num_samples = 4, got one with 3"),
        ({"images": 299}, "images = 299, got one with 300"),
    ):
        with pytest.raises(CheckpointError, match=f"out: expected an evaluation with {message}"):
            defence_of_few(tmp_path, **options)
    data = ImageSet("one", torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a", "b"))
    with pytest.raises(ArgumentError, match=r"out: expected a torch.nn.Module, whose weights identify .*, got func"):
        Defence.of(Smoothed(lambda inputs: inputs.flatten(1), seed=0), data, SMALL, out=tmp_path)


def test_summary_is_about_the_worst():
    findings = [Finding("a", (), "", "pass"), Finding("b", (), "", "unclear"), Finding("c", (), "", "suspicious")]
    assert summary(findings).startswith("Suspicious: 1 of 3 checks failed (c);")
    assert summary(findings[:2]).startswith("Unclear: 1 of 2 checks passed")
    assert summary(findings[:1]).startswith("Passed: none of 1")
    assert len(CHECKS) == 12


def test_bad_settings():
    check_refusals(
        CheckSettings,
        [
            ({"eps": 0.0}, "eps: expected a radius above 0"),
            ({"eps": -1.0}, "eps: expected a finite number of at least 0"),
            ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
            ({"votes": 0}, "votes: expected an integer of at least 1"),
            ({"tolerance": -0.1}, "tolerance: expected a finite number of at least 0"),
        ],
    )


def test_bad_images(defence, few):
    good = defence(few)
    with pytest.raises(ArgumentError, match="inputs: expected images in"):
        Defence(good.smoothed, good.inputs * 2, good.labels)
    with pytest.raises(ArgumentError, match="labels: expected int64 classes"):
        Defence(good.smoothed, good.inputs, good.labels[:5])


if __name__ == "__main__":

    def kill(done, _total):
        if done == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    run_checks(defence_of_few(Path(sys.argv[1])), on_progress=kill)
