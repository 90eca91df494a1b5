"""What `smoothed evaluate` works on, whichever protocol."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from smoothed.checkpoint import Header, load, locate, read_header
from smoothed.data.images import Images
from smoothed.data.named import load_images
from smoothed.utils.devices import Precision, best_device, resolve_precision
from smoothed.utils.distributed import Processes


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A checkpoint, images, and how to run the one on the other.

    Attributes:
        name: of the checkpoint, as it was given.
        path: its file.
        header: its header.
        network: it, on the device of the images.
        images: what to measure on.
        precision: of the votes.
        chunk_size: images of one forward pass of the vote.
        out: a folder to go on from, or None.
        processes: those that share the work.
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
        precision: str,
        chunk_size: int,
        out: Path | None,
    ) -> Self:
        """All of it by the names that the command line has for it."""
        processes = Processes.started()  # first, for it says which GPU is this process's own
        device: torch.device = best_device()
        images = load_images(data, split).first(count).to(device)
        network, path = load(model, device=device), locate(model)
        settled = resolve_precision(precision, device)
        return cls(model, path, read_header(path), network, images, settled, chunk_size, out, processes)
