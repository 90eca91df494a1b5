"""What an attack is once its options are settled, and what settles it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from smoothed.attacks.query_based.queries import SEES, Sees
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_choice, check_positive
from smoothed.utils.modes import Classifier


@runtime_checkable
class Attack(Protocol):
    """An attack with its options settled: images and labels in, adversarial images out."""

    def __call__(self, model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        """Adversarial inputs of the shape of `inputs`."""
        ...


@dataclass(frozen=True)
class Budget:
    """What an attack may do and how hard it tries. Each attack takes the parts that it knows.

    Attributes:
        eps: radius in pixel units of [0, 1]: a number, or one an image (N,), which PGD and its expectations take; for
            `l0` a number of pixels.
        steps: gradients taken.
        step: the length of each, as a share of eps.
        num_samples: draws for each gradient of an expectation, or answers averaged for each query.
        norm: `linf` or `l2`, of attacks that have no norm of their own.
        max_queries: for each image.
        sees: what a query shows: `logits`, `shares` or `labels`.
        sources: the networks that examples are transferred from.

    Raises:
        ArgumentError: no queries, or an unknown `sees`: also where the attack would ignore them.
    """

    eps: float | Tensor
    steps: int = 7
    num_samples: int = 8
    norm: Literal["linf", "l2"] = "linf"
    step: float = 0.25
    max_queries: int = 1000
    sees: Sees = "logits"
    sources: Sequence[Classifier] = ()

    def __post_init__(self) -> None:
        check_positive(self.max_queries, "max_queries")
        check_choice(self.sees, SEES, "sees")
