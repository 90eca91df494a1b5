"""Verdicts on the paper's claims, from results written by hand whose differences are known."""

import json
import math
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from smoothed.evaluation.results import Result
from smoothed.paper.catalog import DECLARATIONS, sweep_counts
from smoothed.paper.claims import CLAIMS, EQUAL, HIGHER, NOT_HIGHER, NOT_LOWER
from smoothed.paper.declaration import SigmaSweep, sources_of
from smoothed.paper.estimates import ClaimEstimate
from smoothed.paper.figures import BASE_MODELS, sweep_of_votes
from smoothed.paper.pages import write_pages
from smoothed.paper.schedules import PAPER_SCHEDULES, TINY
from smoothed.paper.show import claims_lines, claims_markdown, claims_table
from smoothed.paper.verdicts import judge, judge_claims

TOLD = ("holds", "does not hold", "undecided")


def first(count, images):
    """Outcomes of which the first `count` are right."""
    return torch.arange(images) < count


@pytest.fixture
def store(folder):
    """A function that stores an evaluation by its numbers of right images at each M; one number is that at M = 4."""

    def write(name, robust, *, clean=0, images=1000, vote="prediction", pixels="p", labels=None):
        rows = dict(robust) if isinstance(robust, dict) else {4: robust}
        right = {
            f"{kind}.right": torch.stack([first(value, images) for value in values]).unsqueeze(1)
            for kind, values in (("clean", [clean] * len(rows)), ("robust", rows.values()))
        }
        data = {"pixels": pixels, "labels": labels or f"of {images}", "images": images}
        result = Result("evaluate", [{"vote": vote, "num_samples": m} for m in rows], data=data, tensors=right)
        result.save(folder.result(name))

    return write


@pytest.fixture
def store_sweep(folder):
    """A function that stores a sweep of 1,000 images by the numbers of right ones at sigma 0 and 0.24 of each vote."""

    def write(network, **robust):
        counts = torch.tensor([robust[vote] for vote in robust]).T  # (sigmas, votes)
        sweep = SigmaSweep(network) if len(robust) == 1 else sweep_of_votes(network)
        draws = list(sweep_counts(sweep, TINY))
        # (kinds, sigmas, votes, Ms, runs, images); nothing is right on clean images or at a smaller M
        right = torch.zeros(2, *counts.shape, len(draws), 1, 1000, dtype=torch.bool)
        right[-1, :, :, -1, 0] = torch.arange(1000) < counts[:, :, None]
        setting = {"sigmas_normalized": [0.0, 0.24], "votes": list(robust), "num_samples": draws}
        Result("sweep", [], setting=setting, tensors={"right": right}).save(folder.result(sweep.name))

    return write


def judged(folder, name):
    """The claim of that name."""
    (claim,) = (claim for claim in judge_claims(folder) if claim.claim.name == name)
    return claim


def test_every_claim_reads_what_its_tables_and_figures_measure():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        needed = {source for part in claim.parts for source in part.sources}
        for schedule in PAPER_SCHEDULES:
            assert needed <= {source for name in claim.names for source in sources_of(DECLARATIONS[name], schedule)}


@pytest.mark.parametrize(
    ("region", "intervals"),
    [
        (HIGHER, [(0.1, 2), (-2, -0.1), (-0.1, 2)]),
        (EQUAL, [(-0.9, 0.9), (1.1, 3), (-0.5, 1.5)]),
        (EQUAL, [(0.2, 0.9), (-3, -1.1), (-1.5, 0.5)]),
        (NOT_LOWER, [(-0.9, 5), (-3, -1.1), (-2, 0.5)]),
        (NOT_HIGHER, [(-5, 0.9), (1.1, 3), (0.5, 2)]),
    ],
)
def test_a_verdict_follows_from_interval_and_region(region, intervals):
    assert [judge(ClaimEstimate(0.0, interval), region)[0] for interval in intervals] == list(TOLD)


@pytest.mark.parametrize(
    ("after", "verdict", "why"),
    [
        (60, "holds", ""),
        (20, "does not hold", "the interval lies below 0"),
        (41, "undecided", "the interval includes 0"),
    ],
)
def test_a_claim_that_one_network_is_better(folder, store, after, verdict, why):
    store("cni-w.pgd-7.sigma-tuned", 40, images=100)
    store("epgd-diverged.pgd-7.sigma-tuned", after, images=100)
    claim = judged(folder, "epgd-diverged")
    assert (claim.verdict, claim.why) == (verdict, why)
    # All images that differ do so in one direction; Bonett and Price add one of each.
    estimate, changed = claim.parts[0].estimate, after - 40
    centre = changed / 102
    half = 1.96 * math.sqrt(((abs(changed) + 2) / 102 - centre**2) / 102)
    assert estimate.value == pytest.approx(changed)
    assert estimate.interval == pytest.approx((100 * (centre - half), 100 * (centre + half)))


@pytest.mark.parametrize(
    ("after", "images", "verdict", "why"),
    [
        (40, 1000, "holds", ""),
        (140, 1000, "does not hold", "the interval lies above +1"),
        (40, 100, "undecided", "the interval includes -1 and +1"),
        (30, 1000, "undecided", "the interval includes -1"),
    ],
)
def test_a_claim_that_two_networks_are_equal(folder, store, after, images, verdict, why):
    store("cni-w.pgd-7.sigma-tuned", 40, images=images)
    store("epgd-converged.pgd-7.sigma-tuned", after, images=images)
    claim = judged(folder, "epgd-converged")
    assert (claim.verdict, claim.why) == (verdict, why)


@pytest.mark.parametrize(
    ("soft", "verdict", "points"),
    [([500, 515], "holds", 0), ([600, 500], "does not hold", 10), ([512, 500], "undecided", 1.2)],
)
def test_the_same_sigma_for_every_vote(folder, store_sweep, soft, verdict, points):
    for network in BASE_MODELS:
        store_sweep(network, prediction=[500, 520], weighted=[500, 520], soft=[500, 515])
    store_sweep("high-k", prediction=[500, 520], weighted=[500, 520], soft=soft)
    claim = judged(folder, "one-sigma")
    values = [part.estimate.value for part in claim.parts]
    assert claim.verdict == verdict
    assert sum(values) == pytest.approx(points)
    changed = next(part for part in claim.parts if part.estimate.value) if points else None
    assert changed is None or changed.name == "CNI-W (k = 56), soft"


@pytest.mark.parametrize(
    ("weighted", "verdict"), [([450, 480], "holds"), ([580, 400], "does not hold"), ([519, 400], "undecided")]
)
def test_the_best_vote_each_at_its_own_sigma(folder, store_sweep, weighted, verdict):
    for network in BASE_MODELS:
        store_sweep(network, prediction=[500, 520], weighted=weighted, soft=[450, 400])
    claim = judged(folder, "prediction-vote")
    assert claim.verdict == verdict
    assert claim.parts[0].estimate.value == pytest.approx((520 - max(weighted)) / 10)


@pytest.mark.parametrize(
    ("input_noise", "plain", "verdict", "sigmas"),
    [
        ([400, 600], [600, 400], "holds", (0.24, 0.24)),
        ([600, 400], [400, 600], "does not hold", (-0.24, -0.24)),
        ([400, 600], [502, 500], "undecided", (0.0, 0.24)),
    ],
)
def test_the_larger_best_sigma(folder, store_sweep, input_noise, plain, verdict, sigmas):
    store_sweep("cni-i+w", prediction=input_noise)
    store_sweep("cni-w", prediction=plain)
    claim = judged(folder, "more-noise")
    assert claim.verdict == verdict
    assert claim.parts[0].estimate.interval == pytest.approx(sigmas)


def test_growth_is_the_slope_of_the_least_squares_line(folder, store):
    counts = {1: 400, 8: 520, 64: 560, 512: 570}
    for network in ("cni-w", "cni-i+w", "epgd-diverged", "high-k"):
        store(f"{network}.pgd-7.sigma-tuned", counts, clean=800)
    claim = judged(folder, "grows")
    clean, robust = claim.parts[:2]
    slope = np.polyfit(np.log2(list(counts)), np.array(list(counts.values())) / 10, 1)[0]
    assert robust.estimate.value == pytest.approx(slope)
    # Centred, log2 M is -4.5, -1.5, 1.5 and 4.5, with a sum of squares of 45. The slope is 6 / 45 times the difference
    # of two means, in which the outer M weighs 4.5 / 6 and the inner one 1.5 / 6.
    small, large = (
        0.75 * first(outer, 1000).double() + 0.25 * first(inner, 1000) for outer, inner in ((400, 520), (570, 560))
    )
    differences = large - small
    centre = float(differences.sum()) / 1002
    half = 1.96 * math.sqrt(((float(differences.square().sum()) + 2) / 1002 - centre**2) / 1002)
    assert robust.estimate.interval == pytest.approx((100 * (centre - half) * 2 / 15, 100 * (centre + half) * 2 / 15))
    assert (robust.verdict, clean.verdict, clean.estimate.value) == ("holds", "undecided", 0)
    assert claim.why.startswith("the interval includes 0 (CNI-W, clean; CNI-I+W, clean; ")


def test_a_claim_of_several_parts(folder, store):
    def of(network, one_draw, voted):
        store(f"{network}.pgd-7.one-draw", {1: one_draw}, vote="none")
        store(f"{network}.pgd-7.sigma-tuned", voted)

    of("at", 400, 450)
    of("pni-w", 400, 450)
    claim = judged(folder, "any-defence")
    assert [part.verdict for part in claim.parts] == ["holds", "holds", "undecided"]
    assert claim.verdict == "undecided"
    assert claim.why == "not run: cni-w.pgd-7.sigma-tuned, cni-w.pgd-7.one-draw"
    assert claim.to_run == ["table-1"]
    of("cni-w", 400, 401)
    claim = judged(folder, "any-defence")
    assert (claim.verdict, claim.why, claim.to_run) == ("undecided", "the interval includes 0 (CNI-W)", [])
    of("cni-w", 400, 450)
    assert judged(folder, "any-defence").verdict == "holds"
    of("cni-w", 400, 350)
    folder.result("at.pgd-7.one-draw").unlink()
    claim = judged(folder, "any-defence")
    assert (claim.verdict, claim.why) == ("does not hold", "the interval lies below 0 (CNI-W)")


def test_the_common_images_are_compared(folder, store):
    for network in ("pni-w", "cni-w"):
        store(f"{network}.pgd-7.sigma-0.24", 300)
        store(f"{network}.nattackx8.sigma-0.24", 280, images=400)
    claim = judged(folder, "nattack")
    assert claim.verdict == "does not hold"
    assert [part.estimate.value for part in claim.parts] == pytest.approx([-5, -5])  # 20 of 400


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"pixels": "other"}, "the rows were measured on different images"),
        ({"labels": "other"}, "the rows were measured on different images"),
        ({"vote": "soft"}, "a result has no row of the prediction vote with M = 4"),
    ],
)
def test_results_that_do_not_fit(folder, store, other, why):
    store("cni-w.pgd-7.sigma-tuned", 40)
    store("epgd-diverged.pgd-7.sigma-tuned", 90, **other)
    claim = judged(folder, "epgd-diverged")
    assert (claim.verdict, claim.why, claim.parts[0].estimate) == ("undecided", why, None)


def test_results_without_outcomes(folder, store):
    for network in ("cni-w", "epgd-diverged"):
        store(f"{network}.pgd-7.sigma-tuned", 40)
        folder.result(f"{network}.pgd-7.sigma-tuned").with_suffix(".safetensors").unlink()
    assert "in the .safetensors file beside a result, are missing" in judged(folder, "epgd-diverged").why


def test_the_list_in_a_narrow_terminal(folder, store):
    store("cni-w.pgd-7.sigma-tuned", 400)
    store("epgd-diverged.pgd-7.sigma-tuned", 450)
    claims = judge_claims(folder)
    console = Console(width=80, record=True, file=StringIO())
    console.print(claims_table(claims))
    printed = console.export_text()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert any(line.split() == ["against", "CNI-W", "+5.0", "(+3.6", "to", "+6.4)"] for line in printed.splitlines())
    count, command = claims_lines(claims, folder)
    assert count == f"Claims: 1 hold, 0 do not hold, {len(CLAIMS) - 1} undecided."
    assert "`smoothed paper run table-1 table-3a table-3b table-4 figure-1 " in command
    assert f"--schedule tiny --out {folder.path}`" in command


def test_pages_have_the_claims_of_what_they_show(folder, write_result, tmp_path):
    for network, robust in (("cni-w", 4), ("epgd-diverged", 18)):
        write_result(f"{network}.pgd-7.sigma-tuned", clean=18, robust=robust, vote="prediction", num_samples=4)
    page = write_pages(["table-4"], folder, tmp_path / "pages").read_text(encoding="utf-8")
    assert claims_markdown(judge_claims(folder, ["table-4"]), folder) in page
    results = "`epgd-diverged.pgd-7.sigma-tuned`, `cni-w.pgd-7.sigma-tuned`"
    assert f"| against CNI-W | {results} | +70.0 (+39.9 to +87.4) | holds |  |" in page
    # Differences whose results are missing are named by their claim alone.
    assert "| **undecided** | not run: epgd-converged.pgd-7.sigma-tuned; `smoothed paper run table-4" in page
    assert "| `epgd-converged.pgd-7.sigma-tuned`" not in page
    values = json.loads((tmp_path / "pages/claims.json").read_text())
    by_name = {claim["name"]: claim for claim in values["claims"]}
    assert set(by_name) == {"grows", "epgd-diverged", "epgd-converged"}
    assert by_name["epgd-diverged"]["region"] == [0, None]
    assert by_name["epgd-diverged"]["parts"][0]["estimate"]["value"] == pytest.approx(70)
    assert by_name["epgd-converged"]["command"] == f"smoothed paper run table-4 --schedule tiny --out {folder.path}"
    page = write_pages(["appendix-a"], folder, tmp_path / "none").read_text(encoding="utf-8")
    assert "claims" not in page
