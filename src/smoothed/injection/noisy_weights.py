"""Loss terms of noise layers, and the number of standard normals that weight noise needs per pass."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from smoothed.injection.layer import NoiseLayer, noise_layers


def penalties(model: nn.Module) -> dict[NoiseLayer, Tensor]:
    """Return the term of each noise layer of `model` that has one, in nats for the whole training set.

    Gradients flow to the strengths of the noise and to the weights.
    """
    means = _weights_without_noise(model)
    terms = {layer: layer.penalty(means.get(layer)) for layer in noise_layers(model)}
    return {layer: term for layer, term in terms.items() if term is not None}


def count_weight_normals(model: nn.Module) -> int:
    """Return the number of standard normals that one pass draws for the weights of `model`."""
    count = 0
    for chain in _chains(model):
        original: Tensor = chain.original  # pyright: ignore[reportAssignmentType]
        for noise in noise_layers(chain):
            form = noise.linear_form(original.detach())
            count += original.numel() + (0 if form is None or form[1] is None else form[1].shape[1])
    return count


def _chains(model: nn.Module) -> Iterator[ParametrizationList]:
    """The parametrizations of each weight that has some."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            yield module.parametrizations.weight  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def _weights_without_noise(model: nn.Module) -> dict[nn.Module, Tensor]:
    """The weight that each noise layer on a weight receives, after the user's own parametrizations before it."""
    weights = dict[nn.Module, Tensor]()
    for chain in _chains(model):
        names = ["original"] if chain.is_tensor else [f"original{number}" for number in range(chain.ntensors)]
        values: list[Tensor] = [getattr(chain, name) for name in names]
        for step in chain:
            if isinstance(step, NoiseLayer):
                weights[step] = values[0]
                break
            values = [step(*values)]
    return weights
