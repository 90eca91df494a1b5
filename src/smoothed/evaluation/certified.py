"""Certified accuracy: how many images a smoothed network classifies correctly, and provably so within an L2 radius."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import BATCH, OnProgress, ignore_progress
from smoothed.evaluation.paper_protocol.evaluate import SIGMA_UNITS, Protocol
from smoothed.evaluation.resume import Tensors, records_of_all
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.certification import (
    ABSTAIN,
    certifiable_sigma,
    certificate_from_counts,
    check_alpha,
    draw_counts,
    fewest_to_certify,
    predict_from_counts,
    warn_if_too_few,
)
from smoothed.smoothing.classifier import Smoothed
from smoothed.utils.checks import check_choice, check_not_negative, check_positive
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import ALONE, Processes
from smoothed.utils.intervals import interval

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
        precision: likewise.
    """

    radii: tuple[float, ...] = RADII
    alpha: float = 0.001
    selection_samples: int = 100
    num_samples: int = 1000
    sigma_units: str = "normalized"
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_positive(self.selection_samples, "selection_samples")
        check_positive(self.num_samples, "num_samples")
        check_choice(self.sigma_units, SIGMA_UNITS, "sigma_units")
        if not self.radii or len(set(self.radii)) != len(self.radii):
            raise ArgumentError("radii", "each radius once, and at least one", list(self.radii))
        for radius in self.radii:
            check_not_negative(radius, "radii")

    @property
    def draws(self) -> int:
        """All draws of an image."""
        return self.selection_samples + self.num_samples

    def counted(self) -> dict[str, Any]:
        """What the counts of the draws depend on. Radii and alpha are read off them afterwards."""
        return {name: value for name, value in asdict(self).items() if name not in {"radii", "alpha"}}


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
        precision: likewise.

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
    precision: str

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
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = ALONE,
    on_progress: OnProgress = ignore_progress,
) -> list[CertifiedRow]:
    """PREDICT and CERTIFY every image, and count.

    Args:
        model: from images to logits (N, K), on the data's device; noise inside it is drawn anew for each vote.
        data: the images to measure on.
        protocol: how.
        sigmas: deviations of the Gaussian input noise, in the protocol's units.
        name: of the model, for the rows.
        out: a folder for the counts of the batches done, from which a killed evaluation goes on, and one at other radii
            or another alpha starts; None keeps nothing.
        chunk_size: rows of one forward pass.
        processes: those that share the batches. All of them get the rows.
        on_progress: called with the draws of this process done and their total, each of a batch, at one sigma.

    Returns:
        One row a sigma and radius, in the order given.

    Raises:
        ArgumentError: a setting that makes no sense, such as a sigma of 0.
        CheckpointError: `out` holds another configuration's counts.
        OutputError: `out` can't be written.
        ProcessError: another process is gone.

    Warns:
        TooFewSamplesWarning: too few draws to certify any image.
    """
    noise_of = Protocol(sigma_units=protocol.sigma_units).input_noise
    voter = Fast(model, protocol.precision)
    votes = [Smoothed(voter, noise_of(model, sigma), chunk_size=chunk_size) for sigma in sigmas]
    for smoothed in votes:
        certifiable_sigma(smoothed)
    warn_if_too_few(protocol.num_samples, fewest_to_certify(protocol.alpha), protocol.alpha)
    configuration = {"protocol": "certified", "model": name, **protocol.counted(), "sigmas": list(sigmas)}
    records = records_of_all(processes, out, configuration, model, data)
    starts = range(0, len(data), BATCH)
    work = [(place, start) for place in range(len(votes)) for start in starts]
    done, total = 0, len(work[processes.rank :: processes.count]) * protocol.draws

    def drawn(draws: int) -> None:
        nonlocal done
        done += draws
        on_progress(done, total)

    def count(place: int, start: int) -> tuple[Tensors, Tensor]:
        before, number = done, start // BATCH
        ((inputs, labels),) = data.subset(slice(start, start + BATCH)).batches(BATCH)
        compute = partial(_count, votes[place], inputs, protocol, seed=mix(protocol.seed, number), drawn=drawn)
        counts = records.once(f"sigma{place}-batch{number:04d}", compute)
        if done == before:  # it was done before
            drawn(protocol.draws)
        return counts, labels.cpu()

    counted = processes.divide([partial(count, *piece) for piece in work])
    dimensions = math.prod(next(iter(data.first(1).batches(1)))[0].shape[1:])
    rows: list[CertifiedRow] = []
    for place, (sigma, smoothed) in enumerate(zip(sigmas, votes, strict=True)):
        certifiable = certifiable_sigma(smoothed)
        own = counted[place * len(starts) : (place + 1) * len(starts)]
        outcomes = [_judge(counts, labels, alpha=protocol.alpha, sigma=certifiable) for counts, labels in own]
        outcome = _Outcome(*(torch.cat(parts) for parts in zip(*outcomes, strict=True)))
        settings = {"model": name, "sigma": sigma, "sigma_pixel": certifiable, "dimensions": dimensions}
        rows += _rows(outcome, protocol, settings)
    return rows


class _Outcome(NamedTuple):
    """What became of each image: (N,) tensors on the CPU."""

    labels: Int[Tensor, " n"]
    predicted: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    radius: Float[Tensor, " n"]


def _count(
    smoothed: Smoothed,
    inputs: Tensor,
    protocol: CertificationProtocol,
    *,
    seed: int,
    drawn: Callable[[int], None],
) -> Tensors:
    """How often each class came, (N, K), in the draws that select and in those that estimate."""
    groups = {"selection": (SELECTION, protocol.selection_samples), "estimation": (ESTIMATION, protocol.num_samples)}
    return {
        name: _count_group(smoothed, inputs, draws, seed=mix(seed, group), drawn=drawn)
        for name, (group, draws) in groups.items()
    }


def _count_group(
    smoothed: Smoothed, inputs: Tensor, draws: int, *, seed: int, drawn: Callable[[int], None]
) -> Int[Tensor, "n k"]:
    """How often each class came in `draws`, (N, K), a few at a time."""
    counts: list[Tensor] = []
    for start in range(0, draws, DRAWS):
        size = min(DRAWS, draws - start)
        counts += draw_counts(smoothed, inputs, (size,), generator=seeded(mix(seed, start), inputs.device))
        drawn(size)
    return torch.stack(counts).sum(0)


def _judge(counts: Tensors, labels: Tensor, *, alpha: float, sigma: float) -> _Outcome:
    """PREDICT on the draws that CERTIFY estimates with: each claim holds with its own probability all the same."""
    certificate = certificate_from_counts(counts["selection"], counts["estimation"], sigma=sigma, alpha=alpha)
    predicted = predict_from_counts(counts["estimation"], alpha)
    return _Outcome(labels, predicted, certificate.classes, certificate.radius)


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
