"""Draws that the rules of `smoothed.smoothing.stopping` save on the bundled network, and the classes that they change.

    python benchmarks/stopping.py --json stopping.json        # --quick: a few minutes on two cores

Every rule sees the same M = 512 draws of the same CIFAR-10 test images, clean and attacked (PGD-7, eps = 8/255), with
the network's own noise and sigma. A thousand images are too few to measure one changed class in a thousand, so
Confident is also measured on streams simulated from the class probabilities of these images, beside a bound of what any
rule could save that knows them (best_stopping.py).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from best_stopping import fewest_draws
from report import Row, at_least, at_most, seconds_in_turn, show
from smoothed import Fast, Smoothed, load
from smoothed.checkpoint import locate, read_header
from smoothed.data.named import load_images
from smoothed.data.sample import load_sample
from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol
from smoothed.rng.seeds import seeded
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.sampling import Sampler
from smoothed.smoothing.stopping import Budget, Confident, Exact, StoppingProblem, StoppingRule, TrueMode, VoteState
from smoothed.smoothing.votes import VOTES, Vote
from smoothed.utils.modes import eval_mode

NETWORK, TOTAL, BATCH = "resnet20-cni-w", 512, 250
# The share of classes changed, in %, at which rules are compared, and the settings that are tried for it.
CHANGED = 0.1
DELTAS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.01)
PRICES = (5e3, 8e3, 1.2e4, 1.6e4, 2e4, 3e4)


class Bench:
    """The network in its cheapest form, and its noise."""

    def __init__(self) -> None:
        network = load(NETWORK)
        self.protocol = PaperProtocol()
        self.noise = NoiseConfig.from_header(read_header(locate(NETWORK))).for_model(network)
        self.network = network
        self.smoothed = Smoothed(Fast(network, "auto"), self.noise, num_samples=TOTAL, chunk_size=BATCH, seed=0)

    def images(self, count: int, split: str) -> dict[str, Tensor]:
        """Images, clean and attacked."""
        images = load_sample() if split == "test" else load_images("cifar10", split)
        ((clean, labels),) = images.first(count).batches(count)
        attack = self.protocol.build_attack()
        made = [
            attack_noisy_classifier(self.network, self.noise, attack, *part, seed=number).detach()
            for number, part in enumerate(zip(clean.split(BATCH), labels.split(BATCH), strict=True))
        ]
        return {"clean": clean, "attacked": torch.cat(made)}

    @torch.no_grad()
    def draws(self, inputs: Tensor, seed: int) -> Tensor:
        """The logits of all draws, (N, M, K)."""
        made = []
        with eval_mode(self.smoothed.noisy_classifier):
            for number, part in enumerate(inputs.split(BATCH)):
                sampler = Sampler(
                    self.smoothed.noisy_classifier, seed, BATCH, pack_draws=False, first_image=number * BATCH
                )
                made.append(sampler.logits(part, torch.arange(len(part)), 0, TOTAL).float().transpose(0, 1))
        return torch.cat(made)


@dataclass(frozen=True)
class Outcome:
    """What a rule did."""

    drawn: float
    changed: float

    @property
    def saving(self) -> float:
        """How many times fewer draws than M."""
        return TOTAL / self.drawn


def follow(stop: StoppingRule, vote: Vote, scores: Tensor) -> Outcome:
    """A rule on streams of scores (N, M, K), against the class of all draws."""
    images = len(scores)
    monitor = stop.monitor(StoppingProblem(vote, TOTAL, images))
    sums, squares, going = torch.zeros_like(scores[:, 0]), torch.zeros_like(scores[:, 0]), torch.arange(images)
    drawn, decided = torch.full((images,), TOTAL), torch.zeros(images, dtype=torch.int64)
    for number in range(1, TOTAL):
        sums, squares = sums + scores[:, number - 1], squares + scores[:, number - 1].square()
        if len(going):
            needs = monitor(VoteState(sums[going], squares[going], number))
            done = going[needs == 0]
            drawn[done], decided[done] = number, sums[done].argmax(1)
            going = going[needs > 0]
    winner = (sums + scores[:, -1]).argmax(1)
    decided[going] = winner[going]
    return Outcome(float(drawn.double().mean()), 100 * float((decided != winner).double().mean()))


def savings(kind: str, logits: Tensor) -> list[Row]:
    """Each rule on the network's own draws."""
    scores = {name: vote(logits.flatten(0, 1)).view(logits.shape) for name, vote in VOTES.items()}
    rows = []
    for name, vote in VOTES.items():
        exact = follow(Exact(), vote, scores[name])
        rows.append(Row(f"{kind}: exact, {name} votes: M over the draws taken", exact.saving))
        rows.append(at_most(f"{kind}: exact, {name} votes: classes changed, %", exact.changed, 0))
        if name == "prediction":
            best = TOTAL / _first_decided(scores[name])
            rows.append(Row(f"{kind}: best rule that never errs: M over the draws taken", best))
            rows.append(at_least(f"{kind}: exact, as a share of that", exact.saving / best, 0.8))
    rules: Sequence[StoppingRule] = (
        Confident(),
        Confident(0.003),
        Confident(0.001, "each"),
        TrueMode(0.001),
        Budget(32),
        Budget(64),
    )
    for rule in rules:
        for name in VOTES:
            done = follow(rule, VOTES[name], scores[name])
            label = f"{kind}: {rule}, {name} votes"
            rows.append(Row(f"{label}: M over the draws taken", done.saving))
            rows.append(Row(f"{label}: classes changed, %", done.changed))
    winner = scores["prediction"].sum(1).argmax(1)
    flat = 100 * float((scores["prediction"][:, :32].sum(1).argmax(1) != winner).double().mean())
    return [*rows, Row(f"{kind}: 32 draws of each image: classes changed, %", flat)]


def _first_decided(scores: Tensor) -> float:
    """The mean number of draws after which no rest of a prediction stream could change its winner, by every rival."""
    counts = scores.cumsum(1)
    winner = counts[:, -1].argmax(1)
    left = torch.arange(TOTAL - 1, -1, -1.0)
    own = counts.gather(2, winner.view(-1, 1, 1).expand(-1, TOTAL, 1))[:, :, 0]
    decided = torch.ones(scores.shape[:2], dtype=torch.bool)
    for rival in range(scores.shape[2]):
        reach = counts[:, :, rival] + left
        loses = torch.where((rival < winner).unsqueeze(1), reach < own, reach <= own)
        decided &= loses | (rival == winner).unsqueeze(1)
    return float((decided.double().argmax(1) + 1).double().mean())


def beside_the_best(kind: str, logits: Tensor, trials: int) -> list[Row]:
    """Confident and the best rule at the same share of changed classes, on simulated streams."""
    width = logits.shape[2]
    shares = VOTES["prediction"](logits.flatten(0, 1)).view(logits.shape).mean(1)
    population = shares.repeat(-(-trials // len(shares)), 1)
    streams = torch.multinomial(population, TOTAL, replacement=True, generator=seeded(1, torch.device("cpu")))
    ours = [_simulated(Confident(delta), streams, width) for delta in DELTAS]
    own = _saving_at(ours, CHANGED)
    bound = TOTAL / fewest_draws(shares.double().numpy(), TOTAL, CHANGED / 100, PRICES)
    label = f"{kind}, simulated: {{}} at {CHANGED} % of the classes changed: M over the draws taken"
    default = ours[DELTAS.index(Confident().delta)]
    return [
        Row(label.format("Confident"), own),
        Row(label.format("no rule can save more"), bound),
        at_least(f"{kind}, simulated: Confident, as a share of that", own / bound, 0.8),
        Row(f"{kind}, simulated: {Confident()}: M over the draws taken", default.saving),
        at_most(f"{kind}, simulated: {Confident()}: classes changed, %", default.changed, CHANGED),
    ]


def _simulated(rule: StoppingRule, streams: Tensor, width: int) -> Outcome:
    parts = [follow(rule, VOTES["prediction"], torch.eye(width)[part]) for part in streams.split(2000)]
    sizes = [len(part) for part in streams.split(2000)]
    return Outcome(
        float(np.average([part.drawn for part in parts], weights=sizes)),
        float(np.average([part.changed for part in parts], weights=sizes)),
    )


def _saving_at(outcomes: Sequence[Outcome], changed: float) -> float:
    """The saving at that share of changed classes, between settings; changes are made to rise with the saving first."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.saving)
    rising = np.maximum.accumulate([outcome.changed for outcome in ordered])
    return float(np.interp(changed, rising + 1e-9 * np.arange(len(rising)), [outcome.saving for outcome in ordered]))


def seconds(bench: Bench, inputs: Tensor) -> list[Row]:
    """What the engine saves in time, and what a look costs."""

    def tally(stop: StoppingRule | None) -> None:
        bench.smoothed.tally(inputs, votes=["prediction"], stop=stop, generator=seeded(0, inputs.device))

    rules = None, Exact(), Confident()
    whole, *taken = seconds_in_turn([lambda rule=rule: tally(rule) for rule in rules], inputs.device, 2, warmup=0)
    rows = [
        Row(f"{rule}, {len(inputs)} images: speed-up over all draws", whole / one)
        for rule, one in zip(rules[1:], taken, strict=True)
    ]
    scores = torch.multinomial(torch.rand(250, 10), 30, replacement=True)
    counts = torch.eye(10)[scores].sum(1)
    for rule in (Exact(), Confident(), Confident(0.001, "each"), TrueMode()):
        monitor = rule.monitor(StoppingProblem(VOTES["prediction"], TOTAL, 250))
        rows.append(
            at_most(
                f"{rule}: a look at 250 images, ms",
                _milliseconds(lambda monitor=monitor: monitor(VoteState(counts, counts, 30))),
                1,
            )
        )
    return rows


def _milliseconds(action: Callable[[], object]) -> float:
    action()
    taken = []
    for _ in range(50):
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return 1000 * float(np.median(taken))


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--draws", type=Path, help="keep the network's draws here, or take them from here")
    parser.add_argument("--split", default="test", help="validation: images of the full CIFAR-10 that settings may see")
    parser.add_argument("--images", type=int, help="how many: 1,000, or 64 with --quick, if not given")
    parser.add_argument("--quick", action="store_true", help="fewer images")
    options = parser.parse_args()
    bench = Bench()
    count, trials = (64, 20_000) if options.quick else (1000, 40_000)
    count = options.images or count
    if options.draws and options.draws.exists():
        draws = torch.load(options.draws, weights_only=True)
    else:
        draws = {kind: bench.draws(made, len(kind)) for kind, made in bench.images(count, options.split).items()}
        if options.draws:
            torch.save(draws, options.draws)
    rows = []
    for kind in ("clean", "attacked"):
        rows += savings(kind, draws[kind])
        rows += beside_the_best(kind, draws[kind], trials)
    ((inputs, _),) = load_sample().first(24).batches(24)
    show([*rows, *seconds(bench, inputs)], options.json)


if __name__ == "__main__":
    main()
