"""The attacks of the strong protocol, in the order in which they are run: a small declaration each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch

from smoothed.attacks import Attack, Loss, Queries, cross_entropy, dlr, expected_loss, expected_vote, margin, pgd
from smoothed.attacks.max_loss.apgd import apgd
from smoothed.attacks.max_loss.multi_targeted import multi_targeted_pgd
from smoothed.attacks.objectives import HELD_DRAWS, Objective
from smoothed.attacks.query_based.square import square
from smoothed.evaluation.worst_case.protocol import StrongProtocol

# After how many candidates Square asks again about the one that stayed, lest a lucky answer stays for good.
REMEASURE = 40

DLR_CLASSES = 3


class Cost(NamedTuple):
    """Passes for an image: forward, and those of them that are followed by one backward."""

    forward: int
    backward: int = 0

    def plus(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def times(self, factor: int) -> "Cost":
        """The same `factor` times."""
        return Cost(self.forward * factor, self.backward * factor)


@dataclass(frozen=True)
class SuiteAttack:
    """One attack of the suite.

    Attributes:
        name: in rows.
        attack: with its options settled.
        cost: for an image, at most.
        draws: for each gradient, or each answer.
        source: what it sees: `draws` of all the defence's noise, or the `mean` network, from which it is transferred.
    """

    name: str
    attack: Attack
    cost: Cost
    draws: int
    source: Literal["draws", "mean"] = "draws"


def expectation_suite(protocol: StrongProtocol, draws: int, num_classes: int) -> list[SuiteAttack]:
    """The attacks on a random defence, with `draws` draws for each gradient."""
    return [*_white_box(protocol, draws, num_classes), _transfer(protocol), _square(protocol, draws)]


def deterministic_suite(protocol: StrongProtocol, num_classes: int) -> list[SuiteAttack]:
    """The same attacks on a network without noise: one draw is the expectation, and there is nothing to transfer."""
    return [*_white_box(protocol, 1, num_classes), _square(protocol, 1)]


def sweep_attack(protocol: StrongProtocol, draws: int) -> SuiteAttack:
    """What the sweep over numbers of draws is made with: PGD on the expected cross-entropy, from one start."""
    return _pgd("pgd-ce", protocol, expected_loss(draws), draws, restarts=1)


def _white_box(protocol: StrongProtocol, draws: int, num_classes: int) -> list[SuiteAttack]:
    losses: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}
    if num_classes >= DLR_CLASSES:
        losses["dlr"] = dlr
    # A vote over more draws than are held at once meets each of them twice, and the first once more.
    again = draws + 1 if draws > HELD_DRAWS else 0
    return [
        *(_pgd(f"pgd-{name}", protocol, expected_loss(draws, loss), draws) for name, loss in losses.items()),
        _pgd("pgd-vote", protocol, expected_vote(draws), draws, again=again),
        *(_apgd(f"apgd-{name}", protocol, losses[name], draws) for name in ("ce", "dlr") if name in losses),
        _targeted(protocol, draws, num_classes),
    ]


def _pgd(
    name: str,
    protocol: StrongProtocol,
    objective: Objective,
    draws: int,
    *,
    restarts: int | None = None,
    again: int = 0,
    source: Literal["draws", "mean"] = "draws",
) -> SuiteAttack:
    restarts = restarts or protocol.restarts
    judged = restarts * draws if restarts > 1 else 0
    return SuiteAttack(
        name,
        _settled(pgd, eps=protocol.eps, steps=protocol.steps, objective=objective, restarts=restarts),
        Cost(restarts * protocol.steps * (draws + again) + judged, restarts * protocol.steps * draws),
        draws,
        source,
    )


def _apgd(name: str, protocol: StrongProtocol, loss: Loss, draws: int) -> SuiteAttack:
    attempts = protocol.restarts * protocol.steps * draws
    return SuiteAttack(
        name,
        _settled(
            apgd,
            eps=protocol.eps,
            steps=protocol.steps,
            objective=expected_loss(draws, loss),
            restarts=protocol.restarts,
        ),
        Cost(attempts + protocol.restarts * draws, attempts),
        draws,
    )


def _targeted(protocol: StrongProtocol, draws: int, num_classes: int) -> SuiteAttack:
    attempts = min(protocol.targets, num_classes - 1)
    return SuiteAttack(
        "targeted",
        _settled(
            multi_targeted_pgd,
            eps=protocol.eps,
            steps=protocol.steps,
            num_targets=attempts,
            draws=partial(expected_loss, draws),
        ),
        Cost((attempts * (protocol.steps + 1) + 1) * draws, attempts * protocol.steps * draws),
        draws,
    )


def _transfer(protocol: StrongProtocol) -> SuiteAttack:
    return _pgd("transfer", protocol, expected_loss(1, margin), 1, source="mean")


def _square(protocol: StrongProtocol, draws: int) -> SuiteAttack:
    asked = protocol.queries * draws
    options = {"eps": protocol.eps, "max_queries": asked, "num_samples": draws}
    if draws > 1:  # a success of one answer may be luck: all queries are spent, and fresh votes judge
        options |= {"remeasure": REMEASURE, "confidence": torch.inf}

    def attack(model, inputs, labels, generator=None):  # noqa: ANN001, ANN202 - an `Attack`
        return square(Queries(model, sees="shares"), inputs, labels, generator=generator, **options)

    return SuiteAttack("square", attack, Cost(asked), draws)


def _settled(method: Callable[..., torch.Tensor], **options: object) -> Attack:
    return lambda model, inputs, labels, generator=None: method(model, inputs, labels, generator=generator, **options)
