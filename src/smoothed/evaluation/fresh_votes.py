"""Votes with fresh draws on given images: counts, expected accuracy, and accuracy under repeated submissions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.evaluation.kept_votes import tally_and_record
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.certification import predict_from_counts
from smoothed.smoothing.classifier import Smoothed
from smoothed.utils.devices import Precision, autocast

Counts = Int[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class VoteCounts:
    """Outcomes of independent votes on each of N images; all counts are (N,) int64 on the CPU.

    Attributes:
        count: number of votes.
        right: votes for the true class.
        draws: draws in all of these votes; each is also a vote of M = 1.
        right_draws: draws that predict the true class.
        tied: votes in which two classes share the highest score.
        abstained: votes that abstained; they do not count as right.
    """

    count: Counts
    right: Counts
    draws: Counts
    right_draws: Counts
    tied: Counts
    abstained: Counts

    @property
    def shares(self) -> Float[Tensor, " n"]:
        """Share of right votes on each image, (N,) float64 in [0, 1]."""
        return self.right.double() / self.count

    def to_tensors(self) -> dict[str, Tensor]:
        """The counts by name."""
        return dict(vars(self))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Counts from the tensors of `to_tensors`; other names are ignored."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})

    @classmethod
    def concatenated(cls, parts: Sequence["VoteCounts"]) -> Self:
        """Counts of several batches of images, joined in order."""
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    def at(self, rows: Tensor) -> "VoteCounts":
        """Counts of the images with the indices (or boolean mask) `rows`."""
        return self._each(lambda _, counts: counts[rows])

    def replaced(self, rows: Int[Tensor, " m"], other: "VoteCounts") -> "VoteCounts":
        """A copy in which the images with the indices `rows`, (m,), have the counts of `other`, which has m images."""
        return self._each(lambda name, counts: counts.index_copy(0, rows, getattr(other, name)))

    def times(self, factor: int) -> "VoteCounts":
        """Counts multiplied by `factor`: repeated votes of a classifier without randomness."""
        return self._each(lambda _, counts: counts * factor)

    def worse_than(self, other: "VoteCounts") -> Bool[Tensor, " n"]:
        """Images with a smaller share of right votes than in `other`; ties compare the shares of right draws."""
        votes, other_votes = self.shares, other.shares
        draws, other_draws = self.right_draws / self.draws, other.right_draws / other.draws
        return (votes < other_votes) | ((votes == other_votes) & (draws < other_draws))

    def _each(self, function: Callable[[str, Tensor], Tensor]) -> "VoteCounts":
        return VoteCounts(**{name: function(name, counts) for name, counts in vars(self).items()})


def take_votes(
    smoothed: Smoothed,
    images: Float[Tensor, "n c h w"],
    labels: Counts,
    count: int,
    *,
    seed: int,
    alpha: float | None = None,
    precision: Precision = "float32",
) -> VoteCounts:
    """Take votes as `take_and_record_votes` does, without a record."""
    return take_and_record_votes(smoothed, images, labels, count, seed=seed, alpha=alpha, precision=precision)[0]


@torch.no_grad()
def take_and_record_votes(
    smoothed: Smoothed,
    images: Float[Tensor, "n c h w"],
    labels: Counts,
    count: int,
    *,
    seed: int,
    kept: int = 0,
    alpha: float | None = None,
    precision: Precision = "float32",
) -> tuple[VoteCounts, dict[str, Tensor]]:
    """Take `count` independent votes on each image, with the vote and the `num_samples` of `smoothed`.

    Args:
        smoothed: smoothed classifier.
        images: images in [0, 1], (N, C, H, W).
        labels: true classes, (N,) int64.
        count: number of votes per image.
        seed: seed of all draws.
        kept: number of images, from the first on, on which the first vote is recorded; it needs no further draws.
        alpha: error probability of PREDICT (Cohen et al., 2019), which abstains if the prediction vote is too close;
            None never abstains.
        precision: number format of the forward passes.

    Returns:
        The outcomes of all votes, and the record of the first one (`tally_and_record`), which is empty for 0 images.
    """
    draws, record = smoothed.num_samples, dict[str, Tensor]()
    right, right_draws, tied, abstained = (torch.zeros_like(labels) for _ in range(4))
    for number in range(count):
        generator = seeded(mix(seed, number), images.device)
        with autocast(precision, images.device):
            if kept and number == 0:
                whole, record = tally_and_record(smoothed, images, smoothed.vote, draws, kept=kept, generator=generator)
            else:
                votes = {"vote": smoothed.vote, "prediction": "prediction"}
                tallies = smoothed.tally(images, (draws,), votes=votes, generator=generator)
                whole = {name: by_count[draws] for name, by_count in tallies.items()}
        tally, class_counts = whole["vote"], whole["prediction"].scores.long()
        classes = tally.classes() if alpha is None else predict_from_counts(class_counts, alpha)
        right += classes == labels
        right_draws += class_counts.gather(1, labels[:, None])[:, 0]
        tied += tally.tied
        abstained += classes < 0
    outcomes = {"right": right, "right_draws": right_draws, "tied": tied, "abstained": abstained}
    totals = {"count": torch.full_like(labels, count), "draws": torch.full_like(labels, count * draws)}
    counts = VoteCounts.from_tensors({name: tensor.cpu() for name, tensor in (outcomes | totals).items()})
    return counts, record


def probability_all_correct(right: Counts, count: Counts, times: int) -> Float[Tensor, " n"]:
    """Estimate the probability that `times` independent votes on an image are all right, p^times for p of one vote.

    The estimate is the share of all choices of `times` votes out of `count` in which every vote is right. It is
    unbiased (Halmos, 1946), unlike (right / count)^times, which overestimates robustness.

    Args:
        right: number of right votes on each image, (N,).
        count: number of votes taken on each image, (N,), at least `times`.
        times: number of times that an attacker may submit the same image.

    Returns:
        Probabilities, (N,) float64.
    """
    already_drawn = torch.arange(times)
    return ((right[:, None] - already_drawn).clamp_min(0) / (count[:, None] - already_drawn).double()).prod(1)
