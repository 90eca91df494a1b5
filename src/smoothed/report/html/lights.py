"""The gradient-masking checks as traffic lights, each with its threshold in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smoothed.evaluation.gradient_masking import Finding
from smoothed.evaluation.gradient_masking.convergence import GAIN_LEFT
from smoothed.evaluation.gradient_masking.gradients import AGREEMENT
from smoothed.evaluation.results import Result

RULE = (
    "A check is suspicious if the 95 % interval of its flaw lies above the threshold. It passes if the interval lies "
    "at or below the threshold, and it is unclear if the interval crosses the threshold."
)


@dataclass(frozen=True)
class Light:
    """One check: what was tested, its verdict, the figures as text, what they mean, and when it passes."""

    name: str
    verdict: str
    figures: list[str]
    meaning: str
    threshold: str


def lights(result: Result) -> list[Light]:
    """The checks of a result in their order; none for other kinds."""
    if result.kind != "check":
        return []
    findings = [Finding.from_json(row) for row in result.rows]
    return [
        Light(each.name, each.verdict, [str(figure) for figure in each.figures], each.meaning, _threshold(each, result))
        for each in findings
    ]


def _threshold(finding: Finding, result: Result) -> str:
    if not finding.figures:
        return "nothing was measured"
    words = _THRESHOLDS.get(finding.name)
    return f"passes up to {_points(result.setting)}" if words is None else words(result.setting)


def _points(setting: Mapping[str, Any]) -> str:
    return f"{100 * setting['tolerance']:g} points"


def _lead(setting: Mapping[str, Any]) -> str:
    return f"passes if the lead is at most {_points(setting)}"


_THRESHOLDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "gradients do not vanish": lambda setting: (
        f"passes if at most {100 * setting['tolerance']:g} % of the gradients are zero and all are finite"
    ),
    "gradients match finite differences": lambda _: f"passes if the mean agreement is at least {AGREEMENT:g}",
    "draws agree on the gradient": lambda setting: (
        f"passes if the mean cosine is at least {1 / (setting['eot_samples'] + 1):.2g}, "
        f"for {setting['eot_samples']} draws"
    ),
    "the attack has converged": lambda _: (
        f"passes if at most {100 * GAIN_LEFT:g} % of the first-order gain is left on average; the FOSC itself, in "
        "nats, has none"
    ),
    "one step is weaker than many": _lead,
    "accuracy falls with eps": lambda setting: f"passes if no rise is above {_points(setting)}",
    "an unbounded attack succeeds": lambda setting: (
        f"passes if the accuracy is at most that of chance plus {_points(setting)}"
    ),
    "random search finds nothing new": lambda setting: (
        f"passes if random search alone breaks at most {100 * setting['tolerance']:g} % of the images"
    ),
    "black box is weaker than white box": _lead,
    "one draw per gradient is enough": lambda setting: f"passes if the accuracies differ by at most {_points(setting)}",
    "transfer from the mean network is weaker": _lead,
    "the gain of noise persists under transfer attacks": lambda setting: (
        f"passes if the gain is at most {_points(setting)}, or if transfer takes away at most half of it plus "
        f"{_points(setting)}"
    ),
}
