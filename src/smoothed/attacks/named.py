"""The attacks by the names the command line and configurations use: one dict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from smoothed.attacks.ball import Norm
from smoothed.attacks.divergence import divergence_pgd
from smoothed.attacks.fgsm import fgsm, fgsm_random_start, nfgsm
from smoothed.attacks.objectives import expected_logits, expected_loss, expected_probabilities
from smoothed.attacks.pgd import pgd
from smoothed.checks import check_choice
from smoothed.modes import Classifier
from smoothed.randomness import Randomness


@runtime_checkable
class Attack(Protocol):
    """An attack with its options settled: images and labels in, adversarial images out."""

    def __call__(self, model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        """Adversarial inputs of the shape of `inputs`."""
        ...


@dataclass(frozen=True)
class Budget:
    """What an attack may do and how hard it tries.

    Attributes:
        eps: radius in pixel units of [0, 1]: a number, or one an image (N,), which PGD and its expectations take.
        steps: gradients taken; single-step attacks ignore it.
        step: the length of each, as a share of eps; likewise.
        num_samples: draws for each gradient of an expectation; attacks on one draw ignore it.
        norm: `linf` or `l2`; single-step attacks are `linf`.
    """

    eps: float | Tensor
    steps: int = 7
    num_samples: int = 8
    norm: Norm = "linf"
    step: float = 0.25


def _fgsm(budget: Budget) -> Attack:
    return lambda model, inputs, labels, generator=None: fgsm(model, inputs, labels, eps=budget.eps)  # noqa: ARG005


def _single_step(method: Callable[..., Tensor]) -> Callable[[Budget], Attack]:
    def settle(budget: Budget) -> Attack:
        return lambda model, inputs, labels, generator=None: method(
            model, inputs, labels, eps=budget.eps, generator=generator
        )

    return settle


def _iterative(
    method: Callable[..., Tensor], objective: Callable[[int], object] | None = None
) -> Callable[[Budget], Attack]:
    def settle(budget: Budget) -> Attack:
        ascends = {} if objective is None else {"objective": objective(budget.num_samples)}
        return lambda model, inputs, labels, generator=None: method(
            model,
            inputs,
            labels,
            eps=budget.eps,
            step_size=budget.eps * budget.step,
            steps=budget.steps,
            norm=budget.norm,
            generator=generator,
            **ascends,
        )

    return settle


ATTACKS: dict[str, Callable[[Budget], Attack]] = {
    "fgsm": _fgsm,
    "fgsm-rs": _single_step(fgsm_random_start),
    "nfgsm": _single_step(nfgsm),
    "pgd": _iterative(pgd),
    "kl": _iterative(divergence_pgd),
    "epgd": _iterative(pgd, expected_probabilities),
    "epgd-loss": _iterative(pgd, expected_loss),
    "smoothadv": _iterative(pgd, expected_logits),
}
"""From a name to a function of a budget that settles the attack."""

# Made to train with, not to measure: N-FGSM even leaves the ball, on purpose.
TRAINING_ATTACKS = ("fgsm-rs", "nfgsm", "kl")
EVALUATION_ATTACKS = tuple(name for name in ATTACKS if name not in TRAINING_ATTACKS)

SINGLE_STEP_ATTACKS = ("fgsm", "fgsm-rs", "nfgsm")
SINGLE_DRAW_ATTACKS = (*SINGLE_STEP_ATTACKS, "pgd", "kl")


def named_attack(
    name: str,
    *,
    eps: float | Tensor,
    steps: int = 7,
    num_samples: int = 8,
    norm: Norm = "linf",
    step: float = 0.25,
) -> Attack:
    """The attack called `name`.

    Args:
        name: `fgsm`, `fgsm-rs` (random start), `nfgsm`, `pgd`, `kl` (the divergence from the clean prediction, as in
            TRADES), `epgd` (expected probabilities, eq. 25), `epgd-loss` (expected loss, as the paper's code has it)
            or `smoothadv` (expected logits, eq. 24).
        eps: see `Budget`, as for the others.
        steps: gradients taken.
        num_samples: draws for each gradient of an expectation.
        norm: `linf` or `l2`.
        step: the length of each step, as a share of eps.

    Raises:
        ArgumentError: an unknown name.
    """
    check_choice(name, ATTACKS, "attack")
    return ATTACKS[name](Budget(eps, steps, num_samples, norm, step))
