"""Checks of how accuracy depends on the attack's budget: number of steps and radius."""

from itertools import combinations

from smoothed.attacks import expected_loss, fgsm
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import (
    Figure,
    Finding,
    combined_verdict,
    compare_attacks,
    conclude,
    estimate,
    mean_accuracy,
    verdict_of,
)

# With this radius every image can be turned into the same grey image, so no classifier can be better than chance.
UNBOUNDED_EPS = 1 / 2
# Multiple of the usual number of steps for that radius.
UNBOUNDED_STEPS = 2


def one_step_against_many(defence: Defence) -> Finding:
    """Compare FGSM with PGD on the same expected loss.

    Passes if FGSM does not lower accuracy by more than PGD does, within the tolerance.
    """
    eps, objective = defence.settings.eps, expected_loss(defence.eot_samples)
    single = defence.accuracy_under(
        "one step",
        lambda model, inputs, labels, generator=None: fgsm(model, inputs, labels, eps=eps, objective=objective),  # noqa: ARG005
    )
    return compare_attacks(
        "one step is weaker than many",
        ("many steps", defence.white_box_accuracy),
        ("one step", single),
        defence.settings.tolerance,
        if_sound="PGD is at least as strong as FGSM.",
        if_suspicious="FGSM is stronger than PGD: gradients inside the ball are misleading.",
    )


def unbounded_budget(defence: Defence) -> Finding:
    """Attack with PGD at eps = 1/2 and twice the steps.

    Passes if accuracy is at most that of chance plus the tolerance.
    """
    attack = defence.pgd(eps=UNBOUNDED_EPS, steps=UNBOUNDED_STEPS * defence.settings.steps)
    chance = 1 / defence.num_classes
    accuracy = estimate(defence.accuracy_under("unbounded", attack))
    return conclude(
        "an unbounded attack succeeds",
        [Figure.of("accuracy at eps 1/2", "percent", accuracy), Figure("chance", "percent", chance)],
        verdict_of(accuracy, chance + defence.settings.tolerance),
        (chance + defence.settings.tolerance, "percent"),
        if_sound="With eps = 1/2 the attack reduces accuracy to chance.",
        if_suspicious="With eps = 1/2 any image can be turned grey, yet accuracy exceeds chance: the attack fails.",
    )


def falling_accuracy(defence: Defence) -> Finding:
    """Measure accuracy under PGD at 0, 1/2, 1, 2 and 4 times eps.

    Passes if accuracy at no larger radius exceeds that at a smaller one by more than the tolerance.
    """
    curve = {0.0: defence.clean_accuracy, 1.0: defence.white_box_accuracy}
    for multiple in (0.5, 2.0, 4.0):
        curve[multiple] = defence.accuracy_under(f"{multiple:g} eps", defence.pgd(eps=multiple * defence.settings.eps))
    curve = dict(sorted(curve.items()))
    rises = [larger - smaller for smaller, larger in combinations(curve.values(), 2)]
    largest = max((estimate(rise) for rise in rises), key=lambda rise: rise.value)
    return conclude(
        "accuracy falls with eps",
        [
            *(
                mean_accuracy(f"{multiple:g} eps" if multiple else "clean", accuracy)
                for multiple, accuracy in curve.items()
            ),
            Figure.of("largest rise", "points", largest),
        ],
        combined_verdict(rises, defence.settings.tolerance),
        (defence.settings.tolerance, "points"),
        if_sound="Accuracy does not rise with the radius.",
        if_suspicious="Accuracy rises with the radius, although larger balls contain smaller ones: the attack fails.",
    )
