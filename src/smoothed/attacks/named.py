"""The attacks by the names the command line and configurations use: one dict."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from smoothed.attacks.fgsm import fgsm, nfgsm
from smoothed.attacks.objectives import expected_logits, expected_loss, expected_probabilities
from smoothed.attacks.pgd import pgd
from smoothed.checks import check_choice
from smoothed.modes import Classifier


@runtime_checkable
class Attack(Protocol):
    """An attack with its options settled: images and labels in, adversarial images out."""

    def __call__(
        self, model: Classifier, inputs: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial inputs of the shape of `inputs`."""
        ...


def _fgsm(eps: float, steps: int, samples: int) -> Attack:
    del steps, samples
    return lambda model, inputs, labels, generator=None: fgsm(model, inputs, labels, eps=eps)  # noqa: ARG005 - no start


def _nfgsm(eps: float, steps: int, samples: int) -> Attack:
    del steps, samples
    return lambda model, inputs, labels, generator=None: nfgsm(model, inputs, labels, eps=eps, generator=generator)


def _pgd(eps: float, steps: int, samples: int) -> Attack:
    del samples
    return lambda model, inputs, labels, generator=None: pgd(
        model, inputs, labels, eps=eps, steps=steps, generator=generator
    )


def _expectation(objective: Callable) -> Callable[[float, int, int], Attack]:
    def settle(eps: float, steps: int, samples: int) -> Attack:
        return lambda model, inputs, labels, generator=None: pgd(
            model, inputs, labels, eps=eps, steps=steps, objective=objective(samples), generator=generator
        )

    return settle


ATTACKS: dict[str, Callable[[float, int, int], Attack]] = {
    "fgsm": _fgsm,
    "nfgsm": _nfgsm,
    "pgd": _pgd,
    "epgd": _expectation(expected_probabilities),
    "epgd-loss": _expectation(expected_loss),
    "smoothadv": _expectation(expected_logits),
}
"""From a name to a function of (eps, steps, num_samples) that settles the attack."""

# N-FGSM leaves the ball on purpose, so it trains but does not measure.
EVALUATION_ATTACKS = tuple(name for name in ATTACKS if name != "nfgsm")

SINGLE_STEP_ATTACKS = ("fgsm", "nfgsm")
SINGLE_DRAW_ATTACKS = (*SINGLE_STEP_ATTACKS, "pgd")


def named_attack(name: str, *, eps: float, steps: int = 7, num_samples: int = 8) -> Attack:
    """The attack called `name`, in the L-inf norm.

    Args:
        name: `fgsm`, `nfgsm`, `pgd`, `epgd` (expected probabilities, eq. 25), `epgd-loss` (expected loss, as the
            paper's code has it) or `smoothadv` (expected logits, eq. 24).
        eps: radius in pixel units of [0, 1].
        steps: gradients taken; single-step attacks ignore it.
        num_samples: draws for each gradient of an expectation; attacks on one draw ignore it.

    Raises:
        ArgumentError: an unknown name.
    """
    check_choice(name, ATTACKS, "attack")
    return ATTACKS[name](eps, steps, num_samples)
