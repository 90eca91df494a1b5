"""Certified accuracy: the share of images whose correct class is certified within an L2 radius (Cohen et al., 2019)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import BATCH, OnProgress, ignore_progress
from smoothed.evaluation.resume import Tensors, open_resume_folder
from smoothed.evaluation.streams import CertificationStream
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
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.checks import check_not_negative, check_positive
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.intervals import interval

# Draws between two progress updates. It also seeds the draws: another value changes every result.
DRAWS_PER_STEP = 25

RADII = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Default L2 radii, in pixel units of [0, 1]."""


@dataclass(frozen=True)
class CertificationProtocol:
    """The settings of a certification.

    Attributes:
        radii: L2 radii at which to report certified accuracy, in pixel units of [0, 1].
        alpha: upper bound of the error probability of each image's certificate, in (0, 1).
        selection_samples: draws per image that choose the class (n0 of Cohen et al., 2019).
        num_samples: draws per image that bound the probability of that class (n).
        seed: seed of all draws.
        precision: number format of the forward passes.

    Raises:
        ArgumentError: no radii, a repeated or negative radius, or a number out of range.
    """

    radii: tuple[float, ...] = RADII
    alpha: float = 0.001
    selection_samples: int = 100
    num_samples: int = 1000
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_positive(self.selection_samples, "selection_samples")
        check_positive(self.num_samples, "num_samples")
        if not self.radii or len(set(self.radii)) != len(self.radii):
            raise ArgumentError("radii", "at least one radius and no repeated ones", list(self.radii))
        for radius in self.radii:
            check_not_negative(radius, "radii")

    @property
    def draws(self) -> int:
        """Total number of draws per image."""
        return self.selection_samples + self.num_samples

    def draw_settings(self) -> dict[str, Any]:
        """The settings that the counts of draws depend on; radii and alpha are applied to the counts afterwards."""
        return {name: value for name, value in asdict(self).items() if name not in {"radii", "alpha"}}


@dataclass(frozen=True)
class CertifiedRow:
    """Certified accuracy of one model at one sigma and one radius.

    Only `radius`, `linf_eps`, `certified` and its interval differ between the radii of one sigma. All intervals are
    95 % Wilson intervals over images. Of N certified images, at most alpha * N are wrongly certified in expectation.

    Attributes:
        model: name or path of the checkpoint.
        sigma: standard deviation of the Gaussian input noise in pixel units of [0, 1], the mean over channels.
        sigma_normalized: the same deviation in the paper's unit; None if the model has no `normalize` layer.
        sigma_smallest: smallest deviation of any channel, in pixel units; certified radii are multiples of it.
        radius: L2 radius in pixel units of [0, 1].
        dimensions: number of values of an image, d = C * H * W.
        linf_eps: radius of the largest L-inf ball inside the L2 ball, radius / sqrt(d), in pixel units.
        certified: share of images to which CERTIFY assigns the true class with at least that radius, in [0, 1].
        certified_interval: interval of `certified`.
        clean: share of images to which PREDICT assigns the true class; abstentions count as wrong.
        clean_interval: interval of `clean`.
        predict_abstained: share of images on which PREDICT abstains.
        predict_abstained_interval: interval of `predict_abstained`.
        abstained: share of images on which CERTIFY abstains.
        abstained_interval: interval of `abstained`.
        mean_radius: average certified radius (ACR of Zhai et al., 2020); wrong and abstained images count as 0.
        images: number of images.
        alpha: upper bound of the error probability of each image.
        selection_samples: draws per image that choose the class (n0).
        num_samples: draws per image that bound the probability of that class (n); PREDICT uses the same draws.
        seed: seed of all draws.
        precision: number format of the forward passes.
    """

    model: str
    sigma: float
    sigma_normalized: float | None
    sigma_smallest: float
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

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON values of a row."""
        return cls(**values)


@dataclass(frozen=True, eq=False)
class CertifiedResult:
    """Rows of a certification, and the certificate of each image.

    Attributes:
        rows: one row for each sigma and radius.
        tensors: by the names of docs/results-format.md: `labels` (N,), and for each sigma `predicted` (the class of
            PREDICT, -1 for an abstention), `certified_class` (that of CERTIFY), `radius` (L2, in pixel units), all
            (sigmas, N), and `counts` (sigmas, N, K), how many draws of the estimation predicted each class.
    """

    rows: list[CertifiedRow]
    tensors: dict[str, Tensor]


def evaluate_certified(
    model: nn.Module,
    data: Images,
    protocol: CertificationProtocol,
    *,
    noises: Sequence[NoiseConfig],
    name: str,
    layer: str | None = None,
    pack_draws: bool | None = None,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
) -> CertifiedResult:
    """Apply PREDICT and CERTIFY to every image and report the shares of correct, certified and abstained images.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the data. Noise inside it is drawn anew
            for each draw.
        data: images to evaluate.
        protocol: settings of the certification.
        noises: configurations of Gaussian input noise, one per sigma.
        name: name of the model in the rows.
        layer: name of a submodule whose input receives the noise instead of the image, which can't be certified.
        pack_draws: whether one pass may hold several draws of an image (`Smoothed`).
        out: folder that stores the counts of finished batches. An interrupted evaluation continues from it, and an
            evaluation with other radii or another alpha reuses them. None stores nothing.
        chunk_size: rows of one forward pass.
        processes: processes that share the batches; each of them gets all rows.
        on_progress: called with the finished draws of this process and their total. One draw here is one draw of a
            whole batch at one sigma.

    Returns:
        One row for each noise and radius, in the order given, and the certificate of each image.

    Raises:
        ArgumentError: the noise can't be certified, such as a sigma of 0.
        CheckpointError: `out` holds the counts of another configuration.
        OutputError: `out` can't be written.
        ProcessError: another process has ended.

    Warns:
        TooFewSamplesWarning: too few draws to certify any image.
    """
    voter = Fast(model, protocol.precision)
    classifiers = [
        Smoothed(
            voter if layer is None else model,
            noise.for_model(model),
            layer=layer,
            pack_draws=pack_draws,
            chunk_size=chunk_size,
        )
        for noise in noises
    ]
    for smoothed in classifiers:
        certifiable_sigma(smoothed)  # raises on noise that can't be certified before any work
    warn_if_too_few(protocol.num_samples, fewest_to_certify(protocol.alpha), protocol.alpha)
    configuration = {
        "protocol": "certified",
        "model": name,
        **protocol.draw_settings(),
        "noises": [noise.settings() for noise in noises],
    }
    resume = open_resume_folder(processes, out, configuration, model, data)
    starts = range(0, len(data), BATCH)
    work = [(sigma_index, start) for sigma_index in range(len(classifiers)) for start in starts]
    done, total = 0, len(work[processes.rank :: processes.count]) * protocol.draws

    def on_draws(draws: int) -> None:
        nonlocal done
        done += draws
        on_progress(done, total)

    def count(sigma_index: int, start: int) -> tuple[Tensors, Tensor]:
        done_before, number = done, start // BATCH
        ((inputs, labels),) = data.subset(slice(start, start + BATCH)).batches(BATCH)
        seed = mix(protocol.seed, number)
        compute = partial(_count, classifiers[sigma_index], inputs, protocol, seed=seed, on_draws=on_draws)
        counts = resume.compute_once(f"sigma{sigma_index}-batch{number:04d}", compute)
        if done == done_before:  # the counts came from the resume folder
            on_draws(protocol.draws)
        return counts, labels.cpu()

    batches = processes.divide([partial(count, *piece) for piece in work])
    dimensions = math.prod(next(iter(data.first(1).batches(1)))[0].shape[1:])
    rows: list[CertifiedRow] = []
    of_sigmas: dict[str, list[Tensor]] = {"predicted": [], "certified_class": [], "radius": [], "counts": []}
    labels = torch.zeros(0)
    for sigma_index, (noise, smoothed) in enumerate(zip(noises, classifiers, strict=True)):
        sigma = certifiable_sigma(smoothed)
        batches_at_sigma = batches[sigma_index * len(starts) : (sigma_index + 1) * len(starts)]
        outcomes = [
            _outcome_from_counts(counts, labels, alpha=protocol.alpha, sigma=sigma)
            for counts, labels in batches_at_sigma
        ]
        outcome = _Outcome(*(torch.cat(parts) for parts in zip(*outcomes, strict=True)))
        labels = outcome.labels
        counts = torch.cat([counts["estimation"] for counts, _ in batches_at_sigma])
        kept = (outcome.predicted, outcome.classes, outcome.radius, counts)
        for tensors, tensor in zip(of_sigmas.values(), kept, strict=True):
            tensors.append(tensor)
        sigmas = {key: value for key, value in noise.to_json(model).items() if key != "noise"}
        settings = {"model": name, **sigmas, "sigma_smallest": sigma, "dimensions": dimensions}
        rows += _rows(outcome, protocol, settings)
    return CertifiedResult(rows, {"labels": labels, **{name: torch.stack(t) for name, t in of_sigmas.items()}})


class _Outcome(NamedTuple):
    """Labels, the classes of PREDICT and CERTIFY, and certified radii of all images: (N,) tensors on the CPU."""

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
    on_draws: Callable[[int], None],
) -> Tensors:
    """Count the predicted classes, (N, K) each, in the selection draws and in the estimation draws."""
    groups = {
        "selection": (CertificationStream.SELECTION, protocol.selection_samples),
        "estimation": (CertificationStream.ESTIMATION, protocol.num_samples),
    }
    return {
        name: _count_group(smoothed, inputs, draws, seed=mix(seed, stream), on_draws=on_draws)
        for name, (stream, draws) in groups.items()
    }


def _count_group(
    smoothed: Smoothed, inputs: Tensor, draws: int, *, seed: int, on_draws: Callable[[int], None]
) -> Int[Tensor, "n k"]:
    """Count the predicted classes, (N, K), in `draws` draws, `DRAWS_PER_STEP` at a time."""
    counts: list[Tensor] = []
    for start in range(0, draws, DRAWS_PER_STEP):
        size = min(DRAWS_PER_STEP, draws - start)
        counts += draw_counts(smoothed, inputs, (size,), generator=seeded(mix(seed, start), inputs.device))
        on_draws(size)
    return torch.stack(counts).sum(0)


def _outcome_from_counts(counts: Tensors, labels: Tensor, *, alpha: float, sigma: float) -> _Outcome:
    """Apply CERTIFY, and PREDICT on its estimation draws; each error bound still holds by itself."""
    certificate = certificate_from_counts(counts["selection"], counts["estimation"], sigma=sigma, alpha=alpha)
    predicted = predict_from_counts(counts["estimation"], alpha)
    return _Outcome(labels, predicted, certificate.classes, certificate.radius)


def _rows(outcome: _Outcome, protocol: CertificationProtocol, settings: dict[str, Any]) -> list[CertifiedRow]:
    right = outcome.classes == outcome.labels  # false for abstentions, whose class is -1
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


def _share(name: str, mask: Bool[Tensor, " n"]) -> dict[str, Any]:
    """The share of images in `mask` and its interval, as two fields of a row."""
    count = int(mask.sum())
    return {name: count / len(mask), f"{name}_interval": interval(count, len(mask))}
