"""A network as a graph of operations, where torch.fx gives one that is true; else it says why there is none."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - torch's name for all of them

FUNCTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
    nn.Linear: functional.linear,
}
"""What a layer computes from its inputs, its weight and its bias."""


class Whole(nn.Module):
    """The network as it is called: with its own hooks, and with the defaults of whatever else it takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """See `torch.nn.Module.forward`."""
        return self.model(inputs)


class _Tracer(fx.Tracer):
    """Looks inside modules as far as there are layers with weights in them, and nobody listens in."""

    proxy_buffer_attributes = True  # else what is computed from a buffer would stay what it is now

    def __init__(self) -> None:
        super().__init__()
        self._before = _switches()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if is_watched(m) or isinstance(m, _BatchNorm) or layer_kind(m) is not None:
            return True
        inside = any(isinstance(inner, _BatchNorm) or layer_kind(inner) is not None for inner in m.modules())
        return super().is_leaf_module(m, module_qualified_name) or not inside

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401 - torch's arguments
        if _switches() != self._before:  # which no graph records
            raise ValueError("one that switches gradients or autocast on its way")
        return super().create_node(*args, **kwargs)


def _switches() -> tuple[bool, int]:
    """Whether gradients are on, and how many blocks of autocast this is in."""
    nesting = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return torch.is_grad_enabled(), nesting


def trace(whole: Whole) -> fx.Graph:
    """The operations of a network, which is left as it was: one placeholder, and calls of modules named `model...`.

    Raises:
        Exception: there is no such graph, or not the same one in train and eval mode; the message ends "expected a
            network that torch.fx can trace, got ...".
    """
    graphs = []
    for training in (False, True):
        with _untouched(whole), torch.enable_grad():
            own = vars(whole.model)
            if "_original_forward" in own:  # Accelerate's autocast is around it; here the caller chooses the precision
                own["forward"] = own["_original_forward"]
            for module in whole.modules():
                module.training = training
            tensors = [*whole.parameters(), *whole.buffers()]
            graphs.append(_Tracer().trace(whole))
            if any(map(operator.is_not, [*whole.parameters(), *whole.buffers()], tensors)):
                raise ValueError("one that puts others in the place of its own tensors")
    if any(node.op == "get_attr" and not str(node.target).startswith("model.") for node in graphs[0].nodes):
        raise ValueError("one that makes tensors of its own, which may be others at each pass")
    in_eval, in_train = ([(n.op, n.target, str(n.args), str(n.kwargs)) for n in graph.nodes] for graph in graphs)
    if in_eval != in_train:
        raise ValueError("one that takes other steps in train mode than in eval mode")
    return graphs[0]


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Afterwards the attributes of every submodule, and what is in its tables, are what they were before."""
    tables = [vars(module) for module in model.modules()]
    tables += [value for table in tables for value in table.values() if isinstance(value, dict)]
    before = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, content in before:
            table.clear()
            table.update(content)


def layer_kind(layer: nn.Module) -> type[nn.Module] | None:
    """The layer of torch whose computation `layer` does, as its own class or with a parametrization."""
    kind = next((kind for kind in FUNCTIONS if isinstance(layer, kind)), None)
    if kind is None or "forward" in vars(layer):
        return None
    own = any(
        getattr(type(layer), name, None) is not getattr(kind, name, None) for name in ("forward", "_conv_forward")
    )
    return None if own else kind


def is_watched(module: nn.Module) -> bool:
    """Whether `module` has hooks on what passes through it."""
    return any(getattr(module, f"_{name}_hooks") for name in ("forward", "forward_pre", "backward", "backward_pre"))
