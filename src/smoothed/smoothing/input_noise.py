"""Noise for inputs: a callable from (inputs, generator) to noise of the inputs' shape, to be added to them.

The scale is in pixel units of [0, 1]: one number, or one a channel. `normalized` takes the paper's unit, where noise
is added after the division by the data set's deviation. A user's own noise is any callable of the same form.
Noise is never clipped after it is added.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.rng.counter_based import Law, laplace, normal, uniform
from smoothed.rng.sources import Keyed
from smoothed.utils.checks import check_not_negative

Noise = Callable[[Tensor, torch.Generator | None], Tensor]
"""From inputs (N, C, H, W) and a generator on their device to noise (N, C, H, W)."""

Scale = float | tuple[float, ...]


@dataclass(frozen=True)
class ScaledNoise(ABC):
    """Independent noise of mean 0 and deviation `sigma` on every pixel; subclasses say of which law.

    Args:
        sigma: deviation in pixel units of [0, 1], a number or a tuple of one a channel.

    Raises:
        ArgumentError: a negative or non-finite sigma; when called, another number of channels than sigmas.
    """

    sigma: Scale
    # A `staticmethod`: the law of `counter_based` that makes all rows of a batch at once.
    law: ClassVar[Law | None] = None

    def __post_init__(self) -> None:
        values = self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)
        if not values:
            raise ArgumentError("sigma", "a number or one a channel", "()")
        for value in values:
            check_not_negative(value, "sigma")

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        home = {name: next(base for base in cls.__mro__ if name in vars(base)) for name in ("unit_", "law")}
        if cls.__mro__.index(home["unit_"]) < cls.__mro__.index(home["law"]):
            cls.law = None  # it draws in a way of its own: not by the law of another

    @classmethod
    def normalized(cls, sigma: float, std: Sequence[float]) -> Self:
        """Noise of deviation `sigma` in the paper's unit: `sigma * std` in pixels, `std` one a channel."""
        return cls(tuple(check_not_negative(sigma, "sigma") * channel for channel in std))

    @property
    def is_zero(self) -> bool:
        """Whether this noise never changes anything, so that it need not be drawn."""
        return not any(self.sigma) if isinstance(self.sigma, tuple) else self.sigma == 0

    def __call__(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise of the shape, device and dtype of `inputs` (N, C, H, W)."""
        return self.scale_(self.unit_(torch.empty_like(inputs), generator))

    def scale_(self, noise: Tensor) -> Tensor:
        """Multiply unit noise (N, C, ...) by sigma, in place."""
        return noise.mul_(self._scale_of(noise))

    def _scale_of(self, inputs: Tensor) -> Tensor:
        """Sigma in a shape that broadcasts to that of `inputs`, (N, C, ...); float32 where they have fewer digits."""
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        if not isinstance(self.sigma, tuple):
            return torch.full([1] * inputs.ndim, self.sigma, device=inputs.device, dtype=dtype)
        if inputs.ndim < 2 or len(self.sigma) != inputs.shape[1]:
            raise ArgumentError("sigma", f"one number a channel of {tuple(inputs.shape)}", f"{len(self.sigma)} numbers")
        scale = torch.tensor(self.sigma, device=inputs.device, dtype=dtype)
        return scale.view(1, -1, *[1] * (inputs.ndim - 2))

    def noisy_rows(self, key: Keyed, layer: int, inputs: Tensor) -> Tensor:
        """`inputs` (N, C, ...) with noise, of which each row is a function of `key`; not differentiable."""
        own = type(self)
        as_here = own.scale_ is ScaledNoise.scale_ and own.unit_rows is ScaledNoise.unit_rows
        if self.law is not None and as_here and inputs.is_floating_point():
            return key.noisy_rows(layer, inputs, self._scale_of(inputs), self.law)
        return inputs + self.scale_(self.unit_rows(key, layer, inputs))

    def unit_rows(self, key: Keyed, layer: int, like: Tensor) -> Tensor:
        """Unit noise of the shape of `like` (N, ...), each row of which is a function of `key`.

        A law makes all rows at once; without one, `unit_` draws them one by one, from generators.
        """
        if self.law is not None:
            return key.rows(layer, like.shape, like, self.law)
        drawn = torch.empty_like(like, memory_format=torch.contiguous_format)
        for row, generator in zip(drawn, key.generators(layer, len(like), like.device), strict=True):
            self.unit_(row, generator)
        return drawn

    @abstractmethod
    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fill `noise`, of any shape, with draws of mean 0 and deviation 1, in place."""


class Gaussian(ScaledNoise):
    """N(0, sigma^2) on every pixel (the paper's smoothing noise, section 3)."""

    law = staticmethod(normal)

    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `ScaledNoise.unit_`."""
        return noise.normal_(generator=generator)


class Uniform(ScaledNoise):
    """Uniform on [-sqrt(3) sigma, sqrt(3) sigma], which has deviation sigma."""

    law = staticmethod(uniform)

    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `ScaledNoise.unit_`."""
        return noise.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)


class Laplace(ScaledNoise):
    """Laplace of scale sigma / sqrt(2), which has deviation sigma."""

    law = staticmethod(laplace)

    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `ScaledNoise.unit_`."""
        # An exponential with a random sign: finite for every draw, which the inverse CDF of a uniform is not.
        noise.exponential_(generator=generator)
        sign = torch.empty_like(noise).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        return noise.mul_(sign).div_(math.sqrt(2))


NOISES: dict[str, type[ScaledNoise]] = {"gaussian": Gaussian, "uniform": Uniform, "laplace": Laplace}
"""The noises by the name the command line gives them."""
