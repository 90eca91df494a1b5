"""PREDICT and CERTIFY against adversarial-robustness-toolbox's `PyTorchRandomizedSmoothing`, on the same counts."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothed import Gaussian, Smoothed
from smoothed.smoothing.certification import ABSTAIN, certificate_from_counts, certify_inputs, predict_from_counts

certification = pytest.importorskip("art.estimators.certification.randomized_smoothing")

SIGMA, CLASSES = 0.25, 4


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES)).eval()


@pytest.fixture
def peer(model, monkeypatch):
    """A function from alpha and a list of counts, which are what it samples one after the other, to the peer."""

    def build(alpha, counts):
        built = certification.PyTorchRandomizedSmoothing(
            model=model,
            loss=nn.CrossEntropyLoss(),
            input_shape=(3, 2, 2),
            nb_classes=CLASSES,
            clip_values=(0.0, 1.0),
            sample_size=100,
            scale=SIGMA,
            alpha=alpha,
            device_type="cpu",
        )
        if counts is not None:
            stored = iter(counts)
            monkeypatch.setattr(built, "_prediction_counts", lambda *_, **__: np.asarray(next(stored), float))
        return built

    return build


def some_counts(total, seed):
    """Counts of `total` draws of many classifiers, sure and unsure, with edge cases."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet([0.3] * CLASSES, size=60)
    edges = [[total, 0, 0, 0], [total - 1, 1, 0, 0], [total // 2, total - total // 2, 0, 0], [0, 0, 0, total]]
    return np.array([*edges, *(generator.multinomial(total, share) for share in shares)])


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("total", [100, 1000])
def test_predict(peer, alpha, total):
    counts = some_counts(total, 0)
    theirs = peer(alpha, counts).predict(np.zeros((len(counts), 3, 2, 2), np.float32))
    classes = np.where(theirs.sum(1) == 0, ABSTAIN, theirs.argmax(1))
    ours = predict_from_counts(torch.tensor(counts), alpha)
    assert ours.tolist() == classes.tolist()
    assert 0 < (classes == ABSTAIN).sum() < len(classes)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("total", [100, 1000])
def test_certify(peer, alpha, total):
    """Their bound is statsmodels', a quantile of the beta distribution; ours scipy's, a root of the binomial's tail."""
    pytest.importorskip("statsmodels")
    estimation = some_counts(total, 1)
    generator = np.random.default_rng(2)
    selection = np.array([generator.multinomial(100, counts / total) for counts in estimation])
    pairs = [counts for pair in zip(selection, estimation, strict=True) for counts in pair]
    classes, radius = peer(alpha, pairs).certify(np.zeros((len(estimation), 3, 2, 2), np.float32), n=total)
    ours = certificate_from_counts(torch.tensor(selection), torch.tensor(estimation), sigma=SIGMA, alpha=alpha)
    assert ours.classes.tolist() == classes.tolist()
    np.testing.assert_allclose(ours.radius.numpy(), radius, rtol=1e-9, atol=1e-9)
    assert 0 < ours.abstained.sum() < len(classes)


def test_certify_on_draws_of_ones_own(peer, model):
    """Nothing shared but the model: radii agree to six deviations of the two shares."""
    pytest.importorskip("statsmodels")
    images = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    smoothed = Smoothed(model, Gaussian(SIGMA), chunk_size=4096, seed=0)
    ours = certify_inputs(smoothed, images, num_samples=2000)
    np.random.seed(0)  # what the peer draws from
    classes, radius = peer(0.001, None).certify(images.numpy(), n=2000)
    assert ours.classes.tolist() == classes.tolist()
    assert (ours.radius > 0).sum() > 3
    bound = ours.lower_bound.clamp(0.5).numpy()
    slope = SIGMA / np.exp(-((ours.radius.numpy() / SIGMA) ** 2) / 2) * np.sqrt(2 * np.pi)
    assert (np.abs(ours.radius.numpy() - radius) < 6 * slope * np.sqrt(2 * bound * (1 - bound) / 2000) + 0.01).all()
