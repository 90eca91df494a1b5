"""Where a step's adversarial examples come from: an attack, or a method that learns from step to step."""

from collections.abc import Callable

from smoothed.attacks import TRAINING_ATTACKS
from smoothed.training.examples.adaptive import Adaptive
from smoothed.training.examples.attacked import Attacked, Clean
from smoothed.training.examples.examples import ExampleOptions, Examples
from smoothed.training.examples.free import Free

EXAMPLES: dict[str, Callable[[ExampleOptions, int], Examples]] = {"none": Clean, "free": Free, "iaat": Adaptive}
"""From a name to a function of (configuration, images in the training set), beside `attacks.TRAINING_ATTACKS`."""


def make_examples(options: ExampleOptions, images: int) -> Examples:
    """The examples that `options.attack` names, for a training set of so many images."""
    if options.attack in TRAINING_ATTACKS:
        return Attacked(options, images)
    return EXAMPLES[options.attack](options, images)


__all__ = ["EXAMPLES", "Adaptive", "Attacked", "Clean", "ExampleOptions", "Examples", "Free", "make_examples"]
