"""Averages over draws in constant memory: the graph of each draw is freed before the next draw."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from smoothed.attacks.replay import snapshot
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_values
from smoothed.utils.modes import Classifier
from smoothed.utils.shapes import ImageBatch

Draw = Callable[[ImageBatch], Float[Tensor, "n k"]]
"""Maps inputs (N, C, H, W) to one draw's logits or scores (N, K)."""
Term = Callable[[ImageBatch], Float[Tensor, " n"]]
"""Maps inputs (N, C, H, W) to one draw's value per image, (N,), differentiable with respect to the inputs."""


def differentiate(value: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient of the sum of `value`, (N,), with respect to `inputs` (N, ...) only.

    Raises:
        ArgumentError: `value` is not one number per image, or is not differentiable with respect to the inputs.
    """
    check_values(value, len(inputs), "objective")
    if not value.requires_grad:
        expected = "logits differentiable with respect to the inputs"
        hint = 'votes for classes have none: use vote="soft", or attack single draws, classifier.noisy_classifier'
        raise ArgumentError("model", expected, "logits without a gradient", hint)
    (gradient,) = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    if gradient is None:  # the value depends differentiably on the weights, but not on the inputs
        expected = "logits differentiable with respect to the inputs"
        raise ArgumentError("model", expected, "logits that do not depend on the inputs")
    return gradient


def mean_over_draws(term: Term, inputs: ImageBatch, eot_samples: int) -> Float[Tensor, " n"]:
    """Return the mean of `eot_samples` draws of `term`, (N,), differentiable with respect to `inputs` only."""

    def add(total: Tensor | None, new: Tensor) -> Tensor:
        return new if total is None else total + new

    def run(images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        value = gradient = None
        for _ in range(eot_samples):
            new_value, new_gradient = _value_and_gradient(term, images, with_gradient=with_gradient)
            value, gradient = add(value, new_value), add(gradient, new_gradient)
        assert value is not None and gradient is not None  # noqa: S101, PT018 - eot_samples is at least 1
        return value / eot_samples, gradient / eot_samples

    return _apply(run, inputs)


def negative_log_mean_exp(term: Term, inputs: ImageBatch, eot_samples: int) -> Float[Tensor, " n"]:
    """Return -log of the mean over draws of exp(-term), (N,), differentiable with respect to `inputs` only.

    If the term is a cross-entropy, the result is the cross-entropy of the mean probabilities. The gradient is the mean
    of the draws' gradients weighted by exp(-term). Weights and values are rescaled by the largest so far, as in a
    streaming log-sum-exp.
    """

    def run(images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        largest = images.new_full((len(images),), -torch.inf)
        weight, gradient = torch.zeros_like(largest), torch.zeros_like(images)
        for _ in range(eot_samples):
            value, value_gradient = _value_and_gradient(term, images, with_gradient=with_gradient)
            previous_largest, largest = largest, torch.maximum(largest, -value)
            rescaling, new_weight = (previous_largest - largest).exp(), (-value - largest).exp()
            weight = weight * rescaling + new_weight
            gradient = gradient * rescaling.view(-1, 1, 1, 1) + value_gradient * new_weight.view(-1, 1, 1, 1)
        return -(largest + (weight / eot_samples).log()), gradient / weight.view(-1, 1, 1, 1)

    return _apply(run, inputs)


def loss_of_stored_mean(
    draw: Draw, loss: Callable[[Tensor], Tensor], inputs: ImageBatch, eot_samples: int, model: Classifier
) -> Float[Tensor, " n"]:
    """Return `loss` of the mean of `eot_samples` draws, (N,), with the graphs of all draws in memory."""
    del model
    return loss(torch.stack([draw(inputs) for _ in range(eot_samples)]).mean(0))


def loss_of_mean(
    draw: Draw, loss: Callable[[Tensor], Tensor], inputs: ImageBatch, eot_samples: int, model: Classifier
) -> Float[Tensor, " n"]:
    """Return `loss` of the mean of `eot_samples` draws, (N,), with the graph of one draw in memory at a time.

    The mean is computed first; each draw is then repeated for its gradient. If the draws of `model` cannot be repeated,
    the graphs of all draws are stored.
    """
    replay = snapshot(model)
    with torch.no_grad():
        first = draw(inputs)
        total = first.clone()
        for _ in range(eot_samples - 1):
            total += draw(inputs)
    if not (torch.is_grad_enabled() and inputs.requires_grad):
        return loss(total / eot_samples)
    replay()
    with torch.no_grad():
        repeated = draw(inputs)
    replay()
    if not torch.equal(first, repeated):
        return loss_of_stored_mean(draw, loss, inputs, eot_samples, model)
    with torch.enable_grad():
        average = (total / eot_samples).requires_grad_()
        value = loss(average)
        loss_gradient = differentiate(value, average) / eot_samples

    def run(images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(images)
        for _ in range(eot_samples if with_gradient else 0):
            with torch.enable_grad():
                leaf = images.detach().requires_grad_()
                gradient += differentiate((draw(leaf) * loss_gradient).sum(1), leaf)
        return value.detach(), gradient

    return _apply(run, inputs)


def _value_and_gradient(term: Term, images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """Return one draw's value (N,) and its gradient (N, C, H, W), or zeros in place of the gradient."""
    if not with_gradient:
        with torch.no_grad():
            return term(images), torch.zeros_like(images)
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        value = term(images)
        gradient = differentiate(value, images)
        return value.detach(), gradient


class _PrecomputedGradient(torch.autograd.Function):
    """A value whose gradient is computed together with it, in the forward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, run: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:  # noqa: ANN401
        value, gradient = run(inputs.detach(), with_gradient=True)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable  # the second derivative is unknown: raise an error rather than return 0
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].view(-1, 1, 1, 1), None


def _apply(run: Callable[..., tuple[Tensor, Tensor]], inputs: Tensor) -> Tensor:
    if torch.is_grad_enabled() and inputs.requires_grad:
        return _PrecomputedGradient.apply(inputs, run)  # pyright: ignore[reportReturnType] - torch's stubs say Any or nothing
    return run(inputs, with_gradient=False)[0]
