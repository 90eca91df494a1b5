"""The strong protocol: how much of a smoothed classifier's accuracy is left by the worst of many strong attacks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.data.images import Images
from smoothed.evaluation.correctness import OnProgress, ignore_progress
from smoothed.evaluation.fresh_votes import Votes
from smoothed.evaluation.paper_protocol.evaluate import Protocol
from smoothed.evaluation.resume import Tensors, records_of_all
from smoothed.evaluation.worst_case.batch import Defence, Outcome, attack_batch
from smoothed.evaluation.worst_case.cost import attack_cost, total_cost
from smoothed.evaluation.worst_case.eot_sweep import SweepRow, chosen_draws, sweep_draws
from smoothed.evaluation.worst_case.protocol import StrongProtocol
from smoothed.evaluation.worst_case.rows import CLEAN, MEAN, SMOOTHED, StrongRow
from smoothed.evaluation.worst_case.suite import Cost, SuiteAttack, deterministic_suite, expectation_suite, sweep_attack
from smoothed.injection import drawing
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.noisy_classifier import OneDraw
from smoothed.utils.checks import check_logits
from smoothed.utils.distributed import ALONE, Processes
from smoothed.utils.modes import evaluating

# Images that share their draws of weight noise, and a record: fixed, so that memory decides no number.
BATCH = 100

# Enough to see whether two draws differ.
PROBE = 8

# Which part of an evaluation a key belongs to.
SWEEP, PROBING = range(2)
STREAMS = {MEAN: 2, SMOOTHED: 3}


@dataclass(frozen=True)
class StrongResult:
    """All that a strong evaluation measured.

    Attributes:
        sweep: over the draws of a gradient; empty where there was nothing to choose.
        rows: of the mean network, then of the smoothed one: clean, attack by attack, and the worst case last.
    """

    sweep: list[SweepRow]
    rows: list[StrongRow]

    def to_json(self) -> dict[str, Any]:
        """The rows as JSON values."""
        return {"sweep": [row.to_json() for row in self.sweep], "rows": [row.to_json() for row in self.rows]}


def evaluate_strong(
    model: nn.Module,
    data: Images,
    protocol: StrongProtocol,
    *,
    name: str,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = ALONE,
    on_progress: OnProgress = ignore_progress,
) -> StrongResult:
    """Attack `model` with everything, alone and smoothed, and count what fresh votes still get right.

    A sweep settles how many draws a gradient takes; then the suite runs on the mean network (all noise off) and on the
    smoothed one. See `worst_case` for what keeps the numbers honest. Of a network without any noise there is the first
    alone.

    Args:
        model: from images to logits (N, K), on the data's device.
        data: the images to measure on; none that sigma or M was chosen on.
        protocol: what is defended, and how hard it is attacked.
        name: of the model, for the rows.
        out: a folder for the steps done, from which a killed evaluation goes on; None keeps nothing.
        chunk_size: rows of one forward pass of the vote.
        processes: those that share the batches. All of them get the result.
        on_progress: called after each step of this process with the passes done and their total, its share of all, of
            which a sweep that ends early and images that break spare some.

    Raises:
        ArgumentError: a setting that makes no sense.
        CheckpointError: `out` holds another configuration's steps.
        OutputError: `out` can't be written.
        ProcessError: another process is gone.
    """
    evaluation = _Evaluation(model, data, protocol, name, out, chunk_size, processes, on_progress)
    classes = evaluation.num_classes
    rows = evaluation.rows(MEAN, deterministic_suite(protocol, classes))
    if not evaluation.is_random:
        return StrongResult([], rows)
    sweep = evaluation.sweep()
    draws = chosen_draws(sweep) if sweep else protocol.draws[0]
    return StrongResult(sweep, rows + evaluation.rows(SMOOTHED, expectation_suite(protocol, draws, classes)))


class _Evaluation:
    """One evaluation under way: its defences, its records, and how far it has come."""

    def __init__(  # noqa: PLR0917 - those of `evaluate_strong`
        self,
        model: nn.Module,
        data: Images,
        protocol: StrongProtocol,
        name: str,
        out: Path | None,
        chunk_size: int,
        processes: Processes,
        on_progress: OnProgress,
    ) -> None:
        self.data, self.protocol, self.name = data, protocol, name
        self.processes, self.on_progress = processes, on_progress
        noise = Protocol(noise=protocol.noise, sigma_units=protocol.sigma_units).input_noise(model, protocol.sigma)
        voter, attacked = Fast(model, protocol.precision), Fast(model)
        mean = Smoothed(voter, num_samples=1, chunk_size=chunk_size, seed=protocol.seed)
        smoothed = Smoothed(
            voter,
            noise,
            vote=protocol.vote,
            num_samples=protocol.num_samples,
            chunk_size=chunk_size,
            seed=protocol.seed,
        )
        self.defences = {
            MEAN: Defence(mean, attacked, silent=True, protocol=protocol),
            SMOOTHED: Defence(smoothed, attacked, silent=False, protocol=protocol),
        }
        inputs, _ = next(iter(data.batches(PROBE)))
        first, second = _two_draws(smoothed.one_draw, inputs, mix(protocol.seed, PROBING))
        self.is_random, self.num_classes = not torch.equal(first, second), first.shape[1]
        configuration = {"protocol": "strong", "model": name, **asdict(protocol), "batch": BATCH}
        self.records = records_of_all(processes, out, configuration, model, data)
        self.done, self.total = 0, 0
        self._expect(protocol.draws[-1], protocol.draws)

    def sweep(self) -> list[SweepRow]:
        """The rows of the sweep over the draws of a gradient; none where there is nothing to choose."""
        if len(self.protocol.draws) == 1:
            return []
        rows = sweep_draws(self._sweep_votes, self.protocol.draws)
        self._expect(chosen_draws(rows), [row.attack_samples for row in rows])
        return rows

    def rows(self, network: str, suite: list[SuiteAttack]) -> list[StrongRow]:
        """The rows of one defence, from all runs on all batches."""
        numbers = range(-(-len(self.data) // BATCH))
        pieces = [
            partial(self._attack, network, suite, run, number)
            for run in range(self.protocol.runs)
            for number in numbers
        ]
        outcomes = self.processes.divide(pieces)
        runs = [outcomes[first : first + len(numbers)] for first in range(0, len(outcomes), len(numbers))]
        names = list(runs[0][0].votes)
        votes = {name: [Votes.joined([batch.votes[name] for batch in run]) for run in runs] for name in names}
        tried = {name: sum(batch.attacked[name] for run in runs for batch in run) / len(runs) for name in names}
        draws = {entry.name: entry.draws for entry in suite}
        return [
            StrongRow.from_votes(
                self.protocol,
                votes[name],
                votes[CLEAN],
                model=self.name,
                network=network,
                attack=name,
                attacked=tried[name],
                attack_samples=draws.get(name),
            )
            for name in names
        ]

    def _attack(self, network: str, suite: list[SuiteAttack], run: int, number: int) -> Outcome:
        """What became of a batch in one run."""
        inputs, labels = _batch(self.data, number)
        prefix = f"{network.partition(' ')[0]}-run{run}-batch{number:04d}"
        return attack_batch(
            self.defences[network],
            suite,
            inputs,
            labels,
            seed=mix(self.protocol.seed, STREAMS[network], run, number),
            once=lambda step, compute: self.records.once(f"{prefix}-{step}", compute),
            on_step=partial(self._advance, len(inputs)),
        )

    def _sweep_votes(self, draws: int) -> Votes:
        """Votes on the first images after the sweep's attack with that many draws."""
        few = self.data.first(min(len(self.data), self.protocol.sweep_images))
        numbers = range(-(-len(few) // BATCH))
        pieces = [partial(self._sweep_batch, few, draws, number) for number in numbers]
        return Votes.joined(self.processes.divide(pieces))

    def _sweep_batch(self, few: Images, draws: int, number: int) -> Votes:
        entry, (inputs, labels) = sweep_attack(self.protocol, draws), _batch(few, number)
        seed = mix(self.protocol.seed, SWEEP, draws, number)

        def attempt() -> Tensors:
            return self.defences[SMOOTHED].attempt(entry, inputs, labels, seed=seed)[1].to_tensors()

        step = self.records.once(f"sweep{draws}-batch{number:04d}", attempt)
        self._advance(len(inputs), attack_cost(self.protocol, entry))
        return Votes.from_tensors(step)

    def _expect(self, draws: int, swept: Sequence[int]) -> None:
        """Reckon with that many draws for each gradient of the suite, and with this sweep."""
        cost = total_cost(self.protocol, len(self.data), self.num_classes, draws, swept)
        self.total = _weight(cost) // self.processes.count

    def _advance(self, images: int, cost: Cost) -> None:
        self.done += _weight(cost.times(images))
        self.on_progress(self.done, self.total)


def _batch(data: Images, number: int) -> tuple[Tensor, Tensor]:
    (batch,) = data.subset(slice(number * BATCH, (number + 1) * BATCH)).batches(BATCH)
    return batch


def _weight(cost: Cost) -> int:
    """Work in forward passes: a backward pass takes about two."""
    return cost.forward + 2 * cost.backward


@torch.no_grad()
def _two_draws(draw: OneDraw, inputs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The logits (N, K) of two draws."""
    generator = seeded(seed, inputs.device)
    draw = OneDraw(draw.model, draw.noise, generator=generator)
    with drawing(draw, Fresh(generator)), evaluating(draw):
        return check_logits(draw(inputs), len(inputs)), check_logits(draw(inputs), len(inputs))
