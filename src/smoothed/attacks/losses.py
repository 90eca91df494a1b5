"""What an attack ascends on one set of scores: from logits (N, K) and labels (N,) to a number an image, (N,).

Larger is worse for the classifier: a targeted attack descends a loss at the classes it wants. `targeted_margin` and
`targeted_dlr` are ascended at the true labels instead, since they weigh both classes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.errors import ArgumentError

Logits = Float[Tensor, "n k"]
Labels = Int[Tensor, " n"]
Values = Float[Tensor, " n"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, K) and labels (N,) to losses (N,)."""

# Keeps 0 / 0 out of images whose best logits are equal, as an untrained network's may be.
TINY = 1e-12


def cross_entropy(logits: Logits, labels: Labels) -> Values:
    """Cross-entropy, in nats."""
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> Values:
    """The best wrong logit minus that of the label: above 0 where misclassified (Carlini and Wagner, 2017, f6)."""
    own = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1) - _of(logits, labels)


def dlr(logits: Logits, labels: Labels) -> Values:
    """The margin over the distance from the best to the third logit (Croce and Hein, 2020, eq. 6).

    Unchanged when logits are shifted or scaled, so that no temperature hides the gradient.

    Raises:
        ArgumentError: fewer than three classes.
    """
    _require_classes(logits, 3)
    best = logits.topk(3, dim=1).values
    return margin(logits, labels) / (best[:, 0] - best[:, 2]).clamp_min(TINY)


def targeted_margin(targets: Labels) -> Loss:
    """The logit of `targets` minus that of the label: the surrogate of multi-targeted PGD (Gowal et al., 2019)."""
    return lambda logits, labels: _of(logits, targets) - _of(logits, labels)


def targeted_dlr(targets: Labels) -> Loss:
    """`targeted_margin` over the distance from the best logit to the mean of the third and fourth (their eq. 7).

    Raises:
        ArgumentError: when called, fewer than four classes.
    """

    def loss(logits: Logits, labels: Labels) -> Values:
        _require_classes(logits, 4)
        best = logits.topk(4, dim=1).values
        spread = best[:, 0] - (best[:, 2] + best[:, 3]) / 2
        return (_of(logits, targets) - _of(logits, labels)) / spread.clamp_min(TINY)

    return loss


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
"""The losses at the true label, by name."""


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


def _require_classes(logits: Tensor, count: int) -> None:
    if logits.shape[1] < count:
        raise ArgumentError("loss", f"at least {count} classes", logits.shape[1], "use margin or ce")
