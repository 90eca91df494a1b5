"""All attacks on one batch: each tries the images that still stand, and fresh votes, not the attack's, judge.

- A candidate is judged by votes that are independent of the draws that made it.
- For each image the worst candidate so far is kept: the lowest share of right votes, and of single draws among equals.
- An image of whose worst example no vote is right is broken, and not attacked again. (With 20 votes, the probability
  of a right one is then below 14 %, at 95 % confidence.)
- The worst of several noisy estimates flatters the attack. So the final numbers are from other votes, taken on the
  examples that were kept: these have no part in the choice, and are unbiased for the examples chosen.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothed.evaluation.attacking import attack_draws
from smoothed.evaluation.fresh_votes import Votes, vote_afresh
from smoothed.evaluation.resume import Tensors
from smoothed.evaluation.worst_case.cost import attack_cost, votes_cost
from smoothed.evaluation.worst_case.protocol import StrongProtocol
from smoothed.evaluation.worst_case.rows import CLEAN, WORST
from smoothed.evaluation.worst_case.suite import Cost, SuiteAttack
from smoothed.injection import noiseless
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed

# Which stream of randomness a key belongs to: what makes an example never judges it.
ATTACK, SELECTION, CLEAN_VOTES, FINAL_VOTES = range(4)

Once = Callable[[str, Callable[[], Tensors]], Tensors]
"""Gives a step's tensors by its name, computed now or before."""


@dataclass(frozen=True, eq=False)
class Defence:
    """What is attacked.

    Attributes:
        smoothed: the classifier, with its vote.
        attacked: the network of its draws, as attacks see it: the same function, or a faster form of it.
        silent: whether all noise is off, so that all votes are the same.
        protocol: how votes are taken.
    """

    smoothed: Smoothed
    attacked: nn.Module
    silent: bool
    protocol: StrongProtocol

    def vote(self, images: Tensor, labels: Tensor, count: int, seed: int) -> Votes:
        """`count` fresh votes on each image; of those that are all the same, one is taken."""
        taken = 1 if self.silent else count
        with noiseless(self.smoothed.model) if self.silent else nullcontext():
            votes = vote_afresh(
                self.smoothed,
                images,
                labels,
                taken,
                seed=seed,
                alpha=None if self.silent else self.protocol.alpha,
                precision=self.protocol.precision,
            )
        return votes.times(count // taken)

    def attempt(
        self, entry: SuiteAttack, inputs: Tensor, labels: Tensor, *, seed: int, place: int = 0
    ) -> tuple[Tensor, Votes]:
        """What an attack makes of the inputs, and fresh votes on it; `place` is the attack's number in its suite.

        Pixels that it leaves without a number are those of the inputs.
        """
        silent = self.silent or entry.source == "mean"
        noise = None if silent else self.smoothed.one_draw.noise
        with noiseless(self.attacked) if silent else nullcontext():
            key = mix(seed, ATTACK, place)
            candidates = attack_draws(self.attacked, noise, entry.attack, inputs, labels, seed=key)
        candidates = torch.where(candidates.isfinite(), candidates, inputs)
        return candidates, self.vote(candidates, labels, self.protocol.selection_votes, mix(seed, SELECTION, place))


@dataclass(frozen=True, eq=False)
class Outcome:
    """A batch after all attacks.

    Attributes:
        votes: on all images, by the attack's name, `none` and `worst case` among them.
        attacked: how many images each attack was tried on; all of them under those two names.
    """

    votes: dict[str, Votes]
    attacked: dict[str, int]


def attack_batch(
    defence: Defence,
    suite: list[SuiteAttack],
    inputs: Tensor,
    labels: Tensor,
    *,
    seed: int,
    once: Once,
    on_step: Callable[[Cost], None] = lambda _: None,
) -> Outcome:
    """Run the suite on a batch.

    Args:
        defence: what is attacked.
        suite: the attacks, in their order, each name once.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        seed: of everything random.
        once: computes a step, or finds it.
        on_step: called after each step with its cost for an image, had it been tried on all.
    """
    final_votes = defence.protocol.final_votes

    def vote(name: str, images: Tensor, stream: int) -> Votes:
        compute = partial(defence.vote, images, labels, final_votes, mix(seed, stream))
        votes = Votes.from_tensors(once(name, lambda: compute().to_tensors()))
        on_step(votes_cost(defence.protocol, random=not defence.silent))
        return votes

    standing = clean = vote("clean", inputs, CLEAN_VOTES)
    worst, tried = inputs.clone(), dict[str, tuple[Tensor, Votes]]()
    for place, entry in enumerate(suite):
        rows = standing.right.nonzero()[:, 0]
        votes = standing.at(rows)
        if len(rows):
            attempt = partial(defence.attempt, entry, inputs[rows], labels[rows], seed=seed, place=place)
            step = once(entry.name, partial(_what_is_worse, attempt, votes))
            votes, worse = Votes.from_tensors(step), step["worse"]
            worst[rows[worse]] = step["examples"].to(worst)
            standing = standing.replaced(rows[worse], votes.at(worse))
        tried[entry.name] = rows, votes
        on_step(attack_cost(defence.protocol, entry, random=not defence.silent))
    final = vote("final", worst, FINAL_VOTES)
    own = {name: final.replaced(rows, votes) for name, (rows, votes) in tried.items()}
    attacked = {name: len(rows) for name, (rows, _) in tried.items()}
    return Outcome({CLEAN: clean, **own, WORST: final}, {CLEAN: len(inputs), **attacked, WORST: len(inputs)})


def _what_is_worse(attempt: Callable[[], tuple[Tensor, Votes]], standing: Votes) -> Tensors:
    """The votes on the candidates of an attack, and those candidates that are worse than what is `standing`."""
    candidates, votes = attempt()
    worse = votes.worse_than(standing)
    return {**votes.to_tensors(), "worse": worse, "examples": candidates[worse.to(candidates.device)]}
