"""Check of convergence: the first-order stationary condition of the white-box examples (Wang et al., ICML 2019)."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks import expected_loss
from smoothed.attacks.fosc import stationarity
from smoothed.attacks.gradient import input_gradient
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import Figure, Finding, conclude, estimate, verdict_of

# Draws averaged for the gradients of this check: noise in a gradient makes its condition larger.
EOT_SAMPLES = 16

# Largest share of the first-order gain that passes. An attack that has not moved has half of it left, and one whose
# steps have a correlation of 1/2 with the gradient has a quarter.
GAIN_LEFT = 0.25


def converged_attack(defence: Defence) -> Finding:
    """Measure how far the white-box examples are from a stationary point of the attack's problem.

    The published condition, FOSC, is the largest first-order gain of the loss inside the ball (see `attacks.fosc`). It
    is reported as it is, in nats. Its scale is that of the gradient, so the verdict uses the remaining share of the
    gain: the gain from the example to the best point of the ball and of [0, 1], divided by that from the worst point to
    the best. The share is 0 for an example that has converged and 1/2 on average for one that has not moved. Images
    without a usable gradient are left out. Passes if the mean share is at most a quarter.
    """
    name = "the attack has converged"
    examples, eps = defence.white_box_examples, defence.settings.eps
    objective = expected_loss(EOT_SAMPLES if defence.is_random else 1)
    gradients = defence.map_batches(
        "convergence", lambda draw, inputs, labels, _: input_gradient(objective, draw, inputs, labels), examples
    )
    usable = gradients.isfinite().flatten(1).all(1) & (gradients != 0).flatten(1).any(1)
    if not bool(usable.any()):
        return Finding(name, (), "No example has a usable gradient.", "suspicious")
    gradients, examples, inputs = gradients[usable].double(), examples[usable].double(), defence.inputs[usable].double()
    condition = stationarity(gradients, examples - inputs, eps).mean()
    left = estimate(gain_left(gradients, examples, inputs, eps))
    return conclude(
        name,
        [Figure("FOSC", "number", float(condition)), Figure.of("first-order gain left", "percent", left)],
        verdict_of(left, GAIN_LEFT),
        (GAIN_LEFT, "percent"),
        if_sound="The white-box examples are close to a stationary point: further steps would gain little.",
        if_suspicious="The white-box attack has not converged: take more steps, or average more draws.",
    )


def gain_left(
    gradients: Float[Tensor, "n c h w"],
    examples: Float[Tensor, "n c h w"],
    inputs: Float[Tensor, "n c h w"],
    eps: float,
) -> Float[Tensor, " n"]:
    """Return max_z <z - x', g> / (max_z <z, g> - min_z <z, g>) of each image, in [0, 1], for z in the ball and [0, 1].

    Args:
        gradients: gradients g of the loss at the examples, not all 0 for any image.
        examples: examples x' in the ball and in [0, 1].
        inputs: images x, the centres of the balls, in [0, 1].
        eps: L-inf radius in pixel units of [0, 1], above 0.
    """
    low, high = (inputs - eps).clamp_min(0), (inputs + eps).clamp_max(1)
    best = torch.where(gradients > 0, high, low)
    gain = ((best - examples) * gradients).flatten(1).sum(1)
    largest = ((high - low) * gradients.abs()).flatten(1).sum(1)
    return (gain / largest).clamp(0, 1)
