"""Evaluation: attack once, tally once, and read every M and every vote off the same draws."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from smoothed.attacks import Attack, named_attack
from smoothed.checks import check_choice, check_positive
from smoothed.data.imageset import ImageSet
from smoothed.devices import Precision, autocast
from smoothed.errors import ArgumentError
from smoothed.evaluation.rows import ONE_DRAW, Row
from smoothed.injection import drawing
from smoothed.modes import evaluating
from smoothed.noise import NOISES, ScaledNoise
from smoothed.randomness import Fresh, mix, seeded
from smoothed.smoothing import OneDraw, Smoothed
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
    votes: tuple[str, ...] = ("prediction", "weighted", "soft")
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

    def settled_attack(self) -> Attack:
        """The attack with its options."""
        if self.attack == "nfgsm":
            raise ArgumentError("attack", "an attack that stays within eps", "nfgsm, which only trains")
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
    data: ImageSet,
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
    settings: list[tuple[float, dict[str, None], tuple[int, ...]]] = []
    if base:
        settings.append((0.0, {ONE_DRAW: None}, (1,)))
    settings += [(sigma, dict.fromkeys(protocol.votes), protocol.num_samples) for sigma in sigmas]
    batches = -(-len(data) // BATCH)
    done, total = 0, len(settings) * protocol.runs * batches
    rows: list[Row] = []
    for sigma, votes, at in settings:
        noise = protocol.input_noise(model, sigma)
        by_name = {vote: "prediction" if vote == ONE_DRAW else vote for vote in votes}
        smoothed = Smoothed(model, noise, num_samples=max(at), chunk_size=chunk_size, seed=protocol.seed)
        clean, robust = defaultdict(list), defaultdict(list)
        for run in range(protocol.runs):
            correct_clean, correct_robust = defaultdict(int), defaultdict(int)
            for number, (inputs, labels) in enumerate(data.batches(BATCH)):
                key = mix(protocol.seed, run, number)
                adversarial = _attacked(model, noise, protocol.settled_attack(), inputs, labels, seed=mix(key, ATTACK))
                for images, counts, stream in ((inputs, correct_clean, CLEAN), (adversarial, correct_robust, ROBUST)):
                    with autocast(protocol.precision, inputs.device):
                        generator = seeded(mix(key, stream), inputs.device)
                        tallies = smoothed.tally(images, at, votes=by_name, generator=generator)
                    for vote in votes:
                        for count in at:
                            counts[vote, count] += int((tallies[vote][count].classes() == labels).sum())
                done += 1
                on_progress(done, total)
            for setting, count in correct_clean.items():
                clean[setting].append(count)
                robust[setting].append(correct_robust[setting])
        rows += [
            Row.from_counts(
                clean=clean[vote, count],
                robust=robust[vote, count],
                images=len(data),
                model=name,
                vote=vote,
                num_samples=count,
                sigma=sigma,
                sigma_units=protocol.sigma_units,
                attack=protocol.attack,
                steps=protocol.steps,
                eps=protocol.eps,
            )
            for vote in votes
            for count in at
        ]
    return rows


def _attacked(
    model: nn.Module, noise: ScaledNoise, attack: Attack, inputs: Tensor, labels: Tensor, *, seed: int
) -> Tensor:
    """Adversarial inputs against one-draw gradients, the input's noise and the network's from one generator."""
    generator = seeded(seed, inputs.device)
    with drawing(model, Fresh(generator)), evaluating(model):
        return attack(OneDraw(model, noise, generator=generator), inputs, labels, generator)
