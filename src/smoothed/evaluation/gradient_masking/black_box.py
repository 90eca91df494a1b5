"""Checks that gradient-based attacks are at least as strong as attacks without gradients."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks import Queries, expected_loss
from smoothed.attacks.losses import margin
from smoothed.attacks.query_based.square import square
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import (
    Figure,
    Finding,
    compare_attacks,
    conclude,
    estimate,
    mean_accuracy,
    verdict_of,
)
from smoothed.rng.rows import Randomness, uniform_
from smoothed.smoothing.classifier import CHUNK_SIZE
from smoothed.utils.modes import Classifier

# Number of candidates after which Square measures its current best again, because noise may have made its value too
# high.
REMEASURE = 20


def black_box_against_white_box(defence: Defence) -> Finding:
    """Compare the Square attack (Andriushchenko et al., 2020) with PGD.

    Square sees logits averaged over as many draws as PGD's gradients. With noise, a single success may be due to
    chance: Square then uses all queries and repeatedly measures its current best again. Passes if Square does not lower
    accuracy by more than PGD does, within the tolerance.
    """
    settings, draws = defence.settings, defence.eot_samples
    rows = defence.smoothed.chunk_size if isinstance(defence.smoothed.chunk_size, int) else CHUNK_SIZE
    noise_options = {"confidence": math.inf, "remeasure_every": REMEASURE} if defence.is_random else {}

    def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        queries = Queries(model, max_queries=settings.queries * draws, chunk_size=rows)
        return square(
            queries, inputs, labels, eps=settings.eps, eot_samples=draws, generator=generator, **noise_options
        )

    return compare_attacks(
        "black box is weaker than white box",
        ("white box", defence.white_box_accuracy),
        ("black box", defence.accuracy_under("black box", attack)),
        settings.tolerance,
        if_sound="The white-box attack is at least as strong as the black-box attack.",
        if_suspicious="The black-box attack is stronger: gradients are masked, and white-box accuracy is too high.",
    )


def random_search_against_gradients(defence: Defence) -> Finding:
    """Search random points of the ball (half of them corners) for adversarial examples that PGD missed.

    PGD misses an image if most votes on its example are right. Random search breaks such an image if the share of right
    votes on its own example is lower by more than 1/2, in fresh votes. Passes if the share of all images that only
    random search breaks is within the tolerance.
    """
    settings = defence.settings
    white_box = defence.accuracy(defence.white_box_examples, stream=1)
    searched = defence.accuracy_under(
        "random search",
        lambda model, inputs, labels, generator=None: random_search(
            model,
            inputs,
            labels,
            eps=settings.eps,
            tries=settings.tries,
            eot_samples=defence.eot_samples,
            generator=generator,
        ),
        stream=1,
    )
    missed = defence.white_box_accuracy > 0.5
    broken = (missed & (white_box - searched > 0.5)).double()
    share = estimate(broken)
    return conclude(
        "random search finds nothing new",
        [
            mean_accuracy("images not broken by the white box", missed),
            mean_accuracy("accuracy under random search", searched),
            Figure.of("images that only random search breaks", "percent", share),
        ],
        verdict_of(share, settings.tolerance),
        (settings.tolerance, "percent"),
        if_sound="Random points break almost no image that the white-box attack does not break.",
        if_suspicious="Random points break images that the white-box attack does not: its gradients are misleading.",
    )


def random_search(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    tries: int,
    eot_samples: int = 1,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """The point with the largest margin loss among `tries` random points of each L-inf ball.

    The points are corners of the ball and uniformly distributed points, in turn.

    Args:
        model: any callable from images to logits (N, K); it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes, (N,) int64.
        eps: radius in pixel units of [0, 1].
        tries: number of points for each image.
        eot_samples: draws that the margin of a point averages over.
        generator: generator of the points.

    Returns:
        The selected images, of the shape of `inputs`.
    """
    objective = expected_loss(eot_samples, margin)
    best, best_value = inputs, inputs.new_full((len(inputs),), -torch.inf)
    for number in range(tries):
        point = uniform_(torch.empty_like(inputs), -eps, eps, generator)
        images = (inputs + (point if number % 2 else eps * point.sign())).clamp(0, 1)
        with torch.no_grad():
            value = objective(model, images, labels)
        better = value > best_value
        best_value = torch.where(better, value, best_value)
        best = torch.where(better.view(-1, 1, 1, 1), images, best)
    return best
