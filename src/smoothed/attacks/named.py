"""The attacks by the names the command line and configurations use: one dict, of small declarations."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from smoothed.attacks.attack import Attack, Budget
from smoothed.attacks.losses import dlr, margin
from smoothed.attacks.max_loss.apgd import apgd, apgd_targeted
from smoothed.attacks.max_loss.divergence import divergence_pgd
from smoothed.attacks.max_loss.fgsm import fgsm, fgsm_random_start, nfgsm
from smoothed.attacks.max_loss.multi_targeted import multi_targeted_pgd
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.min_norm.carlini_wagner_l0 import carlini_wagner_l0
from smoothed.attacks.min_norm.carlini_wagner_l2 import carlini_wagner_l2
from smoothed.attacks.min_norm.carlini_wagner_linf import carlini_wagner_linf
from smoothed.attacks.min_norm.ddn import ddn
from smoothed.attacks.min_norm.minimum import MinimumNorm, bounded
from smoothed.attacks.objectives import (
    Objective,
    expected_logits,
    expected_loss,
    expected_probabilities,
    expected_vote,
)
from smoothed.attacks.query_based.bayes import bayesian
from smoothed.attacks.query_based.nattack import nattack
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.query_based.square import square
from smoothed.attacks.query_based.zoo import zoo
from smoothed.attacks.transfer_based.imitation import imitation
from smoothed.attacks.transfer_based.transfer import transfer
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_choice
from smoothed.utils.modes import Classifier

MOST_BAYESIAN_QUERIES = 300

Settle = Callable[[Budget], Attack]
"""From a budget to the attack that keeps it."""


@dataclass(frozen=True)
class Named:
    """An attack by name.

    Attributes:
        settle: makes the attack.
        trains: whether it can make training examples.
        measures: whether it measures robustness. N-FGSM does not: it leaves the ball, on purpose.
        steps: whether it takes several gradients.
        draws: whether it takes several draws for each gradient, or several answers for each query.
        asks: whether it sees answers alone.
        norm: its own, where it has one.
    """

    settle: Settle
    trains: bool = False
    measures: bool = True
    steps: bool = True
    draws: bool = True
    asks: bool = False
    norm: MinimumNorm | None = None


def _settled(method: Callable[..., Tensor], **options: Any) -> Attack:  # noqa: ANN401 - any option of the method
    def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        return method(model, inputs, labels, generator=generator, **options)

    return attack


def _fgsm(budget: Budget) -> Attack:
    return lambda model, inputs, labels, generator=None: fgsm(model, inputs, labels, eps=budget.eps)  # noqa: ARG005


def _single_step(method: Callable[..., Tensor]) -> Settle:
    return lambda budget: _settled(method, eps=budget.eps)


def _ascent(method: Callable[..., Tensor], objective: Callable[[int], Objective] | None = None) -> Settle:
    """PGD, with steps of a share of eps."""

    def settle(budget: Budget) -> Attack:
        ascends = {} if objective is None else {"objective": objective(budget.num_samples)}
        step_size = budget.eps * budget.step
        return _settled(method, eps=budget.eps, step_size=step_size, steps=budget.steps, norm=budget.norm, **ascends)

    return settle


def _automatic(loss: Callable[..., Tensor] | None = None) -> Settle:
    """Auto-PGD on the mean loss of the draws."""

    def settle(budget: Budget) -> Attack:
        draws = partial(expected_loss, budget.num_samples)
        objective = draws() if loss is None else draws(loss)
        return _settled(apgd, eps=budget.eps, steps=budget.steps, norm=budget.norm, objective=objective)

    return settle


def _targeted(method: Callable[..., Tensor]) -> Settle:
    """Towards each of the best wrong classes."""
    return lambda budget: _settled(
        method,
        eps=budget.eps,
        steps=budget.steps,
        norm=budget.norm,
        draws=partial(expected_loss, budget.num_samples),
    )


def _smallest(method: Callable[..., Tensor], norm: MinimumNorm) -> Settle:
    """A search for the smallest perturbation, held to a radius."""

    def settle(budget: Budget) -> Attack:
        if isinstance(budget.eps, Tensor):
            raise ArgumentError("eps", "one number for all images", f"shape {tuple(budget.eps.shape)}")
        search = partial(method, steps=budget.steps, draws=partial(expected_loss, budget.num_samples))
        return bounded(search, eps=budget.eps, norm=norm)

    return settle


def _query(method: Callable[..., Tensor]) -> Settle:
    def settle(budget: Budget) -> Attack:
        if budget.sees == "labels":
            raise ArgumentError("sees", f"logits or shares with {method.__name__}, which compares scores", "labels")

        def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
            queries = Queries(model, sees=budget.sees, max_queries=budget.max_queries)
            return method(
                queries,
                inputs,
                labels,
                eps=budget.eps,
                max_queries=budget.max_queries,
                num_samples=budget.num_samples,
                generator=generator,
                **({} if method is bayesian else {"norm": budget.norm}),
            )

        return attack

    return settle


def _bayesian(budget: Budget) -> Attack:
    """A few hundred queries: its time grows with their cube."""
    if budget.norm != "linf":
        raise ArgumentError("norm", "linf", budget.norm, "this attack has no other ball")
    return _query(bayesian)(replace(budget, max_queries=min(budget.max_queries, MOST_BAYESIAN_QUERIES)))


def _transfer(budget: Budget) -> Attack:
    """PGD on the sources' expected loss."""
    if not budget.sources:
        raise ArgumentError("sources", "at least one network to transfer from", "none")
    attack = _ascent(pgd, expected_loss)(budget)
    return _settled(transfer, sources=tuple(budget.sources), attack=attack)


def _substitute(budget: Budget) -> Attack:
    """PGD on what a network of the attacker's own has learned from answers."""
    transferred = _ascent(pgd)(budget)

    def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        queries = Queries(model, sees=budget.sees, max_queries=budget.max_queries)
        samples = budget.num_samples
        return imitation(queries, inputs, labels, attack=transferred, num_samples=samples, generator=generator)

    return attack


ATTACKS: dict[str, Named] = {
    "fgsm": Named(_fgsm, trains=True, steps=False, draws=False),
    "fgsm-rs": Named(_single_step(fgsm_random_start), trains=True, measures=False, steps=False, draws=False),
    "nfgsm": Named(_single_step(nfgsm), trains=True, measures=False, steps=False, draws=False),
    "pgd": Named(_ascent(pgd), trains=True, draws=False),
    "kl": Named(_ascent(divergence_pgd), trains=True, measures=False, draws=False),
    "epgd": Named(_ascent(pgd, expected_probabilities), trains=True),
    "epgd-loss": Named(_ascent(pgd, expected_loss), trains=True),
    "smoothadv": Named(_ascent(pgd, expected_logits), trains=True),
    "epgd-vote": Named(_ascent(pgd, expected_vote)),
    "epgd-margin": Named(_ascent(pgd, lambda count: expected_loss(count, margin))),
    "multi-targeted": Named(_targeted(multi_targeted_pgd)),
    "apgd-ce": Named(_automatic()),
    "apgd-dlr": Named(_automatic(dlr)),
    "apgd-t": Named(_targeted(apgd_targeted)),
    "cw-l2": Named(_smallest(carlini_wagner_l2, "l2"), norm="l2"),
    "cw-linf": Named(_smallest(carlini_wagner_linf, "linf"), norm="linf"),
    "cw-l0": Named(_smallest(carlini_wagner_l0, "l0"), norm="l0"),
    "ddn": Named(_smallest(ddn, "l2"), norm="l2"),
    "transfer": Named(_transfer),
    "substitute": Named(_substitute, asks=True),
    "square": Named(_query(square), steps=False, asks=True),
    "nattack": Named(_query(nattack), steps=False, asks=True),
    "zoo": Named(_query(zoo), steps=False, asks=True),
    "bayes": Named(_bayesian, steps=False, asks=True),
}
"""From a name to the attack."""

TRAINING_ATTACKS = tuple(name for name, attack in ATTACKS.items() if attack.trains)
EVALUATION_ATTACKS = tuple(name for name, attack in ATTACKS.items() if attack.measures)
SINGLE_STEP_ATTACKS = tuple(name for name, attack in ATTACKS.items() if not attack.steps and not attack.asks)
SINGLE_DRAW_ATTACKS = tuple(name for name, attack in ATTACKS.items() if not attack.draws)


def named_attack(name: str, **budget: Any) -> Attack:  # noqa: ANN401 - any part of a budget
    """The attack called `name`.

    Args:
        name: a key of `ATTACKS`. `fgsm`, `fgsm-rs` (random start), `nfgsm`, `pgd`, `kl` (the divergence from the clean
            prediction, as in TRADES); PGD on an expectation over draws: `epgd` (of probabilities, eq. 25), `epgd-loss`
            (of the loss, as the paper's code has it), `smoothadv` (of logits, eq. 24), `epgd-vote` (the margin of the
            soft vote), `epgd-margin` (of the margin); on an expected loss, too: `multi-targeted`, Auto-PGD as
            `apgd-ce`, `apgd-dlr` and `apgd-t`, the searches for the smallest perturbation `cw-l2`, `cw-linf`, `cw-l0`
            and `ddn`; `transfer`; and with queries alone `square`, `nattack`, `zoo`, `bayes` (at most 300 of them) and
            `substitute` (about 32 versions of an image at most), which alone can do with labels.
        **budget: see `Budget`; `eps` is needed.

    Raises:
        ArgumentError: an unknown name, or a budget that the attack can't keep.
    """
    check_choice(name, ATTACKS, "attack")
    return ATTACKS[name].settle(Budget(**budget))
