"""Steps of a long evaluation that are computed once: a killed one goes on from those it finds in its folder.

A step is named, and a function of the configuration and of its name, its randomness included; so a run that went on
ends with the numbers of one that was never killed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.checkpoint import FORMAT_VERSION, SUFFIX, package_version, read_tensors, write_tensors
from smoothed.data.images import Images
from smoothed.errors import CheckpointError
from smoothed.rng.counter_based import GENERATOR
from smoothed.utils.distributed import Processes
from smoothed.utils.files import write_json

CONFIGURATION = "configuration.json"

# Images that are looked at to tell one set from another: enough, and read quickly.
SAMPLE = 100

Tensors = dict[str, Tensor]


class Records:
    """A folder of steps done, one file each, whole or absent.

    Args:
        folder: where they are kept; None keeps nothing.
        configuration: what they are a function of, as JSON values.
        option: what the folder is called in errors.

    Raises:
        CheckpointError: the folder holds another configuration's steps; the message names the first difference.
        OutputError: the folder can't be written.
    """

    def __init__(self, folder: Path | None, configuration: Mapping[str, Any], option: str = "out") -> None:
        self.folder = folder
        if folder is None:
            return
        path = folder / CONFIGURATION
        if path.exists():
            _require_same(path, json.loads(json.dumps(configuration)), option)
        else:
            write_json(configuration, path)

    def once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """What `compute` gives, or what it gave when this step was done before; tensors are on the CPU.

        Raises:
            CheckpointError: the step's file is damaged.
            OutputError: the step can't be written.
        """
        if self.folder is None:
            return _on_cpu(compute())
        path = self.folder / f"{name}{SUFFIX}"
        if path.exists():
            return read_tensors(path)[0]
        tensors = _on_cpu(compute())
        write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "step": name})
        return tensors


def records_of_all(
    processes: Processes,
    out: Path | None,
    configuration: Mapping[str, Any],
    model: nn.Module,
    data: Images,
    *,
    sources: Mapping[str, nn.Module] | None = None,
) -> Records:
    """`Records` in a folder that several processes share: none begins before all have seen that it is theirs.

    Args:
        processes: those that share it.
        out: the folder, or None to keep nothing.
        configuration: the settings, as JSON values; the circumstances are added.
        model: what is measured.
        data: on what.
        sources: other networks that numbers depend on, by name.

    Raises:
        CheckpointError: as `Records` raises it.
        OutputError: likewise.
        ProcessError: another process is gone.
    """
    if out is not None:
        others = {name: digest(network.state_dict()) for name, network in (sources or {}).items()}
        configuration = {**configuration, "sources": others, **circumstances(model, data)}
    records = Records(out, configuration)
    processes.gather(None)
    return records


def circumstances(model: nn.Module, data: Images) -> dict[str, Any]:
    """What numbers depend on beside the settings: weights, images, hardware and versions, as JSON values."""
    pixels, _ = next(iter(data.batches(SAMPLE)))
    device = pixels.device
    return {
        "weights": digest(model.state_dict()),
        "data": data.name,
        "images": len(data),
        "pixels": digest({"pixels": pixels}),
        "labels": digest({"labels": data.labels}),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "smoothed": package_version(),
        "generator": GENERATOR,
    }


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A short fingerprint of named tensors."""
    total = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        total.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        total.update(plain.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def _on_cpu(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def _require_same(path: Path, ours: dict[str, Any], option: str) -> None:
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: expected the configuration of an evaluation, got {error}") from None
    if not isinstance(theirs, dict):
        raise CheckpointError(f"{path}: expected the configuration of an evaluation, got {theirs!r}")
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        there, here = theirs.get(name), ours.get(name)
        if there != here:
            raise CheckpointError(
                f"{option}: the evaluation there has {name} = {there!r}, this one {here!r}; "
                "give the same options or another folder"
            )
