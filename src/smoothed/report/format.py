"""Numbers and settings as text, in the form in which all tables and sentences show them."""

from collections.abc import Mapping, Sequence
from typing import Any

from smoothed.evaluation.paper_protocol.rows import NETWORK_ALONE
from smoothed.evaluation.results import Accuracy

# Ending of the names of attacks that follow the sum of all gradients so far.
SUMMED = "-accumulated"


def format_percent(share: float, digits: int = 1) -> str:
    """A share in percent: `62.0 %`."""
    return f"{100 * share:.{digits}f} %"


def format_interval(bounds: tuple[float, float]) -> str:
    """Bounds of a share in percent: `52.2-70.9`."""
    return f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"


def format_accuracy(accuracy: Accuracy) -> str:
    """An accuracy in percent with its interval: `62.0 % (52.2-70.9)`."""
    return f"{format_percent(accuracy.mean)} ({format_interval(accuracy.interval)})"


def format_p_value(p: float) -> str:
    """A p-value: `p = 0.25`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def format_sigma(sigma: float | None, sigma_normalized: float | None) -> str:
    """The standard deviation of the input noise in both units: `sigma 0.06017 (0.24 normalised)`."""
    if sigma is None:
        return "noise without a stated sigma"
    if sigma_normalized is None or sigma == 0:
        return f"sigma {sigma:.4g}"
    return f"sigma {sigma:.4g} ({sigma_normalized:.4g} normalised)"


def format_base(setting: Mapping[str, Any], of_random: str = "one draw") -> str:
    """The name of the row of the base network in a result of `evaluate`: `one draw`, or `network without noise`.

    Args:
        setting: the setting of the result.
        of_random: the name for a random network, and for older results, which do not say whether it is random.
    """
    return NETWORK_ALONE if setting.get("random_network") is False else of_random


def format_attack(attack: str, steps: int | None) -> str:
    """The name of an attack as papers write it: `PGD-7`, `FGSM`; that of the user's own attack as it is.

    `pgd-accumulated` and `epgd-accumulated` are written as PGD and EPGD on summed gradients.
    """
    if steps is None:
        return attack
    method, summed = attack.removesuffix(SUMMED), attack.endswith(SUMMED)
    name = method.upper() if steps == 1 else f"{method.upper()}-{steps}"
    return f"{name} on summed gradients" if summed else name


def format_eps(eps: float, norm: str) -> str:
    """The radius of an attack with its norm: `L-inf 8/255`, `L2 0.5`, or `L0 3 pixels`."""
    if norm == "l0":
        return f"L0 {eps:g} pixels"
    return f"L-inf {eps * 255:g}/255" if norm == "linf" else f"L2 {eps:g}"


def format_points(gain: float, interval: tuple[float, float]) -> str:
    """A difference of accuracies in points with its interval: `+1.9 points (95 % interval +0.3 to +3.5)`."""
    low, high = (f"{100 * bound:+.1f}" for bound in interval)
    return f"{100 * gain:+.1f} points (paired 95 % interval {low} to {high})"


def format_ranges(selected: Sequence[Any], values: Sequence[Any]) -> str:
    """The selected ones of ordered values, with consecutive ones as a range: `0.1-0.3, 0.5`."""
    groups = list[list[Any]]()
    for value in selected:
        if groups and values.index(groups[-1][-1]) + 1 == values.index(value):
            groups[-1].append(value)
        else:
            groups.append([value])
    return ", ".join(
        _value(group[0]) if len(group) == 1 else f"{_value(group[0])}-{_value(group[-1])}" for group in groups
    )


def _value(value: Any) -> str:  # noqa: ANN401 - a number or a name
    return value if isinstance(value, str) else f"{value:.4g}"
