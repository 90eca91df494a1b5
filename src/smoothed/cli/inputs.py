"""The checkpoint and the images that a command works on, loaded by their names on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from smoothed.checkpoint import Header, load, locate, read_header
from smoothed.data.images import Images
from smoothed.data.named import load_images
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.devices import Precision, best_device, resolve_precision
from smoothed.utils.distributed import Processes

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False)
class CommandInputs:
    """A checkpoint, images, and how to run the one on the other.

    Attributes:
        name: of the checkpoint, as it was given.
        path: of the checkpoint's file.
        header: of the checkpoint.
        network: the checkpoint's network, on the device of the images.
        images: to measure on.
        precision: of the votes.
        chunk_size: images of one forward pass of the vote.
        out: the folder for finished steps, or None.
        processes: that share the work.
    """

    name: str
    path: Path
    header: Header
    network: nn.Module
    images: Images
    precision: Precision
    chunk_size: int
    out: Path | None
    processes: Processes

    @classmethod
    def load(
        cls,
        model: str,
        data: str,
        split: str,
        count: int | None,
        precision: str = "float32",
        chunk_size: int = 250,
        out: Path | None = None,
    ) -> Self:
        """Load the checkpoint and the first `count` images (all when None) onto the best device."""
        processes = Processes.started()  # first, because it assigns each process its GPU
        device: torch.device = best_device()
        images = load_images(data, split).first(count).to(device)
        network, path = load(model, device=device), locate(model)
        settled = resolve_precision(precision, device)
        return cls(model, path, read_header(path), network, images, settled, chunk_size, out, processes)

    @property
    def noise(self) -> NoiseConfig:
        """The input noise that was chosen for the checkpoint."""
        return NoiseConfig.from_header(self.header)

    def load_sources(self, names: "Sequence[str] | None") -> dict[str, nn.Module]:
        """The networks that a transfer attack starts from, by name, on the device of the images."""
        return {name: load(name, device=self.images.labels.device) for name in names or ()}
