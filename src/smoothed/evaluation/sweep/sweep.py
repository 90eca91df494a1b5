"""Accuracy at every sigma, vote and M: one attack and one set of draws for each sigma, whatever the votes and Ms.

Outcomes are kept image by image, so that settings can be compared on the same images and the same noise (`peaks.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress, Setting, ignore_progress, measure_outcomes
from smoothed.evaluation.paper_protocol.evaluate import Protocol
from smoothed.evaluation.resume import records_of_all
from smoothed.evaluation.worst_case.rows import Accuracy
from smoothed.utils.distributed import ALONE, Processes

NO_ATTACK = "none"
"""The attack of a protocol that measures clean images only."""


@dataclass(frozen=True)
class Cell:
    """The accuracy of one sigma, vote and M.

    Attributes:
        sigma: deviation of the input noise.
        vote: the vote's name.
        num_samples: draws of an image, M.
        clean: on clean images.
        robust: under attack; None where there was none.
    """

    sigma: float
    vote: str
    num_samples: int
    clean: Accuracy
    robust: Accuracy | None

    @property
    def judged(self) -> Accuracy:
        """What settings are judged by: the accuracy under attack, where there was one."""
        return self.robust or self.clean


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Attributes:
        model: name or path of the checkpoint.
        data: name of the images.
        setting: what all cells have in common, under the names of `Row`.
        sigmas: in ascending order.
        votes: by name.
        num_samples: every M, in ascending order.
        right: whether each image was right; the kinds are clean and, with an attack, attacked.
    """

    model: str
    data: str
    setting: Mapping[str, Any]
    sigmas: tuple[float, ...]
    votes: tuple[str, ...]
    num_samples: tuple[int, ...]
    right: Bool[Tensor, "kinds sigmas votes ms runs images"]

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return len(self.right) > 1

    @property
    def runs(self) -> int:
        """How often all was measured."""
        return self.right.shape[-2]

    @property
    def images(self) -> int:
        """How many images there are."""
        return self.right.shape[-1]

    @property
    def judged(self) -> Bool[Tensor, "sigmas votes ms runs images"]:
        """What settings are judged by: whether attacked images were right, where there was an attack."""
        return self.right[-1]

    def cells(self) -> list[Cell]:
        """All cells, by vote, M and sigma."""
        return [
            Cell(sigma, vote, count, self._accuracy(0, i, j, k), self._accuracy(1, i, j, k) if self.attacked else None)
            for j, vote in enumerate(self.votes)
            for k, count in enumerate(self.num_samples)
            for i, sigma in enumerate(self.sigmas)
        ]

    def _accuracy(self, kind: int, sigma: int, vote: int, count: int) -> Accuracy:
        return Accuracy.of_shares(list(self.right[kind, sigma, vote, count]))

    def row(self, cell: Cell) -> dict[str, Any]:
        """A cell as JSON values, under the names of `Row`; what an attack has is None where there was none."""
        numbers: dict[str, Any] = {}
        for name, accuracy in (("clean", cell.clean), ("robust", cell.robust)):
            numbers[name] = accuracy and accuracy.mean
            numbers[f"{name}_interval"] = accuracy and accuracy.interval
            numbers[f"{name}_std"] = accuracy and accuracy.std
        place = {"vote": cell.vote, "num_samples": cell.num_samples, "sigma": cell.sigma}
        return {"model": self.model, **place, **self.setting, **numbers, "images": self.images, "runs": self.runs}


def sweep(
    model: nn.Module,
    data: Images,
    protocol: Protocol,
    *,
    sigmas: Sequence[float],
    name: str,
    sources: Mapping[str, nn.Module] | None = None,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = ALONE,
    on_progress: OnProgress = ignore_progress,
) -> Sweep:
    """Clean and attacked accuracy of `model` at each sigma, vote and M, as `evaluate` measures it.

    Each sigma is attacked as it votes: the attacker sees its noise. A sigma costs its attack, and the draws of the
    largest M on clean and on attacked images, or fewer where votes are settled before.

    Args:
        model: from images to logits (N, K), on the data's device.
        data: the images to measure on.
        protocol: how; its attack may also be `none`.
        sigmas: deviations of the input noise, in the protocol's units, each once.
        name: of the model.
        sources: what a transfer attack starts from, by name; on the data's device.
        out: a folder for the batches done, from which a killed sweep goes on; None keeps nothing.
        chunk_size: rows of one forward pass of the vote.
        processes: those that share the batches, as `evaluate` has them. All of them get the sweep.
        on_progress: called after each batch of this process, with their total.

    Raises:
        ArgumentError: a setting that makes no sense.
        CheckpointError: `out` holds another configuration's batches.
        OutputError: `out` can't be written.
        ProcessError: another process is gone.
    """
    if not sigmas or len(set(sigmas)) != len(sigmas):
        raise ArgumentError("sigmas", "each value once, and at least one", list(sigmas))
    sources = sources or {}
    attack = None if protocol.attack == NO_ATTACK else protocol.settled_attack(tuple(sources.values()))
    sigmas, counts = tuple(sorted(sigmas)), tuple(sorted(protocol.num_samples))
    votes = {vote: vote for vote in protocol.votes}
    settings = [Setting(protocol.input_noise(model, sigma), votes, counts) for sigma in sigmas]
    configuration = {"protocol": "sweep", "model": name, **asdict(protocol), "num_samples": counts, "sigmas": sigmas}
    records = records_of_all(processes, out, configuration, model, data, sources=sources)
    outcomes = measure_outcomes(
        model,
        data,
        settings,
        attack,
        runs=protocol.runs,
        seed=protocol.seed,
        precision=protocol.precision,
        records=records,
        chunk_size=chunk_size,
        processes=processes,
        on_progress=on_progress,
    )
    setting = {**_setting(protocol), "sources": tuple(sources)}
    return Sweep(name, data.name, setting, sigmas, protocol.votes, counts, torch.stack(outcomes, 1))


def _setting(protocol: Protocol) -> dict[str, Any]:
    """What all cells have in common; without an attack, what it would have is None."""
    if protocol.attack != NO_ATTACK:
        return protocol.setting()
    common = replace(protocol, attack="pgd").setting()
    of_attack = ("steps", "attack_samples", "eps", "norm", "max_queries", "sees")
    return {**common, **dict.fromkeys(of_attack), "attack": NO_ATTACK}
