"""The rows of an evaluation: one setting each, with its numbers, as tables and JSON show them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from smoothed.utils.intervals import interval, mean_and_deviation

ONE_DRAW = "none"
"""The vote of a row about the base network: one draw, no input noise."""


@dataclass(frozen=True)
class Row:
    """Clean and robust accuracy of one setting.

    Attributes:
        model: name or path of the checkpoint.
        vote: the vote's name; `none` is the base network, one draw without input noise.
        num_samples: draws of an image, M.
        sigma: deviation of the input noise, in `sigma_units`.
        sigma_units: `normalized` (the paper's) or `pixel`.
        noise: the law of the input noise.
        attack: the attack's name.
        steps: its gradient steps.
        attack_samples: draws for each of its gradients.
        eps: its radius, in pixel units of [0, 1], or the number of pixels in L0.
        clean: share of images classified correctly, a mean over runs, in [0, 1].
        clean_interval: its 95 % Wilson interval over images.
        clean_std: deviation over runs.
        robust: likewise under attack.
        robust_interval: likewise.
        robust_std: likewise.
        images: how many.
        runs: how often, each with its own attack and its own draws.
        precision: of the votes, `float32` or `bf16`.
        seed: of everything random.
        norm: of the radius: `linf`, `l2` or `l0`.
        max_queries: answers that the attack had for each image; None where it sees the network.
        sees: what the answers showed, likewise.
        sources: the networks it was transferred from.

    An interval is over images, for the draws there were: a batch shares its draws of weight noise, whose own spread
    shows in the deviation over runs.
    """

    model: str
    vote: str
    num_samples: int
    sigma: float
    sigma_units: str
    noise: str
    attack: str
    steps: int
    attack_samples: int
    eps: float
    clean: float
    clean_interval: tuple[float, float]
    clean_std: float
    robust: float
    robust_interval: tuple[float, float]
    robust_std: float
    images: int
    runs: int
    precision: str
    seed: int
    norm: str = "linf"
    max_queries: int | None = None
    sees: str | None = None
    sources: tuple[str, ...] = ()

    @classmethod
    def from_counts(
        cls,
        *,
        clean: Sequence[int],
        robust: Sequence[int],
        images: int,
        **setting: Any,  # noqa: ANN401 - the other attributes
    ) -> Self:
        """A row from the numbers of correct images, one a run."""
        numbers: dict[str, Any] = {}
        for name, counts in (("clean", clean), ("robust", robust)):
            mean, deviation = mean_and_deviation([count / images for count in counts])
            numbers |= {name: mean, f"{name}_std": deviation, f"{name}_interval": interval(mean * images, images)}
        return cls(images=images, runs=len(clean), **setting, **numbers)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)
