"""Base class of the noise layers inside a network, and context managers that set the source of their noise."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.rng.sources import Fresh, Keyed, Source
from smoothed.utils.checks import check_callable, check_seed
from smoothed.utils.modes import Classifier

# Smallest variance under the square root, whose derivative is infinite at 0; the gradient is 0 below it.
SMALLEST_VARIANCE = 1e-12


class NoiseLayer(nn.Module, ABC):
    """Module that adds noise to a tensor, in train and in eval mode.

    Attributes:
        source: source of the standard normals; None switches the noise off.
        index: number of the layer in its network, from 1, set by `noise_from`; part of the key of keyed noise.
        per_row: whether each row of the batch has its own noise (activations) or all rows share it (weights).
        law: law from which `inject` made the layer; None for a layer that was made otherwise.
        decays: whether the optimiser's weight decay applies to the learned strengths. False for layers with a
            `penalty`.
    """

    decays = True

    def __init__(self, *, per_row: bool) -> None:
        super().__init__()
        self.source: Source | None = Fresh()
        self.index = 1
        self.per_row = per_row
        self.law: Any = None

    def forward(self, tensor: Tensor) -> Tensor:
        """Return `tensor` plus one draw of noise, or `tensor` itself if the noise is off."""
        if self.source is None:
            return tensor
        # Noise strengths are small, learned numbers, for which half precision is too coarse.
        with torch.autocast(tensor.device.type, enabled=False):
            return tensor + self.noise(tensor)

    @abstractmethod
    def noise(self, tensor: Tensor) -> Tensor:
        """Return one draw of the noise, of the shape of `tensor`."""

    @abstractmethod
    def scale_(self, factor: float) -> None:
        """Multiply the standard deviation of the noise by `factor`, in place."""

    def penalty(self, mean: Tensor | None = None) -> Tensor | None:
        """Return a scalar that training adds to the loss, in nats for the whole training set, or None for no term.

        Args:
            mean: the weight without noise; None for noise on activations.
        """
        del mean
        return None

    def project_(self) -> None:
        """Project the learned strengths onto their valid range, in place, after a step of the optimiser."""

    def linear_form(self, weight: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Return the noise of a weight in the form `scale * n + factor @ z` with standard normals n and z.

        Args:
            weight: weight without noise.

        Returns:
            The scale, of the weight's shape, and the factor, (elements of the weight, r), which is None if there is no
            second term. None if the noise does not have this form.
        """
        del weight
        return None

    def normals(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw standard normals of `shape` from the source, per row or shared by all rows."""
        source = Fresh() if self.source is None else self.source
        draw = source.rows if self.per_row else source.shared
        return draw(self.index, shape, like)

    def deviation(self, tensor: Tensor) -> Tensor:
        """Return the standard deviation over the elements of a weight, or of the activation of each image.

        No gradient flows through the result. It is per image for activations, so that the noise of an image does not
        depend on its batch.
        """
        # The deviation of a single element is 0; torch's estimate would be NaN.
        values = tensor.detach()
        if not self.per_row:
            return values.std() if values.numel() > 1 else values.new_zeros(())
        values = values.flatten(1)
        deviations = values.std(1) if values.shape[1] > 1 else values.new_zeros(len(values))
        return deviations.view(-1, *[1] * (tensor.ndim - 1))


def noise_layers(model: Classifier) -> list[NoiseLayer]:
    """Return all noise layers of `model` in the order of its modules; an empty list if it is no `torch.nn.Module`."""
    modules = model.modules() if isinstance(model, nn.Module) else []
    return [module for module in modules if isinstance(module, NoiseLayer)]


@contextmanager
def noise_from(model: Classifier, source: Source | None) -> Iterator[None]:
    """Draw the noise inside `model` from `source` inside the block; None switches the noise off.

    Layers whose noise is already off stay off. The layers are numbered in the order of `model`, so that no two layers
    share a key even if the network is composed of networks with noise.

    Raises:
        ArgumentError: at the start of the block, `model` cannot be called, or `source` is no source of noise.
    """
    check_callable(model, "model")
    if source is not None and not hasattr(source, "shared"):
        raise ArgumentError("source", "a source of noise, such as a Keyed, or None", repr(source))
    layers = noise_layers(model)
    previous = [(layer.source, layer.index) for layer in layers]
    for index, layer in enumerate(layers, start=1):
        # Assigning attributes is slow, because `nn.Module` checks whether each is a parameter or a module.
        vars(layer).update(source=None if layer.source is None else source, index=index)
    try:
        yield
    finally:
        for layer, (old_source, old_index) in zip(layers, previous, strict=True):
            vars(layer).update(source=old_source, index=old_index)


def noiseless(model: Classifier) -> AbstractContextManager[None]:
    """Switch the noise inside `model` off inside the block, which makes it the mean network."""
    check_callable(model, "model")  # at the call, rather than at the start of the block
    return noise_from(model, None)


def frozen(model: Classifier, seed: int = 0) -> AbstractContextManager[None]:
    """Use the same draw of the noise inside `model` at every pass inside the block, for debugging.

    Activation noise is the same for the same row of the batch.

    Args:
        model: network with noise layers.
        seed: seed of the draw.
    """
    check_callable(model, "model")
    return noise_from(model, Keyed(check_seed(seed)))
