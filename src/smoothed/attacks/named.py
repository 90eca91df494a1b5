"""The attacks by the names that the command line and configurations use."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from smoothed.attacks.attack import Attack, AttackOptions
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
from smoothed.attacks.min_norm.minimum import MinimumNorm, within_radius
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
from smoothed.attacks.transfer_based.substitute_attack import substitute_attack
from smoothed.attacks.transfer_based.transfer import transfer
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_choice, check_positive
from smoothed.utils.modes import Classifier

MAX_BAYESIAN_QUERIES = 300

_accumulated_pgd = partial(pgd, momentum=1.0)

AttackFactory = Callable[[AttackOptions], Attack]
"""Makes an attack from its options."""


@dataclass(frozen=True)
class NamedAttack:
    """An attack with a name, and its properties.

    Attributes:
        make: makes the attack from its options.
        for_training: whether it can make training examples.
        for_evaluation: whether it can measure robustness. N-FGSM cannot, for example, since its examples may leave the
            ball.
        multi_step: whether it takes `steps` gradient steps.
        multi_draw: whether it averages `eot_samples` draws per gradient, or answers per query.
        uses_queries: whether it sees only the answers to queries.
        norm: the only norm that it supports; None if the norm is an option.
    """

    make: AttackFactory
    for_training: bool = False
    for_evaluation: bool = True
    multi_step: bool = True
    multi_draw: bool = True
    uses_queries: bool = False
    norm: MinimumNorm | None = None


def _with_options(method: Callable[..., Tensor], **options: Any) -> Attack:  # noqa: ANN401 - any option of the method
    def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        return method(model, inputs, labels, generator=generator, **options)

    return attack


def _fgsm(options: AttackOptions) -> Attack:
    return lambda model, inputs, labels, generator=None: fgsm(model, inputs, labels, eps=options.eps)  # noqa: ARG005


def _single_step(method: Callable[..., Tensor]) -> AttackFactory:
    return lambda options: _with_options(method, eps=options.eps)


def _pgd(method: Callable[..., Tensor], objective: Callable[[int], Objective] | None = None) -> AttackFactory:
    """PGD or a variant, with a step size relative to eps, and optionally an objective made from the number of draws."""

    def make(options: AttackOptions) -> Attack:
        objective_option = {} if objective is None else {"objective": objective(options.eot_samples)}
        step_size = options.eps * options.relative_step_size
        return _with_options(
            method, eps=options.eps, step_size=step_size, steps=options.steps, norm=options.norm, **objective_option
        )

    return make


def _mi_fgsm(options: AttackOptions) -> Attack:
    """MI-FGSM of Dong et al. (2018): steps of eps / steps from the inputs, with a decay of 1."""
    return _with_options(
        pgd,
        eps=options.eps,
        step_size=options.eps / check_positive(options.steps, "steps"),
        steps=options.steps,
        norm=options.norm,
        momentum=1.0,
        unit_gradients=True,
        random_start=False,
    )


def _apgd(loss: Callable[..., Tensor] | None = None) -> AttackFactory:
    """Auto-PGD on the mean over draws of a loss, by default the cross-entropy."""

    def make(options: AttackOptions) -> Attack:
        make_objective = partial(expected_loss, options.eot_samples)
        objective = make_objective() if loss is None else make_objective(loss)
        return _with_options(apgd, eps=options.eps, steps=options.steps, norm=options.norm, objective=objective)

    return make


def _all_targets(method: Callable[..., Tensor]) -> AttackFactory:
    """An attack on the mean over draws of a loss, towards each of the best wrong classes."""
    return lambda options: _with_options(
        method,
        eps=options.eps,
        steps=options.steps,
        norm=options.norm,
        make_objective=partial(expected_loss, options.eot_samples),
    )


def _minimum_norm(method: Callable[..., Tensor], norm: MinimumNorm) -> AttackFactory:
    """A minimum-norm attack, projected onto the ball of radius eps."""

    def make(options: AttackOptions) -> Attack:
        if isinstance(options.eps, Tensor):
            raise ArgumentError("eps", "one number for all images", f"shape {tuple(options.eps.shape)}")
        search = partial(method, steps=options.steps, make_objective=partial(expected_loss, options.eot_samples))
        return within_radius(search, eps=options.eps, norm=norm)

    return make


def _query(name: str, method: Callable[..., Tensor]) -> AttackFactory:
    def make(options: AttackOptions) -> Attack:
        if options.sees == "labels":
            raise ArgumentError("sees", f"logits or shares, since {name} compares scores", "labels")
        fewest = 2 * options.eot_samples
        if options.max_queries < fewest:
            expected = f"at least {fewest} for {name}: the image and one candidate, {options.eot_samples} queries each"
            raise ArgumentError("max_queries", expected, options.max_queries, "or a smaller eot_samples")

        def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
            queries = Queries(model, sees=options.sees, max_queries=options.max_queries)
            return method(
                queries,
                inputs,
                labels,
                eps=options.eps,
                max_queries=options.max_queries,
                eot_samples=options.eot_samples,
                generator=generator,
                **({} if method is bayesian else {"norm": options.norm}),
            )

        return attack

    return make


def _bayesian(options: AttackOptions) -> Attack:
    """Bayesian optimisation, with at most a few hundred queries, since its time grows with their cube."""
    if options.norm != "linf":
        raise ArgumentError("norm", "linf, the only norm that bayes supports", options.norm)
    return _query("bayes", bayesian)(replace(options, max_queries=min(options.max_queries, MAX_BAYESIAN_QUERIES)))


def _transfer(options: AttackOptions) -> Attack:
    """PGD on the mean over draws of the sources' loss."""
    if not options.sources:
        raise ArgumentError("sources", "at least one network on which to make the examples", "none")
    attack = _pgd(pgd, expected_loss)(options)
    return _with_options(transfer, sources=tuple(options.sources), attack=attack)


def _substitute(options: AttackOptions) -> Attack:
    """PGD on a substitute network, trained on the model's answers."""
    substitute_pgd = _pgd(pgd)(options)

    def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        queries = Queries(model, sees=options.sees, max_queries=options.max_queries)
        return substitute_attack(
            queries,
            inputs,
            labels,
            attack=substitute_pgd,
            eot_samples=options.eot_samples,
            generator=generator,
        )

    return attack


ATTACKS: dict[str, NamedAttack] = {
    "fgsm": NamedAttack(_fgsm, for_training=True, multi_step=False, multi_draw=False),
    "fgsm-rs": NamedAttack(
        _single_step(fgsm_random_start), for_training=True, for_evaluation=False, multi_step=False, multi_draw=False
    ),
    "nfgsm": NamedAttack(
        _single_step(nfgsm), for_training=True, for_evaluation=False, multi_step=False, multi_draw=False
    ),
    "pgd": NamedAttack(_pgd(pgd), for_training=True, multi_draw=False),
    "kl": NamedAttack(_pgd(divergence_pgd), for_training=True, for_evaluation=False, multi_draw=False),
    "epgd": NamedAttack(_pgd(pgd, expected_probabilities), for_training=True),
    "epgd-loss": NamedAttack(_pgd(pgd, expected_loss), for_training=True),
    "smoothadv": NamedAttack(_pgd(pgd, expected_logits), for_training=True),
    "pgd-accumulated": NamedAttack(_pgd(_accumulated_pgd), for_training=True, multi_draw=False),
    "epgd-accumulated": NamedAttack(_pgd(_accumulated_pgd, expected_loss), for_training=True),
    "mi-fgsm": NamedAttack(_mi_fgsm, for_training=True, multi_draw=False),
    "epgd-vote": NamedAttack(_pgd(pgd, expected_vote)),
    "epgd-margin": NamedAttack(_pgd(pgd, lambda count: expected_loss(count, margin))),
    "multi-targeted": NamedAttack(_all_targets(multi_targeted_pgd)),
    "apgd-ce": NamedAttack(_apgd()),
    "apgd-dlr": NamedAttack(_apgd(dlr)),
    "apgd-t": NamedAttack(_all_targets(apgd_targeted)),
    "cw-l2": NamedAttack(_minimum_norm(carlini_wagner_l2, "l2"), norm="l2"),
    "cw-linf": NamedAttack(_minimum_norm(carlini_wagner_linf, "linf"), norm="linf"),
    "cw-l0": NamedAttack(_minimum_norm(carlini_wagner_l0, "l0"), norm="l0"),
    "ddn": NamedAttack(_minimum_norm(ddn, "l2"), norm="l2"),
    "transfer": NamedAttack(_transfer),
    "substitute": NamedAttack(_substitute, uses_queries=True),
    "square": NamedAttack(_query("square", square), multi_step=False, uses_queries=True),
    "nattack": NamedAttack(_query("nattack", nattack), multi_step=False, uses_queries=True),
    "zoo": NamedAttack(_query("zoo", zoo), multi_step=False, uses_queries=True),
    "bayes": NamedAttack(_bayesian, multi_step=False, uses_queries=True),
}
"""All attacks by name."""

TRAINING_ATTACKS = tuple(name for name, attack in ATTACKS.items() if attack.for_training)
EVALUATION_ATTACKS = tuple(name for name, attack in ATTACKS.items() if attack.for_evaluation)
SINGLE_STEP_ATTACKS = tuple(
    name for name, attack in ATTACKS.items() if not attack.multi_step and not attack.uses_queries
)
SINGLE_DRAW_ATTACKS = tuple(name for name, attack in ATTACKS.items() if not attack.multi_draw)


def named_attack(name: str, **options: Any) -> Attack:  # noqa: ANN401 - any field of AttackOptions
    """Return the attack called `name`.

    Args:
        name: a key of `ATTACKS`. Attacks on one draw: `fgsm`, `fgsm-rs` (random start), `nfgsm`, `pgd`, and `kl` (the
            divergence from the clean prediction, as in TRADES). PGD on an expectation over draws: `epgd` (mean
            probabilities, eq. 25), `epgd-loss` (mean loss), `smoothadv` (mean logits, eq. 24), `epgd-vote` (margin of
            the soft vote) and `epgd-margin` (mean margin). PGD along the sum of all gradients so far: `pgd-accumulated`
            (one draw) and `epgd-accumulated` (mean loss), the attacks of the paper's code, and `mi-fgsm` (one draw;
            gradients of L1 norm 1, and steps of eps / steps from the inputs). Other attacks on a mean loss:
            `multi-targeted`, Auto-PGD (`apgd-ce`, `apgd-dlr`, `apgd-t`), and the minimum-norm attacks `cw-l2`,
            `cw-linf`, `cw-l0` and `ddn`. Black-box attacks: `transfer`; with queries, `square`, `nattack`, `zoo`,
            `bayes` (at most 300 queries) and `substitute` (at most 32 versions per image, each queried
            `eot_samples` times). Of these, only `substitute` works if the attacker observes labels only.
        **options: fields of `AttackOptions`; `eps` is required.

    Raises:
        ArgumentError: the name is unknown, or the attack does not support the options.
    """
    check_choice(name, ATTACKS, "attack")
    return ATTACKS[name].make(AttackOptions(**options))
