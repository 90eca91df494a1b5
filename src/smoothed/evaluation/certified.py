"""Certified accuracy: how many images a smoothed network classifies correctly, and provably so within an L2 radius."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from smoothed.certification import (
    ABSTAIN,
    certifiable_sigma,
    certificate_from_counts,
    check_alpha,
    draw_counts,
    fewest_to_certify,
    predict_from_counts,
    warn_if_too_few,
)
from smoothed.checks import check_choice, check_not_negative, check_positive
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.evaluate import BATCH, SIGMA_UNITS, OnProgress, Protocol, ignore_progress
from smoothed.randomness import mix, seeded
from smoothed.smoothing import Smoothed
from smoothed.statistics import interval

# Draws between two words of progress.
DRAWS = 25

# Which group of draws a key belongs to.
SELECTION, ESTIMATION = range(2)

RADII = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""L2 radii in pixel units of [0, 1]."""


@dataclass(frozen=True)
class CertificationProtocol:
    """How to certify, as plain values.

    Attributes:
        radii: at which to give the certified accuracy: L2, in pixel units of [0, 1].
        alpha: bound of the probability of error, for each image.
        selection_samples: draws that choose a class, n0.
        num_samples: draws that bound its probability, n.
        sigma_units: of all sigmas: `normalized` (the paper's) or `pixel`.
        seed: of all draws.
    """

    radii: tuple[float, ...] = RADII
    alpha: float = 0.001
    selection_samples: int = 100
    num_samples: int = 1000
    sigma_units: str = "normalized"
    seed: int = 0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_positive(self.selection_samples, "selection_samples")
        check_positive(self.num_samples, "num_samples")
        check_choice(self.sigma_units, SIGMA_UNITS, "sigma_units")
        if not self.radii or len(set(self.radii)) != len(self.radii):
            raise ArgumentError("radii", "each radius once, and at least one", list(self.radii))
        for radius in self.radii:
            check_not_negative(radius, "radii")


@dataclass(frozen=True)
class CertifiedRow:
    """Certified accuracy of one network at one sigma and one radius, with what all radii have in common.

    Attributes:
        model: name or path of the checkpoint.
        sigma: deviation of the Gaussian input noise, in `sigma_units`.
        sigma_units: `normalized` (the paper's) or `pixel`.
        sigma_pixel: the smallest deviation of a channel in pixel units, which the radius is measured by.
        radius: L2, in pixel units of [0, 1].
        dimensions: of an image, d = C * H * W.
        linf_eps: the largest L-inf ball inside that L2 ball, radius / sqrt(d), in pixel units.
        certified: share of images that CERTIFY gives the right class with at least that radius, in [0, 1].
        certified_interval: its 95 % Wilson interval over images.
        clean: share of images that PREDICT gives the right class; to abstain is to be wrong.
        clean_interval: likewise.
        predict_abstained: share of images that PREDICT abstains on.
        predict_abstained_interval: likewise.
        abstained: share of images that CERTIFY abstains on.
        abstained_interval: likewise.
        mean_radius: of all images, with 0 for those that are wrong or abstained on (Zhai et al., 2020: ACR).
        images: how many.
        alpha: bound of the probability of error of each image.
        selection_samples: draws that choose a class, n0.
        num_samples: draws that bound its probability, n; PREDICT takes the same ones.
        seed: of all draws.

    Of N images certified, alpha * N are wrongly so at most, in expectation.
    """

    model: str
    sigma: float
    sigma_units: str
    sigma_pixel: float
    radius: float
    dimensions: int
    linf_eps: float
    certified: float
    certified_interval: tuple[float, float]
    clean: float
    clean_interval: tuple[float, float]
    predict_abstained: float
    predict_abstained_interval: tuple[float, float]
    abstained: float
    abstained_interval: tuple[float, float]
    mean_radius: float
    images: int
    alpha: float
    selection_samples: int
    num_samples: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)


def evaluate_certified(
    model: nn.Module,
    data: Images,
    protocol: CertificationProtocol,
    *,
    sigmas: Sequence[float],
    name: str,
    chunk_size: int = 250,
    on_progress: OnProgress = ignore_progress,
) -> list[CertifiedRow]:
    """PREDICT and CERTIFY every image, and count.

    Args:
        model: from images to logits (N, K), on the data's device; noise inside it is drawn anew for each vote.
        data: the images to measure on.
        protocol: how.
        sigmas: deviations of the Gaussian input noise, in the protocol's units.
        name: of the model, for the rows.
        chunk_size: rows of one forward pass.
        on_progress: called with the draws done and their total, each of a batch of images, at one sigma.

    Returns:
        One row a sigma and radius, in the order given.

    Raises:
        ArgumentError: a setting that makes no sense, such as a sigma of 0.

    Warns:
        TooFewSamplesWarning: too few draws to certify any image.
    """
    noise_of = Protocol(sigma_units=protocol.sigma_units).input_noise
    votes = [Smoothed(model, noise_of(model, sigma), chunk_size=chunk_size) for sigma in sigmas]
    for smoothed in votes:
        certifiable_sigma(smoothed)
    warn_if_too_few(protocol.num_samples, fewest_to_certify(protocol.alpha), protocol.alpha)
    done = 0
    total = len(votes) * -(-len(data) // BATCH) * (protocol.selection_samples + protocol.num_samples)

    def drawn(draws: int) -> None:
        nonlocal done
        done += draws
        on_progress(done, total)

    rows: list[CertifiedRow] = []
    for sigma, smoothed in zip(sigmas, votes, strict=True):
        batches, dimensions = list[_Outcome](), 1
        for number, (inputs, labels) in enumerate(data.batches(BATCH)):
            seed = mix(protocol.seed, number)
            batches.append(_measure(smoothed, inputs, labels, protocol, seed=seed, drawn=drawn))
            dimensions = math.prod(inputs.shape[1:])
        outcome = _Outcome(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
        settings = {"model": name, "sigma": sigma, "sigma_pixel": certifiable_sigma(smoothed), "dimensions": dimensions}
        rows += _rows(outcome, protocol, settings)
    return rows


class _Outcome(NamedTuple):
    """What became of each image: (N,) tensors on the CPU."""

    labels: Int[Tensor, " n"]
    predicted: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    radius: Float[Tensor, " n"]


def _measure(
    smoothed: Smoothed,
    inputs: Tensor,
    labels: Tensor,
    protocol: CertificationProtocol,
    *,
    seed: int,
    drawn: Callable[[int], None],
) -> _Outcome:
    """PREDICT on the draws that CERTIFY estimates with: each claim holds with its own probability all the same."""
    selection = _count(smoothed, inputs, protocol.selection_samples, mix(seed, SELECTION), drawn)
    estimation = _count(smoothed, inputs, protocol.num_samples, mix(seed, ESTIMATION), drawn)
    sigma = certifiable_sigma(smoothed)
    certificate = certificate_from_counts(selection, estimation, sigma=sigma, alpha=protocol.alpha)
    predicted = predict_from_counts(estimation, protocol.alpha)
    return _Outcome(labels.cpu(), predicted.cpu(), certificate.classes.cpu(), certificate.radius.cpu())


def _count(
    smoothed: Smoothed, inputs: Tensor, draws: int, seed: int, drawn: Callable[[int], None]
) -> Int[Tensor, "n k"]:
    """How often each class came in `draws`, (N, K), a few at a time."""
    counts: list[Tensor] = []
    for start in range(0, draws, DRAWS):
        size = min(DRAWS, draws - start)
        counts += draw_counts(smoothed, inputs, (size,), generator=seeded(mix(seed, start), inputs.device))
        drawn(size)
    return torch.stack(counts).sum(0)


def _rows(outcome: _Outcome, protocol: CertificationProtocol, settings: dict[str, Any]) -> list[CertifiedRow]:
    right = outcome.classes == outcome.labels  # which an abstention never is
    common = {
        **settings,
        **_share("clean", outcome.predicted == outcome.labels),
        **_share("predict_abstained", outcome.predicted == ABSTAIN),
        **_share("abstained", outcome.classes == ABSTAIN),
        "mean_radius": float((outcome.radius * right).mean()),
        "images": len(right),
        **{name: value for name, value in asdict(protocol).items() if name != "radii"},
    }
    return [
        CertifiedRow(
            radius=radius,
            linf_eps=radius / math.sqrt(settings["dimensions"]),
            **_share("certified", right & (outcome.radius >= radius)),
            **common,
        )
        for radius in protocol.radii
    ]


def _share(name: str, hits: Bool[Tensor, " n"]) -> dict[str, Any]:
    count = int(hits.sum())
    return {name: count / len(hits), f"{name}_interval": interval(count, len(hits))}
