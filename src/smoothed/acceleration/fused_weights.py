"""The weights of all layers of a fused network, with their noise and folded batch norms, in a few tensor operations.

The weights of one draw form one vector of P elements, `(weight + scale * n + factor @ z) * gain`. n and z are standard
normal numbers, and the gain is that of the batch norm after the layer. All except n and z is computed once
(`WeightDistribution`) and kept until a weight changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - base class of all batch norms
from torch.nn.utils import parametrize

from smoothed.acceleration.tracing import base_layer_type, has_hooks
from smoothed.errors import ArgumentError
from smoothed.injection import NoiseLayer
from smoothed.rng.counter_based import Affine, positions
from smoothed.rng.sources import Keyed, shared_at, shared_positions


class FusedWeights:
    """The weights of several layers, with noise from the present sources of the layers.

    The weights are constants: no gradient flows to the parameters from which they are computed.

    Args:
        layers: layers of the same dtype and device; layers with a noise factor come first, layers without noise last.
    """

    def __init__(self, layers: Sequence["FusedLayer"]) -> None:
        self.layers = list(layers)
        self.noises = [layer.noise for layer in self.layers if layer.noise is not None]
        self._sizes = [layer.shape.numel() for layer in self.layers]
        self._norms = [layer.norm for layer in self.layers if layer.norm is not None]
        self._modules = [module for layer in self.layers for module in layer.module.modules()] + self._norms
        # By whether norms are folded: the distribution, the addresses and versions of the tensors it is computed from,
        # and the tensors, which are kept so that no other tensor gets their addresses.
        self._distributions: dict[bool, tuple[WeightDistribution, list[tuple[int, int]], list[Tensor]]] = {}
        self._cached_positions: tuple[object, Tensor] | None = None
        # The last draw with keyed noise or without noise: what it depends on, and its weights.
        self._last_draw: tuple[object, WeightDistribution, list[Tensor]] | None = None

    @property
    def size(self) -> int:
        """Number of weights, P."""
        return sum(self._sizes)

    def distribution(self, device_type: str) -> "WeightDistribution":
        """The distribution of the weights, computed anew when a weight, a noise strength or a statistic has changed.

        Batch norms are folded if they are fixed functions, that is in eval mode with running statistics.

        Args:
            device_type: type of the weights' device, for example `cuda`.

        Raises:
            ArgumentError: a layer has other noise than when it was fused.
        """
        fold = not any(norm.training or norm.running_mean is None or norm.running_var is None for norm in self._norms)
        groups = [group for module in self._modules for group in (module._parameters, module._buffers)]
        tensors = [tensor for group in groups for tensor in group.values() if tensor is not None]
        versions = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        cached = self._distributions.get(fold)
        if cached is None or cached[1] != versions:
            with torch.no_grad(), torch.autocast(device_type, enabled=False):
                for layer in self.layers:
                    layer.check_noise()
                with torch.inference_mode(False), torch.no_grad():  # later passes may need gradients
                    distribution = _distribution(self.layers, fold=fold)
                    cached = distribution, versions, [tensor.detach() for tensor in tensors]
            self._distributions[fold] = cached
        return cached[0]

    @torch.no_grad()
    def of_draw(self, distribution: "WeightDistribution", device_type: str) -> list[Tensor]:
        """The weights of one draw, one tensor per layer, in the dtype of autocast on this type of device.

        The last weights with keyed noise, or without noise, are kept: a batch that needs several passes uses the same
        weights in each.
        """
        autocast_dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
        source = self.noises[0].source if self.noises else None
        key = None
        if all(noise.source is source for noise in self.noises) and (source is None or isinstance(source, Keyed)):
            draw = None if source is None else (source.seed, source.draw, *(noise.index for noise in self.noises))
            key = (draw, autocast_dtype, torch.is_inference_mode_enabled())
            if self._last_draw is not None and self._last_draw[0] == key and self._last_draw[1] is distribution:
                return self._last_draw[2]
        with torch.autocast(device_type, enabled=False):
            weights = [stack[0] for stack in self._split(self._draw(distribution), autocast_dtype)]
        self._last_draw = None if key is None else (key, distribution, weights)
        return weights

    @torch.no_grad()
    def of_keys(
        self, distribution: "WeightDistribution", device_type: str, keys: Sequence[Keyed]
    ) -> list[Float[Tensor, "d ..."]]:
        """The weights of D draws, one tensor per layer, with noise from `keys`, one per draw.

        At least one layer must have noise, and all noise must be switched on.
        """
        autocast_dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
        with torch.autocast(device_type, enabled=False):
            weights = self._all_weights(distribution, *self._noise_of_keys(distribution, keys))
            return self._split(weights, autocast_dtype)

    def _split(self, weights: Float[Tensor, "d p"], autocast_dtype: torch.dtype | None) -> list[Float[Tensor, "d ..."]]:
        """Split into one tensor per layer, rounded to `autocast_dtype` (if any) unless the layer is exact."""
        if autocast_dtype is None or weights.dtype == torch.float64:  # autocast leaves float64 as it is
            rounded = weights.split(self._sizes, 1)
        elif len(weights) == 1:  # one rounding operation for all layers
            rounded = weights.to(autocast_dtype).split(self._sizes, 1)
        else:  # one operation per layer, so that the draws of each layer are contiguous
            rounded = [weight.to(autocast_dtype) for weight in weights.split(self._sizes, 1)]
        layers = zip(self.layers, weights.split(self._sizes, 1), rounded, strict=True)
        return [layer.unflatten(exact if layer.exact else low) for layer, exact, low in layers]

    def _draw(self, distribution: "WeightDistribution") -> Float[Tensor, "1 p"]:
        """All weights of one draw."""
        sources = [noise.source for noise in self.noises]
        if all(source is None for source in sources):
            return distribution.mean[None]
        source, count, (rank, _) = sources[0], len(distribution.scale), distribution.factor.shape
        if source is None or any(other is not source for other in sources):
            return self._all_weights(distribution, *self._noise_by_layer(distribution))
        if isinstance(source, Keyed):
            return self._all_weights(distribution, *self._noise_of_keys(distribution, [source]))
        layers = sum(layer.rank > 0 for layer in self.layers)
        numbers = source.shared(self.noises[0].index, (count + layers * rank,), distribution.scale)[None]
        independent, z = numbers[:, :count], numbers[:, count:].view(1, layers, rank)
        return self._all_weights(distribution, distribution.add_independent_noise(independent), z)

    def _all_weights(
        self, distribution: "WeightDistribution", noisy: Float[Tensor, "d noisy"], z: Float[Tensor, "d layers r"]
    ) -> Float[Tensor, "d p"]:
        """Add `factor @ z` to the noisy weights `mean + scale * n`, in place, and append the weights without noise."""
        correlated = noisy[:, : distribution.factor.shape[1]]
        if noisy.device.type == "cpu":
            sizes = [size for size, layer in zip(self._sizes, self.layers, strict=True) if layer.rank]
            factors = distribution.factor.split(sizes, 1)
            for weights, latent, factor in zip(correlated.split(sizes, 1), z.unbind(1), factors, strict=True):
                weights.addmm_(latent, factor)
        else:  # three operations for all layers, because the number of operations determines the time on a GPU
            correlated += (distribution.factor * z.movedim(2, 1)[..., distribution.layer_numbers]).sum(1)
        noiseless = distribution.mean[noisy.shape[1] :]
        return torch.cat([noisy, noiseless.expand(len(noisy), -1)], 1) if len(noiseless) else noisy

    def _noise_of_keys(
        self, distribution: "WeightDistribution", keys: Sequence[Keyed]
    ) -> tuple[Float[Tensor, "d p"], Float[Tensor, "d layers r"]]:
        """`mean + scale * n` and z for each key; n and z are the numbers that each layer would draw by itself."""
        count, rank = len(distribution.scale), len(distribution.factor)
        indices = self._noise_positions(rank, distribution.scale.device)
        numbers = shared_at(keys, indices, distribution.scale, distribution.affine)
        return numbers[:, :count], numbers[:, count:].view(len(keys), -1, max(1, rank))[..., :rank]

    def _noise_by_layer(
        self, distribution: "WeightDistribution"
    ) -> tuple[Float[Tensor, "1 p"], Float[Tensor, "1 layers r"]]:
        """`mean + scale * n` and z for layers with different noise sources, or with some noise switched off."""
        like, rank = distribution.scale, len(distribution.factor)
        normals, z = like.new_empty(len(like)), like.new_zeros(sum(layer.rank > 0 for layer in self.layers), rank)
        noisy = [layer for layer in self.layers if layer.noise is not None]
        for number, (layer, part) in enumerate(zip(noisy, normals.split(self._sizes[: len(noisy)]), strict=True)):
            if layer.noise is None or layer.noise.source is None:
                part.zero_()
                continue
            drawn = layer.noise.normals((len(part) + layer.rank,), like)
            layer.unflatten(part[None])[0].copy_(drawn[: len(part)].view(layer.shape))
            if layer.rank:
                z[number, : layer.rank] = drawn[len(part) :]
        return distribution.add_independent_noise(normals[None]), z[None]

    def _noise_positions(self, rank: int, device: torch.device) -> Tensor:
        """The positions of the numbers that each layer would draw by itself, in the order of n and z; cached."""
        key = (rank, device, *(noise.index for noise in self.noises))
        if self._cached_positions is None or self._cached_positions[0] != key:
            independent, latent = list[Tensor](), list[Tensor]()
            for layer in self.layers:
                if layer.noise is None:
                    continue
                count = layer.shape.numel()
                of_layer = shared_positions(layer.noise.index, positions(count + layer.rank, device))
                independent.append(layer.flatten(of_layer[:count].view(layer.shape)))
                if layer.rank:
                    latent.append(functional.pad(of_layer[count:], (0, rank - layer.rank)))
            self._cached_positions = key, torch.cat(independent + latent)
        return self._cached_positions[1]


class FusedLayer:
    """A layer whose weight is computed together with those of other layers.

    Args:
        name: name of the module in the traced network, `model...`.
        module: a module for which `can_fuse` holds.

    Attributes:
        exact: whether the layer keeps the dtype of its weight under autocast.
        noise: the noise of the weight; None for none.
        norm: the batch norm to be folded into the weight; None for none.
        rank: number of columns of the noise's factor; 0 without a factor.
        shape: shape of the weight.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self.exact = False
        self.noise = _noise_of(module)
        self.norm: _BatchNorm | None = None
        self.rank = 0
        if self.noise is not None:
            factor = self.noise.linear_form(self.weight)[1]  # pyright: ignore[reportOptionalSubscript]
            self.rank = 0 if factor is None else factor.shape[1]
        self.shape = self.weight.shape

    def check_noise(self) -> None:
        """Raise `ArgumentError` if the noise is no longer that with which the layer was fused."""
        if not can_fuse(self.module) or _noise_of(self.module) is not self.noise:
            name = self.name.removeprefix("model.")
            raise ArgumentError("model", "the noise it was fused with", f"other noise on {name}", "fuse it again")

    @property
    def weight(self) -> Tensor:
        """The weight without noise."""
        if self.noise is None:
            return self.module.weight  # pyright: ignore[reportReturnType]
        return self.module.parametrizations.weight.original  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]

    def flatten(self, tensor: Tensor) -> Tensor:
        """Flatten a tensor of the weight's shape, or with one more dimension at the end, with input channels last.

        Returns:
            A tensor (P,), or (P, L) for an additional dimension of length L.
        """
        extra = tensor.shape[len(self.shape) :]
        return tensor.movedim(1, len(self.shape) - 1).reshape(-1, *extra)

    def unflatten(self, vectors: Float[Tensor, "d p"]) -> Float[Tensor, "d ..."]:
        """The inverse of `flatten` for D draws, as a view; weights of 2d convolutions are in channels-last format."""
        out_channels, in_channels, *kernel = self.shape
        return vectors.view(len(vectors), out_channels, *kernel, in_channels).movedim(-1, 2)

    def gain_and_bias(self, *, fold: bool) -> tuple[Tensor | None, Tensor | None]:
        """The factor of each output channel, (O,), or None, and the bias, (O,) or None.

        Args:
            fold: whether to fold the batch norm into them; without it, the gain is None.
        """
        bias: Tensor | None = self.module.bias  # pyright: ignore[reportAssignmentType]
        norm = self.norm
        if not fold or norm is None or norm.running_mean is None or norm.running_var is None:
            return None, bias
        gain = (norm.running_var + norm.eps).rsqrt()
        gain = gain if norm.weight is None else gain * norm.weight
        shift = ((0 if bias is None else bias) - norm.running_mean) * gain
        return gain, shift if norm.bias is None else shift + norm.bias


@dataclass(frozen=True)
class WeightDistribution:
    """The distribution of all weights over draws, for one state of the network: `mean + scale * n + factor @ z`.

    Attributes:
        mean: weights without noise, (P,); the first P_noisy have noise, and the first P_factor of these a factor.
        scale: scale of the independent noise n, (P_noisy,).
        factor: factor of the correlated noise, transposed and padded with zeros to the largest rank r, (r, P_factor).
        layer_numbers: number of the layer to which each weight with a factor belongs, (P_factor,).
        biases: bias of each layer; None for none.
        affine: scale and offset that turn the numbers n and z of all layers into `mean + scale * n` and z.
        norms_folded: whether batch norms are folded into the weights and biases.
    """

    mean: Tensor
    scale: Tensor
    factor: Tensor
    layer_numbers: Tensor
    biases: list[Tensor | None]
    affine: Affine
    norms_folded: bool

    def add_independent_noise(self, normals: Float[Tensor, "d p"]) -> Float[Tensor, "d p"]:
        """`mean + scale * n` of the weights with noise, for standard normal numbers n, (D, P_noisy)."""
        return torch.addcmul(self.mean[: len(self.scale)], self.scale, normals)


def _distribution(layers: list[FusedLayer], *, fold: bool) -> WeightDistribution:
    rank = max(layer.rank for layer in layers)
    like = layers[0].weight
    means, biases, scales = [], [], [like.new_zeros(0)]
    factors, numbers = [like.new_zeros(rank, 0)], [torch.zeros(0, dtype=torch.int64, device=like.device)]
    for layer in layers:
        gain, bias = layer.gain_and_bias(fold=fold)
        gain = torch.ones((), device=like.device) if gain is None else gain.view(-1, *[1] * (len(layer.shape) - 1))
        means.append(layer.flatten(layer.weight * gain))
        biases.append(None if bias is None else bias.detach().to(like.dtype))
        form = None if layer.noise is None else layer.noise.linear_form(layer.weight)
        if form is None:
            continue
        scale, factor = form
        scales.append(layer.flatten(scale * gain))
        if factor is not None:
            columns = layer.flatten(factor.view(*layer.shape, -1) * gain.unsqueeze(-1))
            factors.append(functional.pad(columns.t(), (0, 0, 0, rank - layer.rank)))
            numbers.append(torch.full((len(columns),), len(numbers) - 1, device=like.device))
    # The dtype of batch norms may have more digits than that of the weights.
    mean, scale, factor = (torch.cat(tensors, -1).to(like.dtype) for tensors in (means, scales, factors))
    latent = scale.new_ones(rank * (len(numbers) - 1))
    affine = torch.cat([scale, latent]), torch.cat([mean[: len(scale)], 0 * latent])
    return WeightDistribution(mean, scale, factor, torch.cat(numbers), biases, affine, fold)


def can_fuse(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution or linear layer whose weight is a parameter, with or without known noise.

    Its forward method must be torch's own, the padding must be with zeros, and no hook may observe the layer.
    """
    padded = getattr(layer, "padding_mode", "zeros") != "zeros"
    if base_layer_type(layer) is None or padded or any(has_hooks(module) for module in layer.modules()):
        return False
    if not parametrize.is_parametrized(layer):
        return isinstance(layer.weight, nn.Parameter)
    noise = _noise_of(layer)
    return noise is not None and noise.linear_form(layer.parametrizations.weight.original) is not None  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def _noise_of(layer: nn.Module) -> NoiseLayer | None:
    """The noise of a layer's weight, if it is the layer's only parametrization."""
    chains = dict(layer.parametrizations.items()) if parametrize.is_parametrized(layer) else {}  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if list(chains) != ["weight"] or len(chains["weight"]) != 1 or not isinstance(chains["weight"][0], NoiseLayer):
        return None
    return chains["weight"][0]
