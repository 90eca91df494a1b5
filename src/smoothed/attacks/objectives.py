"""What an attack ascends: a loss of one draw, or an expectation over draws.

An objective maps (model, inputs, labels) to one number an image, (N,), differentiable in the inputs. The model may be
random, its own noise and the input's included: each call of it is one draw. The expectations differ in what is averaged
before the loss: the losses, the probabilities (eq. 25), the logits (eq. 24), or the soft vote's shares (eq. 13). Their
memory does not grow with the draws.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.losses import Loss, cross_entropy, margin
from smoothed.attacks.streaming import mean, negative_log_mean_exp, of_mean, of_mean_held
from smoothed.utils.checks import check_classes, check_logits, check_positive, naming_channels
from smoothed.utils.modes import Classifier

Objective = Callable[[Classifier, Tensor, Tensor], Tensor]
"""From a model, inputs (N, C, H, W) and labels (N,) to what to ascend, (N,)."""


Draws = Callable[[Loss], Objective]
"""From a loss of logits to an objective: `one_draw`, or an expectation such as `partial(expected_loss, 8)`."""

HELD_DRAWS = 8
"""How many draws a loss of their mean keeps in memory at once: the paper's M."""

# Keeps the logarithm of a mean probability finite in float32, and its gradient.
SMALLEST_PROBABILITY = 1e-30


def one_draw(loss: Loss = cross_entropy) -> Objective:
    """The loss of one fresh draw, as PGD takes it on a random network (eq. 2). Unbiased for `expected_loss`."""

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        return loss(checked_logits(model, inputs, labels), labels)

    return objective


def expected_loss(num_samples: int = 8, loss: Loss = cross_entropy) -> Objective:
    """The mean over draws of the loss: EPGD as the paper's code has it. Unbiased for the expected loss.

    Differentiable in the inputs alone; memory does not grow with the draws.

    Args:
        num_samples: draws for each gradient, M.
        loss: of one draw's logits.
    """
    check_positive(num_samples, "num_samples")
    term = one_draw(loss)
    return lambda model, inputs, labels: mean(lambda images: term(model, images, labels), inputs, num_samples)


def expected_probabilities(num_samples: int = 8, loss: Loss = cross_entropy, *, held: int = HELD_DRAWS) -> Objective:
    """The loss of the mean of the draws' softmaxes: EPGD as the paper writes it (eq. 25); Salman et al., 2019.

    The mean is unbiased for the soft vote; a loss of it is not (Jensen), by O(1 / M). Differentiable in the inputs
    alone.

    Args:
        num_samples: draws for each gradient, M.
        loss: of the logarithms of the mean probabilities. The cross-entropy is taken draw by draw, other losses as in
            `expected_logits`.
        held: as in `expected_logits`.
    """
    if loss is not cross_entropy:
        return _of_mean(
            lambda logits: logits.softmax(1),
            lambda mean, labels: loss(mean.clamp_min(SMALLEST_PROBABILITY).log(), labels),
            num_samples,
            held,
        )
    check_positive(num_samples, "num_samples")
    term = one_draw()
    return lambda model, inputs, labels: negative_log_mean_exp(
        lambda images: term(model, images, labels), inputs, num_samples
    )


def expected_logits(num_samples: int = 8, loss: Loss = cross_entropy, *, held: int = HELD_DRAWS) -> Objective:
    """The loss of the mean of the draws' logits: SmoothAdv-PGD as the paper writes it (eq. 24).

    The weight of a draw's gradient depends on all draws. Where there are more than `held` of them they are met twice,
    at the price of a forward pass each: memory does not grow with the draws, and the value is differentiable in the
    inputs alone. A model whose randomness can't be replayed (see `attacks.replay`) has all of its draws held.

    Args:
        num_samples: draws for each gradient, M.
        loss: of the mean logits.
        held: how many draws may be in memory at once.
    """
    return _of_mean(lambda logits: logits, loss, num_samples, held)


def expected_vote(num_samples: int = 8, loss: Loss = margin, *, held: int = HELD_DRAWS) -> Objective:
    """The loss of the soft vote's shares, the mean softmax (eq. 13): by default their margin, which decides the vote.

    Its expectation is what eq. 17 is about, with the largest share among wrong classes taken after the mean: biased for
    the vote over all noise by O(1 / sqrt(M)) where two wrong classes are close.

    Args:
        num_samples: as in `expected_logits`, as is `held`.
        loss: of the shares, as they are: `margin`, or `dlr`, which no scale changes.
        held: how many draws may be in memory at once.
    """
    return _of_mean(lambda logits: logits.softmax(1), loss, num_samples, held)


def _of_mean(scores: Callable[[Tensor], Tensor], loss: Loss, num_samples: int, held: int) -> Objective:
    """`loss` of the mean over draws of `scores`, a function of logits (N, K) to (N, K)."""
    check_positive(num_samples, "num_samples")
    check_positive(held, "held")

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        def draw(images: Tensor) -> Tensor:
            return scores(checked_logits(model, images, labels))

        mean_of = of_mean if num_samples > held else of_mean_held
        return mean_of(draw, lambda mean: loss(mean, labels), inputs, num_samples, model)

    return objective


def checked_logits(model: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """One draw's logits (N, K), in float32 at least: half precision is for the network, not for the loss.

    Raises:
        ArgumentError: no logits, labels outside their classes, or a network for other channels.
    """
    with naming_channels(inputs):
        logits = check_logits(model(inputs), len(inputs))
    check_classes(labels, logits.shape[1])
    return logits if logits.dtype == torch.float64 else logits.float()
