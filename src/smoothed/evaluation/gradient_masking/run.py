"""Run all gradient-masking checks, and summarise their findings."""

from collections.abc import Callable, Sequence

from smoothed.evaluation.correctness import OnProgress, ignore_progress
from smoothed.evaluation.gradient_masking.black_box import black_box_against_white_box, random_search_against_gradients
from smoothed.evaluation.gradient_masking.budgets import falling_accuracy, one_step_against_many, unbounded_budget
from smoothed.evaluation.gradient_masking.convergence import converged_attack
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import Finding
from smoothed.evaluation.gradient_masking.gradients import (
    agreement_of_draws,
    gradients_against_finite_differences,
    vanishing_gradients,
)
from smoothed.evaluation.gradient_masking.noise import (
    averaging_over_draws,
    noise_gain_under_transfer,
    transfer_from_mean_network,
)

Check = Callable[[Defence], Finding]
"""A deterministic function of a defence, whose settings include the seed."""

CHECKS: tuple[Check, ...] = (
    vanishing_gradients,
    gradients_against_finite_differences,
    agreement_of_draws,
    converged_attack,
    one_step_against_many,
    falling_accuracy,
    unbounded_budget,
    random_search_against_gradients,
    black_box_against_white_box,
    averaging_over_draws,
    transfer_from_mean_network,
    noise_gain_under_transfer,
)


def run_checks(
    defence: Defence, checks: Sequence[Check] = CHECKS, *, on_progress: OnProgress = ignore_progress
) -> list[Finding]:
    """Run `checks` on a defence (Athalye et al., 2018; Carlini et al., 2019).

    With `Defence.of(..., out=...)`, findings and shared adversarial examples are stored, and interrupted checks
    continue from them.

    Args:
        defence: classifier and images to check.
        checks: checks to run; stored findings are identified by the names of these functions, which must differ.
        on_progress: called after each check with the number of finished checks and their total.

    Returns:
        The findings, in the order of the checks.
    """
    findings = []
    for number, check in enumerate(checks, start=1):
        step = f"finding-{getattr(check, '__name__', number)}"
        findings.append(
            Finding.from_tensors(defence.resume.compute_once(step, lambda check=check: check(defence).to_tensors()))
        )
        on_progress(number, len(checks))
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """The overall verdict in one sentence."""
    suspicious = [finding.name for finding in findings if finding.verdict == "suspicious"]
    unclear = sum(finding.verdict == "unclear" for finding in findings)
    passed = len(findings) - len(suspicious) - unclear
    if suspicious:
        return (
            f"Suspicious: {len(suspicious)} of {len(findings)} checks failed ({'; '.join(suspicious)}); "
            "accuracy under this attack may overestimate the robustness of this classifier."
        )
    if unclear:
        return (
            f"Unclear: {passed} of {len(findings)} checks passed and none is suspicious, "
            f"but {unclear} {'is' if unclear == 1 else 'are'} inconclusive; use more images."
        )
    return (
        f"Passed: none of {len(findings)} checks found a sign of gradient masking. "
        "This does not prove robustness: a stronger attack may still succeed."
    )
