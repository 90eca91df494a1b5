"""The rows of a strong evaluation: one attack each, with what it leaves of the accuracy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from smoothed.evaluation.fresh_votes import Votes, all_right
from smoothed.evaluation.worst_case.protocol import StrongProtocol
from smoothed.utils.intervals import interval, mean_and_deviation

SMOOTHED, MEAN = "smoothed", "mean network"
CLEAN, WORST = "none", "worst case"


@dataclass(frozen=True)
class Accuracy:
    """A share of images, in [0, 1].

    Attributes:
        mean: over runs.
        interval: its 95 % Wilson interval over images. It treats an image as right or wrong, which has at least the
            variance of a share of votes: too wide rather than too narrow.
        std: deviation over runs.
    """

    mean: float
    interval: tuple[float, float]
    std: float

    @classmethod
    def of_shares(cls, runs: Sequence[Tensor]) -> Self:
        """From the probability of each image, (N,), in each run."""
        mean, deviation = mean_and_deviation([float(shares.double().mean()) for shares in runs])
        images = len(runs[0])
        return cls(mean, interval(min(max(mean, 0.0), 1.0) * images, images), deviation)


@dataclass(frozen=True)
class StrongRow:
    """What one attack, or the worst of all, leaves of one defence.

    The examples of an attack are its own where it was tried, and those that are final where the image was broken
    before. All numbers come from fresh votes that chose none of these examples.

    Attributes:
        model: name or path of the checkpoint.
        network: `smoothed` (the vote over all noise) or `mean network` (without any noise, one pass).
        attack: its name; `none` for clean images, `worst case` for the worst example of each image.
        attacked: images that it was tried on, those not broken before; a mean over runs.
        attack_samples: draws for each of its gradients.
        vote: the vote's name.
        num_samples: draws of a vote, M.
        sigma: deviation of the input noise, in `sigma_units`.
        sigma_units: `normalized` (the paper's) or `pixel`.
        noise: the law of the input noise.
        alpha: of a defence that abstains.
        eps: L-inf radius, in pixel units of [0, 1].
        steps: gradient steps of an attempt.
        clean: expected accuracy of a vote on clean images.
        robust: expected accuracy of a vote under attack.
        worst: by N, the share of images that are right in all of N votes; for those N that enough votes were taken for.
        one_draw: the same for single draws (M = 1) on the same examples, by N; 1 is their expected accuracy.
        tied: share of votes in which two classes shared the highest score.
        abstained: share of votes that abstained; they count as wrong.
        images: how many.
        votes: fresh votes on an image: on a candidate, or for the final numbers.
        runs: how often, each with its own attacks and draws.
        precision: of the votes.
        seed: of everything random.
    """

    model: str
    network: str
    attack: str
    attacked: float
    attack_samples: int
    vote: str
    num_samples: int
    sigma: float
    sigma_units: str
    noise: str
    alpha: float | None
    eps: float
    steps: int
    clean: Accuracy
    robust: Accuracy
    worst: dict[int, Accuracy]
    one_draw: dict[int, Accuracy]
    tied: float
    abstained: float
    images: int
    votes: int
    runs: int
    precision: str
    seed: int

    @classmethod
    def from_votes(
        cls,
        protocol: StrongProtocol,
        runs: Sequence[Votes],
        clean: Sequence[Votes],
        **more: Any,  # noqa: ANN401 - model, network, attack, attacked and attack_samples
    ) -> Self:
        """A row from the votes of each run on all images, under attack and clean."""
        defended = more["network"] == SMOOTHED
        worst = {
            times: Accuracy.of_shares([all_right(votes.right, votes.count, times) for votes in runs])
            for times in protocol.resubmissions
            if all(int(votes.count.min()) >= times for votes in runs)
        }
        one_draw = {
            times: Accuracy.of_shares([all_right(votes.right_draws, votes.draws, times) for votes in runs])
            for times in protocol.resubmissions
            if all(int(votes.draws.min()) >= times for votes in runs)
        }
        return cls(
            vote=protocol.vote,
            num_samples=protocol.num_samples if defended else 1,
            sigma=protocol.sigma if defended else 0.0,
            sigma_units=protocol.sigma_units,
            noise=protocol.noise,
            alpha=protocol.alpha if defended else None,
            eps=protocol.eps,
            steps=protocol.steps,
            clean=Accuracy.of_shares([votes.shares for votes in clean]),
            robust=Accuracy.of_shares([votes.shares for votes in runs]),
            worst=worst,
            one_draw=one_draw,
            tied=_share(runs, "tied"),
            abstained=_share(runs, "abstained"),
            images=len(runs[0].count),
            votes=min(int(votes.count.min()) for votes in runs),
            runs=len(runs),
            precision=protocol.precision,
            seed=protocol.seed,
            **more,
        )

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)


def _share(runs: Sequence[Votes], name: str) -> float:
    shares = [float((getattr(votes, name) / votes.count).double().mean()) for votes in runs]
    return mean_and_deviation(shares)[0]
