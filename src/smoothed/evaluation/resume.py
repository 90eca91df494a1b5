"""Resumable evaluations: each finished step is stored in a folder, and an interrupted evaluation continues from it.

A step, including its randomness, is a function of its name and of the configuration. A resumed evaluation therefore
gives the same numbers as an uninterrupted one.
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

# Number of images whose pixels identify a data set: enough to tell sets apart, and quick to read.
FINGERPRINT_IMAGES = 100

Tensors = dict[str, Tensor]


class ResumeFolder:
    """A folder of finished steps, one file each; files are written atomically.

    Args:
        folder: path of the folder; None stores nothing.
        configuration: all settings that the steps depend on, as JSON values.
        option: name of the folder's command-line option, for error messages.

    Raises:
        CheckpointError: the folder holds the steps of another configuration; the message names the first difference.
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

    def compute_once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Load the tensors of the step `name`, or compute and store them; the tensors are on the CPU.

        Raises:
            CheckpointError: the file of the step is damaged.
            OutputError: the file can't be written.
        """
        if self.folder is None:
            return _on_cpu(compute())
        path = self.folder / f"{name}{SUFFIX}"
        if path.exists():
            return read_tensors(path)[0]
        tensors = _on_cpu(compute())
        write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "step": name})
        return tensors


def open_resume_folder(
    processes: Processes,
    out: Path | None,
    configuration: Mapping[str, Any],
    model: nn.Module,
    data: Images,
    *,
    sources: Mapping[str, nn.Module] | None = None,
) -> ResumeFolder:
    """Open a `ResumeFolder` that several processes share.

    Args:
        processes: processes that share the folder.
        out: path of the folder; None stores nothing.
        configuration: settings of the evaluation, as JSON values. Fingerprints of the networks and of the data are
            added.
        model: evaluated network.
        data: images to evaluate.
        sources: other networks that results depend on, by name.

    Raises:
        CheckpointError: the folder holds the steps of another configuration.
        OutputError: the folder can't be written.
        ProcessError: another process has ended.
    """
    if out is not None:
        weights = {name: fingerprint(network.state_dict()) for name, network in (sources or {}).items()}
        configuration = {**configuration, "sources": weights, **fingerprints(model, data)}
    resume = ResumeFolder(out, configuration)
    processes.gather(None)  # no process starts before all have checked the configuration
    return resume


def fingerprints(model: nn.Module, data: Images) -> dict[str, Any]:
    """Weights, images, hardware and versions that results depend on besides the settings, as JSON values."""
    device = data.device
    return {
        "weights": fingerprint(model.state_dict()),
        "data": data.name,
        "images": len(data),
        **data_fingerprints(data),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "smoothed": package_version(),
        "generator": GENERATOR,
    }


def data_fingerprints(data: Images) -> dict[str, str]:
    """Fingerprints of the first images, as floats on their device, and of all labels."""
    pixels, _ = next(iter(data.batches(FINGERPRINT_IMAGES)))
    return {"pixels": fingerprint({"pixels": pixels}), "labels": fingerprint({"labels": data.labels})}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Fingerprint of tensors, in the order of their names: 16 hexadecimal digits of a SHA-256 hash."""
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        contiguous = tensor.detach().cpu().contiguous()
        digest.update(f"{contiguous.dtype} {tuple(contiguous.shape)}".encode())
        digest.update(contiguous.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _on_cpu(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def _require_same(path: Path, configuration: dict[str, Any], option: str) -> None:
    """Raise `CheckpointError` unless the file `path` holds `configuration`."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: expected the configuration of an evaluation, got {error}") from None
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: expected the configuration of an evaluation, got {stored!r}")
    for name in [*configuration, *(name for name in stored if name not in configuration)]:
        there, here = stored.get(name), configuration.get(name)
        if there != here:
            raise CheckpointError(
                f"{option}: expected an evaluation with {name} = {here!r}, got one with {there!r} in {path.parent}; "
                "use the same options as before, or another folder"
            )
