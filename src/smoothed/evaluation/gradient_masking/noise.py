"""Checks of the effect of noise on attacks: draws averaged per gradient, and transfer from the mean network."""

from torch import Tensor

from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import (
    Figure,
    Finding,
    Verdict,
    combined_verdict,
    compare_attacks,
    conclude,
    estimate,
    mean_accuracy,
    verdict_of,
)

SWEPT_EOT_SAMPLES = (1, 4, 16)

NO_NOISE = "The classifier has no noise that could mask gradients."


def averaging_over_draws(defence: Defence) -> Finding:
    """Compare PGD on the mean loss of 1, 4 and 16 draws per gradient (Athalye et al., 2018).

    Passes if the accuracies under 1 and under 16 draws differ by at most the tolerance.
    """
    name = "one draw per gradient is enough"
    if not defence.is_random:
        return Finding(name, (), NO_NOISE, "pass")

    def measure(draws: int) -> Tensor:
        if draws == defence.eot_samples:
            return defence.white_box_accuracy
        return defence.accuracy_under(f"{draws} draws", defence.pgd(eot_samples=draws))

    accuracies = {draws: measure(draws) for draws in SWEPT_EOT_SAMPLES}
    gain = accuracies[SWEPT_EOT_SAMPLES[0]] - accuracies[SWEPT_EOT_SAMPLES[-1]]
    mean_gain = estimate(gain)
    if_suspicious = (
        f"Accuracy under one draw per gradient is too high by {100 * mean_gain.value:.1f} points: average more draws."
        if mean_gain.value > 0
        else "Averaging over draws weakens the attack: the gradients of the draws have no common direction."
    )
    return conclude(
        name,
        [
            *(mean_accuracy(f"{draws} draw{'s' * (draws > 1)}", accuracy) for draws, accuracy in accuracies.items()),
            Figure.of("lead of 16 draws over 1", "points", mean_gain),
        ],
        combined_verdict([gain, -gain], defence.settings.tolerance),
        (defence.settings.tolerance, "points"),
        if_sound="One draw per gradient is as strong as the mean of 16.",
        if_suspicious=if_suspicious,
    )


def transfer_from_mean_network(defence: Defence) -> Finding:
    """Compare adversarial examples of the mean network (all noise off) with those of the white-box attack.

    Passes if the transferred examples do not lower accuracy by more than the white-box attack does, within the
    tolerance.
    """
    name = "transfer from the mean network is weaker"
    if not defence.is_random:
        return Finding(name, (), NO_NOISE, "pass")
    return compare_attacks(
        name,
        ("white box", defence.white_box_accuracy),
        ("transfer", defence.transfer_accuracy),
        defence.settings.tolerance,
        if_sound="Attacking the noisy classifier is at least as strong as attacking the mean network.",
        if_suspicious="Attacking the mean network is stronger than attacking through the noise: noise masks gradients.",
    )


def noise_gain_under_transfer(defence: Defence) -> Finding:
    """Measure the accuracy that noise gains over the mean network, and the loss of it under transferred examples.

    The gain is the robust accuracy with noise minus that of the mean network. Suspicious if the gain exceeds the
    tolerance and transfer from the mean network takes away more than half of the gain plus the tolerance. Passes if
    either does not hold. Both conditions are tested by their 95 % intervals.
    """
    name = "the gain of noise persists under transfer attacks"
    if not defence.is_random:
        return Finding(name, (), NO_NOISE, "pass")
    mean, transferred, tolerance = defence.mean_network_accuracy, defence.transfer_accuracy, defence.settings.tolerance
    gain = estimate(defence.white_box_accuracy - mean)
    # How far the accuracy under transfer lies below the midpoint between the accuracies with and without noise.
    loss = estimate((defence.white_box_accuracy + mean) / 2 - transferred)
    figures = [
        mean_accuracy("mean network", mean),
        mean_accuracy("with noise", defence.white_box_accuracy),
        mean_accuracy("with noise, transfer", transferred),
        Figure.of("gain", "points", gain),
    ]
    if gain.low > 0:
        kept = float((transferred - mean).mean()) / gain.value
        figures.append(Figure("gain kept under transfer", "percent", kept))
    return conclude(
        name,
        figures,
        _all_of(verdict_of(gain, tolerance), verdict_of(loss, tolerance)),
        (tolerance, "points"),
        if_sound="Noise gains little accuracy, or keeps most of its gain against examples of the mean network.",
        if_suspicious="Most of the accuracy gained by noise is lost to adversarial examples of the mean network.",
    )


def _all_of(*verdicts: Verdict) -> Verdict:
    """Verdict on a flaw that consists of several conditions, all of which must hold."""
    if "pass" in verdicts:
        return "pass"
    return "suspicious" if all(verdict == "suspicious" for verdict in verdicts) else "unclear"
