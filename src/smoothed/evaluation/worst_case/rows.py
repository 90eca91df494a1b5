"""Result rows of the worst-case evaluation, one for each attack."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from smoothed.evaluation.fresh_votes import VoteCounts, probability_all_correct
from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.utils.intervals import mean_and_deviation

SMOOTHED, MEAN = "smoothed", "mean network"
CLEAN, WORST = "none", "worst case"


@dataclass(frozen=True)
class WorstCaseRow:
    """Accuracy of one classifier under one attack, or under the worst case over all attacks.

    An image that earlier attacks already broke (no vote on its worst example is right) is not attacked again: the rows
    of later attacks use its final worst example. All accuracies come from fresh votes that played no part in the
    selection of the examples.

    Attributes:
        model: name or path of the checkpoint.
        network: `smoothed` (the vote over all noise) or `mean network` (all noise off, one forward pass).
        attack: name of the attack; `none` for clean images, `worst case` for the worst example of each image.
        attacked: number of images that the attack was tried on (those not yet broken), the mean over runs.
        eot_samples: draws averaged for each gradient of the attack.
        vote: name of the vote.
        num_samples: draws of a vote (M).
        sigma: standard deviation of the input noise in pixel units of [0, 1], the mean over channels.
        sigma_normalized: the same deviation divided by the data set's deviation (the paper's unit); None if the model
            has no `normalize` layer.
        noise: distribution of the input noise.
        alpha: upper bound of the error probability of a classifier that abstains; None if it never abstains.
        eps: L-inf radius in pixel units of [0, 1].
        steps: gradient steps of each attempt.
        clean: expected accuracy of a vote on clean images.
        robust: expected accuracy of a vote under attack.
        worst: expected share of images that are right in all of N votes, by N, for those N with enough votes.
        one_draw: the same share for N single draws (M = 1) on the same examples, by N.
        tied: share of votes in which two classes share the highest score.
        abstained: share of votes that abstained; they count as wrong.
        images: number of images.
        votes: number of fresh votes per image: the selection votes of an attack, or the final votes.
        runs: number of repetitions, each with fresh attacks and draws.
        precision: number format of the votes.
        seed: seed of all randomness.
    """

    model: str
    network: str
    attack: str
    attacked: float
    eot_samples: int
    vote: str
    num_samples: int
    sigma: float | None
    sigma_normalized: float | None
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
        protocol: WorstCaseProtocol,
        runs: Sequence[VoteCounts],
        clean: Sequence[VoteCounts],
        **fields: Any,  # noqa: ANN401 - model, network, attack, attacked, eot_samples and the noise
    ) -> Self:
        """A row from the votes of each run on all images, under attack (`runs`) and on clean images (`clean`)."""
        smoothed = fields["network"] == SMOOTHED
        worst = {
            times: Accuracy.of_shares([probability_all_correct(votes.right, votes.count, times) for votes in runs])
            for times in protocol.resubmissions
            if all(int(votes.count.min()) >= times for votes in runs)
        }
        one_draw = {
            times: Accuracy.of_shares(
                [probability_all_correct(votes.right_draws, votes.draws, times) for votes in runs]
            )
            for times in protocol.resubmissions
            if all(int(votes.draws.min()) >= times for votes in runs)
        }
        return cls(
            vote=protocol.smoothing.vote_name,
            num_samples=protocol.smoothing.num_samples if smoothed else 1,
            alpha=protocol.alpha if smoothed else None,
            eps=protocol.eps,
            steps=protocol.steps,
            clean=Accuracy.of_shares([votes.shares for votes in clean]),
            robust=Accuracy.of_shares([votes.shares for votes in runs]),
            worst=worst,
            one_draw=one_draw,
            tied=_vote_share(runs, "tied"),
            abstained=_vote_share(runs, "abstained"),
            images=len(runs[0].count),
            votes=min(int(votes.count.min()) for votes in runs),
            runs=len(runs),
            precision=protocol.precision,
            seed=protocol.seed,
            **fields,
        )

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON values of a row."""
        read = {name: Accuracy.from_json(values[name]) for name in ("clean", "robust")}
        by_count = {
            name: {int(times): Accuracy.from_json(accuracy) for times, accuracy in values[name].items()}
            for name in ("worst", "one_draw")
        }
        return cls(**{**values, **read, **by_count})


def _vote_share(runs: Sequence[VoteCounts], name: str) -> float:
    """Share of votes that the count `name` of `VoteCounts` counts, the mean over images and runs."""
    shares = [float((getattr(votes, name) / votes.count).double().mean()) for votes in runs]
    return mean_and_deviation(shares)[0]
