"""The same network, each draw near the cost of a bare forward pass: for votes, which need no gradients of weights."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.acceleration.chunk_size import seconds_in_turn
from smoothed.acceleration.fusing import Fused, fuse_or_keep
from smoothed.errors import ArgumentError
from smoothed.injection import drawing
from smoothed.rng.counter_based import compile_numbers
from smoothed.rng.sources import Keyed, Source
from smoothed.utils.devices import Precision, autocast, resolve_precision

# Of more images, one draw is as much work as a pass needs to be worth starting.
_FEW = 4
# Draws that share a pass at most, and the weights that are held for them: a quarter of a gigabyte.
_STACKED = 16
_WEIGHTS = 2**26


class SlowerWarning(UserWarning):
    """A network that can't have its cheapest form. Its logits are the same."""


class Fast(nn.Module):
    """A network in its cheapest form, from images (N, C, H, W) in [0, 1] to the logits (N, K) of one draw.

    Weight noise of all layers is one draw on one flat vector, frozen batch norms are folded into the weights
    (`fusing.fuse`), images lie in memory with their channels last, and matrix products may be bf16. The noise of a seed
    is the network's own. It follows the weights of `model` where they are trained, loaded or moved, as `fuse` does.

    Args:
        model: any network; one that can't be fused runs as it is, and `reason` says why.
        precision: `float32`, whose logits are the network's to the rounding of sums; `bf16`, which rounds weights and
            activations to 8 bits, but not those of the first and of the last layer; or `auto`: bf16 where the device of
            `model` has units for it.
        compile: whether torch.compile makes the operations, at the first pass, which takes half a minute on a CPU, and
            from then on the random numbers of the whole process (`counter_based.compile_numbers`).

    Raises:
        ArgumentError: an unknown precision.

    Warns:
        SlowerWarning: `compile` that can't be; the network then runs without.

    Example:
        >>> import smoothed
        >>> fast = smoothed.Fast(smoothed.load("resnet20-cni-w"))
        >>> smoothed.Smoothed(fast, smoothed.Gaussian(0.06), num_samples=2).predict(torch.rand(3, 3, 32, 32)).shape
        torch.Size([3])
    """

    def __init__(self, model: nn.Module, precision: str = "float32", *, compile: bool = False) -> None:  # noqa: A002 - torch's word
        super().__init__()
        first = next((tensor for group in (model.parameters(), model.buffers()) for tensor in group), torch.empty(0))
        self.precision: Precision = resolve_precision(precision, first.device)
        self.network, self.reason = fuse_or_keep(model, exact_ends=True)
        self.training = model.training
        self._to_compile = compile
        self._draws: dict[object, int] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class; logits are float32 whatever the precision. Differentiable in the inputs."""
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        # What a traced network computes is known; others may keep what they computed, and spoil it for gradients.
        infers = isinstance(self.network, Fused) and not torch.is_grad_enabled()
        with torch.inference_mode() if infers else nullcontext(), autocast(self.precision, inputs.device):
            if self._to_compile:
                self._to_compile = False
                self._compile_for(inputs)
            logits = self.network(inputs)
        return logits.float() if logits.dtype in {torch.bfloat16, torch.float16} else logits

    def stacked(self, inputs: Float[Tensor, "d n c h w"], sources: Sequence[Source]) -> Float[Tensor, "d n k"]:
        """The logits of several draws in one pass, each with noise of its own (`Fused.stacked`), without gradients.

        Args:
            inputs: images for each draw, (D, N, C, H, W).
            sources: of the noise of each draw.

        Raises:
            ArgumentError: a network that can't be fused, or with noise elsewhere than on weights.
        """
        if not isinstance(self.network, Fused) or not self.network.stacks:
            raise ArgumentError(
                "model", "a network whose draws can share a pass", self.reason or "noise on activations"
            )
        with torch.inference_mode(), autocast(self.precision, inputs.device):
            return self.network.stacked(inputs, sources).float()

    def draws_of_a_pass(self, images: Float[Tensor, "n c h w"], rows: int) -> int:
        """How many draws of these images `stacked` should make at once: 1 if it can't, or is slower, which is tried.

        Args:
            images: (N, C, H, W).
            rows: of a pass, at most.
        """
        if not isinstance(self.network, Fused) or not self.network.stacks:
            return 1
        if self.training or len(images) > _FEW:
            return 1
        draws = min(_STACKED, _WEIGHTS // self.network.size, rows // len(images))
        if draws <= 1:
            return 1
        kind = (images.shape, images.dtype, images.device, draws)
        if kind not in self._draws:
            self._draws[kind] = draws if self._stacking_pays(images, draws) else 1
        return self._draws[kind]

    def _stacking_pays(self, images: Tensor, draws: int) -> bool:
        sources = [Keyed(0, draw) for draw in range(draws)]
        inputs = images.expand(draws, *images.shape)

        @torch.no_grad()
        def one_by_one() -> Tensor:
            logits = []
            for source in sources:
                with drawing(self, source):
                    logits.append(self(images))
            return torch.stack(logits)

        try:
            apart, together = seconds_in_turn([one_by_one, lambda: self.stacked(inputs, sources)])
        except RuntimeError:  # an operation that torch.vmap can't do
            return False
        return together < apart

    def _compile_for(self, images: Tensor) -> None:
        try:
            if not isinstance(self.network, Fused):
                raise ArgumentError("model", "a network that can be fused", self.reason)
            self.network.compile_for(images, gradient=torch.is_grad_enabled())
            compile_numbers()
        except ArgumentError as error:
            warnings.warn(f"not compiled: {error}", SlowerWarning, stacklevel=4)
