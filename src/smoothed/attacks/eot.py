"""Expectation over transformation, as a model: any attack sees averaged gradients (Athalye et al., ICML 2018)."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smoothed.attacks.averages import AverageName, average_of
from smoothed.attacks.objectives import HELD_DRAWS
from smoothed.attacks.replay import remember
from smoothed.attacks.streaming import Draw, differentiate
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_positive
from smoothed.utils.modes import Classifier


class Expectation(nn.Module):
    """The mean of a random model over fresh draws, from images (N, C, H, W) to logits (N, K).

    Give it to an attack of this package or of another in the model's place: each of the attack's gradients is that of
    the mean over `num_samples` draws. Attacks that take an `objective` have expectations of losses, too.

    It estimates the logits (without bias) or the logarithm of the probabilities (biased by O(1 / num_samples), Jensen)
    in expectation over the model's noise and the transform's. The output is differentiable in the inputs alone. Where
    there are more than `held` draws, each is met again for its gradient, so that memory does not grow with them; what
    draws must then be found by `attacks.replay.remember`, and still be in place when the gradient is taken. A model
    whose draws don't come again has all of them held.

    Args:
        model: any callable from images to logits (N, K), such as a network with noise inside or a `OneDraw`.
        num_samples: draws of each call, the paper's M.
        average: `probabilities` gives the logarithm of the mean softmax, `logits` the mean of the logits.
        transform: from images (N, C, H, W) to what the model is shown, differentiable (see `bpda`): a random crop or
            rescaling, drawn anew for each draw. None for none.
        held: how many draws may be in memory at once.

    It begins in the model's mode.

    Raises:
        ArgumentError: no draws, an unknown average; when called, a model that gives no logits; in the backward pass,
            draws that do not come again, though they did in the call.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, OneDraw
        >>> square = lambda inputs: torch.stack([inputs.square().sum((1, 2, 3)), inputs.new_zeros(len(inputs))], 1)
        >>> noisy = OneDraw(square, Gaussian(0.1), generator=torch.Generator().manual_seed(0))
        >>> inputs = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
        >>> Expectation(noisy, 200, average="logits")(inputs)[0, 0].backward()
        >>> print(f"{inputs.grad.item():.1f}")
        1.0
    """

    def __init__(
        self,
        model: Classifier,
        num_samples: int = 8,
        *,
        average: AverageName = "probabilities",
        transform: Callable[[Tensor], Tensor] | None = None,
        held: int = HELD_DRAWS,
    ) -> None:
        super().__init__()
        average_of(average)
        self.model = model
        self.num_samples = check_positive(num_samples, "num_samples")
        self.average: AverageName = average
        self.transform = transform
        self.held = check_positive(held, "held")
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits of the mean, (N, K), in float32 at least."""
        average = average_of(self.average)

        def draw(images: Tensor) -> Tensor:
            return average.of(self.model, images if self.transform is None else self.transform(images))

        return average.logits(self._mean(draw, inputs))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"num_samples={self.num_samples}, average={self.average}"

    def _mean(self, draw: Draw, inputs: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and inputs.requires_grad
        if differentiable and self.num_samples <= self.held:
            return self._held(draw, inputs)
        back = remember(self)
        with torch.no_grad():
            first = draw(inputs)
            total = first.clone()
            for _ in range(self.num_samples - 1):
                total += draw(inputs)
            if not differentiable:
                return total / self.num_samples
            ahead = remember(self)
            back()
            again = draw(inputs)
            ahead()
        if not torch.equal(first, again):
            return self._held(draw, inputs)
        return _sum_replayed(inputs, total, draw, back, self) / self.num_samples

    def _held(self, draw: Draw, inputs: Tensor) -> Tensor:
        return torch.stack([draw(inputs) for _ in range(self.num_samples)]).mean(0)


def _sum_replayed(
    inputs: Tensor, total: Tensor, draw: Draw, back: Callable[[], None], model: Expectation
) -> Float[Tensor, "n k"]:
    """`total`, the sum of the model's draws since the place where `back` leads, differentiable in `inputs`."""

    @torch.enable_grad()
    def draw_again(outer: Tensor) -> tuple[Tensor, Tensor]:  # whose graph is gone when it returns
        images = inputs.detach().requires_grad_()
        scores = draw(images)
        return scores.detach(), differentiate((scores * outer).sum(1), images)

    def gradient(outer: Tensor) -> Tensor:
        ahead = remember(model)
        back()
        again, slope = torch.zeros_like(total), torch.zeros_like(inputs)
        for _ in range(model.num_samples):
            scores, part = draw_again(outer)
            again += scores
            slope += part
        ahead()
        _check_replayed(again, total)
        return slope

    return _Late.apply(inputs, total, gradient)  # pyright: ignore[reportReturnType] - torch's stubs say Any or nothing


def _check_replayed(again: Tensor, total: Tensor) -> None:
    """Raise unless the sums agree but for rounding, which other kernels for a pass with gradients may change."""
    allowed = torch.finfo(total.dtype).eps ** 0.5 * total.abs().amax()
    if not bool(((again - total).abs() <= allowed).all()):
        hint = "take gradients under the mode and the noise of the call, or raise held to num_samples"
        raise ArgumentError("model", "the same draws in the backward pass as in the call", "others", hint)


class _Late(torch.autograd.Function):
    """A value whose gradient is computed when it is asked for."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, value: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:  # noqa: ANN401
        del inputs
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    @once_differentiable  # the gradient's own slope is not known: better no second derivative than 0
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.gradient(outer[0]), None, None
