"""What every noise inside a network shares: a module that adds noise to what passes, and switches around it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from smoothed.rng.sources import Fresh, Keyed, Source
from smoothed.utils.modes import Classifier


class NoiseLayer(nn.Module, ABC):
    """Adds learned noise to a tensor, in train and eval mode alike.

    Attributes:
        source: where the normals come from; None switches the noise off.
        index: the layer's number in its network, from 1: part of the key of keyed noise, set by `drawing`.
        per_row: whether each row of the batch has its own noise (activations) or all share one (weights).
    """

    def __init__(self, *, per_row: bool) -> None:
        super().__init__()
        self.source: Source | None = Fresh()
        self.index = 1
        self.per_row = per_row

    def forward(self, tensor: Tensor) -> Tensor:
        """Return `tensor` plus one draw of noise of its shape."""
        if self.source is None:
            return tensor
        # Noise strengths are small and learned: half precision is for the network's own arithmetic.
        with torch.autocast(tensor.device.type, enabled=False):
            return tensor + self.noise(tensor)

    @abstractmethod
    def noise(self, tensor: Tensor) -> Tensor:
        """One draw of noise of the shape of `tensor`."""

    @abstractmethod
    def scale_(self, factor: float) -> None:
        """Multiply the noise's deviation by `factor`, in place."""

    def linear_form(self, weight: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """The noise of a weight as `scale * n + factor @ z`, n and z standard normals, or None if it has no such form.

        Returns:
            The scale, of the weight's shape, and the factor, (elements of the weight, r), or None for no second term.
        """
        del weight
        return None

    def normals(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normals of `shape`, by row or shared, from the source."""
        source = Fresh() if self.source is None else self.source
        draw = source.rows if self.per_row else source.shared
        return draw(self.index, shape, like)

    def deviation(self, tensor: Tensor) -> Tensor:
        """The deviation of all of a weight's elements, or of each image's activation; no gradient goes through it.

        An activation's deviation is taken image by image, so that an image's noise never depends on its batch.
        """
        # One element has no spread: its deviation is 0, where torch's estimate would be NaN.
        values = tensor.detach()
        if not self.per_row:
            return values.std() if values.numel() > 1 else values.new_zeros(())
        values = values.flatten(1)
        deviations = values.std(1) if values.shape[1] > 1 else values.new_zeros(len(values))
        return deviations.view(-1, *[1] * (tensor.ndim - 1))


def noise_layers(model: Classifier) -> list[NoiseLayer]:
    """All noise layers of `model`, in the order of its modules; none if it is no `torch.nn.Module`.

    A module that is put together for good may say what they are: an attribute `known_noise`, a list.
    """
    # Asked before every pass, and five times as fast as `modules()`, which also makes names.
    found, seen, left = list[NoiseLayer](), set[int](), [model] if isinstance(model, nn.Module) else []
    while left:
        module = left.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if isinstance(module, NoiseLayer):
            found.append(module)
        elif (known := vars(module).get("known_noise")) is not None:
            left += reversed(known)
        elif module._modules:
            left += [child for child in reversed(module._modules.values()) if child is not None]
    return found


@contextmanager
def drawing(model: Classifier, source: Source | None) -> Iterator[None]:
    """Take the network's noise from `source` inside the block; None switches it off.

    Noise that is switched off stays off. The layers are numbered anew in the order of `model`, so that no two layers of
    one network ever share a key, also where it is put together from networks with noise.
    """
    layers = noise_layers(model)
    before = [(layer.source, layer.index) for layer in layers]
    for index, layer in enumerate(layers, start=1):
        # Not as attributes: `nn.Module` looks at each for what it might be, twenty times a pass and more.
        vars(layer).update(source=None if layer.source is None else source, index=index)
    try:
        yield
    finally:
        for layer, (previous, index) in zip(layers, before, strict=True):
            vars(layer).update(source=previous, index=index)


def noiseless(model: Classifier) -> AbstractContextManager[None]:
    """Switch the network's noise off inside the block, which leaves its mean."""
    return drawing(model, None)


def frozen(model: Classifier, seed: int = 0) -> AbstractContextManager[None]:
    """One draw of the network's noise, the same at every pass inside the block: for debugging.

    Activation noise is frozen by the row of the batch.
    """
    return drawing(model, Keyed(seed))
