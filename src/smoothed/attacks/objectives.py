"""Objectives that an attack ascends: a loss of one draw, or an expectation over draws.

An objective maps (model, inputs, labels) to one value per image, (N,), differentiable with respect to the inputs. The
model may be random; each call of it is one draw. The expectations average different quantities: the losses, or, before
the loss, the probabilities (eq. 25), the logits (eq. 24) or the soft vote's shares (eq. 13). Their memory does not grow
with the number of draws.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.losses import Loss, cross_entropy, margin
from smoothed.attacks.streaming import loss_of_mean, loss_of_stored_mean, mean_over_draws, negative_log_mean_exp
from smoothed.errors import ArgumentError
from smoothed.utils.checks import (
    check_callable,
    check_classes,
    check_logits,
    check_positive,
    check_values,
    explaining_channel_errors,
)
from smoothed.utils.modes import Classifier

Objective = Callable[[Classifier, Tensor, Tensor], Tensor]
"""Maps a model, inputs (N, C, H, W) and labels (N,) to values to ascend, (N,)."""


ObjectiveFactory = Callable[[Loss], Objective]
"""Makes an objective of a loss of logits: `one_draw_loss`, or an expectation such as `partial(expected_loss, 8)`."""

MAX_STORED_DRAWS = 8
"""Default number of draws whose graphs a loss of their mean keeps in memory at once: the paper's M."""

# Lower bound for a mean probability, so that its logarithm and gradient are finite in float32.
SMALLEST_PROBABILITY = 1e-30


def objective_or_default(objective: Objective | None) -> Objective:
    """Return `objective`, or the cross-entropy of one draw if it is None.

    Raises:
        ArgumentError: the objective cannot be called.
    """
    if objective is None:
        return one_draw_loss()
    check_callable(objective, "objective")
    return objective


def check_objective_factory(make_objective: ObjectiveFactory) -> None:
    """Raise `ArgumentError` unless `make_objective` makes an objective of a loss."""
    check_callable(make_objective, "make_objective")
    objective = make_objective(margin)
    if not callable(objective):
        raise ArgumentError("make_objective", "a function that returns an objective", f"one that returns {objective!r}")


def one_draw_loss(loss: Loss = cross_entropy) -> Objective:
    """Return the loss of one fresh draw, the objective of PGD on a random network (eq. 2).

    It is an unbiased estimate of the expected loss.

    Args:
        loss: maps one draw's logits (N, K) and labels (N,) to losses (N,).

    Raises:
        ArgumentError: `loss` cannot be called.
    """
    check_callable(loss, "loss")

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        return check_values(loss(checked_logits(model, inputs, labels), labels), len(labels), "loss")

    return objective


def expected_loss(eot_samples: int = 8, loss: Loss = cross_entropy) -> Objective:
    """Return the mean of the loss over draws, the objective of EPGD in the paper's code.

    It is an unbiased estimate of the expected loss, and differentiable with respect to the inputs only. Memory does not
    grow with the number of draws.

    Args:
        eot_samples: number of draws per gradient, the paper's M.
        loss: maps one draw's logits (N, K) and labels (N,) to losses (N,).
    """
    check_positive(eot_samples, "eot_samples")
    term = one_draw_loss(loss)
    return lambda model, inputs, labels: mean_over_draws(
        lambda images: term(model, images, labels), inputs, eot_samples
    )


def expected_probabilities(
    eot_samples: int = 8, loss: Loss = cross_entropy, *, max_stored_draws: int = MAX_STORED_DRAWS
) -> Objective:
    """Return the loss of the mean softmax over draws, the objective of EPGD in the paper (eq. 25; Salman et al., 2019).

    The mean is an unbiased estimate of the soft vote; its loss has a bias of O(1 / eot_samples), by Jensen's
    inequality. It is differentiable with respect to the inputs only.

    Args:
        eot_samples: number of draws per gradient, the paper's M.
        loss: maps the logarithm of the mean probabilities (N, K) and labels (N,) to losses (N,). The cross-entropy is
            computed one draw at a time; other losses as in `expected_logits`.
        max_stored_draws: maximum number of draws whose graphs are kept in memory, for losses other than the
            cross-entropy.
    """
    check_callable(loss, "loss")
    check_positive(max_stored_draws, "max_stored_draws")
    if loss is not cross_entropy:
        return _loss_of_mean_objective(
            lambda logits: logits.softmax(1),
            lambda mean, labels: loss(mean.clamp_min(SMALLEST_PROBABILITY).log(), labels),
            eot_samples,
            max_stored_draws,
        )
    check_positive(eot_samples, "eot_samples")
    term = one_draw_loss()
    return lambda model, inputs, labels: negative_log_mean_exp(
        lambda images: term(model, images, labels), inputs, eot_samples
    )


def expected_logits(
    eot_samples: int = 8, loss: Loss = cross_entropy, *, max_stored_draws: int = MAX_STORED_DRAWS
) -> Objective:
    """Return the loss of the mean of the logits over draws, the objective of SmoothAdv-PGD in the paper (eq. 24).

    The weight of a draw's gradient depends on all draws. Above `max_stored_draws` draws, each draw is therefore
    computed twice: memory does not grow with their number, for the price of one more forward pass per draw, and the
    value is differentiable with respect to the inputs only. If the draws of the model cannot be repeated (see
    `attacks.replay`), all of them are stored.

    Args:
        eot_samples: number of draws per gradient, the paper's M.
        loss: maps the mean logits (N, K) and labels (N,) to losses (N,).
        max_stored_draws: maximum number of draws whose graphs are kept in memory at once.
    """
    return _loss_of_mean_objective(lambda logits: logits, loss, eot_samples, max_stored_draws)


def expected_vote(eot_samples: int = 8, loss: Loss = margin, *, max_stored_draws: int = MAX_STORED_DRAWS) -> Objective:
    """Return the loss of the soft vote's shares, the mean softmax (eq. 13); the default loss is the margin.

    The margin of the shares decides the vote. Its expectation is the quantity of eq. 17, with the largest wrong class
    chosen after averaging. As an estimate of the vote over infinitely many draws, it has a bias of O(1 /
    sqrt(eot_samples)) where two wrong classes are close.

    Args:
        eot_samples: number of draws per gradient, the paper's M.
        loss: maps the shares (N, K), without a logarithm, and labels (N,) to losses (N,): `margin`, or the
            scale-invariant `dlr`.
        max_stored_draws: maximum number of draws whose graphs are kept in memory at once.
    """
    return _loss_of_mean_objective(lambda logits: logits.softmax(1), loss, eot_samples, max_stored_draws)


def _loss_of_mean_objective(
    scores: Callable[[Tensor], Tensor], loss: Loss, eot_samples: int, max_stored_draws: int
) -> Objective:
    """Return `loss` of the mean over draws of `scores`, a function from logits (N, K) to scores (N, K)."""
    check_positive(eot_samples, "eot_samples")
    check_callable(loss, "loss")
    check_positive(max_stored_draws, "max_stored_draws")

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        def draw(images: Tensor) -> Tensor:
            return scores(checked_logits(model, images, labels))

        def checked_loss(mean: Tensor) -> Tensor:
            return check_values(loss(mean, labels), len(labels), "loss")

        loss_of_mean_over_draws = loss_of_mean if eot_samples > max_stored_draws else loss_of_stored_mean
        return loss_of_mean_over_draws(draw, checked_loss, inputs, eot_samples, model)

    return objective


def checked_logits(model: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return one draw's logits (N, K), in at least float32, since losses need more precision than the network.

    Raises:
        ArgumentError: the model does not return logits or expects other channels, or labels are not among its classes.
    """
    with explaining_channel_errors(inputs):
        logits = check_logits(model(inputs), len(inputs))
    check_classes(labels, logits.shape[1])
    return logits if logits.dtype == torch.float64 else logits.float()
