"""Sources of noise: random numbers from a generator, or numbers that are a function of a key.

A `Source` provides standard normal numbers. `Fresh` draws them from a `torch.Generator`, so two passes differ. `Keyed`
computes them from (seed, draw, image, layer), so a draw of an image has the same noise in every batch, chunk and order
of work. `ShardSource` is a `Fresh` for processes that divide a batch. `Pool` draws the numbers of many layers at once.
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
    positions,
    positions_channels_last,
)
from smoothed.rng.rows import RowGenerator, normal_
from smoothed.rng.seeds import _MASK, mix_rows


def shared_positions(layer: int, positions: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Convert positions in the shared noise of a layer to positions among those of all layers, for `shared_at`.

    Args:
        layer: number of the layer.
        positions: indices into the flattened shared noise of that layer, (P,) int64.
    """
    return positions + mix_rows(layer).to(positions.device)


@runtime_checkable
class Source(Protocol):
    """A source of standard normal numbers for noise layers; layer 0 is the input, a network's layers start at 1."""

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return numbers of `shape` that all rows of the batch share, on `like`'s device and in its dtype."""
        ...

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return numbers of `shape` that differ between rows, on `like`'s device and in its dtype.

        The first dimension of `shape` is the batch.
        """
        ...


class Fresh:
    """A source that draws from a random generator, as `torch.nn.Dropout` draws its masks.

    Args:
        generator: the random generator; None for torch's default generator.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        del layer
        device = like.device if self.generator is None else self.generator.device
        return torch.randn(tuple(shape), generator=self.generator, device=device, dtype=like.dtype).to(like.device)

    rows = shared

    def snapshot(self) -> Callable[[], None]:
        """Return a function that restores the generator's current state; it has no effect on torch's default one."""
        if self.generator is None:
            return lambda: None
        generator, state = self.generator, self.generator.get_state()
        return lambda: generator.set_state(state) and None


class Pool:
    """A source that draws the shared numbers of all layers of a network in one call to another source.

    Args:
        source: the source of all numbers.
        size: number of shared numbers to draw per call; best the number that one forward pass needs.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.source = source
        self.size = size
        self._unused: Tensor | None = None

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        count = math.prod(shape)
        unused = self._unused
        if unused is None or len(unused) < count or unused.device != like.device or unused.dtype != like.dtype:
            unused = self.source.shared(layer, (max(self.size, count),), like)
        requested, self._unused = unused[:count], unused[count:]
        return requested.view(tuple(shape))

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.rows`."""
        return self.source.rows(layer, shape, like)

    def snapshot(self) -> Callable[[], None]:
        """Return a function that restores the current state of the pool and of its source."""
        unused, restore_source = self._unused, getattr(self.source, "snapshot", lambda: lambda: None)()

        def restore() -> None:
            self._unused = unused
            restore_source()

        return restore


class ShardSource:
    """A source for one shard of a batch: shared numbers are equal in all shards, row numbers belong to their images.

    Args:
        generator: random generator of the shared numbers; it must have the same seed in every shard.
        row_generator: generator of the numbers of this shard's rows.
    """

    def __init__(self, generator: torch.Generator, row_generator: RowGenerator) -> None:
        self.shared_source = Fresh(generator)
        self.row_generator = row_generator

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        return self.shared_source.shared(layer, shape, like)

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.rows`."""
        del layer
        return normal_(torch.empty(tuple(shape), device=like.device, dtype=like.dtype), self.row_generator)

    def snapshot(self) -> Callable[[], None]:
        """Return a function that restores the current state of both generators."""
        restore_shared, restore_rows = self.shared_source.snapshot(), self.row_generator.snapshot()

        def restore() -> None:
            restore_shared()
            restore_rows()

        return restore


class Keyed:
    """A source whose numbers are a function of (seed, draw, layer) and, for the numbers of rows, of the image.

    Args:
        seed: any integer.
        draws: number of the draw, one for all rows of the batch or one per row; a tensor is (N,) int64 on the CPU.
        images: number of each row's image; a tensor is (N,) int64 on the CPU. None numbers the rows 0, 1, ...
    """

    def __init__(
        self, seed: int, draws: int | Sequence[int] | Tensor = 0, images: Sequence[int] | Tensor | None = None
    ) -> None:
        self.seed = seed
        self.draws = draws
        self.images = images
        self._calls: Counter[int] | None = None

    def for_one_pass(self) -> "Keyed":
        """Return a copy for one forward pass, in which a layer that is called again gets different row numbers."""
        key = Keyed(self.seed, self.draws, self.images)
        key._calls = Counter()
        return key

    @classmethod
    def of_all(cls, keys: Sequence["Keyed"], rows: int) -> "Keyed":
        """Return the key of several concatenated batches of the same images, each of one draw.

        Args:
            keys: the key of each batch, all with the same seed and images.
            rows: number of rows of each batch.
        """
        images = torch.as_tensor(range(rows) if keys[0].images is None else keys[0].images)
        return cls(keys[0].seed, [key.draw for key in keys for _ in range(rows)], images.repeat(len(keys)))

    @property
    def draw(self) -> int:
        """The number of the draw, if all rows belong to the same one."""
        return self.draws if isinstance(self.draws, int) else int(self.draws[0])

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`; all rows must belong to the same draw."""
        return shared_at([self], shared_positions(layer, positions(math.prod(shape), like.device)), like).view(*shape)

    def rows(self, layer: int, shape: Sequence[int], like: Tensor, law: Law = normal) -> Tensor:
        """See `Source.rows`.

        Args:
            layer: number of the layer.
            shape: shape of the result; the first dimension is the batch.
            like: a tensor of the result's device and dtype.
            law: distribution of the numbers, a function of `counter_based` with mean 0 and deviation 1.

        Raises:
            ArgumentError: the first dimension is not the number of images.
        """
        keys = self._keys_of_call(layer, shape[0]).to(like.device)
        return numbers(law, keys, positions(math.prod(shape[1:]), like.device), like.dtype).view(*shape)

    def noisy_rows(self, layer: int, inputs: Tensor, scale: Tensor, law: Law = normal) -> Tensor:
        """Return `inputs + scale * rows(...)`, computed in one operation and in the memory format of `inputs`.

        Args:
            layer: number of the layer.
            inputs: (N, ...), of any device and floating dtype.
            scale: scale of the noise, of a shape that broadcasts to one row, (1, ...).
            law: distribution of the numbers, as for `rows`.

        Returns:
            A tensor of the shape and dtype of `inputs`, detached from the graph.

        Raises:
            ArgumentError: the first dimension of `inputs` is not the number of images.
        """
        keys, device = self._keys_of_call(layer, len(inputs)).to(inputs.device), inputs.device
        indices, scale = positions(math.prod(inputs.shape[1:]), device), scale.expand_as(inputs[:1])
        channels_last = inputs.ndim == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
        if channels_last:
            indices = positions_channels_last(inputs.shape[1], math.prod(inputs.shape[2:]), device)
            inputs, scale = inputs.movedim(1, -1), scale.movedim(1, -1)
        rows = inputs.detach().reshape(len(inputs), -1).contiguous()
        noisy = numbers(law, keys, indices, inputs.dtype, (scale.flatten().contiguous(), rows)).view(inputs.shape)
        return noisy.movedim(-1, 1) if channels_last else noisy

    def _keys_of_call(self, layer: int, count: int) -> Int[Tensor, " r"]:
        """The keys of `count` rows; in a single pass (`for_one_pass`) they differ between calls of a layer."""
        if self.images is not None and count != len(self.images):
            raise ArgumentError(
                "model",
                f"noisy activations whose first dimension is the batch of {len(self.images)} rows",
                f"{count} rows in noise layer {layer}",
                "inject noise into weights, or into layers whose first dimension is the batch",
            )
        keys = self._keys(layer, count)
        if self._calls is not None:
            if call := self._calls[layer]:
                keys = mix_rows(keys, call)
            self._calls[layer] += 1
        return keys

    def generators(self, layer: int, count: int, device: torch.device) -> Iterator[torch.Generator]:
        """Yield a generator for each of `count` rows, seeded by (seed, draw, layer, image).

        The same generator object is reseeded for each row, so use it before advancing the iterator.
        """
        generator = torch.Generator(device)
        for key in self._keys(layer, count).tolist():
            yield generator.manual_seed((key & _MASK) >> 1)

    def _keys(self, layer: int, count: int) -> Int[Tensor, " r"]:
        """The key of each row, on the CPU."""
        return mix_rows(self.seed, self.draws, layer, range(count) if self.images is None else self.images)


def shared_at(
    keys: Sequence[Keyed], positions: Int[Tensor, " p"], like: Tensor, affine: Affine | None = None
) -> Float[Tensor, "d p"]:
    """Return the shared noise of several draws at given positions of one or many layers.

    Args:
        keys: the key of each draw.
        positions: positions from `shared_positions`, (P,) int64.
        like: a tensor of the result's device and dtype.
        affine: scale and offset applied to the numbers; None for standard normal numbers.

    Returns:
        Numbers (D, P), equal to those of `Keyed.shared` at these positions.
    """
    numbers = torch.cat([mix_rows(key.seed, key.draw) for key in keys]).to(like.device)
    return normals(numbers, positions, like.dtype, affine)
