"""The same network in fewer operations, for those who differentiate it in its inputs alone, many times over.

All weight noise of a pass is one draw and a few operations on one flat vector, whatever the number of layers, and batch
norms that are frozen are folded into the weights before them (`fused_weights`). What comes out is the same function of
the same noise, to rounding. Here is the graph that those weights are given to.
"""

import operator
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - torch's name for all of them

from smoothed.acceleration.fused_weights import FusedWeights, Parts, Slot, fits
from smoothed.acceleration.tracing import FUNCTIONS, Whole, is_watched, layer_kind, trace
from smoothed.errors import ArgumentError
from smoothed.injection import drawing, noise_layers
from smoothed.rng.sources import Keyed, Source

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

    def __init__(self, model: nn.Module, graph: fx.Graph, slots: Sequence[Slot]) -> None:
        super().__init__()
        self.model = model
        self.known_noise = noise_layers(model)
        self.weights = FusedWeights(slots)
        self._others = list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "get_attr"))
        self._with_norms, self._folded = (
            fx.GraphModule(self, _rewrite(self, graph, self.weights.slots, self._others, fold=fold))
            for fold in (False, True)
        )
        for module in set(self.modules()) - set(model.modules()):
            module.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        parts = self.weights.parts(inputs.device.type)
        run = self._folded if parts.folds else self._with_norms
        return run(inputs, *self.weights.of_draw(parts, inputs.device.type), *parts.biases, *self._tensors())

    @property
    def size(self) -> int:
        """How many weights are computed together."""
        return self.weights.size

    @property
    def stacks(self) -> bool:
        """Whether `stacked` can be: all noise is on weights that are computed together."""
        return len(self.known_noise) == len(self.weights.noises)

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
        parts = self.weights.parts(kind)
        weights = self._weights_of_each(parts, kind, sources)
        run = (self._folded if parts.folds else self._with_norms).forward  # never compiled: vmap looks into it
        with torch.autocast(kind, enabled=False):  # which torch.vmap doesn't know
            others = [*parts.biases, *self._tensors()]
            return torch.vmap(run, (0, *[0] * len(weights), *[None] * len(others)))(inputs, *weights, *others)

    def _weights_of_each(self, parts: Parts, kind: str, sources: Sequence[Source]) -> list[Float[Tensor, "d ..."]]:
        """The weights of the draws of several sources, layer by layer."""
        keys, noises = [source for source in sources if isinstance(source, Keyed)], self.weights.noises
        with drawing(self, sources[0]):
            if len(keys) == len(sources) and noises and all(noise.source is sources[0] for noise in noises):
                return self.weights.of_keys(parts, kind, keys)
        drawn = list[list[Tensor]]()
        for source in sources:
            with drawing(self, source):
                drawn.append(self.weights.of_draw(parts, kind))
        with torch.no_grad():
            return [torch.stack(of_layer) for of_layer in zip(*drawn, strict=True)]

    def _tensors(self) -> list[Tensor]:
        """Parameters and buffers that the network computes with outside of its layers."""
        return [operator.attrgetter(name)(self) for name in self._others]

    def __reduce__(self) -> tuple[Any, ...]:
        # Fused again: what is kept belongs to this process, and graphs that are unpickled would be traced anew.
        return partial(fuse, exact_ends=any(slot.exact for slot in self.weights.slots)), (self.model,)

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


def _slots(whole: Whole, graph: fx.Graph) -> list[Slot]:
    """The layers to fuse, all of one dtype and device; those with a factor first, those without noise last."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def called_once(node: fx.Node) -> nn.Module | None:
        """The module that `node` calls with one argument by position, if no other node calls it."""
        alone = node.op == "call_module" and calls[node.target] == 1 and len(node.args) == 1 and not node.kwargs
        return whole.get_submodule(str(node.target)) if alone else None

    slots: list[Slot] = []
    for node in graph.nodes:
        layer = called_once(node)
        if layer is None or not fits(layer):
            continue
        slot = Slot(str(node.target), layer)
        if slots and (slot.weight.dtype, slot.weight.device) != (slots[0].weight.dtype, slots[0].weight.device):
            continue
        users = list(node.users)
        norm = called_once(users[0]) if len(users) == 1 else None
        if isinstance(norm, _BatchNorm) and _folds(norm, layer):
            slot.norm = norm
        slots.append(slot)
    return sorted(slots, key=lambda slot: (slot.rank == 0, slot.noise is None))


def _folds(norm: _BatchNorm, layer: nn.Module) -> bool:
    """Whether a batch norm right after a layer does what torch's own does to its channels, and nobody listens in."""
    known = (layer_kind(layer), type(norm)) in _FOLDABLE and "forward" not in vars(norm) and not is_watched(norm)
    return known and norm.running_mean is not None


def _rewrite(root: Fused, graph: fx.Graph, slots: list[Slot], others: list[str], *, fold: bool) -> fx.Graph:
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
