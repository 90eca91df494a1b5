"""Certified robustness: PREDICT and CERTIFY, with abstention (Cohen, Rosenfeld and Kolter, ICML 2019).

With p_c(x) = P[f(x + eta) = c] for eta ~ N(0, sigma^2 I), let g(x) be the class of the largest p_c(x): what the
prediction vote tends to as its draws grow. If p_A(x) > 1/2, then g(x + delta) = A for every delta whose L2 norm is
below sigma * Phi^-1(p_A(x)) (theorem 1 with p_B = 1 - p_A). CERTIFY counts draws and puts a lower confidence bound in
the place of p_A.

f may be random, as the theorem says itself. With noise W inside the network, drawn anew for each vote,
p_c(x) = E_eta[h_c(x + eta)] with h_c(z) = P_W[f_W(z) = c]: a fixed function into [0, 1], smoothed by a Gaussian, which
is all that the Neyman-Pearson lemma behind the theorem asks for. So the certificate is of the vote over both noises. It
needs independent draws, so that a count is binomial; `Smoothed` draws both noises anew for each vote of an image.
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
"""The class of an image that no class is claimed for."""

# A tally is float32, which counts without loss so far.
MOST_DRAWS = 2**24

# Below it, 1 - 2 alpha loses more than four digits of alpha.
SMALLEST_ALPHA = 1e-12


class TooFewSamplesWarning(UserWarning):
    """So few draws that every image is abstained on, even if all draws agree."""


@dataclass(frozen=True)
class Certificate:
    """What CERTIFY found out about each image; each line is wrong with a probability of at most `alpha`.

    Attributes:
        classes: (N,) int64, the class that the vote has within the radius, or -1 for images abstained on.
        radius: (N,) float64, L2, in pixel units of [0, 1]; 0 where abstained. Where each channel has its own deviation,
            it is measured by the smallest: the vote keeps its class wherever the L2 norm of delta_c / sigma_c is below
            `radius / sigma`, of which the ball of this radius is a part.
        lower_bound: (N,) float64, of the probability of the class that the selection chose.
        counts: (N, K) int64, the classes of the estimation's draws.
        num_samples: (N,) int64, how many those were.
        alpha: bound of the probability of error, for each image.
        sigma: the smallest deviation of the noise, in pixel units.
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
        """Whether no class is claimed, (N,) bool."""
        return self.classes == ABSTAIN


def certify(
    smoothed: Smoothed,
    inputs: Tensor,
    *,
    alpha: float = 0.001,
    selection_samples: int = 100,
    num_samples: int = 1000,
    generator: torch.Generator | None = None,
    first_image: int = 0,
) -> Certificate:
    """CERTIFY: a class and an L2 radius within which the prediction vote has it, or an abstention.

    Some draws choose a class, others, independent of them, bound its probability from below (Clopper and Pearson, one
    side). The claim is about the prediction vote of infinitely many draws, whatever vote `smoothed` takes; a vote of a
    few draws can still differ from it where the probability is near 1/2.

    Args:
        smoothed: with Gaussian noise on its input; noise inside the network is allowed.
        inputs: images in [0, 1], (N, C, H, W).
        alpha: bound of the probability that an image's claim is false, in [1e-12, 0.5).
        selection_samples: draws that choose the class, n0.
        num_samples: draws that bound its probability, n. The radius can't exceed sigma * Phi^-1(alpha^(1/n)).
        generator: as in `Smoothed.tally`, as is `first_image`.
        first_image: number of the first image.

    Raises:
        ArgumentError: noise that is not Gaussian, of deviation 0, or at a hidden layer; as `Smoothed.tally`.

    Warns:
        TooFewSamplesWarning: alpha^(1/n) <= 1/2, so that all images are abstained on.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, Smoothed
        >>> model = lambda inputs: torch.stack([inputs.mean((1, 2, 3)), inputs.new_full((len(inputs),), 0.5)], 1)
        >>> smoothed = Smoothed(model, Gaussian(0.25), pack_draws=True, seed=0)
        >>> certificate = certify(smoothed, torch.full((1, 1, 2, 2), 0.9))
        >>> certificate.classes, certificate.radius < 0.8  # the distance to the boundary: 0.4 * sqrt(4)
        (tensor([0]), tensor([True]))
    """
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
    """PREDICT: the class of the prediction vote of infinitely many draws, or -1 where the draws leave it open.

    Holds for any noise, of the input and of the network.

    Args:
        smoothed: the classifier.
        inputs: images in [0, 1], (N, C, H, W).
        alpha: bound of the probability that an image's class is another one than that vote's, in [1e-12, 0.5).
        num_samples: draws of an image, n.
        generator: as in `Smoothed.tally`, as is `first_image`.
        first_image: number of the first image.

    Returns:
        Classes, (N,) int64; -1 abstains.

    Raises:
        ArgumentError: as `Smoothed.tally`.

    Warns:
        TooFewSamplesWarning: 2^(1 - n) > alpha, so that all images are abstained on.
    """
    check_alpha(alpha)
    warn_if_too_few(num_samples, fewest_to_predict(alpha), alpha)
    (counts,) = draw_counts(smoothed, inputs, (num_samples,), generator=generator, first_image=first_image)
    return predict_from_counts(counts, alpha)


def certificate_from_counts(selection: Tensor, estimation: Tensor, *, sigma: float, alpha: float) -> Certificate:
    """CERTIFY on counts of classes, (N, K) int64: of draws that select, and of others that estimate.

    Args:
        selection: counts of the draws that choose a class.
        estimation: counts of the draws, independent of those, that bound its probability.
        sigma: the smallest deviation of the noise, in pixel units.
        alpha: bound of the probability of error, for each image.

    Raises:
        ArgumentError: counts that are none, an alpha out of range, or a deviation that is not above 0.
    """
    check_alpha(alpha)
    if not 0 < sigma < math.inf:
        raise ArgumentError("sigma", "a deviation above 0", sigma)
    chosen = _check_counts(selection, "selection").argmax(1)
    trials = _check_counts(estimation, "estimation").sum(1)
    if selection.shape != estimation.shape:
        raise ArgumentError("estimation", f"shape {tuple(selection.shape)}, as selection", tuple(estimation.shape))
    hits = estimation.gather(1, chosen[:, None])[:, 0]
    bounds = [_lower_bound(*pair, alpha) for pair in zip(hits.tolist(), trials.tolist(), strict=True)]
    lower_bound = torch.tensor(bounds, dtype=torch.float64, device=estimation.device)
    return Certificate(
        classes=torch.where(lower_bound > 0.5, chosen, ABSTAIN),
        radius=certified_radius(lower_bound, sigma),
        lower_bound=lower_bound,
        counts=estimation,
        num_samples=trials,
        alpha=alpha,
        sigma=sigma,
    )


def certified_radius(probability: Float[Tensor, " n"], sigma: float) -> Float[Tensor, " n"]:
    """The L2 radius within which a class of probability p > 1/2 wins: sigma * Phi^-1(p), in sigma's unit; else 0."""
    quantile = torch.as_tensor(ndtri(probability.cpu().numpy())).to(probability)
    return torch.where(probability > 0.5, sigma * quantile, 0.0)


def predict_from_counts(counts: Tensor, alpha: float) -> Int[Tensor, " n"]:
    """PREDICT on counts of classes, (N, K) int64: (N,), the most frequent, or -1.

    A two-sided binomial test has to tell it from the second one.

    Raises:
        ArgumentError: counts that are none, or an alpha out of range.
    """
    check_alpha(alpha)
    top = _check_counts(counts, "counts").topk(2, dim=1)
    p_values = [_p_value(first, second) for first, second in top.values.tolist()]
    certain = torch.tensor(p_values, dtype=torch.float64, device=counts.device) <= alpha
    return torch.where(certain, top.indices[:, 0], ABSTAIN)


def draw_counts(
    smoothed: Smoothed,
    inputs: Tensor,
    sizes: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    first_image: int = 0,
) -> list[Int[Tensor, "n k"]]:
    """How often each class came in independent groups of draws, of `sizes`: (N, K) int64, one a group."""
    ends = list(accumulate(check_positive(size, "num_samples") for size in sizes))
    if ends[-1] > MOST_DRAWS:
        raise ArgumentError("num_samples", f"at most {MOST_DRAWS} draws in all", ends[-1])
    tallies = smoothed.tally(inputs, ends, votes=["prediction"], generator=generator, first_image=first_image)
    totals = [tallies["prediction"][end].scores.long() for end in ends]
    return [totals[0], *(after - before for before, after in pairwise(totals))]


def certifiable_sigma(smoothed: Smoothed) -> float:
    """The smallest deviation of the input's Gaussian noise, in pixel units.

    Raises:
        ArgumentError: no Gaussian noise on the input: the radius holds for no other law.
    """
    noise, layer = smoothed.one_draw.noise, smoothed.one_draw.layer
    if layer is not None:
        raise ArgumentError("layer", "noise on the input, in whose units the radius is", f"noise at layer {layer!r}")
    if not isinstance(noise, Gaussian):
        raise ArgumentError("noise", "Gaussian, for which alone the radius holds", repr(noise))
    sigma = min(noise.sigma) if isinstance(noise.sigma, tuple) else noise.sigma
    if not sigma > 0:
        raise ArgumentError("sigma", "a deviation above 0 on every channel", noise.sigma)
    return sigma


def check_alpha(alpha: float) -> float:
    """Return `alpha` if it is a bound of a probability of error that can be met, else raise `ArgumentError`."""
    if not isinstance(alpha, float) or not SMALLEST_ALPHA <= alpha < 0.5:
        raise ArgumentError("alpha", f"a number in [{SMALLEST_ALPHA:g}, 0.5)", repr(alpha))
    return alpha


def fewest_to_certify(alpha: float) -> int:
    """The smallest n with alpha^(1/n) > 1/2: fewer draws certify nothing even if all agree."""
    return math.floor(-math.log2(alpha)) + 1


def fewest_to_predict(alpha: float) -> int:
    """The smallest n with 2^(1 - n) <= alpha: fewer draws are always abstained on."""
    return math.ceil(1 - math.log2(alpha))


def warn_if_too_few(num_samples: int, fewest: int, alpha: float) -> None:
    """Warn that `num_samples` draws, fewer than `fewest`, reach `alpha` for no image."""
    if check_positive(num_samples, "num_samples") < fewest:
        message = f"num_samples: {num_samples} draws abstain on every image at alpha {alpha:g}; take {fewest} or more"
        warnings.warn(message, TooFewSamplesWarning, stacklevel=3)


@lru_cache(maxsize=65536)
def _lower_bound(hits: int, trials: int, alpha: float) -> float:
    # The lower end of a two-sided interval has half of its error.
    return interval(hits, trials, 1 - 2 * alpha, method="exact")[0]


@lru_cache(maxsize=65536)
def _p_value(first: int, second: int) -> float:
    return float(binomtest(first, first + second).pvalue)


def _check_counts(counts: Tensor, name: str) -> Tensor:
    if counts.ndim != 2 or counts.shape[1] < 2 or counts.is_floating_point():
        raise ArgumentError(name, "int64 counts of shape (N, K), K >= 2", f"{counts.dtype} {tuple(counts.shape)}")
    if bool((counts < 0).any()) or bool((counts.sum(1) < 1).any()):
        raise ArgumentError(name, "counts of at least one draw an image", counts.tolist())
    return counts
