"""The attacks of the worst-case evaluation, in the order in which they run, and upper bounds of their cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch

from smoothed.attacks import Attack, Loss, Queries, cross_entropy, dlr, expected_loss, expected_vote, margin, pgd
from smoothed.attacks.max_loss.apgd import apgd
from smoothed.attacks.max_loss.multi_targeted import multi_targeted_pgd
from smoothed.attacks.objectives import MAX_STORED_DRAWS, Objective
from smoothed.attacks.query_based.square import square
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol

# Number of candidates after which Square measures its current best again, because noise may have made its value too
# high.
REMEASURE = 40

# The DLR loss compares the three largest logits.
DLR_CLASSES = 3


class Cost(NamedTuple):
    """Cost in passes per image: forward passes (with and without a backward pass) and backward passes."""

    forward: int
    backward: int = 0

    def plus(self, other: "Cost") -> "Cost":
        """The sum of both costs."""
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def times(self, factor: int) -> "Cost":
        """The cost multiplied by `factor`."""
        return Cost(self.forward * factor, self.backward * factor)


@dataclass(frozen=True)
class SuiteAttack:
    """One attack of the suite.

    Attributes:
        name: name in the rows.
        attack: attack with its options set.
        cost: upper bound of its cost per image.
        eot_samples: draws averaged for each gradient or each query.
        source: attacked network: `draws` of the noisy classifier, or the `mean` network (a transfer attack).
    """

    name: str
    attack: Attack
    cost: Cost
    eot_samples: int
    source: Literal["draws", "mean"] = "draws"


def expectation_suite(protocol: WorstCaseProtocol, draws: int, num_classes: int) -> list[SuiteAttack]:
    """The attacks on a random classifier, which average `draws` draws for each gradient."""
    return [*_white_box(protocol, draws, num_classes), _transfer(protocol), _square(protocol, draws)]


def deterministic_suite(protocol: WorstCaseProtocol, num_classes: int) -> list[SuiteAttack]:
    """The attacks on a network without noise: one draw per gradient, and no transfer attack."""
    return [*_white_box(protocol, 1, num_classes), _square(protocol, 1)]


def eot_sweep_attack(protocol: WorstCaseProtocol, draws: int) -> SuiteAttack:
    """The attack of the sweep over draws per gradient: PGD on the expected cross-entropy, from one start."""
    return _pgd("pgd-ce", protocol, expected_loss(draws), draws, restarts=1)


def _white_box(protocol: WorstCaseProtocol, draws: int, num_classes: int) -> list[SuiteAttack]:
    losses: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}
    if num_classes >= DLR_CLASSES:
        losses["dlr"] = dlr
    # With more draws than fit in memory, `expected_vote` computes each draw twice, and the first one a third time.
    recomputed = draws + 1 if draws > MAX_STORED_DRAWS else 0
    return [
        *(_pgd(f"pgd-{name}", protocol, expected_loss(draws, loss), draws) for name, loss in losses.items()),
        _pgd("pgd-vote", protocol, expected_vote(draws), draws, recomputed=recomputed),
        *(_apgd(f"apgd-{name}", protocol, losses[name], draws) for name in ("ce", "dlr") if name in losses),
        _targeted(protocol, draws, num_classes),
    ]


def _pgd(
    name: str,
    protocol: WorstCaseProtocol,
    objective: Objective,
    draws: int,
    *,
    restarts: int | None = None,
    recomputed: int = 0,
    source: Literal["draws", "mean"] = "draws",
) -> SuiteAttack:
    """PGD; `recomputed` is the number of additional forward passes for each gradient."""
    restarts = restarts or protocol.restarts
    gradients = restarts * protocol.steps
    comparisons = restarts * draws if restarts > 1 else 0  # forward passes that compare the ends of the restarts
    return SuiteAttack(
        name,
        _with_options(pgd, eps=protocol.eps, steps=protocol.steps, objective=objective, restarts=restarts),
        Cost(gradients * (draws + recomputed) + comparisons, gradients * draws),
        draws,
        source,
    )


def _apgd(name: str, protocol: WorstCaseProtocol, loss: Loss, draws: int) -> SuiteAttack:
    passes = protocol.restarts * protocol.steps * draws
    return SuiteAttack(
        name,
        _with_options(
            apgd,
            eps=protocol.eps,
            steps=protocol.steps,
            objective=expected_loss(draws, loss),
            restarts=protocol.restarts,
        ),
        Cost(passes + protocol.restarts * draws, passes),
        draws,
    )


def _targeted(protocol: WorstCaseProtocol, draws: int, num_classes: int) -> SuiteAttack:
    targets = min(protocol.targets, num_classes - 1)
    return SuiteAttack(
        "targeted",
        _with_options(
            multi_targeted_pgd,
            eps=protocol.eps,
            steps=protocol.steps,
            num_targets=targets,
            make_objective=partial(expected_loss, draws),
        ),
        Cost((targets * (protocol.steps + 1) + 1) * draws, targets * protocol.steps * draws),
        draws,
    )


def _transfer(protocol: WorstCaseProtocol) -> SuiteAttack:
    return _pgd("transfer", protocol, expected_loss(1, margin), 1, source="mean")


def _square(protocol: WorstCaseProtocol, draws: int) -> SuiteAttack:
    max_queries = protocol.queries * draws
    options = {"eps": protocol.eps, "max_queries": max_queries, "eot_samples": draws}
    if draws > 1:  # one successful answer may be luck: use all queries and leave the evaluation to fresh votes
        options |= {"remeasure_every": REMEASURE, "confidence": torch.inf}

    def attack(model, inputs, labels, generator=None):  # noqa: ANN001, ANN202 - an `Attack`
        return square(Queries(model, sees="shares"), inputs, labels, generator=generator, **options)

    return SuiteAttack("square", attack, Cost(max_queries), draws)


def _with_options(method: Callable[..., torch.Tensor], **options: object) -> Attack:
    return lambda model, inputs, labels, generator=None: method(model, inputs, labels, generator=generator, **options)


def total_cost(
    protocol: WorstCaseProtocol, images: int, num_classes: int, draws: int, swept: Sequence[int] | None = None
) -> Cost:
    """Upper bound of the passes of the whole evaluation, reached if every attack runs on every image.

    Votes without randomness take a single pass and are not counted.

    Args:
        protocol: settings of the evaluation.
        images: number of images.
        num_classes: number of classes of the model (K).
        draws: draws that the suite averages for each gradient.
        swept: numbers of draws that the sweep tries; None means all of the protocol's `eot_samples`.
    """
    smoothed = suite_cost(protocol, expectation_suite(protocol, draws, num_classes), random=True)
    mean = suite_cost(protocol, deterministic_suite(protocol, num_classes), random=False)
    runs = smoothed.plus(mean).times(images * protocol.runs)
    return runs.plus(eot_sweep_cost(protocol, images, protocol.eot_samples if swept is None else swept))


def suite_cost(protocol: WorstCaseProtocol, suite: Iterable[SuiteAttack], *, random: bool) -> Cost:
    """Passes per image of a suite and of all its votes; `random` tells whether the classifier is."""
    votes = votes_cost(protocol, random=random).times(2)
    return _sum([votes, *(attack_cost(protocol, entry, random=random) for entry in suite)])


def votes_cost(protocol: WorstCaseProtocol, *, random: bool = True) -> Cost:
    """Passes of the final votes on an image, clean or adversarial."""
    return Cost(protocol.final_votes * protocol.smoothing.num_samples if random else 0)


def attack_cost(protocol: WorstCaseProtocol, entry: SuiteAttack, *, random: bool = True) -> Cost:
    """Passes per image of an attack and of the votes on its adversarial image."""
    return entry.cost.plus(Cost(protocol.selection_votes * protocol.smoothing.num_samples if random else 0))


def eot_sweep_cost(protocol: WorstCaseProtocol, images: int, swept: Sequence[int]) -> Cost:
    """Passes of the sweep over the numbers of draws `swept`; there is no sweep if the protocol has a single number."""
    tried = swept if len(protocol.eot_samples) > 1 else ()
    per_image = _sum(attack_cost(protocol, eot_sweep_attack(protocol, draws)) for draws in tried)
    return per_image.times(min(images, protocol.sweep_images))


def _sum(costs: Iterable[Cost]) -> Cost:
    total = Cost(0)
    for cost in costs:
        total = total.plus(cost)
    return total
