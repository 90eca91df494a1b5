"""The signature of an attack, and the options from which a named attack is built."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES, Sees
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_choice, check_not_negative, check_positive
from smoothed.utils.modes import Classifier


@runtime_checkable
class Attack(Protocol):
    """An attack with all of its options set: maps a model, images and labels to adversarial images."""

    def __call__(self, model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        """Return adversarial inputs, (N, C, H, W).

        Args:
            model: classifier under attack, from images to logits (N, K).
            inputs: images in [0, 1], (N, C, H, W).
            labels: true classes (N,), or target classes for a targeted attack.
            generator: source of the attack's random numbers; None for torch's default generator.
        """
        ...


@dataclass(frozen=True)
class AttackOptions:
    """Options from which a named attack is built. Each attack uses the options that apply to it and ignores the others.

    Attributes:
        eps: radius of the perturbation, in pixel units of [0, 1]; for `cw-l0`, a number of pixels. Gradient-based
            attacks inside a ball, such as PGD, also accept one radius per image, (N,).
        steps: number of gradient steps.
        eot_samples: number of draws averaged for each gradient of an EOT attack, or of answers averaged for each query.
        norm: `linf` or `l2`, for attacks that support both.
        relative_step_size: length of a step of PGD as a fraction of eps; `mi-fgsm` takes 1 / steps instead.
        max_queries: maximum number of queries per image.
        sees: output that a black-box attacker observes: `logits`, `shares` (probabilities or vote shares) or `labels`.
        sources: networks on which the examples of a transfer attack are made.

    Raises:
        ArgumentError: an option has the wrong type or is out of range, even if the attack ignores it.
    """

    eps: float | Tensor
    steps: int = 7
    eot_samples: int = 8
    norm: Literal["linf", "l2"] = "linf"
    relative_step_size: float = 0.25
    max_queries: int = 1000
    sees: Sees = "logits"
    sources: Sequence[Classifier] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.eps, Tensor):
            check_not_negative(self.eps, "eps")
        for name in ("steps", "eot_samples", "max_queries"):
            check_positive(getattr(self, name), name)
        check_choice(self.norm, BALLS, "norm")
        check_not_negative(self.relative_step_size, "relative_step_size")
        check_choice(self.sees, SEES, "sees")
        if not isinstance(self.sources, Sequence) or not all(callable(source) for source in self.sources):
            raise ArgumentError("sources", "a sequence of networks", repr(self.sources))
