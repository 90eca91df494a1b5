"""The paper's evaluation: one attack and one set of draws for each noise, from which every vote and M is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.attacks import (
    ATTACKS,
    EVALUATION_ATTACKS,
    SINGLE_DRAW_ATTACKS,
    SINGLE_STEP_ATTACKS,
    Attack,
    named_attack,
)
from smoothed.attacks.ball import BALLS
from smoothed.attacks.own import as_attack
from smoothed.attacks.query_based.queries import Sees
from smoothed.attacks.radius import settled_radius
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress, Outcomes, Setting, ignore_progress, measure_outcomes
from smoothed.evaluation.paper_protocol.rows import NO_ATTACK, ONE_DRAW, Row
from smoothed.evaluation.progress import GRADIENT
from smoothed.evaluation.resume import open_resume_folder
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.votes import VOTES, Vote
from smoothed.utils.checks import check_choice, check_positive
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.names import name_of

# How often attacks repeat their steps: for each of several classes, or in a search, as measured on a small network.
REPEATS = {"multi-targeted": 9, "apgd-t": 9, "cw-l2": 2, "cw-linf": 6, "cw-l0": 2}

KINDS_OF_IMAGES = ("clean", "robust")
"""Names of the first axis of `Outcomes`."""


@dataclass(frozen=True)
class PaperProtocol:
    """Settings of the attack and of the votes.

    Attributes:
        attack: name of the attack, one of `attacks.EVALUATION_ATTACKS`; `none` for clean images only; or an attack of
            your own (`Attack`) with all of its options set, which the options below then only describe.
        eps: radius of the attack in pixel units of [0, 1], or the number of pixels of an L0 attack; None for the
            default of the norm: 8/255 for `linf`, 0.5 for `l2`.
        norm: norm of the radius, `linf` or `l2`; attacks that have a fixed norm ignore it.
        steps: number of gradient steps (k).
        eot_samples: draws averaged for each gradient or each query, by attacks that average over draws.
        max_queries: queries per image of a black-box attack.
        sees: outputs that a query of a black-box attack returns: `logits`, `shares` or `labels`.
        votes: votes, as names or functions from logits to scores.
        num_samples: numbers of draws per image (M).
        runs: number of repetitions, each with fresh attacks and draws.
        seed: seed of all randomness.
        precision: number format of the votes; attacks use float32.

    Raises:
        ArgumentError: an unknown norm or vote, a repeated vote or M, or a number out of range.
    """

    attack: str | Attack = "pgd"
    eps: float | None = None
    norm: str = "linf"
    steps: int = 7
    eot_samples: int = 8
    max_queries: int = 1000
    sees: Sees = "logits"
    votes: tuple[str | Vote, ...] = tuple(VOTES)
    num_samples: tuple[int, ...] = (1, 8, 64)
    runs: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_choice(self.norm, BALLS, "norm")
        check_positive(self.runs, "runs")
        for vote in self.votes:
            if not callable(vote):
                check_choice(vote, VOTES, "votes")
        for count in self.num_samples:
            check_positive(count, "num_samples")
        for name, values in (("votes", tuple(map(name_of, self.votes))), ("num_samples", self.num_samples)):
            if len(set(values)) != len(values):
                raise ArgumentError(name, "no repeated values", ",".join(map(str, values)))

    @property
    def attack_name(self) -> str:
        """Name of the attack; that of its function for an attack of your own."""
        return name_of(self.attack)

    @property
    def named_votes(self) -> dict[str, str | Vote]:
        """The votes by name."""
        return {name_of(vote): vote for vote in self.votes}

    @property
    def settled_norm(self) -> str:
        """Norm of the radius: that of the attack if it has a fixed norm."""
        return (isinstance(self.attack, str) and self.attack in ATTACKS and ATTACKS[self.attack].norm) or self.norm

    @property
    def settled_eps(self) -> float:
        """Radius of the attack; the default of its norm if none is given."""
        return settled_radius(self.eps, self.settled_norm)

    def configuration(self) -> dict[str, Any]:
        """All settings as JSON values, for resumable work."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "attack": self.attack_name,
            "votes": list(self.named_votes),
        }

    def setting(self) -> dict[str, Any]:
        """Row fields that all rows of this protocol share; settings that the attack ignores are 1 or None."""
        common = {
            "attack": self.attack_name,
            "eps": None if self.attack == NO_ATTACK else self.settled_eps,
            "norm": None if self.attack == NO_ATTACK else self.settled_norm,
            "precision": self.precision,
            "seed": self.seed,
        }
        if not isinstance(self.attack, str) or self.attack == NO_ATTACK:
            return {**common, "steps": None, "eot_samples": None, "max_queries": None, "sees": None}
        named = ATTACKS[self.attack]
        return {
            **common,
            "steps": self.steps if named.multi_step else 1 if self.attack in SINGLE_STEP_ATTACKS else None,
            "eot_samples": 1 if self.attack in SINGLE_DRAW_ATTACKS else self.eot_samples,
            "max_queries": self.max_queries if named.uses_queries else None,
            "sees": self.sees if named.uses_queries else None,
        }

    @property
    def attack_passes(self) -> int:
        """Estimated passes of the attack per image, as `PassProgress` counts them; `steps` describe one of your own."""
        if self.attack == NO_ATTACK:
            return 0
        setting = self.setting()
        if setting["max_queries"] is not None:
            return self.max_queries
        repeats = REPEATS.get(self.attack_name, 1)
        return GRADIENT * repeats * (setting["steps"] or self.steps) * (setting["eot_samples"] or 1)

    def build_attack(self, sources: Sequence[nn.Module] = ()) -> Attack | None:
        """The attack with its options set; `sources` are the source networks of a transfer attack. None for `none`.

        Raises:
            ArgumentError: an unknown attack, or an option out of range.
        """
        if self.attack == NO_ATTACK:
            return None
        eps = self.settled_eps
        if not isinstance(self.attack, str):
            return as_attack(self.attack, in_range=True)
        check_choice(self.attack, (*EVALUATION_ATTACKS, NO_ATTACK), "attack")
        return named_attack(
            self.attack,
            eps=eps,
            steps=self.steps,
            eot_samples=self.eot_samples,
            norm=self.norm,
            max_queries=self.max_queries,
            sees=self.sees,
            sources=sources,
        )


@dataclass(frozen=True, eq=False)
class PaperResult:
    """Rows of the paper's evaluation, and the outcome of each image.

    Attributes:
        rows: the base row, if there is one, then one row for each noise, vote and M.
        outcomes: outcomes of each setting: those of the base network first, then one for each noise.
        places: for each row, its setting, and its vote and M within the outcomes of the setting.
    """

    rows: list[Row]
    outcomes: list[Outcomes]
    places: list[tuple[int, int, int]]

    def of_row(self, row: int, name: str) -> Tensor:
        """An attribute of `Outcomes` for one row, whose first axis holds clean and attacked images."""
        setting, vote, count = self.places[row]
        return getattr(self.outcomes[setting], name)[:, vote, count]

    def tensors(self) -> dict[str, Tensor]:
        """The outcomes of all rows, by the names of docs/results-format.md.

        `clean.NAME` and `robust.NAME` have the shape (rows, runs, images) for `right`, `margin` and `draws`, and
        (rows, kept, K) for `shares`. `images` are the kept images, (kept, C, H, W), and `adversarial` their attacked
        versions, (settings, kept, C, H, W); `setting` is the number of each row's setting, (rows,).
        """
        tensors: dict[str, Tensor] = {"setting": torch.tensor([setting for setting, _, _ in self.places])}
        kept = len(self.outcomes[0].images)
        for name in ("right", "margin", "draws", *(["shares"] if kept else [])):
            for number, kind in enumerate(KINDS_OF_IMAGES[: self.outcomes[0].right.shape[0]]):
                tensors[f"{kind}.{name}"] = torch.stack(
                    [self.of_row(row, name)[number] for row in range(len(self.rows))]
                )
        if kept:
            tensors["images"] = self.outcomes[0].images
        if kept and self.outcomes[0].right.shape[0] > 1:
            tensors["adversarial"] = torch.stack([outcomes.adversarial for outcomes in self.outcomes])
        return tensors


def evaluate_paper_protocol(
    model: nn.Module,
    data: Images,
    protocol: PaperProtocol,
    *,
    noises: Sequence[NoiseConfig],
    name: str,
    base: bool = True,
    layer: str | None = None,
    pack_draws: bool | None = None,
    keep_images: int = 0,
    sources: Mapping[str, nn.Module] | None = None,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
    on_passes: OnProgress = ignore_progress,
) -> PaperResult:
    """Clean and robust accuracy of `model`, as single draws and smoothed.

    As in the paper, the attack is white-box: at each gradient it sees one fresh draw of all noise, or as many draws as
    it averages over. The vote then uses independent draws.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the data.
        data: images to evaluate.
        protocol: settings of the attack and of the votes.
        noises: input noises; each has its own attack and votes.
        name: name of the model in the rows.
        base: whether to add a first row for the base network: one draw without input noise.
        layer: name of a submodule whose input receives the noise instead of the image; None for the image.
        pack_draws: whether one pass may hold several draws of an image (`Smoothed`).
        keep_images: number of images, from the first on, whose vote shares and adversarial images are kept.
        sources: source networks of a transfer attack by name, on the device of the data.
        out: folder that stores finished batches, from which an interrupted evaluation continues; None stores nothing.
        chunk_size: rows of one forward pass of the vote.
        processes: processes that share the batches; each of them gets all rows. With fewer batches than processes, all
            of them attack each batch and share its vote.
        on_progress: called after each batch with the finished batches of this process and their total.
        on_passes: called after each pass with the finished passes of this process and an estimate of their total.

    Returns:
        The rows and the outcomes of each image.

    Raises:
        ArgumentError: an unknown attack, an option out of range, a noise that does not fit the model, or labels that
            the model has no class for.
        CheckpointError: `out` holds the batches of another configuration.
        OutputError: `out` can't be written.
        ProcessError: another process has ended.
    """
    row_groups = [(noise, protocol.named_votes, protocol.num_samples) for noise in noises]
    settings = [
        Setting(noise.for_model(model), votes, counts, layer, pack_draws) for noise, votes, counts in row_groups
    ]
    if base:
        row_groups.insert(0, (NoiseConfig(sigma=0.0), {ONE_DRAW: "prediction"}, (1,)))
        settings.insert(0, Setting(None, {ONE_DRAW: "prediction"}, (1,)))
    sources = sources or {}
    attack = protocol.build_attack(tuple(sources.values()))
    configuration = {
        "protocol": "paper",
        "model": name,
        **protocol.configuration(),
        "noises": [noise.settings() for noise in noises],
        "base": base,
        "layer": layer,
        "keep_images": keep_images,
    }
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
        processes=processes,
        on_progress=on_progress,
        attack_passes=protocol.attack_passes,
        on_passes=on_passes,
    )
    rows: list[Row] = []
    places: list[tuple[int, int, int]] = []
    for number, (noise, votes, counts) in enumerate(row_groups):
        correct = outcomes[number].right.sum(-1)  # (kinds, votes, M, runs)
        for i, vote in enumerate(votes):
            for j, count in enumerate(counts):
                places.append((number, i, j))
                row = Row.from_counts(
                    clean=correct[0, i, j].tolist(),
                    robust=correct[1, i, j].tolist() if attack else None,
                    images=len(data),
                    model=name,
                    vote=vote,
                    num_samples=count,
                    sources=tuple(sources),
                    **noise.to_json(model),
                    **protocol.setting(),
                )
                rows.append(row)
    return PaperResult(rows, outcomes, places)
