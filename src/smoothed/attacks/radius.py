"""Radius of an attack by norm: the default of each norm, and the values that make sense."""

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_choice, check_not_negative

DEFAULT_RADIUS = {"linf": 8 / 255, "l2": 0.5}
"""Default radius of each norm, in pixel units of [0, 1]. The L0 norm, a number of pixels, has none."""

RADIUS_NORMS = ("linf", "l2", "l0")


def settled_radius(eps: float | None, norm: str) -> float:
    """Return the radius of an attack; None stands for the default of its norm.

    Args:
        eps: radius in pixel units of [0, 1]; for `l0`, a number of pixels. None for the default of `norm`: 8/255 for
            `linf`, 0.5 for `l2`.
        norm: `linf`, `l2` or `l0`.

    Raises:
        ArgumentError: the norm is unknown; the radius is negative, is above 1 in the L-inf norm, is no whole number of
            pixels in the L0 norm, or is not given for the L0 norm.
    """
    check_choice(norm, RADIUS_NORMS, "norm")
    if eps is None:
        if norm == "l0":
            raise ArgumentError("eps", "a number of pixels for an L0 attack", "none", "for example eps 10")
        return DEFAULT_RADIUS[norm]
    check_not_negative(eps, "eps")
    if norm == "linf" and eps > 1:
        hint = f"write {eps:g}/255 for {eps:g} of 255 grey levels" if eps <= 255 else ""
        raise ArgumentError("eps", "a radius of at most 1 (pixel units of [0, 1]) in the L-inf norm", f"{eps:g}", hint)
    if norm == "l0" and (eps < 1 or eps != int(eps)):
        raise ArgumentError("eps", "a whole number of pixels, at least 1, for an L0 attack", f"{eps:g}")
    return float(eps)
