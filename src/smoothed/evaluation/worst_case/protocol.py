"""The settings of the strong protocol, as plain values."""

from dataclasses import dataclass

from smoothed.errors import ArgumentError
from smoothed.evaluation.paper_protocol.evaluate import SIGMA_UNITS
from smoothed.smoothing.certification import check_alpha
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_choice, check_not_negative, check_positive
from smoothed.utils.devices import Precision


@dataclass(frozen=True)
class StrongProtocol:
    """What is defended, and how hard it is attacked.

    The defence's noise and its M have to be fixed beforehand, on other images than those that are reported.

    Attributes:
        sigma: deviation of the input noise, in `sigma_units`.
        num_samples: draws of a vote, M.
        sigma_units: `normalized` (the paper's) or `pixel`.
        noise: the law of the input noise.
        vote: the name of the vote.
        alpha: bound of PREDICT's probability of error, for a defence that abstains; None for one that never does.
        eps: L-inf radius of all attacks, in pixel units of [0, 1].
        steps: gradient steps of each attempt.
        restarts: attempts of each white-box attack (of the targeted one: towards each class).
        draws: numbers of draws a gradient that the sweep tries, ascending; the attacks take the strongest.
        sweep_images: how many images the sweep is made on: the first ones.
        targets: wrong classes that the targeted attack tries, at most.
        queries: candidates of Square for each image, each judged by the mean of as many draws as a gradient takes.
        selection_votes: fresh votes that judge a candidate.
        resubmissions: how often a persistent attacker submits an image, N; the most of them is the number of votes of
            the final numbers.
        runs: how often all of it is done, each with fresh attacks and draws.
        seed: of everything random.
        precision: of the votes; attacks are float32.
    """

    sigma: float
    num_samples: int = 64
    sigma_units: str = "normalized"
    noise: str = "gaussian"
    vote: str = "prediction"
    alpha: float | None = None
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 2
    draws: tuple[int, ...] = (1, 4, 16, 64)
    sweep_images: int = 200
    targets: int = 9
    queries: int = 1000
    selection_votes: int = 20
    resubmissions: tuple[int, ...] = (1, 10, 100)
    runs: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_not_negative(self.sigma, "sigma")
        check_not_negative(self.eps, "eps")
        check_choice(self.sigma_units, SIGMA_UNITS, "sigma_units")
        check_choice(self.noise, NOISES, "noise")
        check_choice(self.vote, VOTES, "vote")
        for name in ("num_samples", "steps", "restarts", "sweep_images", "targets", "selection_votes", "runs"):
            check_positive(getattr(self, name), name)
        if check_positive(self.queries, "queries") < 2:
            raise ArgumentError("queries", "at least 2, for the image and a candidate", self.queries)
        for name in ("draws", "resubmissions"):
            values = getattr(self, name)
            if not values or list(values) != sorted({check_positive(value, name) for value in values}):
                raise ArgumentError(name, "ascending numbers, each once", ",".join(map(str, values)))
        if self.alpha is not None:
            check_alpha(self.alpha)
            if self.vote != "prediction":
                raise ArgumentError("alpha", "the prediction vote, whose counts it bounds", f"the {self.vote} vote")

    @property
    def final_votes(self) -> int:
        """Fresh votes of the final numbers, V."""
        return max(self.resubmissions)
