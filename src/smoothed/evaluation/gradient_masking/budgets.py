"""Checks of how accuracy goes with the attacker's means: one step or many, a small ball, a large one, all images."""

from itertools import combinations

from smoothed.attacks import expected_loss, fgsm
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import (
    Figure,
    Finding,
    compare,
    conclude,
    estimate,
    judge,
    judge_all,
    percent,
)

# Within this every image can be made the same grey, so that no classifier can do better than chance.
UNBOUNDED = 1 / 2
LONGER = 2


def one_step_against_many(defence: Defence) -> Finding:
    """FGSM against PGD, both on the same expected loss. Rule: FGSM is not ahead by more than the tolerance."""
    eps, objective = defence.settings.eps, expected_loss(defence.attack_samples)
    single = defence.under(
        "one step",
        lambda model, inputs, labels, generator=None: fgsm(model, inputs, labels, eps=eps, objective=objective),  # noqa: ARG005
    )
    return compare(
        "one step is weaker than many",
        ("many steps", defence.white),
        ("one step", single),
        defence.settings.tolerance,
        sound="Many steps find at least what one step finds.",
        flawed="One step finds what many miss: the gradient leads astray inside the ball.",
    )


def unbounded_budget(defence: Defence) -> Finding:
    """PGD with twice the steps in a ball of 1/2. Rule: it leaves no more than chance and the tolerance."""
    attack = defence.pgd(eps=UNBOUNDED, steps=LONGER * defence.settings.steps)
    chance = 1 / defence.classes
    left = estimate(defence.under("unbounded", attack))
    return conclude(
        "an unbounded attack wins",
        [Figure.of("accuracy at eps 1/2", "percent", left), Figure("chance", "percent", chance)],
        judge(left, chance + defence.settings.tolerance),
        sound="With an unbounded budget the attack leaves nothing.",
        flawed="No classifier deserves accuracy where any image can be made the same grey: the attack is at fault.",
    )


def falling_accuracy(defence: Defence) -> Finding:
    """Accuracy at 0, 1/2, 1, 2 and 4 eps. Rule: no larger radius leaves more than a smaller one and the tolerance."""
    curve = {0.0: defence.clean, 1.0: defence.white}
    for multiple in (0.5, 2.0, 4.0):
        curve[multiple] = defence.under(f"{multiple:g} eps", defence.pgd(eps=multiple * defence.settings.eps))
    curve = dict(sorted(curve.items()))
    rises = [larger - smaller for smaller, larger in combinations(curve.values(), 2)]
    worst = max((estimate(rise) for rise in rises), key=lambda rise: rise.value)
    return conclude(
        "accuracy falls with eps",
        [
            *(percent(f"{multiple:g} eps" if multiple else "clean", accuracy) for multiple, accuracy in curve.items()),
            Figure.of("largest rise", "points", worst),
        ],
        judge_all(rises, defence.settings.tolerance),
        sound="A larger ball never holds fewer adversarial examples for the attack.",
        flawed="The attack does worse in a larger ball, which holds the smaller one: it fails, not the images.",
    )
