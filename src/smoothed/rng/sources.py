"""Where noise comes from: fresh from a generator, or a function of a key.

A `Source` hands out standard normals. `Fresh` draws them from a `torch.Generator`, so two passes
differ. `Keyed` makes them a function of (seed, draw, image, layer), so the same draw of the same image meets the same
noise whatever the batch, the chunk or the order of the work. `InBatch` is `Fresh` for processes that share a batch.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.rng.counter_based import (
    Affine,
    Law,
    normal,
    normals,
    numbers,
    places,
    places_channels_last,
)
from smoothed.rng.rows import Rows, normal_
from smoothed.rng.seeds import _MASK, mixed


def where(layer: int, places: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Those places in the normals that a batch shares in a layer, for `shared_at`."""
    return places + mixed(layer).to(places.device)


@runtime_checkable
class Source(Protocol):
    """Hands out standard normals to noise, by layer: 0 is the input, network layers count from 1."""

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Normals of `shape` that the whole batch shares, on `like`'s device and of its dtype."""
        ...

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Normals of `shape` whose first dimension runs over the batch: each row has its own."""
        ...


class Fresh:
    """Normals from `generator`, or from torch's default one when None, as `torch.nn.Dropout` draws its masks."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        del layer
        device = like.device if self.generator is None else self.generator.device
        return torch.randn(tuple(shape), generator=self.generator, device=device, dtype=like.dtype).to(like.device)

    rows = shared

    def remember(self) -> Callable[[], None]:
        """A function that takes the generator back to where it is now; torch's default one is its owner's affair."""
        if self.generator is None:
            return lambda: None
        generator, state = self.generator, self.generator.get_state()
        return lambda: generator.set_state(state) and None


class Pool:
    """Normals of another source that the batch shares, drawn many at a time: one call serves all layers of a network.

    Args:
        source: where they come from.
        size: how many to draw at a time: what one pass needs.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.source = source
        self.size = size
        self._left: Tensor | None = None

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        count = math.prod(shape)
        left = self._left
        if left is None or len(left) < count or left.device != like.device or left.dtype != like.dtype:
            left = self.source.shared(layer, (max(self.size, count),), like)
        taken, self._left = left[:count], left[count:]
        return taken.view(tuple(shape))

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.rows`."""
        return self.source.rows(layer, shape, like)

    def remember(self) -> Callable[[], None]:
        """A function that takes the pool and its source back to where they are now."""
        left, source = self._left, getattr(self.source, "remember", lambda: lambda: None)()

        def restore() -> None:
            self._left = left
            source()

        return restore


class InBatch:
    """Fresh normals for a part of a batch: what the batch shares is the same in every part, rows follow their images.

    Args:
        generator: of what the whole batch shares; each part has one that starts at the same seed.
        own: of the rows of this part.
    """

    def __init__(self, generator: torch.Generator, own: Rows) -> None:
        self.common = Fresh(generator)
        self.own = own

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        return self.common.shared(layer, shape, like)

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.rows`."""
        del layer
        return normal_(torch.empty(tuple(shape), device=like.device, dtype=like.dtype), self.own)

    def remember(self) -> Callable[[], None]:
        """A function that takes both back to where they are now."""
        common, own = self.common.remember(), self.own.remember()

        def restore() -> None:
            common()
            own()

        return restore


class Keyed:
    """Normals that are a function of (seed, draw, layer) and, for rows, which may be of another law, of the image.

    Args:
        seed: any integer.
        draws: the draw of each row of the batch, or one number for all of them.
        images: the image of each row; None numbers the rows 0, 1, ...

    Both may be int64 tensors (N,) on the CPU.
    """

    def __init__(
        self, seed: int, draws: int | Sequence[int] | Tensor = 0, images: Sequence[int] | Tensor | None = None
    ) -> None:
        self.seed = seed
        self.draws = draws
        self.images = images
        self._calls: Counter[int] | None = None

    def for_one_pass(self) -> "Keyed":
        """The same for a single pass: a layer that asks for rows again, as it is called again, gets others."""
        once = Keyed(self.seed, self.draws, self.images)
        once._calls = Counter()
        return once

    @classmethod
    def of_all(cls, keys: Sequence["Keyed"], rows: int) -> "Keyed":
        """The key of the rows of several batches, one after the other, each of one draw and of so many rows."""
        images = torch.as_tensor(range(rows) if keys[0].images is None else keys[0].images)
        return cls(keys[0].seed, [key.draw for key in keys for _ in range(rows)], images.repeat(len(keys)))

    @property
    def draw(self) -> int:
        """The draw of all rows, where they belong to one."""
        return self.draws if isinstance(self.draws, int) else int(self.draws[0])

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`. All rows must belong to one draw."""
        return shared_at([self], where(layer, places(math.prod(shape), like.device)), like).view(*shape)

    def rows(self, layer: int, shape: Sequence[int], like: Tensor, law: Law = normal) -> Tensor:
        """See `Source.rows`; `law` is any of `counter_based`, of mean 0 and deviation 1.

        Raises:
            ArgumentError: the first dimension is not the batch's, so that no row is an image's.
        """
        keys = self._keys_of_a_call(layer, shape[0]).to(like.device)
        return numbers(law, keys, places(math.prod(shape[1:]), like.device), like.dtype).view(*shape)

    def noisy_rows(self, layer: int, inputs: Tensor, scale: Tensor, law: Law = normal) -> Tensor:
        """`inputs` (N, ...) plus `scale` times what `rows` gives for them, made in one go and laid out as they are.

        Args:
            layer: as for `rows`.
            inputs: of any device and floating dtype.
            scale: of a shape that broadcasts to that of one row, (1, ...).
            law: as for `rows`.

        Raises:
            ArgumentError: as `rows`.
        """
        keys, device = self._keys_of_a_call(layer, len(inputs)).to(inputs.device), inputs.device
        spots, scale = places(math.prod(inputs.shape[1:]), device), scale.expand_as(inputs[:1])
        channels_last = inputs.ndim == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
        if channels_last:
            spots = places_channels_last(inputs.shape[1], math.prod(inputs.shape[2:]), device)
            inputs, scale = inputs.movedim(1, -1), scale.movedim(1, -1)
        rows = inputs.detach().reshape(len(inputs), -1).contiguous()
        noisy = numbers(law, keys, spots, inputs.dtype, (scale.flatten().contiguous(), rows)).view(inputs.shape)
        return noisy.movedim(-1, 1) if channels_last else noisy

    def _keys_of_a_call(self, layer: int, count: int) -> Int[Tensor, " r"]:
        if self.images is not None and count != len(self.images):
            raise ArgumentError(
                "model",
                f"activations with noise whose first dimension is the batch's, {len(self.images)}",
                f"{count} rows in noise layer {layer}",
                "put the noise on weights, or on layers that keep the batch first",
            )
        keys = self._keys(layer, count)
        if self._calls is not None:
            if call := self._calls[layer]:
                keys = mixed(keys, call)
            self._calls[layer] += 1
        return keys

    def generators(self, layer: int, count: int, device: torch.device) -> Iterator[torch.Generator]:
        """One generator a row, seeded by (seed, draw, layer, image). The same object is reseeded for each row."""
        generator = torch.Generator(device)
        for key in self._keys(layer, count).tolist():
            yield generator.manual_seed((key & _MASK) >> 1)

    def _keys(self, layer: int, count: int) -> Int[Tensor, " r"]:
        """Of each row, on the CPU."""
        return mixed(self.seed, self.draws, layer, range(count) if self.images is None else self.images)


def shared_at(
    keys: Sequence[Keyed], places: Int[Tensor, " p"], like: Tensor, affine: Affine | None = None
) -> Float[Tensor, "d p"]:
    """What `Keyed.shared` gives for each of `keys` at some places (`where`) in the noise of one or of many layers.

    Multiplied and added to by `affine`, if that is given.
    """
    numbers = torch.cat([mixed(key.seed, key.draw) for key in keys]).to(like.device)
    return normals(numbers, places, like.dtype, affine)
