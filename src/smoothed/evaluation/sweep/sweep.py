"""Accuracy at every sigma, vote and M: each sigma takes one attack and one set of draws, shared by all votes and Ms.

Outcomes are kept for each image, so that `peaks.py` can compare settings on the same images and noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress, Setting, ignore_progress, measure_outcomes
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol
from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.resume import open_resume_folder
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.distributed import SINGLE_PROCESS, Processes


@dataclass(frozen=True)
class Cell:
    """Accuracy at one sigma, vote and M.

    Attributes:
        sigma: standard deviation of the input noise, in pixel units of [0, 1].
        vote: name of the vote.
        num_samples: number of draws per image (M).
        clean: accuracy on clean images.
        robust: accuracy under attack; None without an attack.
    """

    sigma: float
    vote: str
    num_samples: int
    clean: Accuracy
    robust: Accuracy | None

    @property
    def criterion(self) -> Accuracy:
        """The accuracy by which settings are compared: robust accuracy, or clean accuracy without an attack."""
        return self.robust or self.clean


@dataclass(frozen=True, eq=False)
class Sweep:
    """Result of a sweep.

    Attributes:
        model: name or path of the checkpoint.
        data: name of the data set.
        setting: settings that all cells share, under the field names of `Row`.
        sigmas: standard deviations of the input noise in pixel units of [0, 1], ascending; means over channels.
        sigmas_normalized: the same deviations in the paper's unit; None if the model has no `normalize` layer.
        votes: names of the votes.
        num_samples: numbers of draws per image (M), ascending.
        right: whether each image was classified correctly. The first axis holds clean images and, with an attack,
            attacked images.
        kept_images: the first images before the attack, (kept, C, H, W); None where none are kept.
        adversarial: the same after the attack at each sigma, (sigmas, kept, C, H, W), in the first run; None where none
            are kept, and without an attack.
    """

    model: str
    data: str
    setting: Mapping[str, Any]
    sigmas: tuple[float, ...]
    sigmas_normalized: tuple[float, ...] | None
    votes: tuple[str, ...]
    num_samples: tuple[int, ...]
    right: Bool[Tensor, "kinds sigmas votes ms runs images"]
    kept_images: Float[Tensor, "kept c h w"] | None = None
    adversarial: Float[Tensor, "sigmas kept c h w"] | None = None

    @property
    def attacked(self) -> bool:
        """Whether the sweep includes an attack."""
        return len(self.right) > 1

    @property
    def runs(self) -> int:
        """Number of repetitions."""
        return self.right.shape[-2]

    @property
    def images(self) -> int:
        """Number of images."""
        return self.right.shape[-1]

    @property
    def criterion(self) -> Bool[Tensor, "sigmas votes ms runs images"]:
        """The outcomes by which settings are compared: on attacked images, or on clean images without an attack."""
        return self.right[-1]

    def cells(self) -> list[Cell]:
        """All cells, ordered by vote, then M, then sigma."""
        return [
            Cell(sigma, vote, count, self._accuracy(0, i, j, k), self._accuracy(1, i, j, k) if self.attacked else None)
            for j, vote in enumerate(self.votes)
            for k, count in enumerate(self.num_samples)
            for i, sigma in enumerate(self.sigmas)
        ]

    def normalized(self, sigma: float) -> float | None:
        """Convert one of `sigmas` to the paper's unit; None if the model has no `normalize` layer."""
        return None if self.sigmas_normalized is None else self.sigmas_normalized[self.sigmas.index(sigma)]

    def to_setting(self) -> dict[str, Any]:
        """The settings of all cells as JSON values; with the tensor `right` they are the whole sweep."""
        axes = ("sigmas", "sigmas_normalized", "votes", "num_samples")
        return {**self.setting, **{name: getattr(self, name) for name in axes}}

    @classmethod
    def from_setting(cls, model: str, data: str, setting: Mapping[str, Any], right: Tensor) -> Self:
        """Read the values of `to_setting`."""
        shared = dict(setting)
        axes = {name: shared.pop(name) for name in ("sigmas", "sigmas_normalized", "votes", "num_samples")}
        tuples: dict[str, Any] = {name: values and tuple(values) for name, values in axes.items()}
        return cls(model, data, shared, **tuples, right=right)

    def _accuracy(self, kind: int, sigma: int, vote: int, count: int) -> Accuracy:
        return Accuracy.of_shares(list(self.right[kind, sigma, vote, count]))

    def row(self, cell: Cell) -> dict[str, Any]:
        """A cell as JSON values, under the field names of `Row`; without an attack, the attack's fields are None."""
        numbers: dict[str, Any] = {}
        for name, accuracy in (("clean", cell.clean), ("robust", cell.robust)):
            numbers[name] = accuracy and accuracy.mean
            numbers[f"{name}_interval"] = accuracy and accuracy.interval
            numbers[f"{name}_std"] = accuracy and accuracy.std
        coordinates = {
            "vote": cell.vote,
            "num_samples": cell.num_samples,
            "sigma": cell.sigma,
            "sigma_normalized": self.normalized(cell.sigma),
        }
        sizes = {"images": self.images, "runs": self.runs}
        return {"model": self.model, **coordinates, **self.setting, **numbers, **sizes}


def sweep(
    model: nn.Module,
    data: Images,
    protocol: PaperProtocol,
    *,
    noises: Sequence[NoiseConfig],
    name: str,
    layer: str | None = None,
    pack_draws: bool | None = None,
    sources: Mapping[str, nn.Module] | None = None,
    keep_images: int = 0,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
    on_passes: OnProgress = ignore_progress,
) -> Sweep:
    """Clean and robust accuracy of `model` at each sigma, vote and M, measured as by `evaluate`.

    The attack on each sigma sees the noise of that sigma. The cost per sigma is one attack, plus the draws of the
    largest M on clean and on attacked images, or fewer if votes are decided earlier.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the data.
        data: images to evaluate.
        protocol: attack, votes, Ms and runs; the attack may also be `none`.
        noises: input noises of one distribution, with distinct deviations.
        name: name of the model in the result.
        layer: name of a submodule whose input receives the noise instead of the image; None for the image.
        pack_draws: whether one pass may hold several draws of an image (`Smoothed`).
        sources: source networks of a transfer attack by name, on the device of the data.
        keep_images: number of images, from the first on, that are kept with their adversarial versions.
        out: folder that stores finished batches, from which an interrupted sweep continues; None stores nothing.
        chunk_size: rows of one forward pass of the vote.
        processes: processes that share the batches, as in `evaluate`; each of them gets the result.
        on_progress: called after each batch with the finished batches of this process and their total.
        on_passes: called after each pass with the finished passes of this process and an estimate of their total.

    Raises:
        ArgumentError: no noises, repeated ones, several distributions, or an unknown attack.
        CheckpointError: `out` holds the batches of another configuration.
        OutputError: `out` can't be written.
        ProcessError: another process has ended.
    """
    if not noises or len(set(noises)) != len(noises):
        sigmas = [noise.sigma_normalized if noise.sigma is None else noise.sigma for noise in noises]
        raise ArgumentError("sigma", "at least one value and no repeated ones", sigmas)
    laws = sorted({noise.law for noise in noises})
    if len(laws) > 1:
        raise ArgumentError("noise", "one distribution for all values of sigma", ", ".join(laws))
    sources = sources or {}
    attack = protocol.build_attack(tuple(sources.values()))
    ascending = sorted(((noise.to_json(model), noise) for noise in noises), key=lambda pair: pair[0]["sigma"])
    noises, counts = [noise for _, noise in ascending], tuple(sorted(protocol.num_samples))
    votes = protocol.named_votes
    settings = [Setting(noise.for_model(model), votes, counts, layer, pack_draws) for noise in noises]
    options = {
        **protocol.configuration(),
        "num_samples": counts,
        "noises": [noise.settings() for noise in noises],
        "layer": layer,
    }
    configuration = {"protocol": "sweep", "model": name, **options}
    if keep_images:
        configuration["keep_images"] = keep_images
    resume = open_resume_folder(processes, out, configuration, model, data, sources=sources)
    outcomes = measure_outcomes(
        model,
        data,
        settings,
        attack,
        runs=protocol.runs,
        seed=protocol.seed,
        precision=protocol.precision,
        resume=resume,
        chunk_size=chunk_size,
        keep_images=keep_images,
        keep_votes=False,
        processes=processes,
        on_progress=on_progress,
        attack_passes=protocol.attack_passes,
        on_passes=on_passes,
    )
    setting = {"noise": noises[0].name, **protocol.setting(), "sources": tuple(sources)}
    sigmas = tuple(fields["sigma"] for fields, _ in ascending)
    normalized = tuple(fields["sigma_normalized"] for fields, _ in ascending)
    return Sweep(
        name,
        data.name,
        setting,
        sigmas,
        None if None in normalized else normalized,
        tuple(votes),
        counts,
        torch.stack([outcome.right for outcome in outcomes], 1),
        outcomes[0].images if keep_images else None,
        torch.stack([outcome.adversarial for outcome in outcomes]) if keep_images and attack else None,
    )
