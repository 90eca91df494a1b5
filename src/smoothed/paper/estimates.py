"""Differences that the paper's claims are about, each with a 95 % interval, from the results of a run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from smoothed.evaluation.results import PairedGain, Result
from smoothed.evaluation.sweep.paired import LEVEL, may_be_best
from smoothed.paper.declaration import AnySource, Measurement, RowSpec, SigmaSweep
from smoothed.paper.folder import RunFolder
from smoothed.paper.shown import index_of

POINTS, SLOPE, SIGMA = "points", "points per doubling of M", "sigma, in the paper's unit"
"""Units of differences."""


class NoEstimateError(Exception):
    """Results are there, but a difference can't be computed from them; the message says why."""


@dataclass(frozen=True)
class ClaimEstimate:
    """A difference.

    Attributes:
        value: the difference.
        interval: its 95 % interval.
        unit: unit of both.
    """

    value: float
    interval: tuple[float, float]
    unit: str = POINTS

    @classmethod
    def between(cls, before: Tensor, after: Tensor, scale: float = 1.0, unit: str = POINTS) -> Self:
        """`scale` times the accuracy in `after` minus that in `before`, in points.

        Args:
            before: accuracy of each image, (N,) in [0, 1].
            after: the same, of the same images.
            scale: positive factor on the difference and its interval, which is that of `PairedGain`.
            unit: unit of the difference.
        """
        gain = PairedGain.of("", "", before, after)
        low, high = (100 * scale * bound for bound in gain.interval)
        return cls(100 * scale * gain.gain, (low, high), unit)


Measure = Callable[[RunFolder, Sequence[Result]], ClaimEstimate]


@dataclass(frozen=True)
class ClaimPart:
    """One difference of a claim.

    Attributes:
        name: what is compared.
        sources: evaluations that it is computed from.
        measure: function from the run's folder and their results to the difference. It raises `NoEstimateError`.
    """

    name: str
    sources: tuple[AnySource, ...]
    measure: Measure


def difference(name: str, after: RowSpec, before: RowSpec, kind: str = "robust") -> ClaimPart:
    """The accuracy of a row minus that of another, on `clean` or attacked (`robust`) images.

    All results of a folder use the first images of a test set, and the fingerprint of the pixels is that of the first
    100. With the same fingerprint, the images of the smaller set are the first of the larger one, and are compared.
    """
    assert after.measurement is not None  # noqa: S101
    assert before.measurement is not None  # noqa: S101

    def measure(folder: RunFolder, results: Sequence[Result]) -> ClaimEstimate:
        first, second = (result.data for result in results)
        same_size = first.get("images") == second.get("images")
        if first.get("pixels") != second.get("pixels") or (same_size and first.get("labels") != second.get("labels")):
            raise NoEstimateError("the rows were measured on different images")
        outcomes = []
        for row, result in zip((after, before), results, strict=True):
            index = index_of(row, result, folder)
            if index is None:
                count = folder.schedule.samples(row.num_samples or 1)
                raise NoEstimateError(f"a result has no row of the {row.vote} vote with M = {count}")
            outcomes.append(_tensor(result, f"{kind}.right")[index].double().mean(0))
        images = min(map(len, outcomes))
        return ClaimEstimate.between(outcomes[1][:images], outcomes[0][:images])

    return ClaimPart(name, (after.measurement, before.measurement), measure)


def growth(name: str, source: Measurement, vote: str, kind: str) -> ClaimPart:
    """The slope of the accuracy over log2 M, by least squares over the Ms of one result.

    The slope of each image is a multiple of a weighted mean over the larger Ms minus one over the smaller Ms, so that
    the interval is that of a paired difference. An accuracy that levels off has a positive slope as well.
    """

    def measure(_: RunFolder, results: Sequence[Result]) -> ClaimEstimate:
        rows = {row["num_samples"]: index for index, row in enumerate(results[0].rows) if row["vote"] == vote}
        if len(rows) < 2:
            raise NoEstimateError(f"the result has fewer than two Ms of the {vote} vote")
        x = torch.tensor([math.log2(count) for count in rows], dtype=torch.float64)
        x -= x.mean()
        right = _tensor(results[0], f"{kind}.right")[list(rows.values())].double().mean(1)
        total = float(x.clamp_min(0).sum())
        before, after = ((sign * x).clamp_min(0) @ right / total for sign in (-1, 1))
        return ClaimEstimate.between(before, after, total / float(x.square().sum()), SLOPE)

    return ClaimPart(name, (source,), measure)


def same_sigma(name: str, sweep: SigmaSweep, vote: str) -> ClaimPart:
    """The attacked accuracy of a vote at its own best sigma minus that at the best sigma of the prediction vote.

    Votes are of the sweep's largest M. Both sigmas are chosen on the images of the comparison. The first accuracy is
    the largest of the vote there, so that the difference is never negative and rather too large: this bias works
    against the claim of equal sigmas.
    """

    def measure(_: RunFolder, results: Sequence[Result]) -> ClaimEstimate:
        own, reference = (_attacked(results[0], each) for each in (vote, "prediction"))
        return ClaimEstimate.between(own[_best(reference)].mean(0), own[_best(own)].mean(0))

    return ClaimPart(name, (sweep,), measure)


def better_vote(name: str, sweep: SigmaSweep, vote: str) -> ClaimPart:
    """The attacked accuracy of the prediction vote minus that of another vote, each at its own best sigma.

    Votes are of the sweep's largest M. Both sigmas are chosen on the images of the comparison, from the same sigmas, so
    that both accuracies are too large by about as much.
    """

    def measure(_: RunFolder, results: Sequence[Result]) -> ClaimEstimate:
        prediction, other = (_attacked(results[0], each) for each in ("prediction", vote))
        return ClaimEstimate.between(other[_best(other)].mean(0), prediction[_best(prediction)].mean(0))

    return ClaimPart(name, (sweep,), measure)


def best_sigmas(name: str, after: SigmaSweep, before: SigmaSweep) -> ClaimPart:
    """The best sigma of a network under attack minus that of another, for the prediction vote at the largest M.

    The interval comes from two sets of sigmas that may be the best. Each contains the best one with a probability of at
    least 97.5 %, although it is searched on the same images (`may_be_best`). The interval reaches from the smallest to
    the largest difference of their members.
    """

    def measure(_: RunFolder, results: Sequence[Result]) -> ClaimEstimate:
        best, lowest, highest = [], [], []
        for result in results:
            right = _attacked(result, "prediction")
            sigmas, index = result.setting["sigmas_normalized"], _best(right)
            may_be = may_be_best(right.bool(), LEVEL / 2).tolist()
            candidates = [sigmas[index], *(sigma for sigma, kept in zip(sigmas, may_be, strict=True) if kept)]
            best.append(sigmas[index])
            lowest.append(min(candidates))
            highest.append(max(candidates))
        return ClaimEstimate(best[0] - best[1], (lowest[0] - highest[1], highest[0] - lowest[1]), SIGMA)

    return ClaimPart(name, (after, before), measure)


def _attacked(result: Result, vote: str) -> Tensor:
    """Whether each attacked image of a sweep was right at the largest M, at each sigma: (sigmas, runs, images)."""
    votes = result.setting["votes"]
    if vote not in votes:
        raise NoEstimateError(f"a sweep has no {vote} vote")
    return _tensor(result, "right")[-1, :, votes.index(vote), -1].double()


def _best(right: Tensor) -> int:
    """Index of the sigma with the highest accuracy; ties go to the smallest sigma."""
    means = right.mean((1, 2)).tolist()
    return means.index(max(means))


def _tensor(result: Result, name: str) -> Tensor:
    if name not in result.tensors:
        raise NoEstimateError("the outcomes of the images, in the .safetensors file beside a result, are missing")
    return result.tensors[name]
