"""The paper's evaluation: one attack and one set of draws for each noise, from which every vote and M is read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from smoothed.attacks import (
    ATTACKS,
    EVALUATION_ATTACKS,
    SINGLE_DRAW_ATTACKS,
    SINGLE_STEP_ATTACKS,
    Attack,
    named_attack,
)
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import Sees
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress, Setting, ignore_progress, measure_outcomes
from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.evaluation.resume import open_resume_folder
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_choice, check_positive
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes


@dataclass(frozen=True)
class PaperProtocol:
    """Settings of the attack and of the votes.

    Attributes:
        attack: name of the attack, one of `attacks.EVALUATION_ATTACKS`.
        eps: radius of the attack in pixel units of [0, 1], or the number of pixels of an L0 attack.
        norm: norm of the radius, `linf` or `l2`; ignored by attacks that have a fixed norm.
        steps: number of gradient steps (k).
        eot_samples: draws averaged for each gradient or each query, by attacks that average over draws.
        max_queries: queries per image of a black-box attack.
        sees: outputs that a query of a black-box attack returns: `logits`, `shares` or `labels`.
        votes: names of the votes.
        num_samples: numbers of draws per image (M).
        runs: number of repetitions, each with fresh attacks and draws.
        seed: seed of all randomness.
        precision: number format of the votes; attacks use float32.

    Raises:
        ArgumentError: an unknown norm or vote, a repeated vote or M, or a number out of range.
    """

    attack: str = "pgd"
    eps: float = 8 / 255
    norm: str = "linf"
    steps: int = 7
    eot_samples: int = 8
    max_queries: int = 1000
    sees: Sees = "logits"
    votes: tuple[str, ...] = tuple(VOTES)
    num_samples: tuple[int, ...] = (1, 8, 64)
    runs: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_choice(self.norm, BALLS, "norm")
        check_positive(self.runs, "runs")
        for vote in self.votes:
            check_choice(vote, VOTES, "votes")
        for count in self.num_samples:
            check_positive(count, "num_samples")
        for name in ("votes", "num_samples"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ArgumentError(name, "no repeated values", ",".join(map(str, getattr(self, name))))

    def setting(self) -> dict[str, Any]:
        """Row fields that all rows of this protocol share; settings that the attack ignores are 1 or None."""
        named = ATTACKS[self.attack]
        return {
            "attack": self.attack,
            "steps": 1 if self.attack in SINGLE_STEP_ATTACKS else self.steps,
            "eot_samples": 1 if self.attack in SINGLE_DRAW_ATTACKS else self.eot_samples,
            "eps": self.eps,
            "norm": named.norm or self.norm,
            "max_queries": self.max_queries if named.uses_queries else None,
            "sees": self.sees if named.uses_queries else None,
            "precision": self.precision,
            "seed": self.seed,
        }

    def build_attack(self, sources: Sequence[nn.Module] = ()) -> Attack:
        """The attack with its options set; `sources` are the source networks of a transfer attack.

        Raises:
            ArgumentError: an unknown attack, or an option out of range.
        """
        check_choice(self.attack, EVALUATION_ATTACKS, "attack")
        return named_attack(
            self.attack,
            eps=self.eps,
            steps=self.steps,
            eot_samples=self.eot_samples,
            norm=self.norm,
            max_queries=self.max_queries,
            sees=self.sees,
            sources=sources,
        )


def evaluate(
    model: nn.Module,
    data: Images,
    protocol: PaperProtocol,
    *,
    noises: Sequence[NoiseConfig],
    name: str,
    base: bool = True,
    sources: Mapping[str, nn.Module] | None = None,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
) -> list[Row]:
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
        sources: source networks of a transfer attack by name, on the device of the data.
        out: folder that stores finished batches, from which an interrupted evaluation continues; None stores nothing.
        chunk_size: rows of one forward pass of the vote.
        processes: processes that share the batches; each of them gets all rows. With fewer batches than processes, all
            of them attack each batch and share its vote.
        on_progress: called after each batch with the finished batches of this process and their total.

    Returns:
        The base row, then one row for each noise, vote and M, in the order given.

    Raises:
        ArgumentError: an unknown attack, an option out of range, or a noise that does not fit the model.
        CheckpointError: `out` holds the batches of another configuration.
        OutputError: `out` can't be written.
        ProcessError: another process has ended.
    """
    votes = {vote: vote for vote in protocol.votes}
    row_groups = [(noise, votes, protocol.num_samples) for noise in noises]
    if base:
        row_groups.insert(0, (NoiseConfig(sigma=0.0), {ONE_DRAW: "prediction"}, (1,)))
    sources = sources or {}
    attack = protocol.build_attack(tuple(sources.values()))
    settings = [Setting(noise.for_model(model), votes, counts) for noise, votes, counts in row_groups]
    configuration = {
        "protocol": "paper",
        "model": name,
        **asdict(protocol),
        "noises": list(map(asdict, noises)),
        "base": base,
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
        processes=processes,
        on_progress=on_progress,
    )
    return [
        Row.from_counts(
            clean=correct[0, i, j].tolist(),
            robust=correct[1, i, j].tolist(),
            images=len(data),
            model=name,
            vote=vote,
            num_samples=count,
            sources=tuple(sources),
            **noise.to_json(model),
            **protocol.setting(),
        )
        for (noise, votes, counts), right in zip(row_groups, outcomes, strict=True)
        for correct in [right.sum(-1)]  # (kinds, votes, M, runs)
        for i, vote in enumerate(votes)
        for j, count in enumerate(counts)
    ]
