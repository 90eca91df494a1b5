"""Faster form of a network, for votes and for gradients with respect to the input."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.acceleration.chunk_size import seconds_in_turn
from smoothed.acceleration.fusing import Fused, fuse_or_keep
from smoothed.errors import ArgumentError
from smoothed.injection import noise_from
from smoothed.rng.counter_based import compile_numbers
from smoothed.rng.sources import Keyed, Source
from smoothed.utils.checks import check_flag, check_network, output_logits
from smoothed.utils.devices import Precision, autocast, resolve_precision

# Largest number of images whose draws share a pass: with more images, one draw fills a pass.
_MAX_IMAGES = 4
# Largest number of draws in a pass, and of weights that are stored for them (a quarter of a gigabyte).
_MAX_DRAWS = 16
_MAX_WEIGHTS = 2**26


class SlowerWarning(UserWarning):
    """The network runs without an acceleration that was asked for. Its logits are the same."""


class Fast(nn.Module):
    """A faster form of a network: images (N, C, H, W) in [0, 1] to the logits (N, K) of one draw.

    The weight noise of all layers is drawn at once on one flat vector, batch norms in eval mode are folded into the
    weights (`fusing.fuse`), images have the channels-last memory format, and matrix products may run in bf16. For a
    given seed, the noise is that of `model`. The form follows the weights of `model` when they are trained, loaded or
    moved. It is differentiable with respect to the inputs, not to the weights.

    Args:
        model: any network. A network that cannot be fused runs as it is, and the attribute `reason` says why.
        precision: `float32` (the same logits up to rounding of sums), `bf16` (weights and activations with 8 bits of
            mantissa, except in the first and the last layer), or `auto` (bf16 where the device of `model` has hardware
            support for it).
        compile: whether torch.compile compiles the network at the first pass, which takes about half a minute on a CPU.
            From then on it also compiles the random numbers of the whole process (`compile_numbers`).

    Raises:
        ArgumentError: the precision is unknown.

    Warns:
        SlowerWarning: the network cannot be compiled; it runs without.

    Example:
        >>> import smoothed
        >>> fast = smoothed.Fast(smoothed.load("resnet20-cni-w"))
        >>> smoothed.Smoothed(fast, smoothed.Gaussian(0.06), num_samples=2).predict(torch.rand(3, 3, 32, 32)).shape
        torch.Size([3])
    """

    def __init__(self, model: nn.Module, precision: str = "float32", *, compile: bool = False) -> None:  # noqa: A002 - the term of torch
        super().__init__()
        check_network(model, "model")
        check_flag(compile, "compile")
        first = next((tensor for group in (model.parameters(), model.buffers()) for tensor in group), torch.empty(0))
        self.precision: Precision = resolve_precision(precision, first.device)
        self.network, self.reason = fuse_or_keep(model, exact_ends=True)
        self.training = model.training
        self.memory_format = torch.channels_last
        self._to_compile = compile
        self._draws_per_pass: dict[object, int] = {}  # by the kind of images, as measured

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images to float32 logits, whatever the precision; differentiable with respect to the inputs."""
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        # A network that is not traced may store a tensor of this pass for later gradients: no inference mode for it.
        inference = isinstance(self.network, Fused) and not torch.is_grad_enabled()
        with torch.inference_mode() if inference else nullcontext(), autocast(self.precision, inputs.device):
            if self._to_compile:
                self._to_compile = False
                self._compile_for(inputs)
            logits = output_logits(self.network(inputs))
        return logits.float() if logits.dtype in {torch.bfloat16, torch.float16} else logits

    def stacked(self, inputs: Float[Tensor, "d n c h w"], sources: Sequence[Source]) -> Float[Tensor, "d n k"]:
        """The logits of several draws in one pass, each with noise of its own (`Fused.stacked`), without gradients.

        Args:
            inputs: images of each draw, (D, N, C, H, W).
            sources: noise source of each draw, D of them.

        Returns:
            Logits (D, N, K), float32.

        Raises:
            ArgumentError: the network cannot be fused, or has noise elsewhere than on weights.
        """
        if not isinstance(self.network, Fused) or not self.network.stacks:
            raise ArgumentError(
                "model", "a network whose draws can share a pass", self.reason or "noise on activations"
            )
        with torch.inference_mode(), autocast(self.precision, inputs.device):
            return self.network.stacked(inputs, sources).float()

    def draws_per_pass(self, images: Float[Tensor, "n c h w"], rows: int) -> int:
        """Number of draws of these images that `stacked` should compute at once, by a short trial; 1 if it is slower.

        Args:
            images: a batch of the images to come, (N, C, H, W).
            rows: largest number of rows in a pass.
        """
        if not isinstance(self.network, Fused) or not self.network.stacks:
            return 1
        if self.training or len(images) > _MAX_IMAGES:
            return 1
        draws = min(_MAX_DRAWS, _MAX_WEIGHTS // self.network.size, rows // len(images))
        if draws <= 1:
            return 1
        kind = (images.shape, images.dtype, images.device, draws)
        if kind not in self._draws_per_pass:
            self._draws_per_pass[kind] = draws if self._stacking_pays(images, draws) else 1
        return self._draws_per_pass[kind]

    def _stacking_pays(self, images: Tensor, draws: int) -> bool:
        """Whether one pass of several draws is faster here than a pass for each."""
        sources = [Keyed(0, draw) for draw in range(draws)]
        inputs = images.expand(draws, *images.shape)

        @torch.no_grad()
        def one_by_one() -> Tensor:
            logits = []
            for source in sources:
                with noise_from(self, source):
                    logits.append(self(images))
            return torch.stack(logits)

        try:
            separate, stacked = seconds_in_turn([one_by_one, lambda: self.stacked(inputs, sources)])
        except RuntimeError:  # an operation that torch.vmap does not support
            return False
        return stacked < separate

    def _compile_for(self, images: Tensor) -> None:
        try:
            if not isinstance(self.network, Fused):
                raise ArgumentError("model", "a network that can be fused", self.reason)
            self.network.compile_for(images, gradient=torch.is_grad_enabled())
            compile_numbers()
        except ArgumentError as error:
            warnings.warn(f"not compiled: {error}", SlowerWarning, stacklevel=4)
