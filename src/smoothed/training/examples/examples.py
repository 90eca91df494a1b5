"""What every maker of adversarial examples offers the step."""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from smoothed.attacks import Attack, named_attack
from smoothed.attacks.ball import Norm
from smoothed.training.batch import Part
from smoothed.utils.modes import Classifier

Together = Callable[[Tensor], Tensor]
"""From a part's rows, (n, ...), to those of the parts that the other processes have in hand at the time, too."""


class ExampleOptions(Protocol):
    """What a configuration says of its examples."""

    @property
    def attack(self) -> str: ...  # noqa: D102
    @property
    def norm(self) -> str: ...  # noqa: D102
    @property
    def eps(self) -> float: ...  # noqa: D102
    @property
    def eps_warmup(self) -> float: ...  # noqa: D102
    @property
    def attack_steps(self) -> int: ...  # noqa: D102
    @property
    def attack_step(self) -> float: ...  # noqa: D102
    @property
    def steps_warmup(self) -> float: ...  # noqa: D102
    @property
    def attack_samples(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102


class Examples(Protocol):
    """Makes adversarial examples of a part of a batch, and may remember something from step to step."""

    def make(self, model: Classifier, part: Part) -> Tensor:
        """Adversarial inputs of `part`, of the shape of `part.clean`. The model's mode is its caller's."""
        ...

    def learn(self, part: Part, adversarial: Tensor, together: Together) -> None:
        """Called after the backward pass through the examples that `make` gave."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What the next step needs to know of the last ones, the same on every process."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        ...


def growing(final: float, progress: float, warmup: float) -> float:
    """`final`, reached linearly from 0 over the first `warmup` of the run; `progress` in [0, 1]."""
    return final * min(1.0, progress / warmup) if warmup > 0 else final


def settled_attack(options: ExampleOptions, progress: float, *, eps: Tensor | None = None) -> Attack:
    """The attack of `options` at this point of the run; `eps`, one an image, takes the place of its own."""
    norm: Norm = "l2" if options.norm == "l2" else "linf"
    radius = growing(options.eps, progress, options.eps_warmup) if eps is None else eps
    steps = max(1, round(growing(options.attack_steps, progress, options.steps_warmup)))
    name = options.attack if eps is None else "pgd"
    return named_attack(
        name, eps=radius, steps=steps, num_samples=options.attack_samples, norm=norm, step=options.attack_step
    )
