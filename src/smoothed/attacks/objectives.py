"""What an attack ascends: a loss of one draw, or an expectation over draws.

An objective maps (model, inputs, labels) to one number an image, (N,), differentiable in the inputs. The model may be
random, its own noise and the input's included: each call of it is one draw. The three expectations differ in what is
averaged before the loss: the losses, the probabilities (eq. 25), or the logits (eq. 24).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.checks import check_classes, check_logits, check_positive, naming_channels
from smoothed.modes import Classifier

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, K) and labels (N,) to losses (N,)."""

Objective = Callable[[Classifier, Tensor, Tensor], Tensor]
"""From a model, inputs (N, C, H, W) and labels (N,) to what to ascend, (N,)."""


def cross_entropy(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Cross-entropy of each image, (N,), in nats."""
    return functional.cross_entropy(logits, labels, reduction="none")


def one_draw(loss: Loss = cross_entropy) -> Objective:
    """The loss of one fresh draw, as PGD takes it on a random network (eq. 2). Unbiased for `expected_loss`."""

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        return loss(_logits(model, inputs, labels), labels)

    return objective


def expected_loss(num_samples: int = 8, loss: Loss = cross_entropy) -> Objective:
    """The mean over draws of the loss: EPGD as the paper's code has it. Unbiased for the expected loss.

    Args:
        num_samples: draws for each gradient, M.
        loss: of one draw's logits.
    """
    return _over_draws(num_samples, lambda logits, labels: torch.stack([loss(draw, labels) for draw in logits]).mean(0))


def expected_probabilities(num_samples: int = 8) -> Objective:
    """Cross-entropy of the mean of the draws' softmaxes: EPGD as the paper writes it (eq. 25); Salman et al., 2019.

    The mean is unbiased for the soft vote; its logarithm is not (Jensen), by O(1 / M).
    """

    def combine(logits: Float[Tensor, "m n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        log_mean = torch.logsumexp(logits.log_softmax(-1), dim=0) - torch.tensor(float(len(logits))).log()
        return functional.nll_loss(log_mean, labels, reduction="none")

    return _over_draws(num_samples, combine)


def expected_logits(num_samples: int = 8) -> Objective:
    """Cross-entropy of the mean of the draws' logits: SmoothAdv-PGD as the paper writes it (eq. 24)."""
    return _over_draws(num_samples, lambda logits, labels: cross_entropy(logits.mean(0), labels))


def _over_draws(num_samples: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    check_positive(num_samples, "num_samples")

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        draws = [_logits(model, inputs, labels) for _ in range(num_samples)]
        return combine(torch.stack(draws), labels)  # (M, N, K)

    return objective


def _logits(model: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """One draw's logits, in float32 at least: half precision is for the network, not for the loss."""
    with naming_channels(inputs):
        logits = check_logits(model(inputs), len(inputs))
    check_classes(labels, logits.shape[1])
    return logits if logits.dtype == torch.float64 else logits.float()
