"""Catastrophic overfitting of single-step training (Wong, Rice and Kolter, 2020), noticed at the end of its epoch.

A network that is trained on single-step examples may suddenly learn to mask its gradient: its accuracy under the
single-step attack rises while that under an attack of many steps falls to nothing, within an epoch or two.
"""

from collections.abc import Mapping, Sequence

from smoothed.report.format import format_percent

# Share of the best robust accuracy below which an epoch is suspected; the sources describe a fall to almost 0.
LARGEST_SHARE = 0.5
# Standard deviations of the difference of two accuracies by which the fall exceeds chance.
DEVIATIONS = 3


def overfits(epochs: Sequence[Mapping[str, float]], images: int) -> bool:
    """Return whether the last of the epochs shows catastrophic overfitting.

    It does if its validation accuracy under PGD is less than half of the best one before, by more than three standard
    deviations of such a difference, while its accuracy on the training examples is above that of the best epoch. The
    sources state no threshold.

    Args:
        epochs: for each epoch, the accuracies `validation_robust` (under PGD) and `training_adversarial` (on the
            training examples), in [0, 1].
        images: number of validation images that PGD attacks.
    """
    if len(epochs) < 2:
        return False
    last, best = epochs[-1], max(epochs[:-1], key=lambda epoch: epoch["validation_robust"])
    now, before = last["validation_robust"], best["validation_robust"]
    deviation = ((now * (1 - now) + before * (1 - before)) / images) ** 0.5
    fell = now < LARGEST_SHARE * before and before - now > DEVIATIONS * deviation
    return fell and last["training_adversarial"] > best["training_adversarial"]


def note_of(epochs: Sequence[Mapping[str, float]]) -> str:
    """Return the sentence that says what was noticed in the last of the epochs, and which epoch is kept.

    Args:
        epochs: for each epoch, its number `epoch` and the accuracies of `overfits`.
    """
    last, best = epochs[-1], max(epochs[:-1], key=lambda each: each["validation_robust"])
    names = ("validation_robust", "training_adversarial")
    robust, training = ([format_percent(each[name]) for each in (best, last)] for name in names)
    return (
        f"catastrophic overfitting in epoch {last['epoch']:.0f}: accuracy under PGD-7 fell from {robust[0]} to "
        f"{robust[1]}, while accuracy on the single-step training examples rose from {training[0]} to {training[1]}; "
        f"best.safetensors keeps epoch {best['epoch']:.0f} unless a later one is better"
    )
