"""The techniques of the performance stack, and how `ablation.py` switches each of them off.

A technique is switched off by replacing its part of the package with plain code that computes the same numbers.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import smoothed.training.batch
import smoothed.training.run
import smoothed.training.step
from smoothed import injection
from smoothed.acceleration import fast, fusing
from smoothed.acceleration.fast import Fast
from smoothed.acceleration.fused_weights import FusedLayer, FusedWeights, WeightDistribution
from smoothed.injection import NoiseLayer
from smoothed.rng import counter_based, seeds, sources
from smoothed.rng.counter_based import GAMMA, positions, positions_channels_last, splitmix64
from smoothed.rng.sources import Keyed
from smoothed.smoothing import classifier, sampling
from smoothed.smoothing.input_noise import ScaledNoise
from smoothed.utils import checks, modes
from smoothed.utils.devices import best_device, has_bf16_units

JOBS = {
    "vote": "vote on many images",
    "image": "vote on one image",
    "attack": "PGD-10 attack",
    "train": "step of adversarial training with PGD-7",
}
NETWORK_NOISES = ("none", "CNI")

Patches = list[AbstractContextManager[Any]]


def replace_attributes(owner: Any, **values: object) -> Patches:  # noqa: ANN401 - a module or a class
    """Replace attributes of a module or a class."""
    return [mock.patch.object(owner, name, value) for name, value in values.items()]


def replace_function(function: object, other: object) -> Patches:
    """Replace a function under every name that it has in the modules of the package."""
    return [_function_replaced(function, other)]


@contextmanager
def _function_replaced(function: object, other: object) -> Iterator[None]:
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "smoothed"]
    found = [(module, name) for module in modules for name, value in vars(module).items() if value is function]
    if not found:
        raise LookupError(f"{function}: not found in any module of the package, so it cannot be replaced")
    with ExitStack() as stack:
        for module, name in found:
            stack.enter_context(mock.patch.object(module, name, other))
        yield


class _TorchWithChanges:
    """The module torch with other values for some of its names."""

    def __init__(self, module: object, **values: object) -> None:
        self._module = module
        vars(self).update(values)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of torch
        return getattr(self._module, name)


def replace_in_torch(*modules: ModuleType, **values: object) -> Patches:
    """Replace attributes of torch, as seen by the given modules only."""
    return [mock.patch.object(module, "torch", _TorchWithChanges(module.torch, **values)) for module in modules]


def without_channels_last() -> Patches:
    """Keep images and weights in torch's default memory format, NCHW."""

    def flatten(layer: FusedLayer, tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, *tensor.shape[len(layer.shape) :])

    def unflatten(layer: FusedLayer, vectors: Tensor) -> Tensor:
        return vectors.view(len(vectors), *layer.shape)

    modules = fast, smoothed.training.run, smoothed.training.batch
    nchw = replace_in_torch(*modules, channels_last=torch.contiguous_format)
    return nchw + replace_attributes(FusedLayer, flatten=flatten, unflatten=unflatten)


def without_fusing() -> Patches:
    """Run networks as they are."""

    def keep(model: nn.Module, **_: object) -> tuple[nn.Module, str]:
        return model, "an ablation"

    return replace_function(fusing.fuse_or_keep, keep)


def without_exact_ends() -> Patches:
    """Compute the first and the last layer in bf16, like the other layers."""
    fuse_or_keep = fusing.fuse_or_keep
    return replace_function(fuse_or_keep, lambda model, **_: fuse_or_keep(model))


def without_weight_vector() -> Patches:
    """Compute the weight of each layer by the parametrization of the layer, one draw after the other."""

    @torch.no_grad()
    def of_draw(weights: FusedWeights, distribution: WeightDistribution, device_type: str) -> list[Tensor]:
        autocast_dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
        cached = vars(weights).get("gains")
        if cached is None or cached[0] is not distribution:
            gains = [layer.gain_and_bias(fold=distribution.norms_folded)[0] for layer in weights.layers]
            cached = vars(weights)["gains"] = distribution, gains
        of_layers = []
        for layer, gain in zip(weights.layers, cached[1], strict=True):
            weight: Any = layer.module.weight
            weight = weight if gain is None else weight * gain.view(-1, *[1] * (len(layer.shape) - 1))
            of_layers.append(weight if layer.exact or autocast_dtype is None else weight.to(autocast_dtype))
        return of_layers

    def of_keys(
        weights: FusedWeights, distribution: WeightDistribution, device_type: str, keys: Sequence[Keyed]
    ) -> list[Tensor]:
        draws = []
        for key in keys:
            for noise in weights.noises:
                vars(noise).update(source=key)  # `noise_from`, inside which this runs, restores the source
            draws.append(weights.of_draw(distribution, device_type))
        return [torch.stack(of_layer) for of_layer in zip(*draws, strict=True)]

    return replace_attributes(FusedWeights, of_draw=of_draw, of_keys=of_keys)


def clearing_cache(method: str, clear: Callable[[FusedWeights], object]) -> Patches:
    """Clear a cache of `FusedWeights` before each call of one of its methods."""
    original = getattr(FusedWeights, method)

    def without_cache(weights: FusedWeights, *arguments: Any) -> object:  # noqa: ANN401 - arguments of the method
        clear(weights)
        return original(weights, *arguments)

    return replace_attributes(FusedWeights, **{method: without_cache})


def without_cached_positions() -> Patches:
    """Compute the positions of random numbers anew at each request."""
    uncached = [
        patch
        for function in (positions, positions_channels_last)
        for patch in replace_function(function, function.__wrapped__)
    ]
    return uncached + clearing_cache("_noise_positions", lambda weights: setattr(weights, "_cached_positions", None))


def noisy_rows_in_steps(law: ScaledNoise, key: Keyed, layer: int, inputs: Tensor) -> Tensor:
    """`ScaledNoise.noisy_rows` in three operations (draw, scale, add), in NCHW order."""
    return inputs + law.scale_(law.unit_rows(key, layer, inputs))


def mix_rows_by_torch(*keys: int | Sequence[int] | Tensor) -> Tensor:
    """`seeds.mix_rows`, computed by torch."""
    state = torch.zeros(1, dtype=torch.int64)
    for key in keys:
        word = (key + 2**63) % 2**64 - 2**63 if isinstance(key, int) else key
        state = splitmix64(state + torch.as_tensor(word, dtype=torch.int64, device="cpu") + GAMMA)
    return state


def copied_rows(rows: Tensor, index: Tensor) -> Tensor:
    """`sampling._select_rows`, which always copies."""
    index = index.to(rows.device)
    if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        return rows.movedim(1, -1).index_select(0, index).movedim(-1, 1)
    return rows.index_select(0, index)


def all_noise_layers(model: object) -> list[NoiseLayer]:
    """`noise_layers`, by `torch.nn.Module.modules`."""
    modules = model.modules() if isinstance(model, nn.Module) else []
    return [module for module in modules if isinstance(module, NoiseLayer)]


@contextmanager
def always_eval_mode(model: object) -> Iterator[None]:
    """`modes.eval_mode`, which sets the mode of all submodules even if they are in eval mode."""
    previous = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module):
        model.eval()
    yield
    for module, mode in previous:
        module.training = mode


def uncached_bounds(labels: Tensor) -> tuple[int, int]:
    """`checks._label_range`, which reads the labels at each call."""
    low, high = torch.aminmax(labels)
    return int(low), int(high)


@dataclass(frozen=True)
class Technique:
    """A part of the performance stack that can be switched off.

    Attributes:
        name: name on the command line and in the table.
        description: what the technique does, as a phrase.
        jobs: jobs that it affects.
        off: makes the patches that switch it off; None if `ablation.Variant` itself switches it on.
        network_noises: noise inside the network with which it has an effect.
        needs: names of the techniques that it builds on.
        by_default: whether it is part of the full stack; False for a technique that users must ask for.
        own_process: whether it changes the memory of a process, so that each job needs a process of its own.
        supported: whether this machine supports it.
        parts: names of techniques that are measured together under this name.
    """

    name: str
    description: str
    jobs: Sequence[str]
    off: Callable[[], Patches] | None = None
    network_noises: Sequence[str] = NETWORK_NOISES
    needs: Sequence[str] = ()
    by_default: bool = True
    own_process: bool = False
    supported: Callable[[], bool] = field(default=lambda: True)
    parts: Sequence[str] = ()


def runs_on_cpu() -> bool:
    """Whether the jobs run on a CPU."""
    return best_device().type == "cpu"


def supports_bf16() -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    return has_bf16_units(best_device())


_CNI, _DRAWING, _FUSED = ("CNI",), ("vote", "image"), ("fused network",)
# Each of them alone is worth less than a tenth.
_SMALL = (
    *("cached distribution", "cached draw", "cached positions", "passes before counting", "views of rows"),
    *("fast noise search", "cached label bounds"),
)
# A technique comes after those that it needs, because its patches may replace parts of theirs.
TECHNIQUES = [
    Technique(
        "kept memory", "the process keeps freed memory (keep_memory)", tuple(JOBS), by_default=False, own_process=True
    ),
    Technique(
        "channels-last", "images and weights in the channels-last memory format", tuple(JOBS), without_channels_last
    ),
    Technique("bf16", "matrix products in bf16", tuple(JOBS), supported=supports_bf16),
    Technique(
        "fused network", "one torch.fx graph in place of the modules, as the basis of others", tuple(JOBS),
        without_fusing,
    ),
    Technique(
        "exact ends", "first and last layer in float32 although the others are in bf16", ("vote", "attack"),
        without_exact_ends, needs=("bf16", "fused network"), supported=supports_bf16,
    ),
    Technique(
        "folded batch norms", "batch norms in eval mode computed as part of the weights", tuple(JOBS),
        lambda: replace_attributes(fusing, _can_fold=lambda *_: False), needs=_FUSED,
    ),
    Technique(
        "weight vector", "noise and weights of all layers computed as one vector", tuple(JOBS), without_weight_vector,
        _CNI, _FUSED,
    ),
    Technique(
        "cached distribution", "the part of the weights that all draws share kept between passes",
        ("image", "attack", "train"),
        lambda: clearing_cache("distribution", lambda weights: weights._distributions.clear()), needs=_FUSED,
    ),
    Technique(
        "cached draw", "the weights of a draw kept for all passes of the draw", ("vote",),
        lambda: clearing_cache("of_draw", lambda weights: setattr(weights, "_last_draw", None)),
        _CNI, ("fused network", "weight vector", "cached distribution"),
    ),
    Technique(
        "cached positions", "the positions of random numbers kept between requests", _DRAWING, without_cached_positions
    ),
    Technique(
        "stacked draws", "several draws of few images in one pass", ("image",),
        lambda: replace_attributes(Fast, draws_per_pass=lambda *_: 1), _CNI, ("fused network", "weight vector"),
    ),
    Technique(
        "inference mode", "torch.inference_mode in passes without gradients", _DRAWING,
        lambda: replace_in_torch(fast, inference_mode=nullcontext), needs=_FUSED,
    ),
    Technique(
        "noise in one operation", "input noise drawn, scaled and added in one operation", _DRAWING,
        lambda: replace_attributes(ScaledNoise, noisy_rows=noisy_rows_in_steps),
    ),
    Technique(
        "normals in chunks", "random numbers computed in chunks that fit into caches", _DRAWING,
        lambda: replace_attributes(counter_based, _CHUNK_SIZES={}, _DEFAULT_CHUNK_SIZE=2**40),
    ),
    Technique(
        "compiled normals", "random numbers compiled by torch.compile (compile_numbers)", _DRAWING,
        lambda: replace_function(counter_based.compile_numbers, lambda **_: None), by_default=False,
    ),
    Technique(
        "keys by NumPy", "keys of random numbers computed by NumPy instead of torch", _DRAWING,
        lambda: replace_function(seeds.mix_rows, mix_rows_by_torch),
    ),
    Technique(
        "passes before counting", "votes counted after several passes instead of each", _DRAWING,
        lambda: replace_attributes(sampling, _MAX_PASSES=0),
    ),
    Technique(
        "views of rows", "consecutive images taken from a batch without a copy", _DRAWING,
        lambda: replace_function(sampling._select_rows, copied_rows),
    ),
    Technique(
        "passes of 128", "128 instead of 256 rows in a pass on a CPU", ("vote",),
        lambda: replace_attributes(classifier, _CHUNK_SIZE_ON_CPU=256), supported=runs_on_cpu,
    ),
    Technique(
        "fast noise search", "noise layers found without a walk through all modules", ("image",),
        lambda: replace_function(injection.noise_layers, all_noise_layers), _CNI,
    ),
    Technique(
        "mode set if needed", "eval mode set only if a submodule is in train mode", ("image",),
        lambda: replace_function(modes.eval_mode, always_eval_mode),
    ),
    Technique(
        "cached label bounds", "smallest and largest label kept between checks of the same labels",
        ("attack", "train"), lambda: replace_function(checks._label_range, uncached_bounds),
    ),
    Technique(
        "pooled normals", "random numbers of all layers drawn at once", ("train",),
        lambda: replace_function(sources.Pool, lambda source, _: source), _CNI,
    ),
    Technique(
        "compiled operations", "operations of the network compiled by torch.compile", ("vote", "attack", "train"),
        needs=_FUSED, by_default=False,
    ),
    Technique(
        "small techniques", f"together: {', '.join(_SMALL)}", tuple(JOBS), needs=("fused network", "weight vector"),
        by_default=False, parts=_SMALL,
    ),
]  # fmt: skip

BY_NAME = {technique.name: technique for technique in TECHNIQUES}
# Techniques that wait for a compiler in each process, for 10 to 60 seconds.
COMPILED = ("compiled normals", "compiled operations")
FULL_STACK = frozenset(technique.name for technique in TECHNIQUES if technique.by_default and technique.supported())


def with_needs(name: str) -> frozenset[str]:
    """Return the names of a technique, or of its parts, and of the techniques that it builds on."""
    return frozenset({*parts_of(name), *BY_NAME[name].needs})


def parts_of(name: str) -> frozenset[str]:
    """Return the names of the parts of a technique: its own if it is a single one."""
    return frozenset(BY_NAME[name].parts or (name,))


def variants(name: str, *, memory_kept: bool) -> list[frozenset[str]]:
    """Return the four sets of techniques that show the effect of one technique.

    Args:
        name: name of the technique.
        memory_kept: whether kept memory is on in all four sets.

    Returns:
        The plain network with what the technique needs; this and the technique; the full stack without the technique
        and without what builds on it; the full stack.
    """
    parts, added = parts_of(name), with_needs(name)
    full = FULL_STACK | added
    removed = frozenset(other for other in full if not parts & with_needs(other))
    always_on = {"kept memory"} if memory_kept else set()
    return [techniques | always_on for techniques in (added - parts, added, removed, full)]


@contextmanager
def only(on: frozenset[str]) -> Iterator[None]:
    """Switch off all techniques but the named ones inside the block."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(counter_based._compilation, enabled="compiled normals" in on))
        for technique in TECHNIQUES:
            if technique.off is not None and technique.name not in on:
                for patch in technique.off():
                    stack.enter_context(patch)
        yield
