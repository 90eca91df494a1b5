"""Dynamic adversarial training (Wang et al., ICML 2019): attacks stop once a convergence criterion is met.

The criterion is evaluated for each image separately.

PGD takes `attack_steps` steps of `relative_step_size` eps (10 and 1/4 in the paper). An image keeps its perturbation
from the first step on after which its first-order stationary condition c (`attacks.fosc`) is at most c_t, which falls
linearly over the run from 0.5 to 0: early examples are weak, the last ones converge. The paper lets c_t reach 0 before
the last epochs, at an epoch of its own for each data set, and does not say where an attack starts; here c_t reaches 0
at the end, and the start is uniform in the ball, as for PGD.
"""

import torch
from torch import Tensor

from smoothed.attacks import one_draw_loss
from smoothed.attacks.ball import ball
from smoothed.attacks.fosc import stationarity
from smoothed.attacks.gradient import input_gradient
from smoothed.errors import ArgumentError
from smoothed.training.batch import Part
from smoothed.training.examples.attacked import CleanExamples
from smoothed.training.examples.examples import ExampleOptions, linear_warmup
from smoothed.utils.modes import Classifier, eval_mode

LARGEST_CONDITION = 0.5
"""c_t at the start of a run, the paper's c_max."""


def largest_condition(progress: float) -> float:
    """Return c_t, the value of the condition at which attacks end, at a point of the run in [0, 1]."""
    return LARGEST_CONDITION * (1 - progress)


class DynamicExamples(CleanExamples):
    """PGD examples whose attack stops separately for each image, by the first-order stationary condition.

    Gradients of stopped images are still computed, because the noise depends on the number of passes and processes that
    share a batch must stay synchronised; the cost is that of PGD. On a network with noise, each gradient is a single
    draw, whose condition is on average larger than that of the expected gradient, so attacks stop later.

    Raises:
        ArgumentError: the norm is not `linf`.
    """

    def __init__(self, options: ExampleOptions, images: int) -> None:
        super().__init__(options, images)
        if options.norm != "linf":
            hint = "the condition is defined for the L-inf ball"
            raise ArgumentError("norm", "linf with attack dynamic", options.norm, hint)

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        options, geometry = self.options, ball("linf")
        eps = linear_warmup(options.eps, part.progress, options.eps_warmup)
        steps = max(1, round(linear_warmup(options.attack_steps, part.progress, options.steps_warmup)))
        largest, objective = largest_condition(part.progress), one_draw_loss()
        clean, labels = part.clean, part.labels
        images = (clean + geometry.uniform(clean, eps, part.row_generator)).clamp(0, 1)
        ended = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        with eval_mode(model):
            for step in range(steps):
                gradient = input_gradient(objective, model, images, labels)
                # Algorithm 1 checks the condition after each step, with the gradient that the next step uses.
                if step > 0:
                    ended = ended | (stationarity(gradient, images - clean, eps) <= largest)
                delta = geometry.project(images + options.relative_step_size * eps * gradient.sign() - clean, eps)
                images = torch.where(ended.view(-1, 1, 1, 1), images, (clean + delta).clamp(0, 1))
        return images
