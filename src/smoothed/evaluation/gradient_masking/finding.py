"""What a check finds: figures, what they mean, and a verdict by one rule for all checks.

A check measures a flaw image by image, as a number in [-1, 1], and allows so much of it. It finds the defence
`suspicious` if the whole 95 % interval of the mean flaw lies above what is allowed, gives it a `pass` if the whole
interval lies at or below that, and is `unclear` otherwise: then more images would tell.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from smoothed.errors import ArgumentError

Verdict = Literal["pass", "suspicious", "unclear"]
Unit = Literal["percent", "points", "number"]

CONFIDENCE = 0.95
# How a number of each unit is shown, and what follows it.
FORMATS: dict[Unit, tuple[Callable[[float], str], str]] = {
    "percent": (lambda value: f"{100 * value:.1f}", " %"),
    "points": (lambda value: f"{100 * value:+.1f}", " points"),
    "number": (lambda value: f"{value:.2f}", ""),
}

UNCLEAR = "The interval reaches over what is allowed: more images would tell."


@dataclass(frozen=True)
class Estimate:
    """The mean of something over images, and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        name: what it is of, in a few words.
        unit: `percent` and `points` (of accuracy) are fractions of 1, shown times 100; a `number` is shown as it is.
        value: the number.
        interval: its 95 % interval over images, where it has one.
    """

    name: str
    unit: Unit
    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, name: str, unit: Unit, estimate: Estimate) -> "Figure":
        """The figure of an estimate; no share is below 0, though the interval of a difference may be."""
        low = max(0.0, estimate.low) if unit == "percent" else estimate.low
        return cls(name, unit, estimate.value, (low, estimate.high))

    def __str__(self) -> str:
        shown, unit = FORMATS[self.unit]
        bounds = "" if self.interval is None else f" ({shown(self.interval[0])} to {shown(self.interval[1])})"
        return f"{self.name} {shown(self.value)}{unit}{bounds}"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check.
        figures: what it measured.
        meaning: what the figures say of the defence, in one sentence.
        verdict: `pass`, `suspicious` or `unclear`.
    """

    name: str
    figures: tuple[Figure, ...]
    meaning: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return asdict(self)

    def to_tensors(self) -> dict[str, Tensor]:
        """The finding as a record: its JSON text in UTF-8."""
        return {"json": torch.tensor(list(json.dumps(self.to_json()).encode()), dtype=torch.uint8)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The other way round."""
        told = json.loads(bytes(tensors["json"].tolist()))
        figures = [
            Figure(**{**figure, "interval": figure["interval"] and tuple(figure["interval"])})
            for figure in told["figures"]
        ]
        return cls(**{**told, "figures": tuple(figures)})


def estimate(flaws: Float[Tensor, " n"], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of `flaws`, one an image in [-1, 1], and its interval.

    The interval is Bonett and Price's (2012) for paired proportions, written for differences: normal, after
    one more image won and one more lost. So no number of equal images is proof.

    Raises:
        ArgumentError: no images.
    """
    if len(flaws) == 0:
        raise ArgumentError("flaws", "one an image, of at least one image", "none")
    count, values = len(flaws) + 2, flaws.double()
    centre = float(values.sum()) / count
    variance = (float(values.square().sum()) + 2) / count - centre**2
    half = float(norm.ppf((1 + confidence) / 2)) * (variance / count) ** 0.5
    return Estimate(float(values.mean()), max(-1.0, centre - half), min(1.0, centre + half))


def judge(flaw: Estimate, allowed: float) -> Verdict:
    """The verdict on a mean flaw of which so much is allowed."""
    if flaw.low > allowed:
        return "suspicious"
    return "pass" if flaw.high <= allowed else "unclear"


def judge_all(flaws: Sequence[Tensor], allowed: float) -> Verdict:
    """The verdict on several flaws, (N,) each, of which one is enough to be suspicious and all have to pass.

    Being one of several makes it easier to look suspicious by chance: for that, each gets its share of the 5 %.
    """
    shared = 1 - (1 - CONFIDENCE) / len(flaws)
    if any(judge(estimate(flaw, shared), allowed) == "suspicious" for flaw in flaws):
        return "suspicious"
    return "pass" if all(judge(estimate(flaw), allowed) == "pass" for flaw in flaws) else "unclear"


def conclude(name: str, figures: Sequence[Figure], verdict: Verdict, *, sound: str, flawed: str) -> Finding:
    """A finding that means `sound` if it is a pass, and `flawed` if it is suspicious."""
    meaning = {"pass": sound, "suspicious": flawed, "unclear": UNCLEAR}[verdict]
    return Finding(name, tuple(figures), meaning, verdict)


def percent(name: str, accuracy: Tensor) -> Figure:
    """The figure of a mean accuracy, from one an image, (N,)."""
    return Figure(name, "percent", float(accuracy.double().mean()))


def compare(
    name: str,
    reference: tuple[str, Tensor],
    rival: tuple[str, Tensor],
    allowed: float,
    *,
    sound: str,
    flawed: str,
) -> Finding:
    """Whether an attack that should be the weaker one lowers accuracy by more than a stronger one.

    Args:
        name: of the check.
        reference: the name of the attack that should be the stronger, and the accuracy it leaves each image, (N,).
        rival: likewise of the other.
        allowed: by how much the rival may be ahead, as a fraction of 1.
        sound: what a pass means.
        flawed: what it means to be suspicious.
    """
    ahead = estimate(reference[1] - rival[1])
    figures = percent(*reference), percent(*rival), Figure.of(f"{rival[0]} ahead by", "points", ahead)
    return conclude(name, figures, judge(ahead, allowed), sound=sound, flawed=flawed)
