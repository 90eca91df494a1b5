"""Checks of the gradients: that they do not vanish, agree between draws, and match finite differences."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks import one_draw_loss
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.losses import margin
from smoothed.attacks.replay import snapshot
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import Figure, Finding, conclude, estimate, verdict_of
from smoothed.rng.rows import normal_
from smoothed.smoothing.noisy_classifier import NoisyClassifier

# Independent draws whose gradients are compared.
COMPARED_DRAWS = 8

# Distance of the finite differences, a quarter of a grey level: small compared with attacks, large compared with
# rounding in float32.
DISTANCE = 1e-3

# Smallest agreement of gradients and finite differences that passes. Two slopes that differ by a factor of 2 have this
# agreement.
AGREEMENT = 0.8


def vanishing_gradients(defence: Defence) -> Finding:
    """Measure the share of images whose gradient of the cross-entropy is exactly zero or not finite.

    Passes if the share of zero gradients is within the tolerance; any gradient that is not finite is suspicious.
    """
    gradients = _gradients(defence)
    zero = estimate((gradients == 0).all(-1).float().mean(0))
    not_finite = float((~gradients.isfinite()).any(-1).float().mean())
    figures = Figure.of("zero gradients", "percent", zero), Figure("not finite", "percent", not_finite)
    verdict = "suspicious" if not_finite > 0 else verdict_of(zero, defence.settings.tolerance)
    return conclude(
        "gradients do not vanish",
        figures,
        verdict,
        (defence.settings.tolerance, "percent"),
        if_sound="Gradients are finite, and almost never zero.",
        if_suspicious="Gradient attacks fail on images without usable gradients: use a loss that does not saturate.",
    )


def agreement_of_draws(defence: Defence) -> Finding:
    """Measure the mean cosine similarity between the gradients of independent draws.

    The mean gradient of m draws contains more signal (their common component) than noise if the cosine is above
    1 / (m + 1). Passes if this holds for the number of draws that the white-box attack averages.
    """
    name = "draws agree on the gradient"
    if not defence.is_random:
        return Finding(name, (), "The classifier has no noise: all draws are equal.", "pass")
    gradients = _gradients(defence)
    lengths = gradients.norm(dim=-1)
    usable = ((lengths > 0) & lengths.isfinite()).all(0)
    if not bool(usable.any()):
        return Finding(name, (), "No image has a usable gradient in every draw.", "suspicious")
    directions = (gradients / lengths[..., None])[:, usable]
    # |sum of directions|^2 is the number of directions plus the cosines of all ordered pairs.
    cosines = (directions.sum(0).square().sum(-1) - COMPARED_DRAWS) / (COMPARED_DRAWS * (COMPARED_DRAWS - 1))
    cosine = estimate(cosines)
    figures = [Figure.of("cosine", "number", cosine)]
    if cosine.value > 0:
        figures.append(Figure("draws until the signal exceeds the noise", "number", 1 / cosine.value - 1))
    averaged = defence.eot_samples
    gradient = f"The attack's gradient, averaged over {averaged} draw{'s' * (averaged > 1)},"
    return conclude(
        name,
        figures,
        verdict_of(estimate(-cosines), -1 / (averaged + 1)),
        (1 / (averaged + 1), "number"),
        if_sound=f"{gradient} contains more signal than noise.",
        if_suspicious=f"{gradient} contains more noise than signal: average more draws.",
    )


def gradients_against_finite_differences(defence: Defence) -> Finding:
    """Compare the slope of the margin along a random direction by the gradient and by a central difference.

    The noise is the same at all points. The agreement of two slopes a and b is 2 a b / (a^2 + b^2): 1 for equal slopes,
    0 if one is zero, and -1 for opposite slopes. Passes if the mean agreement over images is at least 0.8.
    """
    name = "gradients match finite differences"
    slopes = defence.map_batches("differences", _slopes)
    if bool(slopes[:, 1].isnan().all()):
        meaning = "Inconclusive: the noise can't be repeated, so there are no finite differences to compare with."
        return Finding(name, (), meaning, "unclear")
    analytic, numeric = slopes.nan_to_num(0.0, 0.0, 0.0).double().unbind(1)
    scale = analytic.square() + numeric.square()
    agreement = torch.where(scale > 0, 2 * analytic * numeric / scale.clamp_min(1e-300), 1.0)
    return conclude(
        name,
        [Figure.of("agreement", "number", estimate(agreement))],
        verdict_of(estimate(-agreement), -AGREEMENT),
        (AGREEMENT, "number"),
        if_sound="Gradients match the finite differences of the loss.",
        if_suspicious="Gradients do not match finite differences: they are shattered, or come from a custom backward.",
    )


def _gradients(defence: Defence) -> Float[Tensor, "draws n d"]:
    """Input gradients of the cross-entropy in independent draws; a single draw for a classifier without noise."""
    draws = range(COMPARED_DRAWS if defence.is_random else 1)
    return torch.stack(
        [
            defence.map_batches(
                f"gradient {number}",
                lambda draw, inputs, labels, _: input_gradient(one_draw_loss(), draw, inputs, labels).flatten(1),
            )
            for number in draws
        ]
    )


def _slopes(draw: NoisyClassifier, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Slopes of one draw's margin along a random sign vector: by the gradient, and by a central difference.

    The central difference is NaN if the noise of the draw can't be repeated.
    """
    objective = one_draw_loss(margin)
    inputs = inputs.clamp(DISTANCE, 1 - DISTANCE)
    direction = normal_(torch.empty_like(inputs), generator).sign()
    replay = snapshot(draw)

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
