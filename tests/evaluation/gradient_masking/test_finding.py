"""Intervals against the published formula in cell counts and by their coverage; verdicts by the rule."""

import pytest
import torch
from scipy.stats import norm

from smoothed.errors import ArgumentError
from smoothed.evaluation.gradient_masking.finding import (
    Estimate,
    Figure,
    Finding,
    combined_verdict,
    compare_attacks,
    conclude,
    estimate,
    verdict_of,
)
from smoothed.rng.seeds import seeded


def differences(won, lost, images):
    return torch.tensor([1.0] * won + [-1.0] * lost + [0.0] * (images - won - lost))


@pytest.mark.parametrize(("won", "lost", "images"), [(7, 1, 21), (0, 0, 128), (3, 3, 50), (1, 0, 1), (30, 0, 30)])
def test_is_bonett_and_price(won, lost, images):
    """Their (p12 - p21) +- z sqrt((p12 + p21 - (p12 - p21)^2) / (n + 2)), p = (f + 1) / (n + 2)."""
    p12, p21 = (won + 1) / (images + 2), (lost + 1) / (images + 2)
    half = norm.ppf(0.975) * ((p12 + p21 - (p12 - p21) ** 2) / (images + 2)) ** 0.5
    found = estimate(differences(won, lost, images))
    assert found.value == pytest.approx((won - lost) / images)
    assert found.low == pytest.approx(max(-1, p12 - p21 - half))
    assert found.high == pytest.approx(min(1, p12 - p21 + half))
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("won", "lost"), [(0.02, 0.01), (0.3, 0.1), (0.05, 0.0)])
def test_covers(won, lost):
    """In 500 experiments of 100 images the interval holds the truth 95 % of the time, less two deviations."""
    lots = torch.rand(500, 100, generator=seeded(0))
    flaws = (lots < won).double() - (lots > 1 - lost).double()
    found = [estimate(row) for row in flaws]
    assert sum(each.low <= won - lost <= each.high for each in found) / 500 > 0.93


def test_equal_images_are_no_proof():
    """Twenty images that all agree don't show a flaw to be below 3 points; 128 do."""
    assert verdict_of(estimate(torch.zeros(20)), 0.03) == "unclear"
    assert verdict_of(estimate(torch.zeros(128)), 0.03) == "pass"
    with pytest.raises(ArgumentError, match="flaws: expected the flaw of at least one image, got none"):
        estimate(torch.zeros(0))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.031, 0.2, "suspicious"), (0.03, 0.2, "unclear"), (-0.1, 0.03, "pass"), (-0.1, 0.031, "unclear")],
)
def test_the_rule(low, high, verdict):
    assert verdict_of(Estimate(0.03, low, high), 0.03) == verdict


def test_one_of_many_is_suspicious_at_a_stricter_level():
    """12 of 128 images by itself, but not as one of a hundred flaws that might have shown."""
    chance, nothing = differences(12, 0, 128), differences(0, 0, 128)
    assert combined_verdict([chance], 0.03) == verdict_of(estimate(chance), 0.03) == "suspicious"
    assert combined_verdict([chance] + [nothing] * 99, 0.03) == "unclear"
    assert combined_verdict([differences(40, 0, 128)] + [nothing] * 99, 0.03) == "suspicious"
    assert combined_verdict([nothing] * 100, 0.03) == "pass"


def test_compare_gives_the_lead_of_the_weaker_attack():
    stronger, weaker = torch.tensor([0.25, 0.75] * 64), torch.tensor([0.75, 1.0] * 64)
    sentences = {"if_sound": "good", "if_suspicious": "bad"}
    good = compare_attacks("c", ("white", stronger), ("black", weaker), 0.03, **sentences)
    bad = compare_attacks("c", ("white", weaker), ("black", stronger), 0.03, **sentences)
    assert (good.verdict, good.meaning) == ("pass", "good")
    assert (bad.verdict, bad.meaning) == ("suspicious", "bad")
    assert [str(figure) for figure in bad.figures[:2]] == ["white 87.5 %", "black 50.0 %"]
    assert str(bad.figures[2]).startswith("lead of black +37.5 points (+")


def test_figures_and_findings_are_json_and_text():
    figure = Figure("cosine", "number", 0.5, (0.25, 0.75))
    assert str(figure) == "cosine 0.50 (0.25 to 0.75)"
    assert str(Figure("kept", "percent", 1.204)) == "kept 120.4 %"
    assert Finding("n", (figure,), "m", "pass").to_json() == {
        "name": "n",
        "figures": ({"name": "cosine", "unit": "number", "value": 0.5, "interval": (0.25, 0.75)},),
        "meaning": "m",
        "verdict": "pass",
    }


def test_a_finding_survives_its_record():
    figures = (Figure("größte", "percent", 1 / 3, (0.1, 0.7)), Figure("gain", "points", -0.25))
    finding = Finding("name", figures, "It says “no”.", "unclear")
    record = finding.to_tensors()
    assert bytes(record["json"].tolist()).startswith(b'{"name": "name", "figures": [{"name": ')
    assert Finding.from_tensors(record) == finding
    assert Finding.from_tensors(Finding("none", (), "", "pass").to_tensors()) == Finding("none", (), "", "pass")


@pytest.mark.parametrize(
    ("threshold", "text"),
    [((0.03, "points"), "3 points"), ((0.1 + 0.03, "percent"), "13 %"), ((1 / 9, "number"), "0.111")],
)
def test_an_unclear_verdict_names_the_threshold(threshold, text):
    found = conclude("c", (), "unclear", threshold, if_sound="sound", if_suspicious="suspicious")
    assert found.meaning == f"Inconclusive: the interval crosses the threshold of {text}; use more images."
    assert conclude("c", (), "pass", threshold, if_sound="sound", if_suspicious="suspicious").meaning == "sound"


def test_the_unclear_comparison_names_its_threshold():
    """The weaker attack alone fools 4 of 128 images, so the interval of its lead includes 3 points."""
    accuracies = torch.ones(128), torch.cat([torch.zeros(4), torch.ones(124)])
    found = compare_attacks(
        "c", ("white", accuracies[0]), ("black", accuracies[1]), 0.03, if_sound="", if_suspicious=""
    )
    assert (found.verdict, "the threshold of 3 points" in found.meaning) == ("unclear", True)
