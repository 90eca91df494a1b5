"""Averages over draws whose memory does not grow with the draws: each draw's graph is gone before the next one's."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from smoothed.attacks.replay import remember
from smoothed.errors import ArgumentError
from smoothed.utils.modes import Classifier

Images = Float[Tensor, "n c h w"]
Draw = Callable[[Images], Float[Tensor, "n k"]]
"""One draw's logits (N, K) from inputs (N, C, H, W)."""
Term = Callable[[Images], Float[Tensor, " n"]]
"""One draw: from inputs (N, C, H, W) to a number an image, (N,), differentiable in them."""


def differentiate(value: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of `value`'s sum with respect to `inputs` alone.

    Raises:
        ArgumentError: `value` does not depend on the inputs differentiably.
    """
    if not value.requires_grad:
        raise ArgumentError("model", "logits differentiable in the inputs", "logits without a gradient")
    (gradient,) = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    if gradient is None:  # the weights have a gradient, the inputs none
        raise ArgumentError("model", "logits differentiable in the inputs", "logits cut off from them")
    return gradient


def mean(term: Term, inputs: Images, num_samples: int) -> Float[Tensor, " n"]:
    """The mean of `num_samples` draws of `term`, (N,), differentiable in `inputs` and in nothing else."""

    def add(total: Tensor | None, new: Tensor) -> Tensor:
        return new if total is None else total + new

    def run(images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        value = gradient = None
        for _ in range(num_samples):
            drawn, slope = _draw(term, images, with_gradient=with_gradient)
            value, gradient = add(value, drawn), add(gradient, slope)
        assert value is not None and gradient is not None  # noqa: S101, PT018 - num_samples is at least 1
        return value / num_samples, gradient / num_samples

    return _apply(run, inputs)


def negative_log_mean_exp(term: Term, inputs: Images, num_samples: int) -> Float[Tensor, " n"]:
    """-log of the mean over draws of exp(-term), (N,), differentiable in `inputs` and in nothing else.

    With a cross-entropy as the term: the cross-entropy of the mean of the draws' probabilities. The gradient is the
    mean of the draws' gradients, weighted by exp(-term); weights and values are rescaled by the largest so far.
    """

    def run(images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        largest = images.new_full((len(images),), -torch.inf)
        weight, gradient = torch.zeros_like(largest), torch.zeros_like(images)
        for _ in range(num_samples):
            drawn, slope = _draw(term, images, with_gradient=with_gradient)
            before, largest = largest, torch.maximum(largest, -drawn)
            kept, added = (before - largest).exp(), (-drawn - largest).exp()
            weight = weight * kept + added
            gradient = gradient * kept.view(-1, 1, 1, 1) + slope * added.view(-1, 1, 1, 1)
        return -(largest + (weight / num_samples).log()), gradient / weight.view(-1, 1, 1, 1)

    return _apply(run, inputs)


def of_mean_held(
    draw: Draw, loss: Callable[[Tensor], Tensor], inputs: Images, num_samples: int, model: Classifier
) -> Float[Tensor, " n"]:
    """`loss` of the mean of `num_samples` draws, (N,), with all draws in memory until it is differentiated."""
    del model
    return loss(torch.stack([draw(inputs) for _ in range(num_samples)]).mean(0))


def of_mean(
    draw: Draw, loss: Callable[[Tensor], Tensor], inputs: Images, num_samples: int, model: Classifier
) -> Float[Tensor, " n"]:
    """The same with one draw in memory at a time: first their mean, then each draw again for its gradient.

    Where the draws of `model` don't come again, all are held.
    """
    replay = remember(model)
    with torch.no_grad():
        first = draw(inputs)
        total = first.clone()
        for _ in range(num_samples - 1):
            total += draw(inputs)
    if not (torch.is_grad_enabled() and inputs.requires_grad):
        return loss(total / num_samples)
    replay()
    with torch.no_grad():
        again = draw(inputs)
    replay()
    if not torch.equal(first, again):
        return of_mean_held(draw, loss, inputs, num_samples, model)
    with torch.enable_grad():
        average = (total / num_samples).requires_grad_()
        value = loss(average)
        slope = differentiate(value, average) / num_samples

    def run(images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(images)
        for _ in range(num_samples if with_gradient else 0):
            with torch.enable_grad():
                own = images.detach().requires_grad_()
                gradient += differentiate((draw(own) * slope).sum(1), own)
        return value.detach(), gradient

    return _apply(run, inputs)


def _draw(term: Term, images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """One draw's value (N,) and, where asked for, its gradient (N, C, H, W); else zeros of that shape."""
    if not with_gradient:
        with torch.no_grad():
            return term(images), torch.zeros_like(images)
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        value = term(images)
        return value.detach(), differentiate(value, images)


class _Streamed(torch.autograd.Function):
    """A value whose gradient was taken along with it."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, run: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:  # noqa: ANN401
        value, gradient = run(inputs.detach(), with_gradient=True)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable  # the gradient's own slope is not known: better no second derivative than 0
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].view(-1, 1, 1, 1), None


def _apply(run: Callable[..., tuple[Tensor, Tensor]], inputs: Tensor) -> Tensor:
    if torch.is_grad_enabled() and inputs.requires_grad:
        return _Streamed.apply(inputs, run)  # pyright: ignore[reportReturnType] - torch's stubs say Any or nothing
    return run(inputs, with_gradient=False)[0]
