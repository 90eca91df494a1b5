"""The zoo: finished networks of the paper's tables and figures, in files small enough for the repository."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothed.api.load import ZOO
from smoothed.checkpoint import SUFFIX, load, locate, read_header, read_tensors, write_tensors
from smoothed.errors import ArgumentError
from smoothed.injection import NoiseLayer
from smoothed.paper.declaration import NetworkSpec
from smoothed.paper.networks import NETWORKS
from smoothed.training.card import CARD
from smoothed.training.recipes import RECIPES
from smoothed.utils.checks import check_choice
from smoothed.utils.files import write_json

MAX_BYTES, MAX_TOTAL_BYTES = 5_000_000, 32_000_000
"""Size limits of a file of the zoo and of all its files."""


@dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo.

    Attributes:
        name: name of the network, and of its file.
        path: its file.
        size: size of the file in bytes.
        header: header of the checkpoint.
    """

    name: str
    path: Path
    size: int
    header: dict[str, Any]

    @property
    def title(self) -> str:
        """Name of the network in the paper's tables; its own name for others."""
        return NETWORKS[self.name].title if self.name in NETWORKS else self.name

    def card(self) -> dict[str, Any]:
        """What the network is and how it was trained, as JSON values."""
        training = dict(self.header.get("training", {}))
        kept = {key: self.header.get(key) for key in ("architecture", "classes", "smoothing")}
        return {"name": self.name, "title": self.title, "bytes": self.size, **kept, "training": training}


def zoo_entries(folder: Path | str = ZOO) -> list[ZooEntry]:
    """List the networks of a zoo, by name.

    Raises:
        CheckpointError: a file is damaged.
    """
    paths = sorted(Path(folder).glob(f"*{SUFFIX}"))
    return [ZooEntry(path.stem, path, path.stat().st_size, read_header(path)) for path in paths]


def add_to_zoo(checkpoint: Path | str, name: str, folder: Path | str = ZOO) -> ZooEntry:
    """Write a trained network to a zoo, with its card `NAME.json`.

    The card also has the metrics of every epoch (`epochs`), if the checkpoint lies in the folder of its training.
    The learned strengths of the noise, most of the numbers of a network with CNI, are rounded to half precision, a
    relative change of at most 2^-11; smaller numbers than 2^-14 by at most 2^-25.

    Args:
        checkpoint: a file that training wrote.
        name: name of one of the paper's networks (`smoothed.paper.networks.NETWORKS`).
        folder: folder of the zoo.

    Raises:
        ArgumentError: the name is unknown, the network has another architecture, other data or other noise than the
            paper's network of this name, or the file would be larger than `MAX_BYTES`.
        CheckpointError: the file is damaged or no checkpoint.
        OutputError: the files can't be written.
    """
    check_choice(name, NETWORKS, "name")
    tensors, header = read_tensors(locate(checkpoint, "add"))
    _require_of_name(header, NETWORKS[name])
    strengths = {
        f"{layer}.{parameter}"
        for layer, module in load(checkpoint).named_modules()
        if isinstance(module, NoiseLayer)
        for parameter, _ in module.named_parameters()
    }
    size = sum(tensor.numel() * (2 if key in strengths else tensor.element_size()) for key, tensor in tensors.items())
    if size > MAX_BYTES:
        raise ArgumentError("add", f"a network of at most {MAX_BYTES / 1e6:g} MB", f"{size / 1e6:.1f} MB")
    small = {key: tensor.half() if key in strengths else tensor for key, tensor in tensors.items()}
    path = write_tensors(Path(folder) / f"{name}{SUFFIX}", small, header)
    entry = ZooEntry(name, path, path.stat().st_size, header)
    write_json({**entry.card(), **_epochs(locate(checkpoint).parent)}, path.with_suffix(".json"))
    return entry


def _epochs(folder: Path) -> dict[str, Any]:
    """The metrics of every epoch of the training in `folder`; nothing if there is none."""
    path = folder / CARD
    return {"epochs": json.loads(path.read_text(encoding="utf-8"))["epochs"]} if path.is_file() else {}


def _require_of_name(header: dict[str, Any], network: NetworkSpec) -> None:
    """Raise `ArgumentError` if a checkpoint can't be the paper's network of this name, whatever its schedule."""
    wanted = RECIPES[network.recipe].config(**{"data": network.data, "architecture": network.architecture})
    found = header.get("training", {}).get("config", {})
    for setting in ("architecture", "data", "injection"):
        value = found.get(setting, header.get(setting) if setting == "architecture" else None)
        if value != getattr(wanted, setting):
            expected = f"a network trained with {setting} {getattr(wanted, setting)!r} for the name {network.name}"
            raise ArgumentError("add", expected, repr(value))
