"""Adversarial examples for training: from an attack, or from a method with state that persists between steps."""

from collections.abc import Callable

from smoothed.attacks import TRAINING_ATTACKS
from smoothed.training.examples.adaptive import AdaptiveExamples
from smoothed.training.examples.attacked import AttackedExamples, CleanExamples
from smoothed.training.examples.examples import ExampleOptions, Examples
from smoothed.training.examples.free import FreeExamples

EXAMPLES: dict[str, Callable[[ExampleOptions, int], Examples]] = {
    "none": CleanExamples,
    "free": FreeExamples,
    "iaat": AdaptiveExamples,
}
"""Constructors by name, from (options, number of training images), in addition to `attacks.TRAINING_ATTACKS`."""


def make_examples(options: ExampleOptions, images: int) -> Examples:
    """Create the examples that `options.attack` names, for a training set of `images` images."""
    if options.attack in TRAINING_ATTACKS:
        return AttackedExamples(options, images)
    return EXAMPLES[options.attack](options, images)


__all__ = [
    "EXAMPLES",
    "AdaptiveExamples",
    "AttackedExamples",
    "CleanExamples",
    "ExampleOptions",
    "Examples",
    "FreeExamples",
    "make_examples",
]
