"""Appendix A against closed forms of other origin, numerical integration, brute force and draws."""

import math

import pytest
import torch
from scipy import integrate, stats

from smoothed.errors import ArgumentError
from smoothed.paper import appendix
from smoothed.paper.appendix_report import appendix_rows
from smoothed.rng.seeds import seeded

EXPONENTS = [1.0, 1.5, 2.0, 4.0, math.inf]
EPS, SIGMA, BIAS = 0.4, 0.3, -0.2


@pytest.fixture
def weight():
    return torch.tensor([0.8, -0.5, 0.3, 0.1], dtype=torch.float64)


@pytest.fixture
def sample(weight):
    """Weight, bias, inputs and labels of six samples on both sides of the hinge."""
    inputs = torch.randn(6, 4, generator=seeded(3), dtype=torch.float64)
    return weight, BIAS, inputs, torch.tensor([1, -1, 1, 1, -1, -1])


@pytest.mark.parametrize("p", EXPONENTS)
def test_no_attack_in_the_ball_gains_more_than_the_strongest(weight, p):
    strongest = appendix.strongest_attack(weight, EPS, p)
    assert float(torch.linalg.vector_norm(strongest, p)) == pytest.approx(EPS)
    gain = appendix.attack_gain(weight, EPS, p)
    assert float(weight @ strongest) == pytest.approx(gain)
    others = torch.randn(20_000, 4, generator=seeded(0), dtype=torch.float64)
    others *= EPS / torch.linalg.vector_norm(others, p, dim=1, keepdim=True)
    best = float((others @ weight).max())
    assert 0.9 * gain < best <= gain + 1e-12


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_objective_is_its_integral(sample, p):
    weight, bias, inputs, labels = sample
    exact = appendix.objective(*sample, eps=EPS, sigma=SIGMA, p=p)
    deviation = SIGMA * float(weight.norm())
    for value, x, y in zip(exact.tolist(), inputs, labels, strict=True):
        mean = float(1 - y * (weight @ x + bias)) + appendix.attack_gain(weight, EPS, p)
        integrand = lambda n, mean=mean: max(0.0, mean + deviation * n) * stats.norm.pdf(n)  # noqa: E731
        kink = -mean / deviation
        integral, _ = integrate.quad(integrand, -12, 12, points=[min(max(kink, -12), 12)])
        assert value == pytest.approx(integral, abs=1e-8)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_estimate_agrees_with_the_closed_form(sample, p):
    exact = appendix.objective(*sample, eps=EPS, sigma=SIGMA, p=p)
    estimate, error = appendix.estimated_objective(
        *sample, eps=EPS, sigma=SIGMA, p=p, num_samples=40_000, generator=seeded(1)
    )
    # Six samples: 4.5 standard errors are exceeded by chance once in 20,000 times.
    assert torch.all((estimate - exact).abs() <= 4.5 * error + 1e-9)
    assert float(error.max()) < 0.01


def test_without_noise_the_objective_is_the_attacked_hinge(sample):
    weight, bias, inputs, labels = sample
    attacked = inputs - labels[:, None] * appendix.strongest_attack(weight, EPS, 2)
    expected = appendix.hinge(weight, bias, attacked, labels)
    torch.testing.assert_close(appendix.objective(*sample, eps=EPS, sigma=0.0, p=2), expected)


def test_equation_a28_holds_where_the_hinge_is_active(weight):
    along = weight / weight.norm() ** 2
    margins = torch.tensor([-3.0, -1.0, 0.9, 1.1, 4.0], dtype=torch.float64)
    inputs, labels = (margins - BIAS)[:, None] * along, torch.ones(5, dtype=torch.int64)
    sample = (weight, BIAS, inputs, labels)
    with_noise = appendix.objective(*sample, eps=EPS, sigma=SIGMA, p=2)
    without = appendix.objective(*sample, eps=EPS, sigma=0.0, p=2)
    separated = appendix.separated_objective(*sample, eps=EPS, p=2)
    torch.testing.assert_close(with_noise[:2], separated[:2])
    torch.testing.assert_close(without[:3], separated[:3])
    # Near the hinge noise raises the objective, and beyond it eq. A.28 stays above both.
    assert torch.all(with_noise[2:] > without[2:])
    assert with_noise[2] > separated[2]
    assert torch.all(separated[3:] > without[3:])


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("axis", [True, False])
def test_the_attack_splits_as_equations_a29_and_a30_say(weight, p, axis):
    direction = torch.eye(4, dtype=torch.float64)[1] if axis else weight
    noise = 0.1 * torch.randn(200, 4, generator=seeded(2), dtype=torch.float64)
    orthogonal = appendix.orthogonal_part(noise, direction)
    assert float((orthogonal @ direction).abs().max()) < 1e-12
    torch.testing.assert_close(noise - orthogonal, torch.outer(noise @ direction, direction) / direction.norm() ** 2)
    by_equation = appendix.parallel_length(orthogonal, EPS, p)
    found = appendix.longest_parallel_length(orthogonal, direction, EPS, p)
    if axis or p == 2:
        torch.testing.assert_close(by_equation, found, rtol=0, atol=1e-9)
    else:  # the norms of the parts add up along an axis and for p = 2 only
        assert float((by_equation - found).abs().max()) > 1e-3


def test_no_length_is_left_where_the_noise_alone_is_too_long():
    orthogonal = torch.tensor([[0.0, 0.6], [0.0, 0.3]], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.4], dtype=torch.float64)
    torch.testing.assert_close(appendix.parallel_length(orthogonal, 0.5, 2), expected)
    assert appendix.parallel_length(orthogonal, 0.5, math.inf).tolist() == [0.0, 0.5]


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.0])
def test_the_orthogonal_part_has_its_expected_power(weight, p):
    noise = SIGMA * torch.randn(200_000, 4, generator=seeded(4), dtype=torch.float64)
    powers = torch.linalg.vector_norm(appendix.orthogonal_part(noise, weight), p, dim=1) ** p
    error = float(powers.std()) / len(powers) ** 0.5
    assert abs(float(powers.mean()) - appendix.expected_orthogonal_power(weight, SIGMA, p)) < 4 * error


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_the_orthogonal_part_has_its_distribution(p):
    axis = torch.eye(6, dtype=torch.float64)[0]
    noise = SIGMA * torch.randn(5_000, 6, generator=seeded(5), dtype=torch.float64)
    norms = torch.linalg.vector_norm(appendix.orthogonal_part(noise, axis), p, dim=1)
    test = stats.kstest(norms.numpy(), lambda t: appendix.orthogonal_norm_cdf(torch.as_tensor(t), 6, SIGMA, p).numpy())
    assert test.pvalue > 0.01
    if p == 2:
        scaled = torch.tensor([0.5, 1.0], dtype=torch.float64)
        expected = stats.chi(5).cdf(scaled.numpy() / SIGMA)
        assert appendix.orthogonal_norm_cdf(scaled, 6, SIGMA, p).numpy() == pytest.approx(expected)


def test_refusals(weight):
    with pytest.raises(ArgumentError, match="p: expected a number of at least 1"):
        appendix.dual_exponent(0.5)
    with pytest.raises(ArgumentError, match="p: expected 2 or infinity"):
        appendix.orthogonal_norm_cdf(weight, 4, SIGMA, 3)


def test_the_report_has_its_laws_inside_most_intervals():
    rows = appendix_rows(num_samples=4000, seed=1)
    pairs = [(row["with_noise"], row["estimate_interval"]) for row in rows["objective"] if row["margin"] < 2]
    pairs += [(row["law"], row["estimate_interval"]) for row in rows["orthogonal"] if row["law"] is not None]
    inside = sum(low <= law <= high for law, (low, high) in pairs)
    assert inside >= 0.8 * len(pairs)
    for row in rows["orthogonal"]:
        if row["direction"] == "axis" or row["p"] == 2:
            assert row["length_by_equation_a30"] == pytest.approx(row["length_by_bisection"])
