"""Examples of an attack without state between steps, and clean images in place of examples."""

from collections.abc import Mapping

from torch import Tensor

from smoothed.attacks import Attack
from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, GatherRows, scheduled_attack
from smoothed.utils.modes import Classifier


class CleanExamples:
    """The clean images, for training without an attack."""

    def __init__(self, options: ExampleOptions, images: int) -> None:
        self.options = options
        del images

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        del model
        return part.clean

    def reference(self, part: Part) -> Tensor:
        """See `Examples.reference`."""
        return part.clean

    def learn(self, part: Part, adversarial: Tensor, gather: GatherRows) -> None:
        """See `Examples.learn`."""

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""


class AttackedExamples(CleanExamples):
    """Examples of an attack, whose radius and number of steps may grow over the run."""

    def __init__(self, options: ExampleOptions, images: int, attack: Attack | None = None) -> None:
        super().__init__(options, images)
        self.attack = attack

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        attack = self.attack or scheduled_attack(self.options, part.progress)
        return attack(model, part.clean, part.labels, part.row_generator)
