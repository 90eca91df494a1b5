"""One draw of a classifier: the model once, on inputs with noise, with noise inside it where it has some."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.errors import ArgumentError
from smoothed.injection import drawing
from smoothed.rng.sources import Keyed
from smoothed.smoothing.input_noise import Noise, ScaledNoise
from smoothed.utils.modes import Classifier

INPUT = 0
"""The layer number of the input in the key of keyed noise; a network's own layers count from 1."""


class OneDraw(nn.Module):
    """One draw: the model on inputs with fresh noise, from images (N, C, H, W) to logits (N, K).

    This is what white-box attacks differentiate, and the paper's base classifier under noise.

    Args:
        model: any callable from images to logits.
        noise: of the input, or None for none; the network's own noise is its own.
        layer: the name of a submodule whose input is made noisy instead of the image (eq. 22).
        generator: of the input noise, on the inputs' device; torch's default one when None.
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
        self.model = model
        self.noise = noise
        self.layer = layer
        self.generator = generator
        if layer is not None:
            self._find(layer)

    @property
    def is_silent(self) -> bool:
        """Whether there is no input noise to draw."""
        return self.noise is None or (isinstance(self.noise, ScaledNoise) and self.noise.is_zero)

    @property
    def hands_over(self) -> bool:
        """Whether the model gets the inputs themselves, rather than a noisy copy."""
        return self.is_silent or self.layer is not None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the logits (N, K) of one draw; differentiable in the inputs."""
        return self._run(inputs, partial(_with_noise, self.generator))

    def keyed(self, inputs: Tensor, key: Keyed) -> Tensor:
        """The same with all noise, the network's too, taken from `key`."""
        calls = itertools.count()  # of the layer with noise: each has noise of its own, the first the input's
        with drawing(self.model, key.for_one_pass()):
            return self._run(inputs, lambda noise, features: _with_rows(key, INPUT - next(calls), noise, features))

    def laid_out(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images as they should lie in memory: their noise is then made as the model wants it."""
        return images.contiguous(memory_format=torch.channels_last) if isinstance(self.model, Fast) else images

    def draws_of_a_pass(self, images: Float[Tensor, "n c h w"], rows: int) -> int:
        """How many draws of these images `stacked` should make at once (`Fast.draws_of_a_pass`); 1 if it can't."""
        if not isinstance(self.model, Fast) or self.layer is not None or torch.is_grad_enabled():
            return 1
        return self.model.draws_of_a_pass(images, rows)

    def stacked(self, images: Float[Tensor, "n c h w"], keys: Sequence[Keyed]) -> Float[Tensor, "d n k"]:
        """What `keyed` gives for each of `keys`, in one pass and without gradients."""
        noise, inputs = self.noise, images.expand(len(keys), *images.shape)
        if noise is not None and not self.is_silent:
            noisy = _with_rows(Keyed.of_all(keys, len(images)), INPUT, noise, inputs.flatten(0, 1))
            inputs = noisy.view(inputs.shape)
        return self.model.stacked(inputs, keys)  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]

    def _run(self, inputs: Tensor, with_noise: Callable[[Noise, Tensor], Tensor]) -> Tensor:
        noise = self.noise
        if noise is None or self.is_silent:
            return self.model(inputs)
        if self.layer is None:
            return self.model(with_noise(noise, inputs))
        with self._noisy_layer(partial(with_noise, noise)):
            return self.model(inputs)

    def _find(self, layer: str) -> nn.Module:
        modules = dict(self.model.named_modules()) if isinstance(self.model, nn.Module) else {}
        if layer not in modules:
            raise ArgumentError("layer", "the name of a submodule of the model", repr(layer))
        return modules[layer]

    @contextmanager
    def _noisy_layer(self, with_noise: Callable[[Tensor], Tensor]) -> Iterator[None]:
        def add_noise(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            del module
            return (with_noise(args[0]), *args[1:])

        handle = self._find(self.layer or "").register_forward_pre_hook(add_noise)
        try:
            yield
        finally:
            handle.remove()


def _with_noise(generator: torch.Generator | None, noise: Noise, features: Tensor) -> Tensor:
    drawn = _checked(noise(features, generator), features)
    # In the memory of what was drawn where nobody else can have it.
    return drawn.add_(features) if isinstance(noise, ScaledNoise) and not torch.is_grad_enabled() else features + drawn


def _with_rows(key: Keyed, layer: int, noise: Noise, features: Tensor) -> Tensor:
    """`features` with noise of which each row is a function of `key`."""
    if key.images is not None and len(features) != len(key.images):
        got = f"{len(features)} rows"
        raise ArgumentError("layer", f"a layer whose input has the batch first, {len(key.images)} rows", got)
    if isinstance(noise, ScaledNoise):
        if not torch.is_grad_enabled():
            return noise.noisy_rows(key, layer, features)
        return features + noise.scale_(noise.unit_rows(key, layer, features))
    generators = key.generators(layer, len(features), features.device)
    rows = [noise(row, generator) for row, generator in zip(features.split(1), generators, strict=True)]
    return features + _checked(torch.cat(rows), features)


def _checked(noise: Tensor, features: Tensor) -> Tensor:
    if noise.shape != features.shape:
        raise ArgumentError("noise", f"noise of shape {tuple(features.shape)}", f"shape {tuple(noise.shape)}")
    return noise
