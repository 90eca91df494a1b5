"""Checkpoints: safetensors files with a JSON header. Nothing is unpickled.

The header describes how to rebuild the network (architecture, classes, normalisation, injection) and where its weights
come from (training configuration, measured numbers, versions). `load` returns a network that is ready to use.
"""

import json
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import reinject
from smoothed.models import ARCHITECTURES, Normalize, build
from smoothed.utils.checks import check_choice, check_network
from smoothed.utils.files import check_path, write_atomically

FORMAT = "smoothed-checkpoint"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
CUSTOM = "custom"
"""The architecture name of a user's own network, which `load` cannot rebuild."""

Header = dict[str, Any]


def package_version() -> str:
    """Return the version of this package, or `unknown` if it is not installed."""
    try:
        return version("smoothed")
    except PackageNotFoundError:
        return "unknown"


def write_tensors(path: Path | str, tensors: dict[str, Tensor], header: Header) -> Path:
    """Write `tensors` and `header` to a safetensors file, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    # Copies, because safetensors rejects tensors that share memory or are not contiguous.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, "header": json.dumps(header)}

    def write(partial: Path) -> None:
        try:
            save_file(copies, partial, metadata)
        except SafetensorError as error:  # safetensors wraps the system's error, for example a full disk
            raise OSError(str(error)) from error

    return write_atomically(path, write)


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], Header]:
    """Read the tensors and the header of a file that `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, or was written by another program or format version.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict


def read_header(path: Path | str) -> Header:
    """Read the header of a checkpoint without its tensors.

    Raises:
        CheckpointError: the file is missing, truncated, or was written by another program or format version.
    """
    path = check_path(path, "path")
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file, got a truncated file or another format ({error})"
        ) from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of smoothed, got a safetensors file of another program")
    try:
        header = json.loads(metadata.get("header", ""))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: expected a JSON header, got a damaged one ({error})") from None
    found = header.get("format_version") if isinstance(header, dict) else None
    if found != FORMAT_VERSION:
        raise CheckpointError(f"{path}: expected format version {FORMAT_VERSION}, got {found}; update smoothed")
    return header


def describe(
    architecture: str,
    model: nn.Module,
    injection: list[dict[str, Any]],
    classes: tuple[str, ...],
    **more: Any,  # noqa: ANN401 - any JSON value
) -> Header:
    """Create the header of a network's checkpoint.

    Args:
        architecture: a name that `build` accepts, so that `load` can rebuild the network; or `custom` for a user's own
            network, which its owner builds and `load_into` fills.
        model: the network; a built one has a `normalize` layer, whose mean and deviation are recorded.
        injection: the noise injected into the network, from `Injection.to_json`.
        classes: names of the classes, in the order of the logits.
        more: further entries, any JSON values.

    Raises:
        ArgumentError: the architecture is unknown, or `normalize` of a built network is not a `Normalize` layer.
    """
    check_choice(architecture, (*ARCHITECTURES, CUSTOM), "architecture")
    statistics = {}
    if architecture in ARCHITECTURES:
        normalize = model.get_submodule("normalize")
        if not isinstance(normalize, Normalize):
            expected = "a network with a Normalize layer called `normalize`"
            raise ArgumentError("model", expected, f"a layer of that name and of type {type(normalize).__name__}")
        statistics = {
            name: [round(value, 6) for value in buffer.flatten().tolist()]
            for name, buffer in (("mean", normalize.mean), ("std", normalize.std))
        }
    return {
        "format_version": FORMAT_VERSION,
        "version": package_version(),
        "architecture": architecture,
        "classes": list(classes),
        **statistics,
        "injection": injection,
        **more,
    }


def save(path: Path | str, model: nn.Module, header: Header) -> Path:
    """Write a network's state dict to a checkpoint, atomically.

    Args:
        path: the file to create or replace.
        model: the network whose weights and buffers are written.
        header: JSON values; from `describe` if `load` shall read the file, or any others for `load_into`.

    Returns:
        `path` as a `Path`.

    Raises:
        OutputError: the file cannot be written.
    """
    check_network(model, "model")
    if not isinstance(header, Mapping):
        raise ArgumentError("header", "a dict of JSON values", repr(header))
    try:
        json.dumps(header)
    except (TypeError, ValueError) as error:
        raise ArgumentError("header", "a dict of JSON values", f"one with {error}") from None
    path = check_path(path, "path")
    return write_tensors(path, model.state_dict(), {"format_version": FORMAT_VERSION, **header})


def update_header(path: Path | str, **more: Any) -> None:  # noqa: ANN401 - any JSON value
    """Add entries to a checkpoint's header or replace them; the weights are kept and the file is replaced atomically.

    Args:
        path: a file that `save` wrote.
        more: the entries, any JSON values.

    Raises:
        CheckpointError: as for `read_tensors`.
        OutputError: the file cannot be replaced.
    """
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {**header, **more})


def bundled() -> dict[str, Path]:
    """Return the paths of the checkpoints that come with the package, by name."""
    with as_file(files("smoothed.models") / "assets") as folder:
        return {path.stem: path for path in sorted(folder.glob("*" + SUFFIX))}


def locate(name_or_path: Path | str, argument: str = "model") -> Path:
    """Return the path of a checkpoint from a bundled name or a path; `argument` is its name in messages.

    Raises:
        CheckpointError: there is neither a bundled checkpoint nor a file of that name.
    """
    checkpoints = bundled()
    if str(name_or_path) in checkpoints:
        return checkpoints[str(name_or_path)]
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        known = ", ".join(checkpoints) or "none"
        raise CheckpointError(f"{argument}: expected a checkpoint file or a bundled name ({known}), got {name_or_path}")
    return path


def load(name_or_path: Path | str, *, device: torch.device | str = "cpu") -> nn.Module:
    """Load a network with its weights and its noise, in eval mode.

    Args:
        name_or_path: a bundled name (see `bundled`) or a file that `save` wrote.
        device: the device of the network.

    Returns:
        A network from images (N, C, H, W) in [0, 1] to logits (N, K). Its attribute `checkpoint_header` is the header.

    Raises:
        CheckpointError: the file is missing, truncated or of another program; it holds a user's own network; or its
            weights do not fit the network that its header describes.
    """
    path = locate(name_or_path)
    header = read_header(path)
    if header.get("architecture") == CUSTOM:
        raise CheckpointError(
            f"{path}: expected a network of this package, got a custom one; name the function that builds it as the "
            "model, and this file as its weights (--model package.module:function --weights FILE)"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights, which are replaced, take random numbers
            model = build(
                header["architecture"], num_classes=len(header["classes"]), mean=header["mean"], std=header["std"]
            )
        injection = header["injection"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: expected a header that describes a network, got {error}") from None
    _inject_noise(model, injection, path)
    _load_weights(model, path)
    vars(model).update(checkpoint_header=header)
    return model.to(device).eval()


def load_into(model: nn.Module, path: Path | str) -> Header:
    """Load the noise and the weights of a checkpoint into your own network, which has no injected noise yet.

    Args:
        model: a network built like the saved one; changed in place.
        path: a file that `save` wrote; noise is injected as its header's `injection` (from `Injection.to_json`) says.

    Returns:
        The header.

    Raises:
        CheckpointError: the file is missing, truncated or of another program, or its weights do not fit `model`.
    """
    check_network(model, "model")
    header = read_header(path)
    _inject_noise(model, header.get("injection", []), path)
    _load_weights(model, Path(path))
    return header


def _inject_noise(model: nn.Module, injection: object, path: Path | str) -> None:
    if not isinstance(injection, list) or not all(isinstance(change, dict) for change in injection):
        raise CheckpointError(f"{path}: expected a list of JSON objects as the header's injection, got {injection!r}")
    reinject(model, injection)


def _load_weights(model: nn.Module, path: Path) -> None:
    tensors, _ = read_tensors(path)
    problem = misfit(tensors, model.state_dict())
    if problem:
        raise CheckpointError(f"{path}: expected weights that fit the network, got: {problem}")
    model.load_state_dict(tensors)


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Load weights of any program into a network, in place.

    Args:
        model: the network. If it lacks the noise that a checkpoint of this package records, the noise is injected, and
            its attribute `checkpoint_header` becomes the header of the checkpoint, or None for other files.
        path: a checkpoint of this package, a safetensors file of another program, or a file of `torch.save` with a
            state dict, alone or under the key `state_dict`, `model_state_dict` or `model`. Names may all have the
            prefix `module.` or `_orig_mod.` of torch's wrappers.

    Raises:
        CheckpointError: the file is missing, truncated or of another format, cannot be read without running code of
            its own, or its weights do not fit the network.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"weights: expected a file, found none at {path}")
    with path.open("rb") as file:
        start = file.read(9)
    tensors, header = _read_safetensors(path) if start[8:] == b"{" else (_read_torch(path), None)
    tensors = _renamed(tensors, model.state_dict())
    if header is not None and misfit(tensors, model.state_dict()):
        _inject_noise(model, header.get("injection", []), path)
    wanted = model.state_dict()
    # Files of old versions of torch do not have these counters, which do not change the outputs.
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    tensors = {**counters, **tensors}
    if problem := misfit(tensors, wanted):
        raise CheckpointError(f"{path}: expected weights that fit the network, got: {problem}")
    model.load_state_dict(tensors)
    vars(model).update(checkpoint_header=header)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Header | None]:
    """The tensors of a safetensors file of any program, and the header of a checkpoint of this package."""
    try:
        with safe_open(path, framework="pt") as file:
            is_ours = (file.metadata() or {}).get("format") == FORMAT
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file, got a damaged one ({error})") from None
    return tensors, read_header(path) if is_ours else None


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about formats that it refuses next
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many types for files of other formats
        if isinstance(error, UnpicklingError) and (refused := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise CheckpointError(
                f"{path}: expected a file of tensors, got one that runs code when it is read ({refused[1]}); "
                "save the network's state_dict() alone"
            ) from None
        lines = str(error).splitlines()
        # The cause is the line that names torch's reader, or the first one.
        reason = next((line for line in lines if "Unpickler error" in line), (lines or [""])[0]).strip()[:100]
        raise CheckpointError(
            f"{path}: expected a safetensors file or a torch file of a state dict, got a damaged file or another "
            f"format ({type(error).__name__}: {reason})"
        ) from None
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in ("state_dict", "model_state_dict", "model") if key in content]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return dict(candidate)
    keys = f"the keys {_abbreviate([str(key) for key in content])}" if isinstance(content, Mapping) else "no keys"
    raise CheckpointError(f"{path}: expected a state dict of tensors, got a {type(content).__name__} with {keys}")


def _renamed(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes of torch's wrappers, unless the network's own names begin with them."""
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in tensors) and not all(name.startswith(prefix) for name in wanted):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Describe how the names and shapes of `tensors` differ from those of `wanted`; empty if they agree.

    Args:
        tensors: tensors of a checkpoint, by name.
        wanted: tensors of the network's state dict, by name.

    Returns:
        The first few missing tensors, unexpected tensors, and tensors of a different shape.
    """
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} in the file, {tuple(wanted[name].shape)} in the network"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    return "; ".join(f"{kind}: {_abbreviate(names)}" for kind, names in kinds if names)


def _abbreviate(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
