"""Evaluation: attack once, tally once, and read every M and every vote off the same draws."""

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
from smoothed.evaluation.resume import records_of_all
from smoothed.smoothing.input_noise import NOISES, ScaledNoise
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_choice, check_positive
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import ALONE, Processes

SIGMA_UNITS = ("normalized", "pixel")


@dataclass(frozen=True)
class Protocol:
    """How to measure: the attack and the vote, as plain values.

    Attributes:
        attack: a key of `attacks.ATTACKS` that stays in its ball.
        eps: its radius in pixel units of [0, 1], or the number of pixels of an attack in L0.
        norm: of the radius, `linf` or `l2`, where the attack has none of its own.
        steps: its gradient steps, k.
        attack_samples: draws for each gradient of an expectation, or answers averaged for each query.
        max_queries: answers for each image, of attacks that only ask.
        sees: what those show, `logits`, `shares` or `labels`.
        votes: names of votes.
        num_samples: numbers of draws, M.
        noise: the law of the input noise, a key of `noise.NOISES`.
        sigma_units: of all sigmas: `normalized` (the paper's) or `pixel`.
        runs: how often to measure, each with fresh attacks and draws.
        seed: of everything random.
        precision: of the votes; attacks are float32.
    """

    attack: str = "pgd"
    eps: float = 8 / 255
    norm: str = "linf"
    steps: int = 7
    attack_samples: int = 8
    max_queries: int = 1000
    sees: Sees = "logits"
    votes: tuple[str, ...] = tuple(VOTES)
    num_samples: tuple[int, ...] = (1, 8, 64)
    noise: str = "gaussian"
    sigma_units: str = "normalized"
    runs: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_choice(self.noise, NOISES, "noise")
        check_choice(self.norm, BALLS, "norm")
        check_choice(self.sigma_units, SIGMA_UNITS, "sigma_units")
        check_positive(self.runs, "runs")
        for vote in self.votes:
            check_choice(vote, VOTES, "votes")
        for count in self.num_samples:
            check_positive(count, "num_samples")
        for name in ("votes", "num_samples"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ArgumentError(name, "each value once", ",".join(map(str, getattr(self, name))))

    def setting(self) -> dict[str, Any]:
        """What all rows of this protocol have in common; what the attack ignores is 1, or None."""
        named = ATTACKS[self.attack]
        return {
            "noise": self.noise,
            "sigma_units": self.sigma_units,
            "attack": self.attack,
            "steps": 1 if self.attack in SINGLE_STEP_ATTACKS else self.steps,
            "attack_samples": 1 if self.attack in SINGLE_DRAW_ATTACKS else self.attack_samples,
            "eps": self.eps,
            "norm": named.norm or self.norm,
            "max_queries": self.max_queries if named.asks else None,
            "sees": self.sees if named.asks else None,
            "precision": self.precision,
            "seed": self.seed,
        }

    def settled_attack(self, sources: Sequence[nn.Module] = ()) -> Attack:
        """The attack with its options; `sources` are what it transfers from."""
        check_choice(self.attack, EVALUATION_ATTACKS, "attack")
        return named_attack(
            self.attack,
            eps=self.eps,
            steps=self.steps,
            num_samples=self.attack_samples,
            norm=self.norm,
            max_queries=self.max_queries,
            sees=self.sees,
            sources=sources,
        )

    def input_noise(self, model: nn.Module, sigma: float) -> ScaledNoise:
        """The input noise of deviation `sigma` in this protocol's units."""
        law = NOISES[self.noise]
        if self.sigma_units == "pixel":
            return law(sigma)
        normalize = getattr(model, "normalize", None)
        if normalize is None:
            raise ArgumentError("sigma_units", "pixel for a model without a `normalize` layer", "normalized")
        return law.normalized(sigma, normalize.std.flatten().tolist())


def evaluate(
    model: nn.Module,
    data: Images,
    protocol: Protocol,
    *,
    sigmas: Sequence[float],
    name: str,
    base: bool = True,
    sources: Mapping[str, nn.Module] | None = None,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = ALONE,
    on_progress: OnProgress = ignore_progress,
) -> list[Row]:
    """Clean and attacked accuracy of `model`, alone and smoothed.

    As in the paper, the attacker sees all of the network and one fresh draw of every noise at each gradient (or as many
    as the attack averages over); the vote then takes draws of its own.

    Args:
        model: from images to logits (N, K), on the data's device.
        data: the images to measure on.
        protocol: how.
        sigmas: deviations of the input noise, in the protocol's units.
        name: of the model, for the rows.
        base: whether the first row is the network's own, one draw without input noise.
        sources: what a transfer attack starts from, by name; on the data's device.
        out: a folder for the batches done, from which a killed evaluation goes on; None keeps nothing.
        chunk_size: rows of one forward pass of the vote.
        processes: those that share the batches; where there are fewer batches than processes, they all attack each
            batch and share its vote. All of them get the rows.
        on_progress: called after each batch of this process, with their total.

    Returns:
        The base row, then one row a sigma, vote and M, in the order given.

    Raises:
        ArgumentError: a setting that makes no sense.
        CheckpointError: `out` holds another configuration's batches.
        OutputError: `out` can't be written.
        ProcessError: another process is gone.
    """
    own, votes = [(0.0, {ONE_DRAW: "prediction"}, (1,))] if base else [], {vote: vote for vote in protocol.votes}
    asked = own + [(sigma, votes, protocol.num_samples) for sigma in sigmas]
    sources = sources or {}
    attack = protocol.settled_attack(tuple(sources.values()))
    settings = [Setting(protocol.input_noise(model, sigma), votes, at) for sigma, votes, at in asked]
    configuration = {"protocol": "paper", "model": name, **asdict(protocol), "sigmas": list(sigmas), "base": base}
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
    return [
        Row.from_counts(
            clean=correct[0, i, j].tolist(),
            robust=correct[1, i, j].tolist(),
            images=len(data),
            model=name,
            vote=vote,
            num_samples=count,
            sigma=sigma,
            sources=tuple(sources),
            **protocol.setting(),
        )
        for (sigma, votes, at), right in zip(asked, outcomes, strict=True)
        for correct in [right.sum(-1)]  # (kinds, votes, M, runs)
        for i, vote in enumerate(votes)
        for j, count in enumerate(at)
    ]
