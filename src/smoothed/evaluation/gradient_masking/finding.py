"""Findings of the checks: measured figures, their meaning, and a verdict by the same rule for all checks.

A check measures a flaw of each image, a number in [-1, 1], and has a threshold for the mean flaw. The verdict is
`suspicious` if the 95 % interval of the mean flaw lies above the threshold, `pass` if it lies at or below the
threshold, and `unclear` if it crosses the threshold; more images then narrow the interval.
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
# Format of the numbers of each unit, and the text after them.
UNIT_FORMATS: dict[Unit, tuple[Callable[[float], str], str]] = {
    "percent": (lambda value: f"{100 * value:.1f}", " %"),
    "points": (lambda value: f"{100 * value:+.1f}", " points"),
    "number": (lambda value: f"{value:.2f}", ""),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over images (`value`) and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        name: a few words that name the measured quantity.
        unit: `percent` and `points` (of accuracy) are fractions, displayed times 100; a `number` is displayed as it is.
        value: measured value.
        interval: 95 % interval of the value over images; None if there is none.
    """

    name: str
    unit: Unit
    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, name: str, unit: Unit, estimate: Estimate) -> "Figure":
        """Figure of an estimate; the interval of a `percent` is cut off at 0."""
        low = max(0.0, estimate.low) if unit == "percent" else estimate.low
        return cls(name, unit, estimate.value, (low, estimate.high))

    def __str__(self) -> str:
        shown, unit = UNIT_FORMATS[self.unit]
        bounds = "" if self.interval is None else f" ({shown(self.interval[0])} to {shown(self.interval[1])})"
        return f"{self.name} {shown(self.value)}{unit}{bounds}"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the property that the check tests.
        figures: measured figures.
        meaning: interpretation of the figures in one sentence.
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
        """The finding as a tensor of its JSON text in UTF-8, for a `ResumeFolder`."""
        return {"json": torch.tensor(list(json.dumps(self.to_json()).encode()), dtype=torch.uint8)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The finding from the tensors of `to_tensors`."""
        return cls.from_json(json.loads(bytes(tensors["json"].tolist())))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON values of a finding."""
        figures = [
            Figure(**{**figure, "interval": figure["interval"] and tuple(figure["interval"])})
            for figure in values["figures"]
        ]
        return cls(**{**values, "figures": tuple(figures)})


def estimate(flaws: Float[Tensor, " n"], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of `flaws` and its confidence interval.

    The interval is that of Bonett and Price (2012) for paired proportions, applied to differences: the normal interval
    after adding one image with a flaw of 1 and one with a flaw of -1. It therefore has a positive width even if all
    images agree.

    Args:
        flaws: flaw of each image, (N,), in [-1, 1].
        confidence: confidence of the interval, in (0, 1).

    Raises:
        ArgumentError: no images.
    """
    if len(flaws) == 0:
        raise ArgumentError("flaws", "the flaw of at least one image", "none")
    count, values = len(flaws) + 2, flaws.double()
    centre = float(values.sum()) / count
    variance = (float(values.square().sum()) + 2) / count - centre**2
    half_width = float(norm.ppf((1 + confidence) / 2)) * (variance / count) ** 0.5
    return Estimate(float(values.mean()), max(-1.0, centre - half_width), min(1.0, centre + half_width))


def verdict_of(flaw: Estimate, threshold: float) -> Verdict:
    """Verdict on a mean flaw: `suspicious` above the threshold, `pass` at or below it, `unclear` across it."""
    if flaw.low > threshold:
        return "suspicious"
    return "pass" if flaw.high <= threshold else "unclear"


def combined_verdict(flaws: Sequence[Tensor], threshold: float) -> Verdict:
    """Verdict on several flaws, (N,) each: `suspicious` if any flaw is, and `pass` if all flaws pass.

    The intervals that decide on `suspicious` share the error probability of 5 % (Bonferroni).
    """
    confidence = 1 - (1 - CONFIDENCE) / len(flaws)
    if any(verdict_of(estimate(flaw, confidence), threshold) == "suspicious" for flaw in flaws):
        return "suspicious"
    return "pass" if all(verdict_of(estimate(flaw), threshold) == "pass" for flaw in flaws) else "unclear"


def conclude(
    name: str,
    figures: Sequence[Figure],
    verdict: Verdict,
    threshold: tuple[float, Unit],
    *,
    if_sound: str,
    if_suspicious: str,
) -> Finding:
    """A finding whose meaning is `if_sound` for a pass and `if_suspicious` for a suspicious verdict.

    Args:
        name: the property that the check tests.
        figures: measured figures.
        verdict: verdict of the check.
        threshold: threshold of the measured flaw and its unit, which the meaning of an unclear verdict names.
        if_sound: meaning of a pass.
        if_suspicious: meaning of a suspicious verdict.
    """
    if_unclear = f"Inconclusive: the interval crosses the threshold of {_threshold_text(*threshold)}; use more images."
    meaning = {"pass": if_sound, "suspicious": if_suspicious, "unclear": if_unclear}[verdict]
    return Finding(name, tuple(figures), meaning, verdict)


def _threshold_text(value: float, unit: Unit) -> str:
    """A threshold with its unit, in at most three digits."""
    return f"{value:.3g}" if unit == "number" else f"{100 * value:.3g}{UNIT_FORMATS[unit][1]}"


def mean_accuracy(name: str, accuracy: Tensor) -> Figure:
    """Figure of a mean accuracy, from the accuracies of the images, (N,)."""
    return Figure(name, "percent", float(accuracy.double().mean()))


def compare_attacks(
    name: str,
    stronger: tuple[str, Tensor],
    weaker: tuple[str, Tensor],
    threshold: float,
    *,
    if_sound: str,
    if_suspicious: str,
) -> Finding:
    """Test whether an attack that should be weaker lowers accuracy by more than an attack that should be stronger.

    Args:
        name: the property that the check tests.
        stronger: name of the attack that should be stronger, and the accuracy of each image under it, (N,).
        weaker: name of the attack that should be weaker, and the accuracy of each image under it, (N,).
        threshold: largest lead of the weaker attack that passes, as a fraction.
        if_sound: meaning of a pass.
        if_suspicious: meaning of a suspicious verdict.
    """
    lead = estimate(stronger[1] - weaker[1])
    figures = mean_accuracy(*stronger), mean_accuracy(*weaker), Figure.of(f"lead of {weaker[0]}", "points", lead)
    verdict = verdict_of(lead, threshold)
    return conclude(name, figures, verdict, (threshold, "points"), if_sound=if_sound, if_suspicious=if_suspicious)
