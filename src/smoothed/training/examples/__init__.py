"""Adversarial examples for training: from an attack, or from a method with state that persists between steps."""

from collections.abc import Callable

from smoothed.attacks import SINGLE_STEP_ATTACKS, TRAINING_ATTACKS
from smoothed.training.examples.adaptive import AdaptiveExamples
from smoothed.training.examples.attacked import AttackedExamples, CleanExamples
from smoothed.training.examples.copies import NoisyExamples, WorstCropExamples, WorstNoisyExamples
from smoothed.training.examples.dynamic import DynamicExamples
from smoothed.training.examples.examples import ExampleOptions, Examples
from smoothed.training.examples.free import FreeExamples
from smoothed.training.examples.learned import LearnedExamples
from smoothed.training.examples.prior import PriorExamples
from smoothed.training.examples.single_step_first import SingleStepFirst
from smoothed.training.examples.voronoi import VoronoiBallExamples, VoronoiExamples

EXAMPLES: dict[str, Callable[[ExampleOptions, int], Examples]] = {
    "none": CleanExamples,
    "free": FreeExamples,
    "iaat": AdaptiveExamples,
    "noisy": NoisyExamples,
    "maxup": WorstNoisyExamples,
    "maxup-crop": WorstCropExamples,
    "dynamic": DynamicExamples,
    "fgsm-pgi": PriorExamples,
    "l2l": LearnedExamples,
    "l2l-2": LearnedExamples,
    "voronoi": VoronoiExamples,
    "voronoi-ball": VoronoiBallExamples,
}
"""Constructors by name, from (options, number of training images), in addition to `attacks.TRAINING_ATTACKS`."""

NOISY_COPIES = ("noisy", "maxup")
"""Examples whose copies have Gaussian noise of deviation `copy_sigma`."""
WORST_COPIES = ("maxup", "maxup-crop")
"""Examples that choose among `copies` copies of an image."""
AFTER_NFGSM = (*TRAINING_ATTACKS, "iaat", "dynamic", "voronoi", "voronoi-ball")
"""Methods that `nfgsm_warmup` can replace by N-FGSM at the start of a run.

They are attacks by gradient steps whose length is set by eps.
"""
SINGLE_STEP = (*(name for name in TRAINING_ATTACKS if name in SINGLE_STEP_ATTACKS), "fgsm-pgi", "free", "l2l")
"""Examples of one gradient step, whose training can overfit catastrophically."""


def make_examples(options: ExampleOptions, images: int) -> Examples:
    """Create the examples that `options.attack` names, for a training set of `images` images."""
    if options.attack in TRAINING_ATTACKS:
        return AttackedExamples(options, images)
    return EXAMPLES[options.attack](options, images)


__all__ = [
    "AFTER_NFGSM",
    "EXAMPLES",
    "NOISY_COPIES",
    "SINGLE_STEP",
    "WORST_COPIES",
    "AdaptiveExamples",
    "AttackedExamples",
    "CleanExamples",
    "DynamicExamples",
    "ExampleOptions",
    "Examples",
    "FreeExamples",
    "LearnedExamples",
    "NoisyExamples",
    "PriorExamples",
    "SingleStepFirst",
    "VoronoiBallExamples",
    "VoronoiExamples",
    "WorstCropExamples",
    "WorstNoisyExamples",
    "make_examples",
]
