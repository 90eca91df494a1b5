"""Expectation over transformation as a model: any attack then uses averaged gradients (Athalye et al., ICML 2018)."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smoothed.attacks.averages import AverageName, named_average
from smoothed.attacks.objectives import MAX_STORED_DRAWS
from smoothed.attacks.replay import snapshot
from smoothed.attacks.streaming import Draw, differentiate
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_callable, check_positive
from smoothed.utils.modes import Classifier


class EOT(nn.Module):
    """The mean of a random model over fresh draws, from images (N, C, H, W) to logits (N, K).

    Pass it to any attack, of this package or another, in place of the model: each gradient of the attack is then that
    of the mean over `eot_samples` draws. For expectations of losses, use an attack that takes an `objective`.

    It estimates the expectation over the model's noise and the transform: of the logits (without bias), or of the
    probabilities, whose logarithm is returned (with a bias of O(1 / eot_samples), by Jensen's inequality).

    The output is differentiable with respect to the inputs only. Above `max_stored_draws` draws, the backward pass
    repeats the draws one by one, so that memory does not grow with their number. `attacks.replay.snapshot` must then
    find every random generator of the model, and the model must not change before the backward pass. If a draw cannot
    be repeated, all draws are stored. The module starts in the mode of `model`.

    Args:
        model: any callable from images to logits (N, K), such as a network with internal noise or a `NoisyClassifier`.
        eot_samples: number of draws per call.
        average: `probabilities` returns the logarithm of the mean softmax, `logits` the mean of the logits.
        transform: differentiable map (see `bpda`) from images (N, C, H, W) to the inputs of the model, such as a random
            crop or rescaling, evaluated afresh for each draw; None for no transform.
        max_stored_draws: maximum number of draws whose graphs are kept in memory at once.

    Raises:
        ArgumentError: `eot_samples` or `max_stored_draws` is below 1, the average is unknown, or the model or the
            transform cannot be called; at a call, the model
            does not return logits; in the backward pass, the repeated draws differ from those of the forward pass.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, NoisyClassifier
        >>> square = lambda inputs: torch.stack([inputs.square().sum((1, 2, 3)), inputs.new_zeros(len(inputs))], 1)
        >>> noisy = NoisyClassifier(square, Gaussian(0.1), generator=torch.Generator().manual_seed(0))
        >>> inputs = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
        >>> EOT(noisy, 200, average="logits")(inputs)[0, 0].backward()
        >>> print(f"{inputs.grad.item():.1f}")
        1.0
    """

    def __init__(
        self,
        model: Classifier,
        eot_samples: int = 8,
        *,
        average: AverageName = "probabilities",
        transform: Callable[[Tensor], Tensor] | None = None,
        max_stored_draws: int = MAX_STORED_DRAWS,
    ) -> None:
        super().__init__()
        check_callable(model, "model")
        named_average(average)
        if transform is not None:
            check_callable(transform, "transform")
        self.model = model
        self.eot_samples = check_positive(eot_samples, "eot_samples")
        self.average: AverageName = average
        self.transform = transform
        self.max_stored_draws = check_positive(max_stored_draws, "max_stored_draws")
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return the logits of the mean, (N, K), in at least float32."""
        average = named_average(self.average)

        def draw(images: Tensor) -> Tensor:
            return average.model_scores(self.model, images if self.transform is None else self.transform(images))

        return average.logits(self._mean(draw, inputs))

    def extra_repr(self) -> str:
        """Return the options for `repr`."""
        return f"eot_samples={self.eot_samples}, average={self.average}"

    def _mean(self, draw: Draw, inputs: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and inputs.requires_grad
        if differentiable and self.eot_samples <= self.max_stored_draws:
            return self._stored_mean(draw, inputs)
        rewind = snapshot(self)
        with torch.no_grad():
            first = draw(inputs)
            total = first.clone()
            for _ in range(self.eot_samples - 1):
                total += draw(inputs)
            if not differentiable:
                return total / self.eot_samples
            return_to_now = snapshot(self)
            rewind()
            repeated = draw(inputs)
            return_to_now()
        if not torch.equal(first, repeated):
            return self._stored_mean(draw, inputs)
        return _sum_replayed(inputs, total, draw, rewind, self) / self.eot_samples

    def _stored_mean(self, draw: Draw, inputs: Tensor) -> Tensor:
        return torch.stack([draw(inputs) for _ in range(self.eot_samples)]).mean(0)


def _sum_replayed(
    inputs: Tensor, total: Tensor, draw: Draw, rewind: Callable[[], None], model: EOT
) -> Float[Tensor, "n k"]:
    """Return `total`, the sum of the model's draws, differentiable in `inputs` by repeating the draws from `rewind`."""

    @torch.enable_grad()
    def repeat_draw(outer: Tensor) -> tuple[Tensor, Tensor]:  # a function, so that the graph is freed after each draw
        images = inputs.detach().requires_grad_()
        scores = draw(images)
        return scores.detach(), differentiate((scores * outer).sum(1), images)

    def gradient(outer: Tensor) -> Tensor:
        return_to_now = snapshot(model)
        rewind()
        repeated, total_gradient = torch.zeros_like(total), torch.zeros_like(inputs)
        for _ in range(model.eot_samples):
            scores, draw_gradient = repeat_draw(outer)
            repeated += scores
            total_gradient += draw_gradient
        return_to_now()
        _check_replayed(repeated, total)
        return total_gradient

    return _DeferredGradient.apply(inputs, total, gradient)  # pyright: ignore[reportReturnType] - torch's stubs say Any or nothing


def _check_replayed(repeated: Tensor, total: Tensor) -> None:
    """Raise unless the sums agree up to rounding, which may differ since passes with gradients use other kernels."""
    allowed = torch.finfo(total.dtype).eps ** 0.5 * total.abs().amax()
    if not bool(((repeated - total).abs() <= allowed).all()):
        hint = "keep the model's mode and noise unchanged until the backward pass, or set max_stored_draws=eot_samples"
        raise ArgumentError("model", "the same draws in the backward pass as in the forward pass", "other draws", hint)


class _DeferredGradient(torch.autograd.Function):
    """A value whose gradient is computed only in the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, value: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:  # noqa: ANN401
        del inputs
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    @once_differentiable  # the second derivative is unknown: raise an error rather than return 0
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.gradient(outer[0]), None, None
