"""One draw of a noisy classifier: a forward pass with fresh input noise and fresh network noise."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.acceleration.passes import passes_of
from smoothed.errors import ArgumentError
from smoothed.injection import noise_from
from smoothed.rng.sources import Keyed
from smoothed.smoothing.input_noise import Noise, ScaledNoise, draw_noise
from smoothed.utils.checks import check_callable, check_generator, output_logits
from smoothed.utils.modes import Classifier

INPUT = 0
"""The layer number of the input in the key of the noise; noise layers of a network are numbered from 1."""


class NoisyClassifier(nn.Module):
    """The network with all its noise, one draw at a time, from images (N, C, H, W) in [0, 1] to logits (N, K).

    White-box attacks differentiate this module; it is the paper's base classifier under noise.

    Args:
        model: any callable from images to logits. Noise injected into it is drawn in each call.
        noise: noise added to the input; None for no input noise.
        layer: name of a submodule whose input receives the noise instead of the image (eq. 22); None for the image.
        generator: random generator of the input noise, on the inputs' device; None for torch's default generator.

    Raises:
        ArgumentError: `layer` is not the name of a submodule of `model`.
    """

    def __init__(
        self,
        model: Classifier,
        noise: Noise | None = None,
        *,
        layer: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_callable(model, "model")
        if noise is not None:
            check_callable(noise, "noise")
        if layer is not None and not isinstance(layer, str):
            raise ArgumentError("layer", "the name of a layer", repr(layer))
        check_generator(generator)
        self.model = model
        self.noise = noise
        self.layer = layer
        self.generator = generator
        if layer is not None:
            self._find_layer(layer)

    @property
    def has_no_noise(self) -> bool:
        """Whether the input receives no noise: None, or noise of deviation 0."""
        return self.noise is None or (isinstance(self.noise, ScaledNoise) and self.noise.is_zero)

    @property
    def passes_inputs_through(self) -> bool:
        """Whether the model receives the input tensor itself rather than a noisy copy."""
        return self.has_no_noise or self.layer is not None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the logits (N, K) of one draw; differentiable with respect to the inputs."""
        return self._run(inputs, partial(_with_noise, self.generator))

    def with_key(self, inputs: Tensor, key: Keyed) -> Tensor:
        """Compute the logits (N, K) of one draw, with input noise and network noise determined by `key`."""
        calls = itertools.count()  # a submodule called several times gets different noise each time
        with noise_from(self.model, key.for_one_pass()):
            return self._run(inputs, lambda noise, features: _with_rows(key, INPUT - next(calls), noise, features))

    def in_memory_format(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Convert images to the memory format that the model prefers, so that their noise is created in it."""
        return images.to(memory_format=passes_of(self.model).memory_format)

    def draws_per_pass(self, images: Float[Tensor, "n c h w"], rows: int) -> int:
        """Number of draws that `stacked` should compute at once (`Passes.draws_per_pass`); 1 if unsupported."""
        if self.layer is not None or torch.is_grad_enabled():
            return 1
        return passes_of(self.model).draws_per_pass(images, rows)

    def stacked(self, images: Float[Tensor, "n c h w"], keys: Sequence[Keyed]) -> Float[Tensor, "d n k"]:
        """Compute `with_key` for each of `keys` in one pass, without gradients: logits (D, N, K)."""
        noise, inputs = self.noise, images.expand(len(keys), *images.shape)
        if noise is not None and not self.has_no_noise:
            noisy = _with_rows(Keyed.of_all(keys, len(images)), INPUT, noise, inputs.flatten(0, 1))
            inputs = noisy.view(inputs.shape)
        return passes_of(self.model).stacked(inputs, keys)

    def _run(self, inputs: Tensor, with_noise: Callable[[Noise, Tensor], Tensor]) -> Tensor:
        noise = self.noise
        if noise is None or self.has_no_noise:
            return output_logits(self.model(inputs))
        if self.layer is None:
            return output_logits(self.model(with_noise(noise, inputs)))
        with self._noisy_layer(partial(with_noise, noise)):
            return output_logits(self.model(inputs))

    def _find_layer(self, layer: str) -> nn.Module:
        modules = dict(self.model.named_modules()) if isinstance(self.model, nn.Module) else {}
        if layer not in modules:
            raise ArgumentError(
                "layer", "the name of a submodule of the model", repr(layer), "see model.named_modules()"
            )
        return modules[layer]

    @contextmanager
    def _noisy_layer(self, with_noise: Callable[[Tensor], Tensor]) -> Iterator[None]:
        def add_noise(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            del module
            return (with_noise(args[0]), *args[1:])

        handle = self._find_layer(self.layer or "").register_forward_pre_hook(add_noise)
        try:
            yield
        finally:
            handle.remove()


def _with_noise(generator: torch.Generator | None, noise: Noise, features: Tensor) -> Tensor:
    drawn = draw_noise(noise, features, generator)
    # A user's callable may keep its tensor, so only noise of this package is overwritten.
    return drawn.add_(features) if isinstance(noise, ScaledNoise) and not torch.is_grad_enabled() else features + drawn


def _with_rows(key: Keyed, layer: int, noise: Noise, features: Tensor) -> Tensor:
    """Add noise to `features` (N, ...), each row of which is determined by `key`."""
    if key.images is not None and len(features) != len(key.images):
        expected = f"a layer whose input has the batch of {len(key.images)} rows as its first dimension"
        raise ArgumentError("layer", expected, f"{len(features)} rows")
    if isinstance(noise, ScaledNoise):
        if not torch.is_grad_enabled():
            return noise.noisy_rows(key, layer, features)
        return features + noise.scale_(noise.unit_rows(key, layer, features))
    generators = key.generators(layer, len(features), features.device)
    rows = [draw_noise(noise, row, generator) for row, generator in zip(features.split(1), generators, strict=True)]
    return features + torch.cat(rows)
