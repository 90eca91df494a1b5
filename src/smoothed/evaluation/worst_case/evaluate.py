"""Worst-case evaluation: accuracy of a smoothed classifier under the strongest of many attacks on each image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.data.images import Images
from smoothed.evaluation.correctness import OnProgress, ignore_progress, two_draws
from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.kept_votes import joined_records
from smoothed.evaluation.resume import Tensors, open_resume_folder
from smoothed.evaluation.streams import WorstCaseStream
from smoothed.evaluation.worst_case.batch import AttackTarget, BatchResult, attack_batch
from smoothed.evaluation.worst_case.eot_sweep import EOTSweepRow, chosen_eot_samples, sweep_eot_samples
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.evaluation.worst_case.rows import CLEAN, MEAN, SMOOTHED, WorstCaseRow
from smoothed.evaluation.worst_case.suite import (
    Cost,
    SuiteAttack,
    attack_cost,
    deterministic_suite,
    eot_sweep_attack,
    expectation_suite,
    total_cost,
)
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.distributed import SINGLE_PROCESS, Processes

# Images that share one draw of weight noise and one stored step. It is fixed so that results do not depend on the
# available memory.
BATCH = 100

# Number of images that show whether two draws differ.
PROBE = 8

STREAMS = {MEAN: WorstCaseStream.MEAN_NETWORK, SMOOTHED: WorstCaseStream.SMOOTHED}


@dataclass(frozen=True)
class WorstCaseResult:
    """Result of a worst-case evaluation.

    Attributes:
        sweep: rows of the sweep over draws per gradient; empty if the protocol has a single number or the network has
            no noise.
        rows: rows of the mean network, then of the smoothed classifier. Each group begins with clean images and ends
            with the worst case.
        tensors: outcomes of each image by network, by the names of docs/results-format.md. PREFIX is `mean` or
            `smoothed`. `PREFIX.right` holds the share of right votes, (rows of the network, runs, images);
            `PREFIX.worst_attack` the index of the attack that made the worst example, (runs, images), -1 for the clean
            image; and `PREFIX.adversarial` the worst examples of the first images in the first run. `PREFIX.clean` and
            `PREFIX.worst` name the record of one vote on these images before and after the attacks.
    """

    sweep: list[EOTSweepRow]
    rows: list[WorstCaseRow]
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The rows as JSON values."""
        return {"sweep": [row.to_json() for row in self.sweep], "rows": [row.to_json() for row in self.rows]}


def evaluate_worst_case(
    model: nn.Module,
    data: Images,
    protocol: WorstCaseProtocol,
    *,
    name: str,
    out: Path | None = None,
    chunk_size: int = 250,
    keep_images: int = 0,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
) -> WorstCaseResult:
    """Attack the mean network and the smoothed classifier with a suite of attacks, and evaluate them with fresh votes.

    The mean network is `model` with all noise off. For the smoothed classifier, a sweep first finds the number of draws
    per gradient. A network without any noise gets the rows of the mean network only. `worst_case.batch` describes how
    examples are selected without bias in the final accuracies.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the data.
        data: images to evaluate; sigma and M must have been chosen on other images.
        protocol: settings of the classifier and of the attacks.
        name: name of the model in the rows.
        out: folder that stores finished steps, from which an interrupted evaluation continues; None stores nothing.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose worst examples are returned, with the record of the
            first of the votes on them in the first run.
        processes: processes that share the batches; each of them gets the result.
        on_progress: called after each step with the finished passes of this process and an upper bound of their total.
            A sweep that stops early and images that are broken early save passes.

    Raises:
        ArgumentError: the noise does not fit the model, or the model gives no logits.
        CheckpointError: `out` holds the steps of another configuration.
        OutputError: `out` can't be written.
        ProcessError: another process has ended.
    """
    evaluation = _Evaluation(model, data, protocol, name, out, chunk_size, keep_images, processes, on_progress)
    num_classes = evaluation.num_classes
    rows = evaluation.rows(MEAN, deterministic_suite(protocol, num_classes))
    if not evaluation.is_random:
        return WorstCaseResult([], rows, evaluation.tensors)
    sweep = evaluation.sweep()
    draws = chosen_eot_samples(sweep) if sweep else protocol.eot_samples[0]
    rows += evaluation.rows(SMOOTHED, expectation_suite(protocol, draws, num_classes))
    return WorstCaseResult(sweep, rows, evaluation.tensors)


class _Evaluation:
    """State of one evaluation: the classifiers to attack, the resume folder and the progress."""

    def __init__(  # noqa: PLR0917 - the arguments of `evaluate_worst_case`
        self,
        model: nn.Module,
        data: Images,
        protocol: WorstCaseProtocol,
        name: str,
        out: Path | None,
        chunk_size: int,
        keep_images: int,
        processes: Processes,
        on_progress: OnProgress,
    ) -> None:
        self.data, self.protocol, self.name = data, protocol, name
        self.keep_images, self.processes, self.on_progress = keep_images, processes, on_progress
        self.tensors: dict[str, Tensor] = {}
        voter = Fast(model, protocol.precision)
        # Names of layers are those of the model, which its faster form does not have.
        attacked = Fast(model) if protocol.smoothing.layer is None else model
        mean = Smoothed(voter, num_samples=1, chunk_size=chunk_size, seed=protocol.seed)
        smoothed = protocol.smoothing.smooth(model, voter=voter, chunk_size=chunk_size, seed=protocol.seed)
        self.noises = {
            MEAN: NoiseConfig(sigma=0.0, law=protocol.smoothing.noise.law).to_json(model),
            SMOOTHED: protocol.smoothing.noise.to_json(model),
        }
        self.targets = {
            MEAN: AttackTarget(mean, attacked, noise_off=True, protocol=protocol),
            SMOOTHED: AttackTarget(smoothed, attacked, noise_off=False, protocol=protocol),
        }
        inputs, _ = next(iter(data.batches(PROBE)))
        first, second = two_draws(
            smoothed.noisy_classifier, inputs, mix(protocol.seed, WorstCaseStream.RANDOMNESS_PROBE)
        )
        self.is_random, self.num_classes = not torch.equal(first, second), first.shape[1]
        configuration = {"protocol": "worst-case", "model": name, **protocol.configuration(), "batch": BATCH}
        configuration["keep_images"] = keep_images
        self.resume = open_resume_folder(processes, out, configuration, model, data)
        self.done, self.total = 0, 0
        self._set_total(protocol.eot_samples[-1], protocol.eot_samples)

    def sweep(self) -> list[EOTSweepRow]:
        """Rows of the sweep over draws per gradient; empty if the protocol has a single number."""
        if len(self.protocol.eot_samples) == 1:
            return []
        rows = sweep_eot_samples(self._sweep_votes, self.protocol.eot_samples)
        self._set_total(chosen_eot_samples(rows), [row.eot_samples for row in rows])
        return rows

    def rows(self, network: str, suite: list[SuiteAttack]) -> list[WorstCaseRow]:
        """Rows of one network, over all runs and batches."""
        batches = range(-(-len(self.data) // BATCH))
        pieces = [
            partial(self._attack, network, suite, run, number)
            for run in range(self.protocol.runs)
            for number in batches
        ]
        results = self.processes.divide(pieces)
        runs = [results[first : first + len(batches)] for first in range(0, len(results), len(batches))]
        names = list(runs[0][0].votes)
        votes = {
            name: [VoteCounts.concatenated([batch.votes[name] for batch in run]) for run in runs] for name in names
        }
        self._keep(network, votes, runs)
        attacked = {name: sum(batch.attacked[name] for run in runs for batch in run) / len(runs) for name in names}
        draws = {entry.name: entry.eot_samples for entry in suite}
        return [
            WorstCaseRow.from_votes(
                self.protocol,
                votes[name],
                votes[CLEAN],
                model=self.name,
                network=network,
                attack=name,
                attacked=attacked[name],
                eot_samples=draws.get(name),
                **self.noises[network],
            )
            for name in names
        ]

    def _keep(self, network: str, votes: dict[str, list[VoteCounts]], runs: list[list[BatchResult]]) -> None:
        """Keep the outcomes of each image."""
        prefix = network.partition(" ")[0]
        self.tensors[f"{prefix}.right"] = torch.stack(
            [torch.stack([run.shares.float() for run in of_attack]) for of_attack in votes.values()]
        )
        self.tensors[f"{prefix}.worst_attack"] = torch.stack(
            [torch.cat([batch.worst_attack for batch in run]) for run in runs]
        )
        if self.keep_images:
            self.tensors[f"{prefix}.adversarial"] = torch.cat([batch.worst for batch in runs[0]])[: self.keep_images]
            for images in ("clean", "worst"):
                record = joined_records([batch.records[images] for batch in runs[0]])
                if network == MEAN:  # a single draw, which is decided at once
                    record = {"shares": record["shares"][0]}
                self.tensors |= {f"{prefix}.{images}.{name}": tensor for name, tensor in record.items()}

    def _attack(self, network: str, suite: list[SuiteAttack], run: int, number: int) -> BatchResult:
        """Run the suite on one batch in one run."""
        inputs, labels = _batch(self.data, number)
        prefix = f"{network.partition(' ')[0]}-run{run}-batch{number:04d}"
        return attack_batch(
            self.targets[network],
            suite,
            inputs,
            labels,
            seed=mix(self.protocol.seed, STREAMS[network], run, number),
            compute_once=lambda step, compute: self.resume.compute_once(f"{prefix}-{step}", compute),
            kept=min(max(self.keep_images - number * BATCH, 0), len(inputs)) if run == 0 else 0,
            on_step=partial(self._advance, len(inputs)),
        )

    def _sweep_votes(self, draws: int) -> VoteCounts:
        """Votes on the images of the sweep after its attack with `draws` draws per gradient."""
        images = self.data.first(min(len(self.data), self.protocol.sweep_images))
        batches = range(-(-len(images) // BATCH))
        pieces = [partial(self._sweep_batch, images, draws, number) for number in batches]
        return VoteCounts.concatenated(self.processes.divide(pieces))

    def _sweep_batch(self, images: Images, draws: int, number: int) -> VoteCounts:
        entry, (inputs, labels) = eot_sweep_attack(self.protocol, draws), _batch(images, number)
        seed = mix(self.protocol.seed, WorstCaseStream.EOT_SWEEP, draws, number)

        def attack_and_vote() -> Tensors:
            return self.targets[SMOOTHED].run_attack(entry, inputs, labels, seed=seed)[1].to_tensors()

        step = self.resume.compute_once(f"sweep{draws}-batch{number:04d}", attack_and_vote)
        self._advance(len(inputs), attack_cost(self.protocol, entry))
        return VoteCounts.from_tensors(step)

    def _set_total(self, draws: int, swept: Sequence[int]) -> None:
        """Set the total of the progress, for `draws` draws per gradient in the suite and a sweep over `swept`."""
        cost = total_cost(self.protocol, len(self.data), self.num_classes, draws, swept)
        self.total = _in_forward_passes(cost) // self.processes.count

    def _advance(self, images: int, cost: Cost) -> None:
        self.done += _in_forward_passes(cost.times(images))
        self.on_progress(self.done, self.total)


def _batch(data: Images, number: int) -> tuple[Tensor, Tensor]:
    (batch,) = data.subset(slice(number * BATCH, (number + 1) * BATCH)).batches(BATCH)
    return batch


def _in_forward_passes(cost: Cost) -> int:
    """The cost in forward passes; a backward pass takes about as long as two."""
    return cost.forward + 2 * cost.backward
