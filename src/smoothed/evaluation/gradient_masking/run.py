"""The checklist: all checks, in the order in which a reader wants them, and what they say together."""

from collections.abc import Callable, Sequence

from smoothed.evaluation.correctness import OnProgress, ignore_progress
from smoothed.evaluation.gradient_masking.black_box import black_box_against_white_box, random_search_against_gradients
from smoothed.evaluation.gradient_masking.budgets import falling_accuracy, one_step_against_many, unbounded_budget
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import Finding
from smoothed.evaluation.gradient_masking.gradients import (
    gradients_against_differences,
    gradients_of_draws,
    vanishing_gradients,
)
from smoothed.evaluation.gradient_masking.noise import draws_for_a_gradient, gain_of_the_noise, transfer_from_the_mean

Check = Callable[[Defence], Finding]
"""A function of a defence, and of nothing else: the same seed gives the same finding."""

CHECKS: tuple[Check, ...] = (
    vanishing_gradients,
    gradients_against_differences,
    gradients_of_draws,
    one_step_against_many,
    falling_accuracy,
    unbounded_budget,
    random_search_against_gradients,
    black_box_against_white_box,
    draws_for_a_gradient,
    transfer_from_the_mean,
    gain_of_the_noise,
)


def run_checks(
    defence: Defence, checks: Sequence[Check] = CHECKS, *, on_progress: OnProgress = ignore_progress
) -> list[Finding]:
    """The findings of `checks`, in their order (Athalye et al., 2018; Carlini et al., 2019).

    A finding is a record of the defence by its function's name, as are the examples that findings share: with
    `Defence.of(..., out=...)` checks that were killed go on from those done.

    Args:
        defence: see `Defence`.
        checks: what to check; with records their functions have a name each.
        on_progress: called after each check with those done and their total.
    """
    findings = []
    for number, check in enumerate(checks, start=1):
        step = f"finding-{getattr(check, '__name__', number)}"
        findings.append(
            Finding.from_tensors(defence.records.once(step, lambda check=check: check(defence).to_tensors()))
        )
        on_progress(number, len(checks))
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """The overall verdict, in a sentence."""
    named = {verdict: [f.name for f in findings if f.verdict == verdict] for verdict in ("suspicious", "unclear")}
    suspicious, unclear = named["suspicious"], named["unclear"]
    passed = len(findings) - len(suspicious) - len(unclear)
    if suspicious:
        return (
            f"Suspicious: {len(suspicious)} of {len(findings)} do not hold ({'; '.join(suspicious)}); "
            "do not trust this attack's numbers on this defence."
        )
    if unclear:
        return (
            f"Unclear: {passed} of {len(findings)} checks passed and none is suspicious, "
            f"but {len(unclear)} need more images."
        )
    return f"Passed: none of {len(findings)} checks found a sign of masked gradients, which proves no robustness."
