"""Checks of the gradient itself: whether it vanishes, whether draws agree on it, whether it is the loss's slope."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks import one_draw
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.losses import margin
from smoothed.attacks.replay import remember
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import Figure, Finding, conclude, estimate, judge
from smoothed.rng.rows import normal_
from smoothed.smoothing.noisy_classifier import OneDraw

DRAWS = 8

# A quarter of a grey level: small beside any attack, large beside the rounding of float32.
DISTANCE = 1e-3

# Halfway to what a gradient that misses half of its power would reach, and no honest network comes near it.
AGREEMENT = 0.8


def vanishing_gradients(defence: Defence) -> Finding:
    """Input gradients of the cross-entropy that are exactly zero, or no numbers, on an image.

    Rule: the share of images without any gradient is held against the tolerance; one that is no number is suspicious.
    """
    gradients = _gradients(defence)
    zero = estimate((gradients == 0).all(-1).float().mean(0))
    broken = float((~gradients.isfinite()).any(-1).float().mean())
    figures = Figure.of("zero", "percent", zero), Figure("not finite", "percent", broken)
    verdict = "suspicious" if broken > 0 else judge(zero, defence.settings.tolerance)
    return conclude(
        "gradients are there",
        figures,
        verdict,
        sound="Gradients are numbers, and hardly ever zero.",
        flawed="Images without a usable gradient survive any attack that follows it: use losses that do not saturate.",
    )


def gradients_of_draws(defence: Defence) -> Finding:
    """The mean cosine between the gradients of independent draws.

    In the mean of m draws' gradients the common part outweighs the rest if the cosine is above 1 / (m + 1). Rule: it
    must be for the draws that the white-box attack averages.
    """
    name = "draws agree on the gradient"
    if not defence.is_random:
        return Finding(name, (), "There is no noise: one draw is all draws.", "pass")
    gradients = _gradients(defence)
    lengths = gradients.norm(dim=-1)
    usable = ((lengths > 0) & lengths.isfinite()).all(0)
    if not bool(usable.any()):
        return Finding(name, (), "No image has a usable gradient in every draw.", "suspicious")
    directions = (gradients / lengths[..., None])[:, usable]
    # |sum of directions|^2 is their number, and the cosines of all ordered pairs.
    cosines = (directions.sum(0).square().sum(-1) - DRAWS) / (DRAWS * (DRAWS - 1))
    cosine = estimate(cosines)
    opposite = estimate(-cosines)
    figures = [Figure.of("cosine", "number", cosine)]
    if cosine.value > 0:
        figures.append(Figure("draws to outweigh the noise", "number", 1 / cosine.value - 1))
    averaged = defence.attack_samples
    return conclude(
        name,
        figures,
        judge(opposite, -1 / (averaged + 1)),
        sound=f"The mean of the attack's {averaged} draws is more signal than noise.",
        flawed=f"The mean of the attack's {averaged} draws is more noise than signal: average over more.",
    )


def gradients_against_differences(defence: Defence) -> Finding:
    """The slope that the gradient promises along a random direction, against a symmetric difference of the margin.

    All noise is the same at the three points. Their agreement is 2 a b / (a^2 + b^2): 1 where both slopes are equal, 0
    where one is zero, -1 where they are opposite. Rule: it is at least 0.8 in the mean over images.
    """
    name = "gradients are the slope"
    slopes = defence.by_batch("differences", _slopes)
    if bool(slopes[:, 1].isnan().all()):
        return Finding(name, (), "The noise does not come again: there is no slope to compare with.", "unclear")
    analytic, numeric = slopes.nan_to_num(0.0, 0.0, 0.0).double().unbind(1)
    scale = analytic.square() + numeric.square()
    agreement = torch.where(scale > 0, 2 * analytic * numeric / scale.clamp_min(1e-300), 1.0)
    opposite = estimate(-agreement)
    return conclude(
        name,
        [Figure.of("agreement", "number", estimate(agreement))],
        judge(opposite, -AGREEMENT),
        sound="The gradient is the slope of the loss.",
        flawed="The gradient is not the slope of the loss: it is shattered, or replaced by a backward pass of its own.",
    )


def _gradients(defence: Defence) -> Float[Tensor, "draws n d"]:
    """The gradients of the cross-entropy in independent draws, at the inputs."""
    draws = range(DRAWS if defence.is_random else 1)
    return torch.stack(
        [
            defence.by_batch(
                f"gradient {number}",
                lambda draw, inputs, labels, _: input_gradient(one_draw(), draw, inputs, labels).flatten(1),
            )
            for number in draws
        ]
    )


def _slopes(draw: OneDraw, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """The slope of one draw's margin along a random sign vector: by the gradient, and by a symmetric difference.

    NaN if the draw does not come again.
    """
    objective = one_draw(margin)
    inputs = inputs.clamp(DISTANCE, 1 - DISTANCE)
    direction = normal_(torch.empty_like(inputs), generator).sign()
    replay = remember(draw)

    @torch.no_grad()
    def value(images: Tensor) -> Tensor:
        replay()
        return objective(draw, images, labels).double()

    gradient = input_gradient(objective, draw, inputs, labels)
    analytic = (gradient * direction).flatten(1).sum(1).double()
    numeric = (value(inputs + DISTANCE * direction) - value(inputs - DISTANCE * direction)) / (2 * DISTANCE)
    if not torch.equal(value(inputs), value(inputs)):
        numeric = torch.full_like(numeric, torch.nan)
    return torch.stack([analytic, numeric], 1)
