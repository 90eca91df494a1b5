"""Certified robustness: PREDICT and CERTIFY, with abstention (Cohen, Rosenfeld and Kolter, ICML 2019).

With p_c(x) = P[f(x + eta) = c] for eta ~ N(0, sigma^2 I), let g(x) be the class of the largest p_c(x), which is the
limit of the prediction vote for many draws. If p_A(x) > 1/2, then g(x + delta) = A for every delta whose L2 norm is
below sigma * Phi^-1(p_A(x)) (theorem 1 with p_B = 1 - p_A). CERTIFY counts draws and replaces p_A by a lower confidence
bound.

The theorem allows a random f. With noise W inside the network, drawn afresh for each draw,
p_c(x) = E_eta[h_c(x + eta)] with h_c(z) = P_W[f_W(z) = c]. This h_c is a fixed function into [0, 1] smoothed by a
Gaussian, which is all that the Neyman-Pearson lemma in the proof requires. The certificate therefore holds for the vote
over both noises. The draws must be independent, so that a count is binomial; `Smoothed` takes both noises afresh for
each draw of an image.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri
from scipy.stats import binomtest
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import Gaussian
from smoothed.utils.checks import check_positive
from smoothed.utils.intervals import interval

ABSTAIN = -1
"""The class that stands for an abstention."""

# Tallies are float32, in which integers are exact up to this number.
MAX_DRAWS = 2**24

# For a smaller alpha, 1 - 2 alpha loses more than four digits of alpha.
SMALLEST_ALPHA = 1e-12


class TooFewSamplesWarning(UserWarning):
    """Warns of too few draws: every image abstains even if all draws agree."""


@dataclass(frozen=True)
class Certificate:
    """The result of CERTIFY; for each image, the claim is false with probability at most `alpha`.

    Attributes:
        classes: (N,) int64, the certified class, which the vote predicts within the radius; -1 for an abstention.
        radius: (N,) float64, L2 radius in pixel units of [0, 1]; 0 for an abstention. If channels have different
            deviations, the radius refers to the smallest: the class is certified wherever the L2 norm of
            delta_c / sigma_c is below `radius / sigma`, a region that contains the ball of this radius.
        lower_bound: (N,) float64, lower confidence bound on the probability of the selected class.
        counts: (N, K) int64, how many of the estimation's draws predicted each class.
        num_samples: (N,) int64, number of the estimation's draws.
        alpha: maximum probability that the claim about an image is false.
        sigma: smallest standard deviation of the noise over channels, in pixel units.
    """

    classes: Int[Tensor, " n"]
    radius: Float[Tensor, " n"]
    lower_bound: Float[Tensor, " n"]
    counts: Int[Tensor, "n k"]
    num_samples: Int[Tensor, " n"]
    alpha: float
    sigma: float

    @property
    def abstained(self) -> Bool[Tensor, " n"]:
        """Whether each image is an abstention, (N,) bool."""
        return self.classes == ABSTAIN


def certify_inputs(
    smoothed: Smoothed,
    inputs: Tensor,
    *,
    alpha: float = 0.001,
    selection_samples: int = 100,
    num_samples: int = 1000,
    generator: torch.Generator | None = None,
    first_image: int = 0,
) -> Certificate:
    """CERTIFY: certify a class within an L2 radius for each image, or abstain (Cohen et al., 2019).

    One group of draws selects a class; an independent group bounds its probability from below (one-sided Clopper and
    Pearson bound). The claim concerns the prediction vote of infinitely many draws, whatever the vote of `smoothed`; a
    vote of few draws can differ from it if the class has a probability near 1/2.

    Args:
        smoothed: classifier with Gaussian noise on its input; noise inside the network is allowed.
        inputs: images in [0, 1], (N, C, H, W).
        alpha: maximum probability that the claim about an image is false, in [1e-12, 0.5).
        selection_samples: number of draws that select the class, n0.
        num_samples: number of draws that bound its probability, n. The radius is at most
            sigma * Phi^-1(alpha^(1/n)).
        generator: source of this call's seed, as in `Smoothed.tally`; None uses the next seed of `smoothed`.
        first_image: number of the first image in its data set, as in `Smoothed.tally`.

    Returns:
        The certificate of all N images.

    Raises:
        ArgumentError: the noise is not Gaussian, has deviation 0, or is added at a hidden layer; or as for
            `Smoothed.tally`.

    Warns:
        TooFewSamplesWarning: alpha^(1/n) <= 1/2, so that every image abstains.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, Smoothed
        >>> model = lambda inputs: torch.stack([inputs.mean((1, 2, 3)), inputs.new_full((len(inputs),), 0.5)], 1)
        >>> smoothed = Smoothed(model, Gaussian(0.25), pack_draws=True, seed=0)
        >>> certificate = certify_inputs(smoothed, torch.full((1, 1, 2, 2), 0.9))
        >>> certificate.classes, certificate.radius < 0.8  # distance to the decision boundary: 0.4 * sqrt(4)
        (tensor([0]), tensor([True]))
    """
    check_smoothed(smoothed)
    check_positive(selection_samples, "selection_samples")
    sigma = certifiable_sigma(smoothed)
    check_alpha(alpha)
    warn_if_too_few(num_samples, fewest_to_certify(alpha), alpha)
    selection, estimation = draw_counts(
        smoothed, inputs, (selection_samples, num_samples), generator=generator, first_image=first_image
    )
    return certificate_from_counts(selection, estimation, sigma=sigma, alpha=alpha)


def predict_or_abstain(
    smoothed: Smoothed,
    inputs: Tensor,
    *,
    alpha: float = 0.001,
    num_samples: int = 1000,
    generator: torch.Generator | None = None,
    first_image: int = 0,
) -> Int[Tensor, " n"]:
    """PREDICT: predict the class of the prediction vote of infinitely many draws, or abstain (Cohen et al., 2019).

    Valid for any noise on the input and inside the network.

    Args:
        smoothed: the smoothed classifier; its own kind of vote is not used.
        inputs: images in [0, 1], (N, C, H, W).
        alpha: maximum probability that an image's class is not that of infinitely many draws, in [1e-12, 0.5).
        num_samples: number of draws per image, n.
        generator: source of this call's seed, as in `Smoothed.tally`; None uses the next seed of `smoothed`.
        first_image: number of the first image in its data set, as in `Smoothed.tally`.

    Returns:
        Classes, (N,) int64; -1 for an abstention.

    Raises:
        ArgumentError: as for `Smoothed.tally`, or `alpha` is out of range.

    Warns:
        TooFewSamplesWarning: 2^(1 - n) > alpha, so that every image abstains.
    """
    check_smoothed(smoothed)
    check_alpha(alpha)
    warn_if_too_few(num_samples, fewest_to_predict(alpha), alpha)
    (counts,) = draw_counts(smoothed, inputs, (num_samples,), generator=generator, first_image=first_image)
    return predict_from_counts(counts, alpha)


def certificate_from_counts(selection: Tensor, estimation: Tensor, *, sigma: float, alpha: float) -> Certificate:
    """CERTIFY from counts of predicted classes.

    Args:
        selection: (N, K) int64, counts of the draws that select a class.
        estimation: (N, K) int64, counts of independent draws that bound its probability.
        sigma: smallest standard deviation of the noise over channels, in pixel units.
        alpha: maximum probability that the claim about an image is false, in [1e-12, 0.5).

    Returns:
        The certificate of all N images.

    Raises:
        ArgumentError: invalid counts, `alpha` out of range, or `sigma` not positive and finite.
    """
    check_alpha(alpha)
    if not 0 < sigma < math.inf:
        raise ArgumentError("sigma", "a finite standard deviation above 0", sigma)
    selected = _check_counts(selection, "selection").argmax(1)
    trials = _check_counts(estimation, "estimation").sum(1)
    if selection.shape != estimation.shape:
        expected = f"the shape of selection, {tuple(selection.shape)}"
        raise ArgumentError("estimation", expected, tuple(estimation.shape))
    hits = estimation.gather(1, selected[:, None])[:, 0]
    bounds = [_lower_bound(*pair, alpha) for pair in zip(hits.tolist(), trials.tolist(), strict=True)]
    lower_bound = torch.tensor(bounds, dtype=torch.float64, device=estimation.device)
    return Certificate(
        classes=torch.where(lower_bound > 0.5, selected, ABSTAIN),
        radius=certified_radius(lower_bound, sigma),
        lower_bound=lower_bound,
        counts=estimation,
        num_samples=trials,
        alpha=alpha,
        sigma=sigma,
    )


def certified_radius(probability: Float[Tensor, " n"], sigma: float) -> Float[Tensor, " n"]:
    """Return the certified L2 radius sigma * Phi^-1(p), in the unit of `sigma`, or 0 for p <= 1/2.

    Args:
        probability: (N,) probability of the class, or a lower bound on it.
        sigma: standard deviation of the Gaussian noise.
    """
    quantile = torch.as_tensor(ndtri(probability.cpu().numpy())).to(probability)
    return torch.where(probability > 0.5, sigma * quantile, 0.0)


def predict_from_counts(counts: Tensor, alpha: float) -> Int[Tensor, " n"]:
    """PREDICT from counts of predicted classes: the most frequent class, or an abstention.

    A class is predicted if a two-sided binomial test against the second most frequent class is significant.

    Args:
        counts: (N, K) int64, how many draws predicted each class.
        alpha: level of the test, in [1e-12, 0.5).

    Returns:
        Classes, (N,) int64; -1 for an abstention.

    Raises:
        ArgumentError: invalid counts, or `alpha` out of range.
    """
    check_alpha(alpha)
    top = _check_counts(counts, "counts").topk(2, dim=1)
    p_values = [_p_value(first, second) for first, second in top.values.tolist()]
    significant = torch.tensor(p_values, dtype=torch.float64, device=counts.device) <= alpha
    return torch.where(significant, top.indices[:, 0], ABSTAIN)


def draw_counts(
    smoothed: Smoothed,
    inputs: Tensor,
    sizes: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    first_image: int = 0,
) -> list[Int[Tensor, "n k"]]:
    """Count the predicted classes in independent groups of draws.

    Args:
        smoothed: the smoothed classifier.
        inputs: images in [0, 1], (N, C, H, W).
        sizes: number of draws in each group.
        generator: source of this call's seed, as in `Smoothed.tally`.
        first_image: number of the first image in its data set, as in `Smoothed.tally`.

    Returns:
        Counts (N, K), int64, for each group.

    Raises:
        ArgumentError: a group without draws, more than 2^24 draws in total, or as for `Smoothed.tally`.
    """
    ends = list(accumulate(check_positive(size, "num_samples") for size in sizes))
    if ends[-1] > MAX_DRAWS:
        raise ArgumentError("num_samples", f"at most {MAX_DRAWS} draws in total", ends[-1])
    tallies = smoothed.tally(inputs, ends, votes=["prediction"], generator=generator, first_image=first_image)
    totals = [tallies["prediction"][end].scores.long() for end in ends]
    return [totals[0], *(after - before for before, after in pairwise(totals))]


def check_smoothed(smoothed: object) -> None:
    """Raise `ArgumentError` unless `smoothed` is a `Smoothed` classifier."""
    if not isinstance(smoothed, Smoothed):
        raise ArgumentError("smoothed", "a Smoothed classifier", f"an object of type {type(smoothed).__name__}")


def certifiable_sigma(smoothed: Smoothed) -> float:
    """Return the smallest standard deviation of the input's Gaussian noise over channels, in pixel units.

    Raises:
        ArgumentError: the input noise is not Gaussian, has deviation 0, or is added at a hidden layer.
    """
    noise, layer = smoothed.noisy_classifier.noise, smoothed.noisy_classifier.layer
    if layer is not None:
        hint = "the certified radius is measured at the input"
        raise ArgumentError("layer", "None (noise on the input)", f"noise at layer {layer!r}", hint)
    if not isinstance(noise, Gaussian):
        hint = "the certified radius holds for Gaussian input noise only"
        raise ArgumentError("noise", "Gaussian noise on the input", repr(noise), hint)
    sigma = min(noise.sigma) if isinstance(noise.sigma, tuple) else noise.sigma
    if not sigma > 0:
        raise ArgumentError("sigma", "a standard deviation above 0 on every channel", noise.sigma)
    return sigma


def check_alpha(alpha: float) -> float:
    """Return `alpha` if it is a float in [1e-12, 0.5), else raise `ArgumentError`."""
    if not isinstance(alpha, float) or not SMALLEST_ALPHA <= alpha < 0.5:
        raise ArgumentError("alpha", f"a number in [{SMALLEST_ALPHA:g}, 0.5)", repr(alpha))
    return alpha


def fewest_to_certify(alpha: float) -> int:
    """Return the smallest n with alpha^(1/n) > 1/2; fewer draws certify no image even if all draws agree."""
    return math.floor(-math.log2(alpha)) + 1


def fewest_to_predict(alpha: float) -> int:
    """Return the smallest n with 2^(1 - n) <= alpha; fewer draws always lead to an abstention."""
    return math.ceil(1 - math.log2(alpha))


def warn_if_too_few(num_samples: int, fewest: int, alpha: float) -> None:
    """Warn if `num_samples` is below `fewest`, the number of draws needed to reach error probability `alpha`."""
    if check_positive(num_samples, "num_samples") < fewest:
        message = f"num_samples: {num_samples} draws abstain on every image at alpha {alpha:g}; use {fewest} or more"
        warnings.warn(message, TooFewSamplesWarning, stacklevel=3)


@lru_cache(maxsize=65536)
def _lower_bound(hits: int, trials: int, alpha: float) -> float:
    # A one-sided bound at alpha is the lower end of a two-sided interval with error 2 alpha.
    return interval(hits, trials, 1 - 2 * alpha, method="exact")[0]


@lru_cache(maxsize=65536)
def _p_value(first: int, second: int) -> float:
    return float(binomtest(first, first + second).pvalue)


def _check_counts(counts: Tensor, name: str) -> Tensor:
    if counts.ndim != 2 or counts.shape[1] < 2 or counts.is_floating_point():
        raise ArgumentError(name, "int64 counts of shape (N, K), K >= 2", f"{counts.dtype} {tuple(counts.shape)}")
    if bool((counts < 0).any()) or bool((counts.sum(1) < 1).any()):
        raise ArgumentError(name, "counts of at least one draw per image, none negative", counts.tolist())
    return counts
