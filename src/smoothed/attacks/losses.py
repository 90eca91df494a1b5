"""Losses that an attack ascends, from logits (N, K) and labels (N,) to one value per image, (N,).

A larger loss is worse for the classifier. A targeted attack descends these losses at the target classes. The exceptions
are `targeted_margin` and `targeted_dlr`, which compare target and label and are ascended at the true labels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.utils.shapes import LabelBatch

Logits = Float[Tensor, "n k"]
Values = Float[Tensor, " n"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (N, K) and labels (N,) to losses (N,)."""

# Lower bound for a divisor: avoids 0 / 0 where the largest logits are equal, as in an untrained network.
TINY = 1e-12


def cross_entropy(logits: Logits, labels: LabelBatch) -> Values:
    """Cross-entropy in nats."""
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: LabelBatch) -> Values:
    """Largest wrong logit minus the logit of the label: positive if misclassified (Carlini and Wagner, 2017, f6)."""
    is_label = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(is_label, -torch.inf).amax(1) - _logit_of(logits, labels)


def dlr(logits: Logits, labels: LabelBatch) -> Values:
    """Difference of logits ratio: the margin over the largest minus the third logit (Croce and Hein, 2020, eq. 6).

    It is invariant to shifts and positive scalings of the logits, so that a scaling cannot make the gradient vanish.

    Raises:
        ArgumentError: there are fewer than three classes.
    """
    _require_classes(logits, 3)
    largest = logits.topk(3, dim=1).values
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2]).clamp_min(TINY)


def targeted_margin(targets: LabelBatch) -> Loss:
    """Return the loss "logit of `targets` minus logit of the label", of multi-targeted PGD (Gowal et al., 2019)."""
    return lambda logits, labels: _logit_of(logits, targets) - _logit_of(logits, labels)


def targeted_dlr(targets: LabelBatch) -> Loss:
    """Return the targeted DLR loss (Croce and Hein, 2020, eq. 7) for `targets`, (N,).

    It is `targeted_margin` divided by the largest logit minus the mean of the third and fourth.

    Raises:
        ArgumentError: at a call, there are fewer than four classes.
    """

    def loss(logits: Logits, labels: LabelBatch) -> Values:
        _require_classes(logits, 4)
        largest = logits.topk(4, dim=1).values
        spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
        return (_logit_of(logits, targets) - _logit_of(logits, labels)) / spread.clamp_min(TINY)

    return loss


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
"""Losses at the true label, by name."""


def _logit_of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


def _require_classes(logits: Tensor, count: int) -> None:
    if logits.shape[1] < count:
        hint = "use the margin or the cross-entropy: of the named attacks, multi-targeted or apgd-ce"
        raise ArgumentError("loss", f"at least {count} classes for the DLR loss", logits.shape[1], hint)
