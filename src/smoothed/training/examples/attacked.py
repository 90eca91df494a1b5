"""Examples of an attack that forgets each step, and none at all."""

from collections.abc import Mapping

from torch import Tensor

from smoothed.attacks import Attack
from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, Together, settled_attack
from smoothed.utils.modes import Classifier


class Clean:
    """No adversarial examples: the clean images stand in for them."""

    def __init__(self, options: ExampleOptions, images: int) -> None:
        self.options = options
        del images

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        del model
        return part.clean

    def learn(self, part: Part, adversarial: Tensor, together: Together) -> None:
        """See `Examples.learn`."""

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""


class Attacked(Clean):
    """A fresh attack on each batch, with radius and steps that may grow over the run."""

    def __init__(self, options: ExampleOptions, images: int, attack: Attack | None = None) -> None:
        super().__init__(options, images)
        self.attack = attack

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        attack = self.attack or settled_attack(self.options, part.progress)
        return attack(model, part.clean, part.labels, part.rows)
