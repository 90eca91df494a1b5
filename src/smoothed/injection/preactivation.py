"""Noise of a weight, drawn at the outputs of its layer for each image: local reparametrisation (Kingma et al., 2015).

A layer is linear in its weight. If the noise of the weight is independent between its elements, with deviations s, then
an output y of an input a is normal: its mean is the output without noise, and its variance is the output of the layer
for a^2 and s^2 in place of a and w, without the bias. Drawing y in place of the weight gives each image, and each
position of a convolution, noise of its own. Each output alone has the distribution that it has under a drawn weight;
outputs that share a weight are no longer correlated. Gradients have less variance, at the cost of a second pass through
the layer.
"""

import torch
from torch import Tensor, nn

from smoothed.injection.layer import SMALLEST_VARIANCE, NoiseLayer


def output_variance(layer: nn.Module, inputs: Tensor, variance: Tensor) -> Tensor:
    """Return the variance of the outputs of `layer` if its weight has independent noise.

    Args:
        layer: convolution or linear layer; its own forward pass is used, so padding and geometry are the same.
        inputs: inputs a of the layer, (N, ...).
        variance: variance of each element of the weight, of its shape.
    """
    # Without the property of a parametrised weight, which hides parameters of that name.
    kind = next(kind for kind in type(layer).__mro__ if not isinstance(vars(kind).get("weight"), property))
    twin = nn.Module.__new__(kind)
    vars(twin).update({**vars(layer), "_parameters": {"weight": variance, "bias": None}})
    return kind.forward(twin, inputs.square())


class PreactivationNoise(NoiseLayer):
    """Noise at the outputs of a layer, from the independent noise of its weight.

    A subclass also inherits from a noise layer of weights whose `linear_form` has no factor, with `per_row=True`.
    """

    def of_outputs(self, outputs: Tensor, layer: nn.Module, inputs: Tensor) -> Tensor:
        """Return the outputs of `layer` for `inputs` plus one draw of their noise, or as they are if it is off."""
        if self.source is None:
            return outputs
        with torch.autocast(outputs.device.type, enabled=False):
            form = self.linear_form(layer.weight)  # pyright: ignore[reportArgumentType]
            assert form is not None  # noqa: S101
            deviation = form[0]
            variance = output_variance(layer, inputs.to(deviation.dtype), deviation.square())
            scale = variance.clamp_min(SMALLEST_VARIANCE).sqrt()
            return outputs + scale * self.normals(scale.shape, scale)

    def noise(self, tensor: Tensor) -> Tensor:
        """Raise `NotImplementedError`: the noise depends on the inputs of the layer, too (see `of_outputs`)."""
        raise NotImplementedError
