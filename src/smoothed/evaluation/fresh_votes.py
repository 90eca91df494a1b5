"""Fresh votes on images, and what they say of one vote, of a single draw, and of an attacker who tries again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.certification import predict_from_counts
from smoothed.smoothing.classifier import Smoothed
from smoothed.utils.devices import Precision, autocast

Counts = Int[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Votes:
    """How independent votes on each of N images came out; all counts are (N,) int64, on the CPU.

    Attributes:
        count: votes.
        right: those for the label.
        draws: draws in all of these votes, each a vote of M = 1 by itself.
        right_draws: those for the label.
        tied: votes in which two classes shared the highest score.
        abstained: votes that abstained, which are not right.
    """

    count: Counts
    right: Counts
    draws: Counts
    right_draws: Counts
    tied: Counts
    abstained: Counts

    @property
    def shares(self) -> Float[Tensor, " n"]:
        """The share of right votes on each image, (N,) float64, in [0, 1]."""
        return self.right.double() / self.count

    def to_tensors(self) -> dict[str, Tensor]:
        """The counts by name."""
        return dict(vars(self))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """The other way round; other names are passed over."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})

    @classmethod
    def joined(cls, parts: Sequence["Votes"]) -> Self:
        """The votes on several batches of images, in order."""
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    def at(self, rows: Tensor) -> "Votes":
        """The votes on some of the images."""
        return self._each(lambda _, counts: counts[rows])

    def replaced(self, rows: Int[Tensor, " m"], other: "Votes") -> "Votes":
        """The same with the votes on `rows`, numbers of images, taken from `other`, of M images."""
        return self._each(lambda name, counts: counts.index_copy(0, rows, getattr(other, name)))

    def times(self, factor: int) -> "Votes":
        """The votes of a classifier without randomness, of which each would come out the same."""
        return self._each(lambda _, counts: counts * factor)

    def worse_than(self, other: "Votes") -> Bool[Tensor, " n"]:
        """Where a smaller share of votes is right, or the same and a smaller share of single draws."""
        own, others = self.shares, other.shares
        draws, other_draws = self.right_draws / self.draws, other.right_draws / other.draws
        return (own < others) | ((own == others) & (draws < other_draws))

    def _each(self, function: Callable[[str, Tensor], Tensor]) -> "Votes":
        return Votes(**{name: function(name, counts) for name, counts in vars(self).items()})


@torch.no_grad()
def vote_afresh(
    smoothed: Smoothed,
    images: Float[Tensor, "n c h w"],
    labels: Counts,
    count: int,
    *,
    seed: int,
    alpha: float | None = None,
    precision: Precision = "float32",
) -> Votes:
    """Take `count` votes on each image, just as a user of `smoothed` gets them.

    Args:
        smoothed: the defence: its vote, of its `num_samples` draws.
        images: in [0, 1].
        labels: true classes.
        count: votes an image, independent of each other.
        seed: of all draws.
        alpha: abstain as PREDICT does at this level (on the prediction vote); None never abstains.
        precision: of the passes.
    """
    draws = smoothed.num_samples
    right, right_draws, tied, abstained = (torch.zeros_like(labels) for _ in range(4))
    for number in range(count):
        generator = seeded(mix(seed, number), images.device)
        with autocast(precision, images.device):
            tallies = smoothed.tally(
                images, (draws,), votes={"own": smoothed.vote, "prediction": "prediction"}, generator=generator
            )
        own, prediction = tallies["own"][draws], tallies["prediction"][draws].scores.long()
        classes = own.classes() if alpha is None else predict_from_counts(prediction, alpha)
        right += classes == labels
        right_draws += prediction.gather(1, labels[:, None])[:, 0]
        tied += own.tied
        abstained += classes < 0
    counts = {"right": right, "right_draws": right_draws, "tied": tied, "abstained": abstained}
    taken = {"count": torch.full_like(labels, count), "draws": torch.full_like(labels, count * draws)}
    return Votes.from_tensors({name: tensor.cpu() for name, tensor in (counts | taken).items()})


def all_right(right: Counts, count: Counts, times: int) -> Float[Tensor, " n"]:
    """The probability that `times` votes are all right, (N,) float64: p^times, where one is with probability p.

    Estimates it by the share of choices of `times` votes of the `count` in which all are right: without bias, for votes
    that are independent (Halmos, 1946), where (right / count)^times would flatter the defence.

    Args:
        right: right votes.
        count: votes taken, at least `times`.
        times: how often the attacker may submit the same image.
    """
    done = torch.arange(times)
    return ((right[:, None] - done).clamp_min(0) / (count[:, None] - done).double()).prod(1)
