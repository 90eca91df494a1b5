"""Evaluation: attack once, tally once, and read every M and every vote off the same draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from smoothed.attacks import EVALUATION_ATTACKS, SINGLE_DRAW_ATTACKS, SINGLE_STEP_ATTACKS, Attack, named_attack
from smoothed.checks import check_choice, check_positive
from smoothed.data.images import Images
from smoothed.devices import Precision, autocast
from smoothed.errors import ArgumentError
from smoothed.evaluation.rows import ONE_DRAW, Row
from smoothed.injection import drawing
from smoothed.modes import evaluating
from smoothed.noise import NOISES, ScaledNoise
from smoothed.randomness import Fresh, mix, seeded
from smoothed.smoothing import OneDraw, Smoothed
from smoothed.tally import Tally
from smoothed.votes import VOTES

# Images that share one draw of weight noise, as a batch does in the paper: fixed, so that memory decides no number.
BATCH = 250

SIGMA_UNITS = ("normalized", "pixel")

# Which stream of randomness a key belongs to, so that the attacker's draws are never the defender's.
ATTACK, CLEAN, ROBUST = range(3)

OnProgress = Callable[[int, int], None]
"""Called with the batches done and their total."""


def ignore_progress(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Protocol:
    """How to measure: the attack and the vote, as plain values.

    Attributes:
        attack: a key of `attacks.ATTACKS` that stays in its ball.
        eps: its L-inf radius in pixel units of [0, 1].
        steps: its gradient steps, k.
        attack_samples: draws for each gradient of an expectation.
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
    steps: int = 7
    attack_samples: int = 8
    votes: tuple[str, ...] = tuple(VOTES)
    num_samples: tuple[int, ...] = (1, 8, 64)
    noise: str = "gaussian"
    sigma_units: str = "normalized"
    runs: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_choice(self.noise, NOISES, "noise")
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
        """What all rows of this protocol have in common; numbers that the attack ignores are 1."""
        return {
            "noise": self.noise,
            "sigma_units": self.sigma_units,
            "attack": self.attack,
            "steps": 1 if self.attack in SINGLE_STEP_ATTACKS else self.steps,
            "attack_samples": 1 if self.attack in SINGLE_DRAW_ATTACKS else self.attack_samples,
            "eps": self.eps,
            "precision": self.precision,
            "seed": self.seed,
        }

    def settled_attack(self) -> Attack:
        """The attack with its options."""
        check_choice(self.attack, EVALUATION_ATTACKS, "attack")
        return named_attack(self.attack, eps=self.eps, steps=self.steps, num_samples=self.attack_samples)

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
    chunk_size: int = 250,
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
        chunk_size: rows of one forward pass of the vote.
        on_progress: called after each batch.

    Returns:
        The base row, then one row a sigma, vote and M, in the order given.

    Raises:
        ArgumentError: a setting that makes no sense.
    """
    settings: list[_Setting] = [_Setting(0.0, {ONE_DRAW: "prediction"}, (1,))] if base else []
    settings += [_Setting(sigma, {vote: vote for vote in protocol.votes}, protocol.num_samples) for sigma in sigmas]
    attack = protocol.settled_attack()
    noises = [protocol.input_noise(model, setting.sigma) for setting in settings]
    done, total = 0, len(settings) * protocol.runs * -(-len(data) // BATCH)
    rows: list[Row] = []
    for setting, noise in zip(settings, noises, strict=True):
        smoothed = Smoothed(model, noise, num_samples=max(setting.at), chunk_size=chunk_size, seed=protocol.seed)
        clean, robust = _Correct(), _Correct()
        for run in range(protocol.runs):
            for number, (inputs, labels) in enumerate(data.batches(BATCH)):
                key = mix(protocol.seed, run, number)
                adversarial = _attacked(smoothed, attack, inputs, labels, seed=mix(key, ATTACK))
                for images, correct, stream in ((inputs, clean, CLEAN), (adversarial, robust, ROBUST)):
                    generator = seeded(mix(key, stream), inputs.device)
                    with autocast(protocol.precision, inputs.device):
                        tallies = smoothed.tally(images, setting.at, votes=setting.votes, generator=generator)
                    for vote, by_count in tallies.items():
                        for count, tally in by_count.items():
                            correct.add((vote, count), run, tally, labels)
                done += 1
                on_progress(done, total)
        rows += [
            Row.from_counts(
                clean=clean[vote, count],
                robust=robust[vote, count],
                images=len(data),
                model=name,
                vote=vote,
                num_samples=count,
                sigma=setting.sigma,
                **protocol.setting(),
            )
            for vote in setting.votes
            for count in setting.at
        ]
    return rows


@dataclass(frozen=True)
class _Setting:
    """One attack and one set of draws: a sigma, the votes by the names of their rows, and every M."""

    sigma: float
    votes: dict[str, str]
    at: tuple[int, ...]


class _Correct(dict[tuple[str, int], list[int]]):
    """Correct images of each run, by vote and M."""

    def add(self, key: tuple[str, int], run: int, tally: Tally, labels: Tensor) -> None:
        counts = self.setdefault(key, [])
        counts += [0] * (run + 1 - len(counts))
        counts[run] += int((tally.classes() == labels).sum())


def _attacked(smoothed: Smoothed, attack: Attack, inputs: Tensor, labels: Tensor, *, seed: int) -> Tensor:
    """Adversarial inputs against one-draw gradients, the input's noise and the network's from one generator."""
    generator = seeded(seed, inputs.device)
    draw = OneDraw(smoothed.model, smoothed.one_draw.noise, generator=generator)
    with drawing(draw, Fresh(generator)), evaluating(draw):
        return attack(draw, inputs, labels, generator)
