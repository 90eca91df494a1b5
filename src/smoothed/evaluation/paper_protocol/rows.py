"""Result rows of the paper's evaluation, one for each setting."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from smoothed.utils.intervals import interval, mean_and_deviation

ONE_DRAW = "none"
"""Vote name in the row of the base network: one draw without input noise."""

NETWORK_ALONE = "network without noise"
"""What that row is called where the network itself is not random, so that nothing is drawn."""

NO_ATTACK = "none"
"""Attack name of a protocol that evaluates clean images only."""


@dataclass(frozen=True)
class Row:
    """Clean and robust accuracy of one setting.

    Intervals are over images, for the draws that were made. All images of a batch share their draws of weight noise,
    whose variance shows in the deviation over runs only.

    Attributes:
        model: name or path of the checkpoint.
        vote: name of the vote; `none` is the base network, one draw without input noise.
        num_samples: number of draws per image (M).
        sigma: standard deviation of the input noise in pixel units of [0, 1], the mean over channels; None for a noise
            of your own that states none.
        sigma_normalized: the same deviation divided by the data set's deviation (the paper's unit); None if the model
            has no `normalize` layer.
        noise: distribution of the input noise, or the name of your own noise.
        attack: name of the attack; `none` for clean images only. The attack's fields are then None.
        steps: gradient steps of the attack; None for attacks without them and for an attack of your own.
        eot_samples: draws averaged for each gradient of the attack; None for an attack of your own.
        eps: radius of the attack in pixel units of [0, 1], or its number of pixels for `l0`.
        clean: accuracy on clean images, in [0, 1], the mean over runs.
        clean_interval: 95 % Wilson interval of `clean` over images.
        clean_std: sample standard deviation of `clean` over runs.
        robust: accuracy under attack, in [0, 1], the mean over runs.
        robust_interval: 95 % Wilson interval of `robust` over images.
        robust_std: sample standard deviation of `robust` over runs.
        images: number of images.
        runs: number of repetitions, each with fresh attacks and draws.
        precision: number format of the votes, `float32` or `bf16`.
        seed: seed of all randomness.
        norm: norm of the radius: `linf`, `l2` or `l0`.
        max_queries: queries per image of a black-box attack; None for white-box attacks.
        sees: outputs that a query of a black-box attack returned; None for white-box attacks.
        sources: source networks of a transfer attack.
    """

    model: str
    vote: str
    num_samples: int
    sigma: float | None
    sigma_normalized: float | None
    noise: str
    attack: str
    steps: int | None
    eot_samples: int | None
    eps: float | None
    clean: float
    clean_interval: tuple[float, float]
    clean_std: float
    robust: float | None
    robust_interval: tuple[float, float] | None
    robust_std: float | None
    images: int
    runs: int
    precision: str
    seed: int
    norm: str | None = "linf"
    max_queries: int | None = None
    sees: str | None = None
    sources: tuple[str, ...] = ()

    @classmethod
    def from_counts(
        cls,
        *,
        clean: Sequence[int],
        robust: Sequence[int] | None,
        images: int,
        **setting: Any,  # noqa: ANN401 - the other attributes
    ) -> Self:
        """A row from the numbers of correctly classified images in each run; `robust` is None without an attack."""
        numbers: dict[str, Any] = {}
        for name, counts in (("clean", clean), ("robust", robust)):
            if counts is None:
                numbers |= {name: None, f"{name}_std": None, f"{name}_interval": None}
                continue
            mean, deviation = mean_and_deviation([count / images for count in counts])
            numbers |= {name: mean, f"{name}_std": deviation, f"{name}_interval": interval(mean * images, images)}
        return cls(images=images, runs=len(clean), **setting, **numbers)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON values of a row."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def choose_sigma(rows: Sequence[Row], vote: str = "prediction") -> Row:
    """The row with the best robust accuracy of `vote` at its largest M; ties go to the smallest sigma.

    Args:
        rows: rows of one model at several sigmas, measured on validation images.
        vote: name of the vote to compare.
    """
    largest = max(row.num_samples for row in rows if row.vote == vote)
    candidates = [row for row in rows if row.vote == vote and row.num_samples == largest]
    return max(candidates, key=lambda row: (row.robust or 0.0, -(row.sigma or 0.0)))


def smoothing_card(chosen: Row, rows: Sequence[Row], data: str) -> dict[str, Any]:
    """Header entry of a checkpoint: the chosen sigma, the data it was chosen on, and the results of all sigmas.

    Args:
        chosen: the row of the chosen sigma, from `choose_sigma`.
        rows: all rows that it was chosen from.
        data: name of the data set that it was chosen on.
    """
    return {
        "sigma": chosen.sigma,
        "sigma_normalized": chosen.sigma_normalized,
        "noise": chosen.noise,
        "vote": chosen.vote,
        "num_samples": chosen.num_samples,
        "chosen_on": data,
        "chosen_by": f"robust accuracy, {chosen.attack}-{chosen.steps}, M = {chosen.num_samples}",
        "tried": [
            {
                "sigma": row.sigma,
                "sigma_normalized": row.sigma_normalized,
                "clean": row.clean,
                "robust": row.robust,
                "images": row.images,
                "runs": row.runs,
            }
            for row in rows
            if row.vote == chosen.vote and row.num_samples == chosen.num_samples
        ],
    }
