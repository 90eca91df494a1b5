"""Input noise: callables from (inputs, generator) to additive noise of the inputs' shape.

Standard deviations are in pixel units of [0, 1], one for all channels or one per channel. `normalized` takes the
paper's unit, where noise is added after division by the data set's standard deviation. Any callable of the same form
can serve as noise. Noisy inputs are not clipped.
"""

import inspect
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

Noise = Callable[..., Tensor]
"""A function from inputs (N, C, H, W) and a generator on their device (or None) to noise (N, C, H, W).

A function of the inputs alone is also accepted: torch's default generators are seeded before each call of it, and
restored afterwards (`draw_noise`).
"""


def takes_generator(noise: Noise) -> bool:
    """Whether `noise` takes a generator as its second argument.

    An optional second argument with a name other than `generator`, such as a strength, does not count. Functions
    without a signature, such as `torch.randn_like`, take none.
    """
    try:
        signature = inspect.signature(noise)
        signature.bind(None, None)
    except (TypeError, ValueError):  # no second argument, or a function without a signature, written in C
        return False
    second = [*signature.parameters.values()][:2][-1]
    return second.default is inspect.Parameter.empty or second.name == "generator"


def draw_noise(noise: Noise, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw noise of the shape of `inputs` (N, C, H, W).

    Args:
        noise: function of the inputs and a generator, or of the inputs alone.
        inputs: the inputs to which the noise will be added.
        generator: generator on their device; None for torch's default generator. A function of the inputs alone draws
            from torch's default generators, which are seeded from this generator for the call.

    Raises:
        ArgumentError: the noise has another shape than the inputs.
    """
    if takes_generator(noise):
        drawn = noise(inputs, generator)
    elif generator is None:
        drawn = noise(inputs)
    else:
        devices = [inputs.device] if inputs.device.type == "cuda" else []
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            drawn = noise(inputs)
    if not isinstance(drawn, Tensor) or drawn.shape != inputs.shape:
        got = f"shape {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else type(drawn).__name__
        raise ArgumentError("noise", f"noise of shape {tuple(inputs.shape)}", got)
    return drawn


@dataclass(frozen=True)
class ScaledNoise(ABC):
    """Independent noise of mean 0 and standard deviation `sigma` on every pixel; subclasses define the distribution.

    Args:
        sigma: standard deviation in pixel units of [0, 1]: a number, or a tuple with one number per channel.

    Raises:
        ArgumentError: `sigma` is negative or not finite; when called, `sigma` does not have one number per channel.
    """

    sigma: float | tuple[float, ...]
    # A `staticmethod`: the function of `counter_based` that computes unit noise for all rows of a batch at once.
    law: ClassVar[Law | None] = None

    def __post_init__(self) -> None:
        values = self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)
        if not values:
            raise ArgumentError("sigma", "a number, or a tuple of one number per channel", "()")
        for value in values:
            check_not_negative(value, "sigma")

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        owner = {name: next(base for base in cls.__mro__ if name in vars(base)) for name in ("unit_", "law")}
        if cls.__mro__.index(owner["unit_"]) < cls.__mro__.index(owner["law"]):
            cls.law = None  # the subclass overrides `unit_`, so the inherited law does not describe its noise

    @classmethod
    def normalized(cls, sigma: float, std: Sequence[float]) -> Self:
        """Create noise from a deviation in the paper's unit.

        Args:
            sigma: standard deviation relative to that of the data set.
            std: the data set's standard deviation of each channel, in pixel units; the noise has deviation
                `sigma * std`.

        Raises:
            ArgumentError: `sigma` is negative or not finite, or `std` are no positive numbers.
        """
        check_not_negative(sigma, "sigma")
        try:
            is_right = len(std) > 0 and all(0 < channel < math.inf for channel in std)
        except TypeError:
            is_right = False
        if not is_right:
            raise ArgumentError("std", "positive numbers, one per channel", repr(std))
        return cls(tuple(sigma * float(channel) for channel in std))

    @property
    def is_zero(self) -> bool:
        """Whether the standard deviation is 0 on all channels, so that no noise need be drawn."""
        return not any(self.sigma) if isinstance(self.sigma, tuple) else self.sigma == 0

    def __call__(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise of the shape, device and dtype of `inputs` (N, C, H, W)."""
        return self.scale_(self.unit_(torch.empty_like(inputs), generator))

    def scale_(self, noise: Tensor) -> Tensor:
        """Multiply unit noise (N, C, ...) by `sigma`, in place."""
        return noise.mul_(self._scale_of(noise))

    def _scale_of(self, inputs: Tensor) -> Tensor:
        """`sigma` in a shape that broadcasts to `inputs` (N, C, ...), in their dtype or float32 if that is lower."""
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        if not isinstance(self.sigma, tuple):
            return torch.full([1] * inputs.ndim, self.sigma, device=inputs.device, dtype=dtype)
        if inputs.ndim < 2 or len(self.sigma) != inputs.shape[1]:
            expected = f"one number per channel of inputs of shape {tuple(inputs.shape)}"
            raise ArgumentError("sigma", expected, f"{len(self.sigma)} numbers")
        scale = torch.tensor(self.sigma, device=inputs.device, dtype=dtype)
        return scale.view(1, -1, *[1] * (inputs.ndim - 2))

    def noisy_rows(self, key: Keyed, layer: int, inputs: Tensor) -> Tensor:
        """Return `inputs` (N, C, ...) plus noise, each row of which is determined by `key`; not differentiable."""
        cls = type(self)
        overrides_nothing = cls.scale_ is ScaledNoise.scale_ and cls.unit_rows is ScaledNoise.unit_rows
        if self.law is not None and overrides_nothing and inputs.is_floating_point():
            return key.noisy_rows(layer, inputs, self._scale_of(inputs), self.law)
        return inputs + self.scale_(self.unit_rows(key, layer, inputs))

    def unit_rows(self, key: Keyed, layer: int, like: Tensor) -> Tensor:
        """Return unit noise of the shape of `like` (N, ...), each row of which is determined by `key`.

        With a `law` all rows are computed at once; otherwise `unit_` draws each row from its own generator.
        """
        if self.law is not None:
            return key.rows(layer, like.shape, like, self.law)
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for row, generator in zip(noise, key.generators(layer, len(like), like.device), strict=True):
            self.unit_(row, generator)
        return noise

    @abstractmethod
    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fill `noise`, of any shape, in place with independent draws of mean 0 and standard deviation 1."""


class Gaussian(ScaledNoise):
    """Gaussian noise N(0, sigma^2) on every pixel (the paper's smoothing noise, section 3)."""

    law = staticmethod(normal)

    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `ScaledNoise.unit_`."""
        return noise.normal_(generator=generator)


class Uniform(ScaledNoise):
    """Uniform noise on [-sqrt(3) sigma, sqrt(3) sigma], which has standard deviation sigma."""

    law = staticmethod(uniform)

    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `ScaledNoise.unit_`."""
        return noise.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)


class Laplace(ScaledNoise):
    """Laplace noise of scale sigma / sqrt(2), which has standard deviation sigma."""

    law = staticmethod(laplace)

    def unit_(self, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `ScaledNoise.unit_`."""
        # An exponential with a random sign is always finite; the inverse CDF of a uniform number is not.
        noise.exponential_(generator=generator)
        sign = torch.empty_like(noise).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        return noise.mul_(sign).div_(math.sqrt(2))


NOISES: dict[str, type[ScaledNoise]] = {"gaussian": Gaussian, "uniform": Uniform, "laplace": Laplace}
"""Input noise classes by their names on the command line."""
