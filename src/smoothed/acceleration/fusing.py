"""A network in fewer operations, for many forward passes and repeated gradients with respect to the input.

The weight noise of all layers is drawn at once and applied to one flat vector of weights, and batch norms in eval mode
are folded into the weights before them (`fused_weights`). The logits are the same up to rounding. This module builds
the graph of operations that uses these weights.
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
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - base class of all batch norms

from smoothed.acceleration.fused_weights import FusedLayer, FusedWeights, WeightDistribution, can_fuse
from smoothed.acceleration.tracing import LAYER_FUNCTIONS, CalledModel, base_layer_type, has_hooks, trace
from smoothed.errors import ArgumentError
from smoothed.injection import noise_from, noise_layers
from smoothed.rng.sources import Keyed, Source

# Layers and norms of their output channels. A norm after a linear layer is not among them: for a sequence it would
# normalise positions, and a graph does not show whether the input is a sequence.
_FOLDABLE = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv2d, nn.SyncBatchNorm), (nn.Conv3d, nn.BatchNorm3d))


def fuse(model: nn.Module, *, exact_ends: bool = False) -> "Fused":
    """Build a form of `model` with fewer operations, which is differentiable with respect to its inputs only.

    Args:
        model: a network that torch.fx can trace, with at least one convolution or linear layer that is called once.
        exact_ends: whether the first and the last fused layer compute in the dtype of their weights under autocast.
            Inputs, logits and sums along skip connections then keep this dtype. The two layers are a few per cent of
            the work.

    Returns:
        A module that computes the same function. It shares the weights of `model` and follows them when they are
        trained, loaded or moved, except for changes that torch does not count in a tensor's version: in place through
        `Tensor.data`, or by an optimizer with `fused=True`. After a change of layers, hooks or noise, or of Python
        values that the forward pass reads, fuse `model` again.

    Raises:
        ArgumentError: the network cannot be traced or has no layer to fuse; the message gives the reason.
    """
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ArgumentError("model", "tensors created outside of torch.inference_mode", "tensors created in it")
    called_model = CalledModel(model)
    try:
        graph = trace(called_model)
    except Exception as error:  # the network's own code may raise any error while it is traced
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArgumentError("model", "a network that torch.fx can trace", reason) from error
    layers = _fused_layers(called_model, graph)
    if not layers:
        raise ArgumentError("model", "at least one convolution or linear layer that can be fused", "none")
    if exact_ends:
        order = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        first, *_, last = sorted([layers[0], *layers, layers[-1]], key=lambda layer: order.index(layer.name))
        first.exact = last.exact = True
    return Fused(model, graph, layers)


def fuse_or_keep(model: nn.Module, *, exact_ends: bool = False) -> tuple[nn.Module, str | None]:
    """Return `fuse(model)` and None, or `model` itself and the reason why it cannot be fused."""
    try:
        return fuse(model, exact_ends=exact_ends), None
    except ArgumentError as error:
        return model, str(error)


class Fused(nn.Module):
    """A network in fewer operations, built by `fuse`: from images (N, C, H, W) to the logits (N, K) of one draw.

    Noise comes from the present sources of the network's noise layers (`noise_from`, `noiseless`), in one request if
    all layers share a source. The fused weights are constants: no gradient flows to them. In train mode, and under
    `batch_statistics`, batch norms are not folded but run as they are.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, layers: Sequence[FusedLayer]) -> None:
        super().__init__()
        self.model = model
        self.known_noise = noise_layers(model)
        self.weights = FusedWeights(layers)
        # Parameters and buffers that the network uses outside of its layers.
        self._other_names = list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "get_attr"))
        self._with_norms, self._folded = (
            fx.GraphModule(self, _rewrite(self, graph, self.weights.layers, self._other_names, fold=fold))
            for fold in (False, True)
        )
        for module in set(self.modules()) - set(model.modules()):
            module.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        distribution = self.weights.distribution(inputs.device.type)
        run = self._folded if distribution.norms_folded else self._with_norms
        weights = self.weights.of_draw(distribution, inputs.device.type)
        return run(inputs, *weights, *distribution.biases, *self._other_tensors())

    @property
    def size(self) -> int:
        """Number of weights that are computed together."""
        return self.weights.size

    @property
    def stacks(self) -> bool:
        """Whether `stacked` can be used: all noise is on fused weights."""
        return len(self.known_noise) == len(self.weights.noises)

    def stacked(self, inputs: Float[Tensor, "d n c h w"], sources: Sequence[Source]) -> Float[Tensor, "d n k"]:
        """The logits of several draws in one pass.

        Each draw has its own weights, so convolutions of several draws become one grouped convolution. This is faster
        for few images, where the time to start operations exceeds that of computing them. Under autocast, layers have
        the precision of `forward`; operations between layers keep the dtype of their inputs.

        Args:
            inputs: images of each draw, (D, N, C, H, W).
            sources: noise source of each draw, D of them. Noise that is switched off stays off.

        Returns:
            Logits (D, N, K).

        Raises:
            RuntimeError: torch.vmap does not support an operation of the network.
        """
        device_type = inputs.device.type
        distribution = self.weights.distribution(device_type)
        weights = self._weights_of_draws(distribution, device_type, sources)
        run = (self._folded if distribution.norms_folded else self._with_norms).forward  # vmap needs uncompiled code
        with torch.autocast(device_type, enabled=False):  # torch.vmap does not support autocast
            others = [*distribution.biases, *self._other_tensors()]
            return torch.vmap(run, (0, *[0] * len(weights), *[None] * len(others)))(inputs, *weights, *others)

    def _weights_of_draws(
        self, distribution: WeightDistribution, device_type: str, sources: Sequence[Source]
    ) -> list[Float[Tensor, "d ..."]]:
        """The weights of D draws, one tensor per layer, each draw with noise from its own source."""
        keys, noises = [source for source in sources if isinstance(source, Keyed)], self.weights.noises
        with noise_from(self, sources[0]):
            if len(keys) == len(sources) and noises and all(noise.source is sources[0] for noise in noises):
                return self.weights.of_keys(distribution, device_type, keys)
        draws = list[list[Tensor]]()
        for source in sources:
            with noise_from(self, source):
                draws.append(self.weights.of_draw(distribution, device_type))
        with torch.no_grad():
            return [torch.stack(of_layer) for of_layer in zip(*draws, strict=True)]

    def _other_tensors(self) -> list[Tensor]:
        """The parameters and buffers that the network uses outside of its layers."""
        return [operator.attrgetter(name)(self) for name in self._other_names]

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickling fuses the model again: cached tensors are left out, and torch.fx would trace unpickled graphs anew.
        return partial(fuse, exact_ends=any(layer.exact for layer in self.weights.layers)), (self.model,)

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's arguments
        """Compile the operations as `torch.nn.Module.compile` does; noise is drawn outside of the compiled code."""
        self._with_norms.compile(*args, **kwargs)
        self._folded.compile(*args, **kwargs)

    def compile_for(self, images: Tensor, *, gradient: bool = True) -> None:
        """Compile, and try the compiled code on one pass in the current mode and precision.

        Args:
            images: images (N, C, H, W) of the shape and memory format of later passes.
            gradient: whether to try the gradient with respect to the images, too.

        Raises:
            ArgumentError: compilation fails; the network then runs without it.
        """
        try:
            with warnings.catch_warnings(), torch.set_grad_enabled(gradient):
                warnings.simplefilter("ignore")  # torch's compiler triggers warnings of other parts of torch
                self.compile()
                inputs = images.detach().requires_grad_(gradient)
                logits = self(inputs)
                if gradient:
                    torch.autograd.grad(logits.sum(), inputs)
        except Exception as error:  # compilers raise many types of errors
            for graph_module in (self._with_norms, self._folded):
                graph_module._compiled_call_impl = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ArgumentError("model", "a network that torch.compile can compile", reason) from error


def _fused_layers(called_model: CalledModel, graph: fx.Graph) -> list[FusedLayer]:
    """The layers to fuse, all of one dtype and device; layers with a noise factor first, layers without noise last."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def called_once(node: fx.Node) -> nn.Module | None:
        """The module that `node` calls with one positional argument, if no other node calls it."""
        single = node.op == "call_module" and calls[node.target] == 1 and len(node.args) == 1 and not node.kwargs
        return called_model.get_submodule(str(node.target)) if single else None

    layers: list[FusedLayer] = []
    for node in graph.nodes:
        module = called_once(node)
        if module is None or not can_fuse(module):
            continue
        layer = FusedLayer(str(node.target), module)
        if layers and (layer.weight.dtype, layer.weight.device) != (layers[0].weight.dtype, layers[0].weight.device):
            continue
        users = list(node.users)
        norm = called_once(users[0]) if len(users) == 1 else None
        if isinstance(norm, _BatchNorm) and _can_fold(norm, module):
            layer.norm = norm
        layers.append(layer)
    return sorted(layers, key=lambda layer: (layer.rank == 0, layer.noise is None))


def _can_fold(norm: _BatchNorm, layer: nn.Module) -> bool:
    """Whether a norm directly after `layer` is torch's own batch norm of its channels, with statistics and no hooks."""
    known = (base_layer_type(layer), type(norm)) in _FOLDABLE and "forward" not in vars(norm) and not has_hooks(norm)
    return known and norm.running_mean is not None


def _rewrite(root: Fused, graph: fx.Graph, layers: list[FusedLayer], others: list[str], *, fold: bool) -> fx.Graph:
    """The graph as a function of the inputs, the weights of the layers, their biases, and the other tensors.

    Args:
        root: the module whose submodules the graph calls.
        graph: the traced graph.
        layers: the layers whose weights and biases become arguments.
        others: names of further parameters and buffers that become arguments.
        fold: whether to leave out the batch norms that are folded into the weights.
    """
    new = fx.Graph()
    inputs, *nodes = graph.nodes
    values: dict[fx.Node, fx.Node] = {inputs: new.placeholder("inputs")}
    weights, biases = ([new.placeholder(f"{kind}_{i}") for i in range(len(layers))] for kind in ("weight", "bias"))
    by_name = {layer.name: (layer, *pair) for layer, *pair in zip(layers, weights, biases, strict=True)}
    attributes = {name: new.placeholder(f"other_{i}") for i, name in enumerate(others)}
    folded = {id(layer.norm) for layer in layers if fold and layer.norm is not None}
    for node in nodes:
        if node.op == "call_module" and node.target in by_name:
            layer, *tensors = by_name[node.target]
            module = layer.module
            function = LAYER_FUNCTIONS[base_layer_type(module)]  # pyright: ignore[reportArgumentType]
            arguments = (values[node.args[0]], *tensors)  # pyright: ignore[reportArgumentType]
            geometry = (
                () if isinstance(module, nn.Linear) else (module.stride, module.padding, module.dilation, module.groups)
            )
            arguments = (function.__name__, layer.exact, *arguments, *geometry)
            values[node] = new.call_function(_apply_layer, arguments)  # pyright: ignore[reportArgumentType]
        elif node.op == "call_module" and id(root.get_submodule(node.target)) in folded:
            values[node] = values[node.args[0]]
        elif node.op == "get_attr":
            values[node] = attributes[node.target]
        else:
            values[node] = new.node_copy(node, lambda old: values[old])
    return new


def _apply_layer(
    function: str,
    exact: bool,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *geometry: Any,  # noqa: ANN401 - numbers
) -> Tensor:
    """Apply a function of `torch.nn.functional` in the dtype of the weight, without autocast if `exact`."""
    if inputs.dtype != torch.float64:  # autocast leaves float64 as it is
        inputs, bias = inputs.to(weight.dtype), None if bias is None else bias.to(weight.dtype)
    with torch.autocast(inputs.device.type, enabled=False) if exact else nullcontext():
        return getattr(functional, function)(inputs, weight, bias, *geometry)
