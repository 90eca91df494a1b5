"""The weights of a fused network: those of all layers, with their noise and batch norms in them, in a few operations.

Of a draw they are `(weight + scale * n + factor @ z) * gain`, n and z standard normals, on one flat vector, (P,). All
but n and z is computed once (`Parts`) and kept until a weight changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - torch's name for all of them
from torch.nn.utils import parametrize

from smoothed.acceleration.tracing import is_watched, layer_kind
from smoothed.errors import ArgumentError
from smoothed.injection import NoiseLayer
from smoothed.rng.counter_based import Affine, places
from smoothed.rng.sources import Keyed, shared_at, where


class FusedWeights:
    """The weights of several layers, of one dtype and device, under the noise that the layers have at the time.

    They are constants: no gradient reaches what they are made of.

    Args:
        slots: the layers, those with a factor first, those without noise last.
    """

    def __init__(self, slots: Sequence["Slot"]) -> None:
        self.slots = list(slots)
        self.noises = [slot.noise for slot in self.slots if slot.noise is not None]
        self._sizes = [slot.shape.numel() for slot in self.slots]
        self._norms = [slot.norm for slot in self.slots if slot.norm is not None]
        self._read = [module for slot in self.slots for module in slot.layer.modules()] + self._norms
        # Parts, the state they are of, and its storage, which is held so that no other tensor gets its address.
        self._kept: dict[bool, tuple[Parts, list[tuple[int, int]], list[Tensor]]] = {}
        self._kept_places: tuple[object, Tensor] | None = None
        # The last draw that may come again, keyed or without noise: what it depends on, and its weights.
        self._last: tuple[object, Parts, list[Tensor]] | None = None

    @property
    def size(self) -> int:
        """How many weights there are, P."""
        return sum(self._sizes)

    def parts(self, kind: str) -> "Parts":
        """What is computed once: anew when a weight, a strength or a batch statistic has changed, or moved.

        Batch norms are folded into it where they do the same at each pass: in eval mode, with running statistics.

        Args:
            kind: of the device.

        Raises:
            ArgumentError: the noise is no longer the one that the network was fused with.
        """
        fold = not any(norm.training or norm.running_mean is None or norm.running_var is None for norm in self._norms)
        groups = [group for module in self._read for group in (module._parameters, module._buffers)]
        tensors = [tensor for group in groups for tensor in group.values() if tensor is not None]
        version = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        kept = self._kept.get(fold)
        if kept is None or kept[1] != version:
            with torch.no_grad(), torch.autocast(kind, enabled=False):
                for slot in self.slots:
                    slot.check()
                with torch.inference_mode(False), torch.no_grad():  # what is kept must be fit for autograd
                    parts, held = _parts(self.slots, fold=fold), [tensor.detach() for tensor in tensors]
            kept = self._kept[fold] = parts, version, held
        return kept[0]

    @torch.no_grad()
    def of_draw(self, parts: "Parts", kind: str) -> list[Tensor]:
        """The weights of one draw, layer by layer, in the precision that autocast has for that kind of device.

        The last ones of a keyed draw are kept, for images beyond a pass are in the same draw's next one; so are those
        without noise.
        """
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        shared = self.noises[0].source if self.noises else None
        key = None
        if all(noise.source is shared for noise in self.noises) and (shared is None or isinstance(shared, Keyed)):
            draw = None if shared is None else (shared.seed, shared.draw, *(noise.index for noise in self.noises))
            key = (draw, lower, torch.is_inference_mode_enabled())
            if self._last is not None and self._last[0] == key and self._last[1] is parts:
                return self._last[2]
        with torch.autocast(kind, enabled=False):
            each = [weights[0] for weights in self._split(self._draw(parts), lower)]
        self._last = None if key is None else (key, parts, each)
        return each

    @torch.no_grad()
    def of_keys(self, parts: "Parts", kind: str, keys: Sequence[Keyed]) -> list[Float[Tensor, "d ..."]]:
        """The weights of several draws, layer by layer, whose noise, and there is some, is of `keys`, one a draw."""
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        with torch.autocast(kind, enabled=False):
            return self._split(self._sum(parts, *self._keyed(parts, keys)), lower)

    def _split(self, weights: Float[Tensor, "d p"], lower: torch.dtype | None) -> list[Float[Tensor, "d ..."]]:
        """Layer by layer, and rounded where autocast would do it."""
        if lower is None or weights.dtype == torch.float64:  # which autocast passes by
            rounded = weights.split(self._sizes, 1)
        elif len(weights) == 1:  # all at once, where autocast would do it layer by layer
            rounded = weights.to(lower).split(self._sizes, 1)
        else:  # so that the draws of a layer lie side by side
            rounded = [weight.to(lower) for weight in weights.split(self._sizes, 1)]
        split = zip(self.slots, weights.split(self._sizes, 1), rounded, strict=True)
        return [slot.shaped(weight if slot.exact else less) for slot, weight, less in split]

    def _draw(self, parts: "Parts") -> Float[Tensor, "1 p"]:
        """All weights of one draw."""
        sources = [noise.source for noise in self.noises]
        if all(source is None for source in sources):
            return parts.mean[None]
        shared, count, (rank, _) = sources[0], len(parts.scale), parts.factor.shape
        if shared is None or any(source is not shared for source in sources):
            return self._sum(parts, *self._one_by_one(parts))
        if isinstance(shared, Keyed):
            return self._sum(parts, *self._keyed(parts, [shared]))
        layers = sum(slot.rank > 0 for slot in self.slots)
        drawn = shared.shared(self.noises[0].index, (count + layers * rank,), parts.scale)[None]
        return self._sum(parts, parts.noisy(drawn[:, :count]), drawn[:, count:].view(1, layers, rank))

    def _sum(
        self, parts: "Parts", weights: Float[Tensor, "d noisy"], z: Float[Tensor, "d layers r"]
    ) -> Float[Tensor, "d p"]:
        """All weights: `weights` are the means of noisy ones with n, and are used up; z is for layers with a factor."""
        colored = weights[:, : parts.factor.shape[1]]
        if weights.device.type == "cpu":
            sizes = [size for size, slot in zip(self._sizes, self.slots, strict=True) if slot.rank]
            layers = zip(colored.split(sizes, 1), z.unbind(1), parts.factor.split(sizes, 1), strict=True)
            for part, latent, factor in layers:
                part.addmm_(latent, factor)
        else:  # where starting an operation is what costs, three for all layers
            colored += (parts.factor * z.movedim(2, 1)[..., parts.owner]).sum(1)
        silent = parts.mean[weights.shape[1] :]
        return torch.cat([weights, silent.expand(len(weights), -1)], 1) if len(silent) else weights

    def _keyed(self, parts: "Parts", keys: Sequence[Keyed]) -> tuple[Float[Tensor, "d p"], Float[Tensor, "d layers r"]]:
        """For each key the means with n, and z: of what each layer would draw itself."""
        count, rank = len(parts.scale), len(parts.factor)
        drawn = shared_at(keys, self._places(rank, parts.scale.device), parts.scale, parts.affine)
        return drawn[:, :count], drawn[:, count:].view(len(keys), -1, max(1, rank))[..., :rank]

    def _one_by_one(self, parts: "Parts") -> tuple[Float[Tensor, "1 p"], Float[Tensor, "1 layers r"]]:
        """The same where layers are of several minds."""
        like, rank = parts.scale, len(parts.factor)
        normals, latents = like.new_empty(len(like)), like.new_zeros(sum(slot.rank > 0 for slot in self.slots), rank)
        noisy = [slot for slot in self.slots if slot.noise is not None]
        for number, (slot, part) in enumerate(zip(noisy, normals.split(self._sizes[: len(noisy)]), strict=True)):
            if slot.noise is None or slot.noise.source is None:
                part.zero_()
                continue
            drawn = slot.noise.normals((len(part) + slot.rank,), like)
            slot.shaped(part[None])[0].copy_(drawn[: len(part)].view(slot.shape))
            if slot.rank:
                latents[number, : slot.rank] = drawn[len(part) :]
        return parts.noisy(normals[None]), latents[None]

    def _places(self, rank: int, device: torch.device) -> Tensor:
        """The places of what each layer would draw itself, in the order of n and z; kept until they are others."""
        key = (rank, device, *(noise.index for noise in self.noises))
        if self._kept_places is None or self._kept_places[0] != key:
            noisy, latent = list[Tensor](), list[Tensor]()
            for slot in self.slots:
                if slot.noise is None:
                    continue
                count = slot.shape.numel()
                own = where(slot.noise.index, places(count + slot.rank, device))
                noisy.append(slot.flat(own[:count].view(slot.shape)))
                if slot.rank:
                    latent.append(functional.pad(own[count:], (0, rank - slot.rank)))
            self._kept_places = key, torch.cat(noisy + latent)
        return self._kept_places[1]


class Slot:
    """A layer whose weight is computed with all others, its noise, and the batch norm that is folded into it.

    An `exact` one keeps the precision of its weight under autocast.
    """

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name = name
        self.layer = layer
        self.exact = False
        self.noise = _noise_of(layer)
        self.norm: _BatchNorm | None = None
        self.rank = 0
        if self.noise is not None:
            factor = self.noise.linear_form(self.weight)[1]  # pyright: ignore[reportOptionalSubscript]
            self.rank = 0 if factor is None else factor.shape[1]
        self.shape = self.weight.shape

    def check(self) -> None:
        """Raise `ArgumentError` if the layer's noise is no longer the one it was fused with."""
        if not fits(self.layer) or _noise_of(self.layer) is not self.noise:
            name = self.name.removeprefix("model.")
            raise ArgumentError("model", "the noise that it was fused with", f"another on {name}", "fuse it again")

    @property
    def weight(self) -> Tensor:
        """The weight without noise."""
        if self.noise is None:
            return self.layer.weight  # pyright: ignore[reportReturnType]
        return self.layer.parametrizations.weight.original  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]

    def flat(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape (and one more dimension) as a vector (of rows), input channels last."""
        more = tensor.shape[len(self.shape) :]
        return tensor.movedim(1, len(self.shape) - 1).reshape(-1, *more)

    def shaped(self, vectors: Float[Tensor, "d p"]) -> Float[Tensor, "d ..."]:
        """The other way round, of several draws, as a view: a 2d convolution's weights come out as channels-last."""
        outer, inner, *positions = self.shape
        return vectors.view(len(vectors), outer, *positions, inner).movedim(-1, 2)

    def gain_and_bias(self, *, fold: bool) -> tuple[Tensor | None, Tensor | None]:
        """What each output channel is multiplied with, (O,), and the layer's bias, with its batch norm folded in."""
        bias: Tensor | None = self.layer.bias  # pyright: ignore[reportAssignmentType]
        norm = self.norm
        if not fold or norm is None or norm.running_mean is None or norm.running_var is None:
            return None, bias
        gain = (norm.running_var + norm.eps).rsqrt()
        gain = gain if norm.weight is None else gain * norm.weight
        shift = ((0 if bias is None else bias) - norm.running_mean) * gain
        return gain, shift if norm.bias is None else shift + norm.bias


@dataclass(frozen=True)
class Parts:
    """The weights of all slots but for the noise, for one state of the network.

    Attributes:
        mean: (P,); the first P_noisy weights have noise, the first P_factor of them a factor.
        scale: (P_noisy,).
        factor: (r, P_factor), padded with zeros to the largest rank.
        owner: for each weight with a factor, the number of its layer, (P_factor,).
        biases: one a slot.
        affine: from n and z of all layers to means with n, and z.
        folds: whether batch norms are in them.
    """

    mean: Tensor
    scale: Tensor
    factor: Tensor
    owner: Tensor
    biases: list[Tensor | None]
    affine: Affine
    folds: bool

    def noisy(self, normals: Float[Tensor, "d p"]) -> Float[Tensor, "d p"]:
        """The noisy weights but for what z makes of them."""
        return torch.addcmul(self.mean[: len(self.scale)], self.scale, normals)


def _parts(slots: list[Slot], *, fold: bool) -> Parts:
    rank = max(slot.rank for slot in slots)
    like = slots[0].weight
    means, biases, scales = [], [], [like.new_zeros(0)]
    factors, owners = [like.new_zeros(rank, 0)], [torch.zeros(0, dtype=torch.int64, device=like.device)]
    for slot in slots:
        gain, bias = slot.gain_and_bias(fold=fold)
        times = torch.ones((), device=like.device) if gain is None else gain.view(-1, *[1] * (len(slot.shape) - 1))
        means.append(slot.flat(slot.weight * times))
        biases.append(None if bias is None else bias.detach().to(like.dtype))
        form = None if slot.noise is None else slot.noise.linear_form(slot.weight)
        if form is None:
            continue
        scale, factor = form
        scales.append(slot.flat(scale * times))
        if factor is not None:
            columns = slot.flat(factor.view(*slot.shape, -1) * times.unsqueeze(-1))
            factors.append(functional.pad(columns.t(), (0, 0, 0, rank - slot.rank)))
            owners.append(torch.full((len(columns),), len(owners) - 1, device=like.device))
    # Batch norms may be of a higher precision than weights.
    mean, scale, factor = (torch.cat(tensors, -1).to(like.dtype) for tensors in (means, scales, factors))
    latent = scale.new_ones(rank * (len(owners) - 1))
    affine = torch.cat([scale, latent]), torch.cat([mean[: len(scale)], 0 * latent])
    return Parts(mean, scale, factor, torch.cat(owners), biases, affine, fold)


def fits(layer: nn.Module) -> bool:
    """Whether a layer does what torch's own does, its weight is its own plus noise at most, and nobody listens in."""
    padded = getattr(layer, "padding_mode", "zeros") != "zeros"
    if layer_kind(layer) is None or padded or any(is_watched(module) for module in layer.modules()):
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
