"""The graph of a network's operations by torch.fx, or an error if a fixed graph cannot represent the network."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - base class of all batch norms

from smoothed.utils.checks import output_logits

LAYER_FUNCTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
    nn.Linear: functional.linear,
}
"""The function by which each type of layer computes its output from its input, weight and bias."""


class CalledModel(nn.Module):
    """A module that calls `model` with one argument, so that a trace includes the hooks and the default arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """See `torch.nn.Module.forward`."""
        return output_logits(self.model(inputs))


class _Tracer(fx.Tracer):
    """Traces into modules that contain convolutions, linear layers or batch norms and have no hooks."""

    proxy_buffer_attributes = True  # otherwise values computed from a buffer would be constants of the graph

    def __init__(self) -> None:
        super().__init__()
        self._initial_modes = _gradient_and_autocast_modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if has_hooks(m) or isinstance(m, _BatchNorm) or base_layer_type(m) is not None:
            return True
        has_layers = any(isinstance(inner, _BatchNorm) or base_layer_type(inner) is not None for inner in m.modules())
        return super().is_leaf_module(m, module_qualified_name) or not has_layers

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401 - torch's arguments
        if _gradient_and_autocast_modes() != self._initial_modes:  # a graph does not record these modes
            raise ValueError("one whose forward pass switches gradients or autocast")
        return super().create_node(*args, **kwargs)


def _gradient_and_autocast_modes() -> tuple[bool, int]:
    """Whether gradients are enabled, and the number of nested autocast blocks."""
    nesting = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return torch.is_grad_enabled(), nesting


def trace(called_model: CalledModel) -> fx.Graph:
    """Trace a model, whose attributes are the same afterwards.

    Args:
        called_model: the model.

    Returns:
        A graph with one placeholder, whose nodes refer to modules and tensors as `model...`.

    Raises:
        Exception: the model cannot be traced, or its graph depends on the mode or the pass. The message is worded to
            follow "expected a network that torch.fx can trace, got".
    """
    graphs = []
    for training in (False, True):
        with _restored_attributes(called_model), torch.enable_grad():
            attributes = vars(called_model.model)
            if "_original_forward" in attributes:  # without Accelerate's autocast: the caller chooses the precision
                attributes["forward"] = attributes["_original_forward"]
            for module in called_model.modules():
                module.training = training
            tensors = [*called_model.parameters(), *called_model.buffers()]
            graphs.append(_Tracer().trace(called_model))
            if any(map(operator.is_not, [*called_model.parameters(), *called_model.buffers()], tensors)):
                raise ValueError("one whose forward pass replaces parameters or buffers")
    if any(node.op == "get_attr" and not str(node.target).startswith("model.") for node in graphs[0].nodes):
        raise ValueError("one whose forward pass creates tensors, which may differ between passes")
    in_eval, in_train = ([(n.op, n.target, str(n.args), str(n.kwargs)) for n in graph.nodes] for graph in graphs)
    if in_eval != in_train:
        raise ValueError("one whose operations differ between train and eval mode")
    return graphs[0]


@contextmanager
def _restored_attributes(model: nn.Module) -> Iterator[None]:
    """Restore the attributes of every submodule at the end, and the contents of attributes that are dictionaries."""
    tables = [vars(module) for module in model.modules()]
    tables += [value for table in tables for value in table.values() if isinstance(value, dict)]
    saved = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, content in saved:
            table.clear()
            table.update(content)


def base_layer_type(layer: nn.Module) -> type[nn.Module] | None:
    """The type in `LAYER_FUNCTIONS` whose forward method `layer` has unchanged; None if there is none."""
    base = next((base for base in LAYER_FUNCTIONS if isinstance(layer, base)), None)
    if base is None or "forward" in vars(layer):
        return None
    overridden = any(
        getattr(type(layer), name, None) is not getattr(base, name, None) for name in ("forward", "_conv_forward")
    )
    return None if overridden else base


def has_hooks(module: nn.Module) -> bool:
    """Whether `module` has forward or backward hooks."""
    return any(getattr(module, f"_{name}_hooks") for name in ("forward", "forward_pre", "backward", "backward_pre"))
