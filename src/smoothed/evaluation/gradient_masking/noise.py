"""Checks of what noise does to an attack: more draws for a gradient, and the network behind the noise."""

from torch import Tensor

from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import (
    Figure,
    Finding,
    Verdict,
    compare,
    conclude,
    estimate,
    judge,
    judge_all,
    percent,
)

DRAWS = (1, 4, 16)

NO_NOISE = "There is no noise that could hide a gradient."


def draws_for_a_gradient(defence: Defence) -> Finding:
    """PGD on the loss expected over 1, 4 and 16 draws (Athalye et al., 2018).

    Rule: 16 draws are not ahead of one by more than the tolerance, and not behind by more.
    """
    name = "one draw for a gradient is enough"
    if not defence.is_random:
        return Finding(name, (), NO_NOISE, "pass")

    def measure(draws: int) -> Tensor:
        if draws == defence.attack_samples:
            return defence.white
        return defence.under(f"{draws} draws", defence.pgd(num_samples=draws))

    accuracies = {draws: measure(draws) for draws in DRAWS}
    gain = accuracies[DRAWS[0]] - accuracies[DRAWS[-1]]
    more = estimate(gain)
    flawed = (
        f"One-draw numbers flatter the defence by {100 * more.value:.1f} points: average the gradient over draws."
        if more.value > 0
        else "Averaging over draws makes the attack weaker: the draws' gradients do not add up to a direction."
    )
    return conclude(
        name,
        [
            *(percent(f"{draws} draw{'s' * (draws > 1)}", accuracy) for draws, accuracy in accuracies.items()),
            Figure.of("16 draws ahead by", "points", more),
        ],
        judge_all([gain, -gain], defence.settings.tolerance),
        sound="One draw finds what the mean of sixteen finds.",
        flawed=flawed,
    )


def transfer_from_the_mean(defence: Defence) -> Finding:
    """Examples of the network without its noise, on the vote with it. Rule: not ahead by more than the tolerance."""
    name = "the mean network's examples are weaker"
    if not defence.is_random:
        return Finding(name, (), NO_NOISE, "pass")
    return compare(
        name,
        ("white box", defence.white),
        ("transfer", defence.transferred),
        defence.settings.tolerance,
        sound="Attacking through the noise is at least as good as ignoring it.",
        flawed="Ignoring the noise attacks better than going through it: the noise masks the gradient.",
    )


def gain_of_the_noise(defence: Defence) -> Finding:
    """What the noise gains over the mean network under attack, and what is left when the mean network's examples come.

    Rule: suspicious if the noise gains more than the tolerance, and the mean network's examples take more than half of
    that and the tolerance, both surely; a pass if either is surely not so.
    """
    name = "the noise's gain outlives a transfer"
    if not defence.is_random:
        return Finding(name, (), NO_NOISE, "pass")
    mean, transferred, tolerance = defence.mean, defence.transferred, defence.settings.tolerance
    gain = estimate(defence.white - mean)
    # Half of the gain, less what is left of it: the transfer falls that far below the middle of the two.
    lost = estimate((defence.white + mean) / 2 - transferred)
    figures = [
        percent("mean network", mean),
        percent("with noise", defence.white),
        percent("with noise, transfer", transferred),
        Figure.of("gain", "points", gain),
    ]
    if gain.low > 0:
        figures.append(Figure("kept of it", "percent", float((transferred - mean).mean()) / gain.value))
    return conclude(
        name,
        figures,
        _both(judge(gain, tolerance), judge(lost, tolerance)),
        sound="The noise gains little that an attack on the mean network would take away again.",
        flawed="Most of what the noise gains is lost to examples of the network without it.",
    )


def _both(*verdicts: Verdict) -> Verdict:
    """The verdict on a flaw that takes all of several things."""
    if "pass" in verdicts:
        return "pass"
    return "suspicious" if all(verdict == "suspicious" for verdict in verdicts) else "unclear"
