"""Adversarial noise propagation, ANP (Liu et al., 2019): adversarial noise on the image and on its first hidden layers.

The network is trained K times in a row on each batch. For each image and layer, the gradient g of the loss with respect
to the layer's output z in one pass updates the noise r that is added in the next pass:

    z' = z + (eps / K) r,    r <- alpha r + g / |g|_2,    starting from r = 0

The image is the first of the layers. Each pass is a forward pass and a backward pass, and the gradients with respect to
weights and noise come from the same one, so the noise needs no additional passes. (eps, alpha) follow the schedule of
the published code, in shares of the run: first and last epochs without noise, in which each batch is used once. The
published code accumulates the image's gradient over the passes; here g is the gradient of one pass, as for the layers.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from smoothed.injection.inject import NOISY_TYPES
from smoothed.training.batch import Part

PHASES = ((1 / 3, 0.0, 0.0), (1 / 2, 0.3, 0.7), (2 / 3, 1.0, 1.0), (5 / 6, 0.3, 0.7), (1.0, 0.0, 0.0))
"""The end of each phase as a share of the run, its eps and its alpha: of 120 epochs, 40, 20, 20, 20 and 20."""

# Avoids 0 / 0 for an image whose gradient is 0.
TINY = 1e-20

Registers = dict[tuple[int, int], Tensor]
"""Noise r by layer and by the number of the call of that layer: a loss on clean and attacked images calls it twice."""


class HiddenNoiseOptions(Protocol):
    """Settings of the noise; `TrainingConfig` describes them."""

    @property
    def hidden_noise(self) -> float: ...  # noqa: D102
    @property
    def hidden_steps(self) -> int: ...  # noqa: D102
    @property
    def hidden_layers(self) -> int: ...  # noqa: D102


def phase(progress: float) -> tuple[float, float]:
    """Return (eps, alpha) at a point of the run in [0, 1]."""
    return next(((eps, alpha) for end, eps, alpha in PHASES if progress < end), PHASES[-1][1:])


def noisy_layers(model: nn.Module, count: int) -> list[nn.Module]:
    """Return the first `count` convolutions and linear layers of `model`, in the order of its modules."""
    layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, NOISY_TYPES)]
    return layers[:count]


class HiddenNoise:
    """Noise on the images and on the outputs of the first layers of a network in training.

    The noise of a step is discarded after the step, so a run has no further state. It depends on the image alone, not
    on the division of a batch. Attacks, and the ascent of adversarial weight perturbation, run without it. The
    published script puts noise on all layers; its paper finds that the first ones matter most.

    Args:
        model: network without a wrapper of Accelerate's.
        options: factor on eps, number K of passes and number of layers.
    """

    def __init__(self, model: nn.Module, options: HiddenNoiseOptions) -> None:
        self.model, self.options = model, options
        self.layers = noisy_layers(model, options.hidden_layers)
        self._registers: dict[int, Registers] = {}

    def passes(self, progress: float) -> int:
        """Return the number of passes on each batch at a point of the run in [0, 1]: K, or 1 without noise."""
        return self.options.hidden_steps if phase(progress)[0] > 0 else 1

    @contextmanager
    def propagated(self, part: Part, number: int) -> Iterator[None]:
        """Add noise to the passes inside the block, which includes the backward pass, and keep it for the next pass.

        Args:
            part: images of the passes.
            number: number of the part within its process.
        """
        eps, alpha = phase(part.progress)
        if eps == 0:
            yield
            return
        steps = self.options.hidden_steps
        before = {} if part.repetition == 0 else self._registers.pop(number, {})
        adding = _Adding(before, eps * self.options.hidden_noise / steps)
        hooks = [self.model.register_forward_pre_hook(adding.to_input)]
        hooks += [layer.register_forward_hook(partial(adding.to_output, i)) for i, layer in enumerate(self.layers)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if part.repetition + 1 < steps:
            self._registers[number] = adding.moved(alpha)


class _Adding:
    """Hooks that add noise in one pass, and compute the noise of the next pass from its gradients."""

    def __init__(self, registers: Registers, scale: float) -> None:
        self.registers, self.scale = registers, scale
        self.calls = Counter[int]()
        self.noises: dict[tuple[int, int], Tensor] = {}

    def to_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Add noise to the images that enter the network."""
        del module
        return (self._noisy(-1, args[0]), *args[1:])

    def to_output(self, index: int, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Add noise to the output of layer `index`."""
        del module, args
        return self._noisy(index, output)

    def moved(self, alpha: float) -> Registers:
        """Return alpha r + g / |g|_2 of each image, for all noise that has a gradient."""
        return {
            key: alpha * self.registers.get(key, 0) + noise.grad / _norm(noise.grad).clamp_min(TINY)
            for key, noise in self.noises.items()
            if noise.grad is not None
        }

    def _noisy(self, index: int, values: Tensor) -> Tensor:
        key = index, self.calls[index]
        self.calls[index] += 1
        register = self.registers.get(key)
        # The noise is a leaf, whose gradient is that of the noisy values, in at least float32.
        dtype = torch.promote_types(values.dtype, torch.float32)
        noise = torch.zeros_like(values, dtype=dtype) if register is None else self.scale * register
        self.noises[key] = noise.detach().requires_grad_()
        return values + self.noises[key].to(values.dtype)


def _norm(rows: Tensor) -> Tensor:
    """L2 norm of each row, in a shape that broadcasts to `rows`."""
    return torch.linalg.vector_norm(rows.flatten(1), dim=1).view(-1, *[1] * (rows.ndim - 1))
