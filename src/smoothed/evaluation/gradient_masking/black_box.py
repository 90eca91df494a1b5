"""Checks that gradients beat those who do without: queries, and random points in the ball."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks import Queries, expected_loss
from smoothed.attacks.losses import margin
from smoothed.attacks.query_based.square import square
from smoothed.evaluation.gradient_masking.defence import Defence
from smoothed.evaluation.gradient_masking.finding import Figure, Finding, compare, conclude, estimate, judge, percent
from smoothed.rng.rows import Randomness, uniform_
from smoothed.smoothing.classifier import CHUNK_SIZE
from smoothed.utils.modes import Classifier

REMEASURE = 20


def black_box_against_white_box(defence: Defence) -> Finding:
    """Square (Andriushchenko et al., 2020) against PGD. Rule: Square is not ahead by more than the tolerance.

    Square sees logits, in the mean over as many draws as PGD's gradients. Where there is noise no success counts as the
    last word: all queries are spent, and the candidate that stands is measured anew now and then.
    """
    settings, draws = defence.settings, defence.attack_samples
    rows = defence.smoothed.chunk_size if isinstance(defence.smoothed.chunk_size, int) else CHUNK_SIZE
    patience = {"confidence": math.inf, "remeasure": REMEASURE} if defence.is_random else {}

    def attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        queries = Queries(model, max_queries=settings.queries * draws, chunk_size=rows)
        return square(queries, inputs, labels, eps=settings.eps, num_samples=draws, generator=generator, **patience)

    return compare(
        "black box is weaker than white box",
        ("white box", defence.white),
        ("black box", defence.under("black box", attack)),
        settings.tolerance,
        sound="Gradients find at least what queries find.",
        flawed="Queries find what gradients miss: the gradient is masked, and white-box numbers flatter the defence.",
    )


def random_search_against_gradients(defence: Defence) -> Finding:
    """The worst of many random points, half of them corners of the ball, on images that PGD leaves.

    An image is left by PGD if most votes on its example are right, and found by random search if, in fresh votes, more
    than half of them go from right to wrong between PGD's example and its own. Rule: the share of all images that are
    found is within the tolerance.
    """
    settings = defence.settings
    white = defence.accuracy(defence.white_examples, stream=1)
    searched = defence.under(
        "random search",
        lambda model, inputs, labels, generator=None: random_search(
            model,
            inputs,
            labels,
            eps=settings.eps,
            tries=settings.tries,
            num_samples=defence.attack_samples,
            generator=generator,
        ),
        stream=1,
    )
    left = defence.white > 0.5
    found = (left & (white - searched > 0.5)).double()
    share = estimate(found)
    return conclude(
        "random search finds nothing new",
        [
            percent("left by the white box", left),
            percent("accuracy under random search", searched),
            Figure.of("found by it alone", "percent", share),
        ],
        judge(share, settings.tolerance),
        sound="Random points break hardly an image that gradients leave.",
        flawed="Random points break images that gradients leave: the attack did not look where the errors are.",
    )


def random_search(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    tries: int,
    num_samples: int = 1,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Of `tries` random points of each L-inf ball, corners and uniform ones in turn, that with the largest margin.

    Args:
        model: any callable from images to logits (N, K); it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: radius in pixel units of [0, 1].
        tries: points of each image.
        num_samples: draws over which a point's margin is averaged.
        generator: of the points.
    """
    objective = expected_loss(num_samples, margin)
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
