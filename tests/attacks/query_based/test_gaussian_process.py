"""Posteriors and likelihoods against a naive float64 version in numpy and against scikit-learn where it is."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks.query_based.gaussian_process import condition, fit_hyperparameters, matern
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded

KNOWN, ASKED, DIMENSIONS = 12, 7, 5
LENGTHSCALES, NOISES = torch.tensor([0.7, 2.0, 9.0]), torch.tensor([1e-3, 0.1, 0.5])


@pytest.fixture
def data():
    """Three sets of values of a smooth function with some noise, and where to ask."""
    generator = seeded(1)
    places = torch.rand(3, KNOWN, DIMENSIONS, generator=generator, dtype=torch.float64) * 2 - 1
    asked = torch.rand(3, ASKED, DIMENSIONS, generator=generator, dtype=torch.float64) * 2 - 1
    values = 4 + 3 * places.sum(2).sin() + 0.1 * torch.randn(3, KNOWN, generator=generator, dtype=torch.float64)
    return places, values, asked


def kernel(left, right, lengthscale):
    """The Matern kernel of order 5/2, pair by pair (Rasmussen and Williams, eq. 4.17)."""
    result = np.empty((len(left), len(right)))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            r = math.sqrt(5) * math.sqrt(sum((a - b) ** 2)) / lengthscale
            result[i, j] = (1 + r + r * r / 3) * math.exp(-r)
    return result


def naive(places, values, asked, lengthscale, noise):
    """Mean, deviation and log likelihood by inverses and determinants, with the best variance found by a search."""
    correlations = kernel(places, places, lengthscale) + noise * np.eye(len(places))
    inverse, known = np.linalg.inv(correlations), kernel(asked, places, lengthscale)
    centred = values - values.mean()

    def likelihood(variance):
        log_determinant = np.linalg.slogdet(variance * correlations)[1]
        fit = centred @ inverse @ centred / variance
        return -0.5 * (fit + log_determinant + len(places) * math.log(2 * math.pi))

    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        lambda power: -likelihood(math.exp(power)), bounds=(-10, 10), options={"xatol": 1e-9}, method="bounded"
    )
    variance = math.exp(best.x)
    mean = values.mean() + known @ inverse @ centred
    deviation = np.sqrt(variance * (1 - np.einsum("ij,jk,ik->i", known, inverse, known)))
    return mean, deviation, likelihood(variance)


def test_posterior_and_likelihood_are_the_naive_ones(data):
    places, values, asked = data
    process, likelihood = condition(places, values, LENGTHSCALES.double(), NOISES.double())
    mean, deviation = process.posterior(asked)
    for each in range(3):
        arrays = (tensor[each].numpy() for tensor in (places, values, asked))
        expected = naive(*arrays, float(LENGTHSCALES[each]), float(NOISES[each]))
        for got, wanted in zip((mean[each], deviation[each], likelihood[each]), expected, strict=True):
            assert_close(got, torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_posterior_is_scikit_learns(data):
    gaussian_process = pytest.importorskip("sklearn.gaussian_process")
    places, values, asked = data
    process, likelihood = condition(places, values, LENGTHSCALES.double(), NOISES.double())
    mean, deviation = process.posterior(asked)
    for each in range(3):
        variance = process.variance[each].item()
        kernels = gaussian_process.kernels
        peer = gaussian_process.GaussianProcessRegressor(
            kernels.ConstantKernel(variance) * kernels.Matern(float(LENGTHSCALES[each]), nu=2.5),
            alpha=variance * float(NOISES[each]),
            optimizer=None,
        ).fit(places[each].numpy(), (values[each] - values[each].mean()).numpy())
        expected = peer.predict(asked[each].numpy(), return_std=True)
        assert_close(mean[each] - values[each].mean(), torch.from_numpy(expected[0]), rtol=1e-6, atol=1e-8)
        assert_close(deviation[each], torch.from_numpy(expected[1]), rtol=1e-5, atol=1e-7)
        assert likelihood[each].item() == pytest.approx(peer.log_marginal_likelihood_value_, rel=1e-6)


def test_single_precision_is_enough():
    """At the smallest noise and the longest lengthscale, where the factor is at its worst, with 200 values."""
    generator = seeded(2)
    places = torch.rand(2, 200, 12, generator=generator, dtype=torch.float64)
    values = places.sum(2)
    scales = torch.full((2,), 16 * 12**0.5, dtype=torch.float64), torch.full((2,), 1e-3, dtype=torch.float64)
    asked = torch.rand(2, 5, 12, generator=generator, dtype=torch.float64)
    wide, narrow = (
        condition(*(tensor.to(dtype) for tensor in (places, values, *scales)))[0].posterior(asked.to(dtype))[0]
        for dtype in (torch.float64, torch.float32)
    )
    assert_close(narrow.double(), wide, rtol=0, atol=0.05)


def test_the_most_likely_scales_are_those_of_an_exhaustive_look(data):
    places, values, _ = data
    grid = (0.25, 1.0, 4.0), (1e-3, 0.3)
    chosen = fit_hyperparameters(places, values, *grid)
    for each in range(3):
        pairs = [(lengthscale * DIMENSIONS**0.5, noise) for lengthscale in grid[0] for noise in grid[1]]
        arrays = [tensor[each].numpy() for tensor in (places, values, places)]
        best = max(pairs, key=lambda pair: naive(*arrays, *pair)[2])
        assert (chosen[0][each].item(), chosen[1][each].item()) == pytest.approx(best)


def test_noise_and_lengthscale_are_found():
    """Values of a known process: smooth ones get a long lengthscale and little noise, pure noise gets all of it."""
    generator = seeded(3)
    places = torch.rand(2, 60, 2, generator=generator, dtype=torch.float64) * 2 - 1
    values = torch.stack([places[0].sum(1).sin(), torch.randn(60, generator=generator, dtype=torch.float64)])
    lengthscale, noise = fit_hyperparameters(places, values)
    assert lengthscale[0] >= 2**0.5
    assert noise[0] == 1e-3
    assert noise[1] == 1.0


def test_constant_values_are_certain():
    """An image whose answers do not move: no NaN, and a deviation of almost nothing."""
    places = torch.rand(1, 5, 3, generator=seeded(1))
    values = torch.full((1, 5), 2.0)
    process, _ = condition(places, values, *fit_hyperparameters(places, values))
    mean, deviation = process.posterior(places)
    assert_close(mean, values)
    assert deviation.max() < 1e-6


def test_gradients_are_finite_at_known_places_and_right_elsewhere(data):
    places, values, asked = data
    process, _ = condition(places, values, LENGTHSCALES.double(), NOISES.double())
    assert torch.autograd.gradcheck(process.posterior, (asked.requires_grad_(),))
    start = places.clone().requires_grad_()
    outputs = torch.stack(process.posterior(start))
    assert torch.autograd.grad(outputs.sum(), start)[0].isfinite().all()


def test_matern_is_one_at_zero_and_falls():
    values = matern(torch.linspace(0, 10, 50, dtype=torch.float64))
    assert values[0] == 1
    assert (values.diff() < 0).all()
    assert values[-1] < 1e-6


def test_nothing_to_choose_from(data):
    with pytest.raises(ArgumentError, match="lengthscales: expected at least one value, got none"):
        fit_hyperparameters(*data[:2], (), (1.0,))
    with pytest.raises(ArgumentError, match="noises: expected at least one value, got none"):
        fit_hyperparameters(*data[:2], (1.0,), ())
