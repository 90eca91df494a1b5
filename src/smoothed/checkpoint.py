"""Weights and what they are: safetensors with a JSON header. Nothing is unpickled.

The header says how to rebuild the network (architecture, classes, normalisation, injection) and where its weights come
from (the training configuration, measured numbers, versions). `load` returns a network that is ready to use.
"""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import reinject
from smoothed.models import ARCHITECTURES, Normalize, build
from smoothed.utils.checks import check_choice
from smoothed.utils.files import write_atomically

FORMAT = "smoothed-checkpoint"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
CUSTOM = "custom"
"""The architecture of a network of one's own."""

Header = dict[str, Any]


def package_version() -> str:
    """The version of this package, or `unknown` where it runs uninstalled."""
    try:
        return version("smoothed")
    except PackageNotFoundError:
        return "unknown"


def write_tensors(path: Path | str, tensors: dict[str, Tensor], header: Header) -> Path:
    """Write `tensors` and `header` to a safetensors file, atomically.

    Raises:
        OutputError: the file can't be written.
    """
    # A copy of each: safetensors refuses views that share memory, and wants plain contiguous rows.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, "header": json.dumps(header)}

    def write(partial: Path) -> None:
        try:
            save_file(own, partial, metadata)
        except SafetensorError as error:  # its own wrapper around what the system said
            raise OSError(str(error)) from error

    return write_atomically(path, write)


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], Header]:
    """The tensors and the header of a file that `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, or another program's.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict


def read_header(path: Path | str) -> Header:
    """The header alone, without reading the tensors; raises as `read_tensors`."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file, got a truncated or foreign one ({error})"
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
    """The header of a network: what `load` needs if `build(architecture)` made it, and `more` for the reader.

    A network of one's own, of the architecture `custom`, is put together by its owner and filled by `load_into`.
    """
    check_choice(architecture, (*ARCHITECTURES, CUSTOM), "architecture")
    statistics = {}
    if architecture in ARCHITECTURES:
        normalize = model.get_submodule("normalize")
        if not isinstance(normalize, Normalize):
            raise ArgumentError("model", "a Normalize layer called `normalize`", type(normalize).__name__)
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
    """Write a network's state dict under `header` (from `describe`, or your own for `load_into`), atomically."""
    return write_tensors(path, model.state_dict(), {"format_version": FORMAT_VERSION, **header})


def own_sigma(path: Path | str) -> tuple[float, str]:
    """The deviation of input noise that was chosen for a checkpoint, and its unit; 0 where none was.

    Raises:
        CheckpointError: as `read_header`; a damaged choice.
    """
    chosen = read_header(path).get("smoothing") or {"sigma": 0.0, "sigma_units": "normalized"}
    try:
        return float(chosen["sigma"]), str(chosen["sigma_units"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: expected smoothing with sigma and sigma_units, got {chosen!r}") from error


def update_header(path: Path | str, **more: Any) -> None:  # noqa: ANN401 - any JSON value
    """Add `more` to the header of a checkpoint, or replace it there; the weights stay, the file is replaced atomically.

    Raises:
        CheckpointError: as `read_tensors`.
        OutputError: the file can't be replaced.
    """
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {**header, **more})


def bundled() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    with as_file(files("smoothed.models") / "assets") as folder:
        return {path.stem: path for path in sorted(folder.glob("*" + SUFFIX))}


def locate(name_or_path: Path | str) -> Path:
    """The file of a bundled checkpoint or of a path.

    Raises:
        CheckpointError: it is neither.
    """
    ours = bundled()
    if str(name_or_path) in ours:
        return ours[str(name_or_path)]
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        known = ", ".join(ours) or "none"
        raise CheckpointError(f"model: expected a checkpoint file or a bundled name ({known}), got {name_or_path}")
    return path


def load(name_or_path: Path | str, *, device: torch.device | str = "cpu") -> nn.Module:
    """A network with its weights and its noise, in eval mode, from images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        name_or_path: a bundled name (see `bundled`) or a file that `save` wrote.
        device: where to put it.

    Raises:
        CheckpointError: a missing, truncated or foreign file, or weights that don't fit its own description.
    """
    path = locate(name_or_path)
    header = read_header(path)
    if header.get("architecture") == CUSTOM:
        raise CheckpointError(f"{path}: expected a network of this package, got one's own; build it and use load_into")
    try:
        model = build(
            header["architecture"], num_classes=len(header["classes"]), mean=header["mean"], std=header["std"]
        )
        changes = header["injection"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: expected a header that describes a network, got {error}") from None
    _put_noise(model, changes, path)
    _load_weights(model, path)
    return model.to(device).eval()


def load_into(model: nn.Module, path: Path | str) -> Header:
    """Put the noise and the weights of a checkpoint into your own network, which has no noise yet.

    Args:
        model: a network built as the saved one was; changed in place.
        path: a file that `save` wrote; its header's `injection` (from `Injection.to_json`) is put in first.

    Returns:
        The header.

    Raises:
        CheckpointError: as `load`.
    """
    header = read_header(path)
    _put_noise(model, header.get("injection", []), path)
    _load_weights(model, Path(path))
    return header


def _put_noise(model: nn.Module, changes: object, path: Path | str) -> None:
    if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
        raise CheckpointError(f"{path}: expected a list of changes as the header's injection, got {changes!r}")
    reinject(model, changes)


def _load_weights(model: nn.Module, path: Path) -> None:
    tensors, _ = read_tensors(path)
    problem = misfit(tensors, model.state_dict())
    if problem:
        raise CheckpointError(f"{path}: expected weights that fit the network, got: {problem}")
    model.load_state_dict(tensors)


def misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Which of `tensors` don't fit `wanted`, by name and shape, the first few of each kind; empty where all do."""
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unknown), ("of another shape", shapes))
    return "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds if names)


def _few(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
