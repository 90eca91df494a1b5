"""Run all attacks on one batch, and keep the worst adversarial example of each image.

- Each attack's example is scored by selection votes, whose draws are independent of the draws that the attack saw.
- For each image the worst example so far is kept: the one with the smallest share of right votes; ties compare the
  shares of right single draws.
- An image is broken once no selection vote on its worst example is right; later attacks skip it. (With 20 votes, the
  probability of a right vote is then below 14 % at 95 % confidence.)
- The minimum of several noisy estimates is biased towards low accuracy. The final accuracies therefore come from
  separate votes on the kept examples, which are unbiased for these examples.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.evaluation.fresh_votes import VoteCounts, take_and_record_votes
from smoothed.evaluation.kept_votes import RECORD
from smoothed.evaluation.resume import Tensors
from smoothed.evaluation.streams import WorstCaseBatchStream
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.evaluation.worst_case.rows import CLEAN, WORST
from smoothed.evaluation.worst_case.suite import Cost, SuiteAttack, attack_cost, votes_cost
from smoothed.injection import noiseless
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed

ComputeOnce = Callable[[str, Callable[[], Tensors]], Tensors]
"""Loads the tensors of a step by its name, or computes and stores them (`ResumeFolder.compute_once`)."""


@dataclass(frozen=True, eq=False)
class AttackTarget:
    """The classifier to attack.

    Attributes:
        smoothed: smoothed classifier that votes.
        attacked: network that attacks see: the network of `smoothed`, or a faster equivalent of it.
        noise_off: whether all noise is off; all votes on an image are then equal.
        protocol: settings of the votes.
    """

    smoothed: Smoothed
    attacked: nn.Module
    noise_off: bool
    protocol: WorstCaseProtocol

    def vote(
        self, images: Tensor, labels: Tensor, count: int, seed: int, *, kept: int = 0
    ) -> tuple[VoteCounts, Tensors]:
        """Take `count` fresh votes on each image; without noise, one vote is taken and multiplied.

        Returns:
            The votes, and the record of the first one on the first `kept` images (`take_and_record_votes`).
        """
        taken = 1 if self.noise_off else count
        with noiseless(self.smoothed.model) if self.noise_off else nullcontext():
            votes, record = take_and_record_votes(
                self.smoothed,
                images,
                labels,
                taken,
                seed=seed,
                kept=kept,
                alpha=None if self.noise_off else self.protocol.alpha,
                precision=self.protocol.precision,
            )
        return votes.times(count // taken), record

    def run_attack(
        self, entry: SuiteAttack, inputs: Tensor, labels: Tensor, *, seed: int, place: int = 0
    ) -> tuple[Tensor, VoteCounts]:
        """Run one attack and take selection votes on its examples; `place` is the attack's index in the suite.

        Pixels that are not finite after the attack are reset to those of the inputs.

        Returns:
            The adversarial examples, of the shape of `inputs`, and the votes on them.
        """
        noise_off = self.noise_off or entry.source == "mean"
        noisy_classifier = self.smoothed.noisy_classifier
        noise, layer = (None, None) if noise_off else (noisy_classifier.noise, noisy_classifier.layer)
        with noiseless(self.attacked) if noise_off else nullcontext():
            key = mix(seed, WorstCaseBatchStream.ATTACK, place)
            candidates = attack_noisy_classifier(
                self.attacked, noise, entry.attack, inputs, labels, seed=key, layer=layer
            )
        candidates = torch.where(candidates.isfinite(), candidates, inputs)
        key = mix(seed, WorstCaseBatchStream.SELECTION_VOTES, place)
        return candidates, self.vote(candidates, labels, self.protocol.selection_votes, key)[0]


@dataclass(frozen=True, eq=False)
class BatchResult:
    """Result of all attacks on a batch.

    Attributes:
        votes: votes on all images by the name of the attack, including `none` (clean images) and `worst case`.
        attacked: number of images that each attack was tried on; all images for `none` and `worst case`.
        worst: worst example of each image, (N, C, H, W) on the CPU.
        worst_attack: index in the suite of the attack that made it, (N,) int64; -1 for the clean image.
        records: record of the first of the votes (`take_and_record_votes`) on the kept images, by `clean` and `worst`;
            each is empty if no images are kept.
    """

    votes: dict[str, VoteCounts]
    attacked: dict[str, int]
    worst: Tensor
    worst_attack: Tensor
    records: dict[str, Tensors]


def attack_batch(
    target: AttackTarget,
    suite: list[SuiteAttack],
    inputs: Tensor,
    labels: Tensor,
    *,
    seed: int,
    compute_once: ComputeOnce,
    kept: int = 0,
    on_step: Callable[[Cost], None] = lambda _: None,
) -> BatchResult:
    """Run all attacks of a suite on a batch.

    Args:
        target: classifier to attack.
        suite: attacks in the order in which they run, with distinct names.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes, (N,) int64.
        seed: seed of all randomness.
        compute_once: function that loads or computes a step.
        kept: number of images, from the first on, whose first votes are recorded.
        on_step: called after each step with its upper bound of the cost per image.
    """
    final_votes = target.protocol.final_votes

    def vote(name: str, images: Tensor, stream: int) -> tuple[VoteCounts, Tensors]:
        def compute() -> Tensors:
            votes, record = target.vote(images, labels, final_votes, mix(seed, stream), kept=kept)
            return {**votes.to_tensors(), **record}

        step = compute_once(name, compute)
        on_step(votes_cost(target.protocol, random=not target.noise_off))
        return VoteCounts.from_tensors(step), {key: step[key] for key in RECORD if key in step}

    clean, clean_record = vote("clean", inputs, WorstCaseBatchStream.CLEAN_VOTES)
    worst_votes = clean
    worst, results = inputs.clone(), dict[str, tuple[Tensor, VoteCounts]]()
    worst_attack = torch.full((len(inputs),), -1)
    for place, entry in enumerate(suite):
        rows = worst_votes.right.nonzero()[:, 0]  # images that are not yet broken
        votes = worst_votes.at(rows)
        if len(rows):
            run_attack = partial(target.run_attack, entry, inputs[rows], labels[rows], seed=seed, place=place)
            step = compute_once(entry.name, partial(_attack_and_compare, run_attack, votes))
            votes, worse = VoteCounts.from_tensors(step), step["worse"]
            worst[rows[worse]] = step["examples"].to(worst)
            worst_attack[rows[worse]] = place
            worst_votes = worst_votes.replaced(rows[worse], votes.at(worse))
        results[entry.name] = rows, votes
        on_step(attack_cost(target.protocol, entry, random=not target.noise_off))
    final, worst_record = vote("final", worst, WorstCaseBatchStream.FINAL_VOTES)
    by_attack = {name: final.replaced(rows, votes) for name, (rows, votes) in results.items()}
    attacked = {name: len(rows) for name, (rows, _) in results.items()}
    return BatchResult(
        {CLEAN: clean, **by_attack, WORST: final},
        {CLEAN: len(inputs), **attacked, WORST: len(inputs)},
        worst.cpu(),
        worst_attack,
        {"clean": clean_record, "worst": worst_record},
    )


def _attack_and_compare(run_attack: Callable[[], tuple[Tensor, VoteCounts]], worst_votes: VoteCounts) -> Tensors:
    """Votes on the examples of an attack, and those examples that are worse than the worst ones so far."""
    candidates, votes = run_attack()
    worse = votes.worse_than(worst_votes)
    return {**votes.to_tensors(), "worse": worse, "examples": candidates[worse.to(candidates.device)]}
