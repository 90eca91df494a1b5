"""Settings of the worst-case evaluation."""

from dataclasses import dataclass, fields
from typing import Any

from smoothed.attacks.radius import settled_radius
from smoothed.errors import ArgumentError
from smoothed.smoothing.certification import check_alpha
from smoothed.smoothing.config import SmoothingConfig
from smoothed.utils.checks import check_positive
from smoothed.utils.devices import Precision


@dataclass(frozen=True)
class WorstCaseProtocol:
    """The smoothed classifier to evaluate, and the strength of the attacks.

    Choose the noise and M beforehand, on other images than the evaluated ones.

    Attributes:
        smoothing: input noise, vote and M of the attacked classifier.
        alpha: upper bound of the error probability of PREDICT, for a classifier that abstains; None never abstains.
        eps: L-inf radius of all attacks, in pixel units of [0, 1].
        steps: gradient steps of each attempt.
        restarts: attempts of each gradient attack; the targeted attack makes one per target class instead.
        eot_samples: numbers of draws averaged for each gradient, ascending. If there are several, a sweep tries them
            and the attacks use the strongest.
        sweep_images: number of images of that sweep, the first ones of the data.
        targets: maximum number of wrong classes that the targeted attack tries.
        queries: candidates of the Square attack for each image; each is scored by as many draws as a gradient averages.
        selection_votes: fresh votes that score each attack's adversarial image.
        resubmissions: numbers of times that an attacker may submit the same image (N), ascending. The largest is also
            the number of votes of the final accuracies.
        runs: number of repetitions, each with fresh attacks and draws.
        seed: seed of all randomness.
        precision: number format of the votes; attacks use float32.

    Raises:
        ArgumentError: a number out of range, unordered values, or an alpha for another vote than `prediction`.
    """

    smoothing: SmoothingConfig
    alpha: float | None = None
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 2
    eot_samples: tuple[int, ...] = (1, 4, 16, 64)
    sweep_images: int = 200
    targets: int = 9
    queries: int = 1000
    selection_votes: int = 20
    resubmissions: tuple[int, ...] = (1, 10, 100)
    runs: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        settled_radius(self.eps, "linf")
        for name in ("steps", "restarts", "sweep_images", "targets", "selection_votes", "runs"):
            check_positive(getattr(self, name), name)
        if check_positive(self.queries, "queries") < 2:
            raise ArgumentError("queries", "at least 2 (the clean image and one candidate)", self.queries)
        for name in ("eot_samples", "resubmissions"):
            values = getattr(self, name)
            if not values or list(values) != sorted({check_positive(value, name) for value in values}):
                raise ArgumentError(name, "ascending numbers without repeated ones", ",".join(map(str, values)))
        if self.alpha is not None:
            check_alpha(self.alpha)
            if self.smoothing.vote != "prediction":
                raise ArgumentError(
                    "alpha",
                    "the prediction vote, because PREDICT tests its class counts",
                    f"the {self.smoothing.vote_name} vote",
                    "leave alpha out, or use the prediction vote",
                )

    def configuration(self) -> dict[str, Any]:
        """All settings as JSON values, for resumable work."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "smoothing": self.smoothing.settings()}

    @property
    def final_votes(self) -> int:
        """Number of votes per image for the final accuracies (V)."""
        return max(self.resubmissions)
