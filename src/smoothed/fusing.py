"""The same network in fewer operations, for those who differentiate it in its inputs alone, many times over.

All weight noise of a pass is one draw and a few operations on one flat vector, whatever the number of layers, and batch
norms that are frozen are folded into the weights before them. What comes out is the same function of the same noise, to
rounding: `(weight + scale * n + factor @ z) * gain`, all but n and z computed once and kept until a weight changes.
"""

import operator
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - torch's name for all of them
from torch.nn.utils import parametrize

from smoothed.counter_based import Affine, places
from smoothed.errors import ArgumentError
from smoothed.injection import NoiseLayer, drawing, noise_layers
from smoothed.randomness import Keyed, Source, shared_at, where
from smoothed.tracing import FUNCTIONS, Whole, is_watched, layer_kind, trace

# Norms of a layer's output channels. After a linear layer on sequences it would be the positions; no graph tells.
_FOLDABLE = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv2d, nn.SyncBatchNorm), (nn.Conv3d, nn.BatchNorm3d))


def fuse(model: nn.Module, *, exact_ends: bool = False) -> "Fused":
    """`model` in fewer operations, differentiable in its inputs alone.

    Args:
        model: a network that torch.fx can trace, in which at least one convolution or linear layer is called once.
        exact_ends: whether the first and the last of its layers keep the precision of their weights under autocast.
            They are a few percent of the work; inputs, logits and what is added up along skip connections keep theirs.

    Returns:
        A module of the same function, which shares the weights of `model` and follows them where they are trained,
        loaded or moved (but not through `Tensor.data` in place, nor by an optimizer with `fused=True`, which nobody
        can see). How `model` is put together is taken over as it is: fuse it again after changing its layers, hooks or
        noise, or Python values it computes with.

    Raises:
        ArgumentError: the network can't be traced, or has nothing to fuse; the message says why.
    """
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ArgumentError("model", "tensors made outside of torch.inference_mode", "some made in it")
    whole = Whole(model)
    try:
        graph = trace(whole)
    except Exception as error:  # whatever the network's own code does with a stand-in for its inputs
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArgumentError("model", "a network that torch.fx can trace", reason) from error
    slots = _slots(whole, graph)
    if not slots:
        raise ArgumentError("model", "layers whose weights can be computed together", "none")
    if exact_ends:
        order = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        first, *_, last = sorted([slots[0], *slots, slots[-1]], key=lambda slot: order.index(slot.name))
        first.exact = last.exact = True
    return Fused(model, graph, slots)


def fuse_or_keep(model: nn.Module, *, exact_ends: bool = False) -> tuple[nn.Module, str | None]:
    """`fuse(model)`, or `model` itself and why it can't be fused."""
    try:
        return fuse(model, exact_ends=exact_ends), None
    except ArgumentError as error:
        return model, str(error)


class Fused(nn.Module):
    """A network in fewer operations, made by `fuse`: from images (N, C, H, W) to the logits (N, K) of one draw.

    Noise comes from the sources that the network's layers have at the time (`drawing`, `noiseless`), in one request if
    they share one. The weights that are computed together are constants: no gradient reaches them. In train mode, and
    under `batch_statistics`, batch norms are left in their place and do what they always do.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, slots: Sequence["_Slot"]) -> None:
        super().__init__()
        self.model = model
        self.known_noise = noise_layers(model)
        self._slots = list(slots)
        self._sizes = [slot.shape.numel() for slot in self._slots]
        self._noises = [slot.noise for slot in self._slots if slot.noise is not None]
        self._norms = [slot.norm for slot in self._slots if slot.norm is not None]
        self._read = [module for slot in self._slots for module in slot.layer.modules()] + self._norms
        self._others = list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "get_attr"))
        self._with_norms, self._folded = (
            fx.GraphModule(self, _rewrite(self, graph, self._slots, self._others, fold=fold)) for fold in (False, True)
        )
        # Parts, the state they are of, and its storage, which is held so that no other tensor gets its address.
        self._kept: dict[bool, tuple[_Parts, list[tuple[int, int]], list[Tensor]]] = {}
        self._kept_places: tuple[object, Tensor] | None = None
        # The last keyed draw: what it depends on, and its weights.
        self._last: tuple[object, _Parts, list[Tensor]] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        parts, folds = self._parts_of_this_mode(inputs.device.type)
        weights = self._weights(parts, inputs.device.type)
        return (self._folded if folds else self._with_norms)(inputs, *weights, *parts.biases, *self._tensors())

    @property
    def size(self) -> int:
        """How many weights are computed together."""
        return sum(self._sizes)

    @property
    def stacks(self) -> bool:
        """Whether `stacked` can be: all noise is on weights that are computed together."""
        return len(self.known_noise) == len(self._noises)

    def stacked(self, inputs: Float[Tensor, "d n c h w"], sources: Sequence[Source]) -> Float[Tensor, "d n k"]:
        """The logits of several draws in one pass.

        Each draw has weights of its own, so that its convolutions become groups of larger ones: this pays for few
        images, where starting operations costs more than what they compute. Under autocast, layers are as precise as in
        `forward`; what is between them stays in the precision that it has.

        Args:
            inputs: images for each draw.
            sources: of the noise of each draw. Noise that is switched off stays off.

        Raises:
            RuntimeError: operations that torch.vmap can't do.
        """
        kind = inputs.device.type
        parts, folds = self._parts_of_this_mode(kind)
        weights = self._weights_of_each(parts, kind, sources)
        run = (self._folded if folds else self._with_norms).forward  # never compiled: vmap looks into it
        with torch.autocast(kind, enabled=False):  # which torch.vmap doesn't know
            others = [*parts.biases, *self._tensors()]
            return torch.vmap(run, (0, *[0] * len(weights), *[None] * len(others)))(inputs, *weights, *others)

    def _parts_of_this_mode(self, kind: str) -> tuple["_Parts", bool]:
        """What is computed once, and whether batch norms are folded into it."""
        folds = not any(norm.training or norm.running_mean is None or norm.running_var is None for norm in self._norms)
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            return self._parts(fold=folds), folds

    @torch.no_grad()
    def _weights(self, parts: "_Parts", kind: str) -> list[Tensor]:
        """The weights of one draw, layer by layer, in the precision that autocast has for that kind of device.

        The last ones of a keyed draw are kept, for images beyond a pass are in the same draw's next one.
        """
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        shared = self._noises[0].source if self._noises else None
        key = None
        if isinstance(shared, Keyed) and all(noise.source is shared for noise in self._noises):
            layers = tuple(noise.index for noise in self._noises)
            key = (shared.seed, shared.draw, layers, lower, torch.is_inference_mode_enabled())
            if self._last is not None and self._last[0] == key and self._last[1] is parts:
                return self._last[2]
        with torch.autocast(kind, enabled=False):
            each = [weights[0] for weights in self._split(self._draw(parts), lower)]
        self._last = None if key is None else (key, parts, each)
        return each

    @torch.no_grad()
    def _weights_of_each(self, parts: "_Parts", kind: str, sources: Sequence[Source]) -> list[Float[Tensor, "d ..."]]:
        """The same for the draws of several sources."""
        keys = [source for source in sources if isinstance(source, Keyed)]
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        with drawing(self, sources[0]), torch.autocast(kind, enabled=False):
            of_keys = len(keys) == len(sources) and len(self._noises) > 0
            if of_keys and all(noise.source is sources[0] for noise in self._noises):
                return self._split(self._sum(parts, *self._keyed(parts, keys)), lower)
        drawn = list[list[Tensor]]()
        for source in sources:
            with drawing(self, source):
                drawn.append(self._weights(parts, kind))
        return [torch.stack(of_layer) for of_layer in zip(*drawn, strict=True)]

    def _split(self, weights: Float[Tensor, "d p"], lower: torch.dtype | None) -> list[Float[Tensor, "d ..."]]:
        """Layer by layer, and rounded where autocast would do it."""
        if lower is None or weights.dtype == torch.float64:  # which autocast passes by
            rounded = weights.split(self._sizes, 1)
        elif len(weights) == 1:  # all at once, where autocast would do it layer by layer
            rounded = weights.to(lower).split(self._sizes, 1)
        else:  # so that the draws of a layer lie side by side
            rounded = [weight.to(lower) for weight in weights.split(self._sizes, 1)]
        split = zip(self._slots, weights.split(self._sizes, 1), rounded, strict=True)
        return [slot.shaped(weight if slot.exact else less) for slot, weight, less in split]

    def _tensors(self) -> list[Tensor]:
        """Parameters and buffers that the network computes with outside of its layers."""
        return [operator.attrgetter(name)(self) for name in self._others]

    def __reduce__(self) -> tuple[Any, ...]:
        # Fused again: what is kept belongs to this process, and graphs that are unpickled would be traced anew.
        return partial(fuse, exact_ends=any(slot.exact for slot in self._slots)), (self.model,)

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's arguments
        """Let torch.compile make the operations, as `torch.nn.Module.compile` does; noise is drawn outside of them."""
        self._with_norms.compile(*args, **kwargs)
        self._folded.compile(*args, **kwargs)

    def compile_for(self, images: Tensor, *, gradient: bool = True) -> None:
        """The same, and try it: one pass, in the mode and the precision that are on.

        Args:
            images: (N, C, H, W), of the shape and memory format to come.
            gradient: whether that of the pass is tried, too.

        Raises:
            ArgumentError: torch.compile can't, and the operations run as they did before.
        """
        try:
            with warnings.catch_warnings(), torch.set_grad_enabled(gradient):
                warnings.simplefilter("ignore")  # what torch's own parts say of each other
                self.compile()
                inputs = images.detach().requires_grad_(gradient)
                logits = self(inputs)
                if gradient:
                    torch.autograd.grad(logits.sum(), inputs)
        except Exception as error:  # whatever a compiler's many parts raise
            for part in (self._with_norms, self._folded):
                part._compiled_call_impl = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ArgumentError("model", "a network that torch.compile can make", reason) from error

    def _draw(self, parts: "_Parts") -> Float[Tensor, "1 p"]:
        """All weights of one draw."""
        sources = [noise.source for noise in self._noises]
        if all(source is None for source in sources):
            return parts.mean[None]
        shared, count, (rank, _) = sources[0], len(parts.scale), parts.factor.shape
        if shared is None or any(source is not shared for source in sources):
            return self._sum(parts, *self._one_by_one(parts))
        if isinstance(shared, Keyed):
            return self._sum(parts, *self._keyed(parts, [shared]))
        layers = sum(slot.rank > 0 for slot in self._slots)
        drawn = shared.shared(self._noises[0].index, (count + layers * rank,), parts.scale)[None]
        return self._sum(parts, parts.noisy(drawn[:, :count]), drawn[:, count:].view(1, layers, rank))

    def _sum(
        self, parts: "_Parts", weights: Float[Tensor, "d noisy"], z: Float[Tensor, "d layers r"]
    ) -> Float[Tensor, "d p"]:
        """All weights: `weights` are the means of noisy ones with n, and are used up; z is for layers with a factor."""
        colored = weights[:, : parts.factor.shape[1]]
        if weights.device.type == "cpu":
            sizes = [size for size, slot in zip(self._sizes, self._slots, strict=True) if slot.rank]
            layers = zip(colored.split(sizes, 1), z.unbind(1), parts.factor.split(sizes, 1), strict=True)
            for part, latent, factor in layers:
                part.addmm_(latent, factor)
        else:  # where starting an operation is what costs, three for all layers
            colored += (parts.factor * z.movedim(2, 1)[..., parts.owner]).sum(1)
        silent = parts.mean[weights.shape[1] :]
        return torch.cat([weights, silent.expand(len(weights), -1)], 1) if len(silent) else weights

    def _keyed(
        self, parts: "_Parts", keys: Sequence[Keyed]
    ) -> tuple[Float[Tensor, "d p"], Float[Tensor, "d layers r"]]:
        """For each key the means with n, and z: of what each layer would draw itself."""
        count, rank = len(parts.scale), len(parts.factor)
        drawn = shared_at(keys, self._places(rank, parts.scale.device), parts.scale, parts.affine)
        return drawn[:, :count], drawn[:, count:].view(len(keys), -1, max(1, rank))[..., :rank]

    def _one_by_one(self, parts: "_Parts") -> tuple[Float[Tensor, "1 p"], Float[Tensor, "1 layers r"]]:
        """The same where layers are of several minds."""
        like, rank = parts.scale, len(parts.factor)
        normals, latents = like.new_empty(len(like)), like.new_zeros(sum(slot.rank > 0 for slot in self._slots), rank)
        noisy = [slot for slot in self._slots if slot.noise is not None]
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
        key = (rank, device, *(noise.index for noise in self._noises))
        if self._kept_places is None or self._kept_places[0] != key:
            noisy, latent = list[Tensor](), list[Tensor]()
            for slot in self._slots:
                if slot.noise is None:
                    continue
                count = slot.shape.numel()
                own = where(slot.noise.index, places(count + slot.rank, device))
                noisy.append(slot.flat(own[:count].view(slot.shape)))
                if slot.rank:
                    latent.append(functional.pad(own[count:], (0, rank - slot.rank)))
            self._kept_places = key, torch.cat(noisy + latent)
        return self._kept_places[1]

    def _parts(self, *, fold: bool) -> "_Parts":
        """Computed anew when a weight, a strength or a batch statistic has changed, or moved."""
        groups = [group for module in self._read for group in (module._parameters, module._buffers)]
        tensors = [tensor for group in groups for tensor in group.values() if tensor is not None]
        version = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        kept = self._kept.get(fold)
        if kept is None or kept[1] != version:
            for slot in self._slots:
                slot.check()
            with torch.inference_mode(False), torch.no_grad():  # what is kept must be fit for autograd
                parts, held = _parts(self._slots, fold=fold), [tensor.detach() for tensor in tensors]
                kept = self._kept[fold] = parts, version, held
        return kept[0]


class _Slot:
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
        if not _fits(self.layer) or _noise_of(self.layer) is not self.noise:
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
class _Parts:
    """The weights of all slots but for the noise, for one state of the network.

    Attributes:
        mean: (P,); the first P_noisy weights have noise, the first P_factor of them a factor.
        scale: (P_noisy,).
        factor: (r, P_factor), padded with zeros to the largest rank.
        owner: for each weight with a factor, the number of its layer, (P_factor,).
        biases: one a slot.
        affine: from n and z of all layers to means with n, and z.
    """

    mean: Tensor
    scale: Tensor
    factor: Tensor
    owner: Tensor
    biases: list[Tensor | None]
    affine: Affine

    def noisy(self, normals: Float[Tensor, "d p"]) -> Float[Tensor, "d p"]:
        """The noisy weights but for what z makes of them."""
        return torch.addcmul(self.mean[: len(self.scale)], self.scale, normals)


def _parts(slots: list[_Slot], *, fold: bool) -> _Parts:
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
    return _Parts(mean, scale, factor, torch.cat(owners), biases, affine)


def _slots(whole: Whole, graph: fx.Graph) -> list[_Slot]:
    """The layers to fuse, all of one dtype and device; those with a factor first, those without noise last."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def called_once(node: fx.Node) -> nn.Module | None:
        """The module that `node` calls with one argument by position, if no other node calls it."""
        alone = node.op == "call_module" and calls[node.target] == 1 and len(node.args) == 1 and not node.kwargs
        return whole.get_submodule(str(node.target)) if alone else None

    slots: list[_Slot] = []
    for node in graph.nodes:
        layer = called_once(node)
        if layer is None or not _fits(layer):
            continue
        slot = _Slot(str(node.target), layer)
        if slots and (slot.weight.dtype, slot.weight.device) != (slots[0].weight.dtype, slots[0].weight.device):
            continue
        users = list(node.users)
        norm = called_once(users[0]) if len(users) == 1 else None
        if isinstance(norm, _BatchNorm) and _folds(norm, layer):
            slot.norm = norm
        slots.append(slot)
    return sorted(slots, key=lambda slot: (slot.rank == 0, slot.noise is None))


def _fits(layer: nn.Module) -> bool:
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


def _folds(norm: _BatchNorm, layer: nn.Module) -> bool:
    """Whether a batch norm right after a layer does what torch's own does to its channels, and nobody listens in."""
    known = (layer_kind(layer), type(norm)) in _FOLDABLE and "forward" not in vars(norm) and not is_watched(norm)
    return known and norm.running_mean is not None


def _rewrite(root: Fused, graph: fx.Graph, slots: list[_Slot], others: list[str], *, fold: bool) -> fx.Graph:
    """The network as a function of its inputs, the slots' weights and biases, in their order, and the other tensors."""
    new = fx.Graph()
    inputs, *nodes = graph.nodes
    values: dict[fx.Node, fx.Node] = {inputs: new.placeholder("inputs")}
    weights, biases = ([new.placeholder(f"{kind}_{i}") for i in range(len(slots))] for kind in ("weight", "bias"))
    by_name = {slot.name: (slot, *pair) for slot, *pair in zip(slots, weights, biases, strict=True)}
    attributes = {name: new.placeholder(f"other_{i}") for i, name in enumerate(others)}
    folded = {id(slot.norm) for slot in slots if fold and slot.norm is not None}
    for node in nodes:
        if node.op == "call_module" and node.target in by_name:
            slot, *tensors = by_name[node.target]
            layer, function = slot.layer, FUNCTIONS[layer_kind(slot.layer)]  # pyright: ignore[reportArgumentType]
            arguments = (values[node.args[0]], *tensors)  # pyright: ignore[reportArgumentType]
            geometry = (
                () if isinstance(layer, nn.Linear) else (layer.stride, layer.padding, layer.dilation, layer.groups)
            )
            arguments = (function.__name__, slot.exact, *arguments, *geometry)
            values[node] = new.call_function(_layer, arguments)  # pyright: ignore[reportArgumentType]
        elif node.op == "call_module" and id(root.get_submodule(node.target)) in folded:
            values[node] = values[node.args[0]]
        elif node.op == "get_attr":
            values[node] = attributes[node.target]
        else:
            values[node] = new.node_copy(node, lambda old: values[old])
    return new


def _layer(kind: str, exact: bool, inputs: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:  # noqa: ANN401 - numbers
    """The function of `torch.nn.functional` by that name, as precise as the weight; if exact, despite autocast."""
    if inputs.dtype != torch.float64:  # which autocast passes by
        inputs, bias = inputs.to(weight.dtype), None if bias is None else bias.to(weight.dtype)
    with torch.autocast(inputs.device.type, enabled=False) if exact else nullcontext():
        return getattr(functional, kind)(inputs, weight, bias, *geometry)
