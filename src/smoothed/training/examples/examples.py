"""Interface of all sources of adversarial training examples, and the attack at a given point of a run."""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from smoothed.attacks import Attack, named_attack
from smoothed.attacks.ball import Norm
from smoothed.training.batch import Part
from smoothed.utils.modes import Classifier

GatherRows = Callable[[Tensor], Tensor]
"""Function from a part's rows, (n, ...), to the rows of the parts that all processes compute at the same time."""


class ExampleOptions(Protocol):
    """Settings of the examples; `TrainingConfig` describes them."""

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
    def relative_step_size(self) -> float: ...  # noqa: D102
    @property
    def steps_warmup(self) -> float: ...  # noqa: D102
    @property
    def nfgsm_warmup(self) -> float: ...  # noqa: D102
    @property
    def eot_samples(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def copies(self) -> int: ...  # noqa: D102
    @property
    def copy_sigma(self) -> float: ...  # noqa: D102
    @property
    def label_smoothing(self) -> float: ...  # noqa: D102


class Examples(Protocol):
    """Source of adversarial examples, which may keep state between steps."""

    def make(self, model: Classifier, part: Part) -> Tensor:
        """Return adversarial inputs for `part`, of the shape of `part.clean`. The caller sets the mode of the model."""
        ...

    def reference(self, part: Part) -> Tensor:
        """Return the images that a consistency loss compares the last result of `make` with: the start of the attack.

        They are the clean images of `part` unless the examples remember another start.
        """
        ...

    def learn(self, part: Part, adversarial: Tensor, gather: GatherRows) -> None:
        """Update the state after the backward pass.

        Args:
            part: part that the examples belong to.
            adversarial: examples of `make`, with their gradient if they require one.
            gather: function that collects rows of all processes.
        """
        ...

    def state(self) -> Mapping[str, Tensor]:
        """Return the state that persists between steps; it is equal on all processes."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state of `state`."""
        ...


def linear_warmup(final: float, progress: float, warmup: float) -> float:
    """Value that grows linearly from 0 to `final` over the share `warmup` of the run; `progress` is in [0, 1]."""
    return final * min(1.0, progress / warmup) if warmup > 0 else final


def scheduled_attack(options: ExampleOptions, progress: float, *, eps: Tensor | None = None) -> Attack:
    """Create the attack at a point of the run.

    Args:
        options: settings of the attack.
        progress: finished share of the run, in [0, 1].
        eps: radius of each image, (n,), for PGD; None for the attack and the radius of `options`.
    """
    norm: Norm = "l2" if options.norm == "l2" else "linf"
    radius = linear_warmup(options.eps, progress, options.eps_warmup) if eps is None else eps
    steps = max(1, round(linear_warmup(options.attack_steps, progress, options.steps_warmup)))
    name = options.attack if eps is None else "pgd"
    return named_attack(
        name,
        eps=radius,
        steps=steps,
        eot_samples=options.eot_samples,
        norm=norm,
        relative_step_size=options.relative_step_size,
    )
