"""NAttack (Li et al., ICML 2019): learns a Gaussian whose samples, squashed and projected, fool the classifier."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import TINY, Norm, ball
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.pursuit import Pursuit
from smoothed.attacks.query_based.queries import Queries
from smoothed.errors import ArgumentError
from smoothed.rng.counter_based import normals, places
from smoothed.rng.rows import Randomness, uniform_
from smoothed.rng.seeds import mixed
from smoothed.utils.checks import check_not_negative, check_positive
from smoothed.utils.modes import Classifier

# Keeps a pixel at 0 or 1 at a finite place in tanh's space, where a step still moves it.
SHRINKAGE = 0.99


def nattack(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    max_queries: int | None = None,
    population: int = 100,
    sigma: float = 0.1,
    learning_rate: float = 0.1,
    loss: Loss = margin,
    targeted: bool = False,
    num_samples: int = 1,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs from a Gaussian in tanh's space that is moved up its samples' losses (algorithm 1).

    A sample z stands for the image (tanh(z) + 1) / 2, projected to the ball. Each step asks about the mean and
    `population` samples around it, and moves the mean by `learning_rate` times the search gradient of the z-scored
    losses. The first query is about the image itself. An image is done at its first success, be it a sample or the
    mean; one that has none gets its last mean.

    A random classifier answers each query by a fresh draw, which the search gradient averages along with the samples.
    Population and rate are the best of nine pairs (50, 100, 200; 0.02, 0.1, 0.5) on 32 held-out images of CIFAR-10 and
    the bundled network, at 600 queries.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: radius in pixel units of [0, 1]: of each pixel for `linf`, of the whole image for `l2`.
        norm: `linf` or `l2`.
        max_queries: for each image: the smaller of this and the bound of `Queries`; 1,000 where neither is given.
        population: samples of a step, at least 2, the paper's b. The last step has what is left.
        sigma: deviation of the samples, in tanh's space.
        learning_rate: likewise, of the mean.
        loss: of the answers, to ascend (to descend if `targeted`).
        targeted: whether `labels` are what the attack wants.
        num_samples: answers averaged for each sample; each is a query.
        confidence: the margin above which an image is done, in units of logits; infinity spends all queries.
        generator: on the inputs' device; torch's default one when None. It gives each image a seed of its own, so what
            happens to one does not depend on the others; `randomness.Rows` makes seeds follow images.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, negative eps, an unknown norm,
            a population below 2, answers that are labels alone, fewer queries than `num_samples`.
    """
    project = ball(norm).project
    check_not_negative(eps, "eps")
    check_not_negative(learning_rate, "learning_rate")
    if check_positive(population, "population") < 2:
        raise ArgumentError("population", "at least 2 samples, whose losses differ", population)
    if check_not_negative(sigma, "sigma") == 0:
        raise ArgumentError("sigma", "a deviation above 0", sigma)
    pursuit = Pursuit(
        "nattack",
        model,
        inputs,
        labels,
        loss=loss,
        targeted=targeted,
        max_queries=max_queries,
        num_samples=num_samples,
        confidence=confidence,
    )
    inputs = pursuit.inputs
    mean = torch.atanh((2 * inputs - 1) * SHRINKAGE)
    seeds = uniform_(torch.empty(len(inputs), dtype=torch.float64, device=inputs.device), 0, 2**52, generator)
    seeds = seeds.to(torch.int64)

    def images_of(latent: Tensor, rows: Tensor) -> Tensor:
        """The images of latent points (M, P, C, H, W), which are used up: these tensors are what a query costs."""
        around = inputs[rows][:, None]
        change = latent.tanh_().mul_(0.5).add_(0.5 - around)
        return project(change.flatten(0, 1), eps).view(latent.shape).add_(around).clamp_(0, 1)

    def step(rows: Tensor, mates: int, number: int) -> None:
        shape = (mates, *inputs.shape[1:])
        keys = mixed(seeds[rows], number).to(inputs.device)
        noise = normals(keys, places(math.prod(shape), keys.device), inputs.dtype).view(len(rows), *shape)
        latent = torch.cat([mean[rows][:, None], torch.add(mean[rows][:, None], noise, alpha=sigma)], 1)
        candidates = images_of(latent, rows)
        values = pursuit.ask(candidates, rows)[:, 1:].to(noise)
        mean[rows] += learning_rate * search_gradient(z_scored(values), noise, sigma)

    pursuit.ask(inputs[:, None], pursuit.open)
    left, number = pursuit.budget - 1, 0
    while left > 2 and len(pursuit.open):
        mates = min(population, left - 1)
        for rows in pursuit.groups(mates + 1):
            step(rows, mates, number)
        left, number = left - mates - 1, number + 1
    if not number:
        return pursuit.result(inputs)
    every = torch.arange(len(inputs), device=inputs.device)
    return pursuit.result(images_of(mean[:, None].clone(), every)[:, 0])


def search_gradient(
    values: Float[Tensor, "n b"], noise: Float[Tensor, "n b c h w"], sigma: float
) -> Float[Tensor, "n c h w"]:
    """The gradient of E f(z), z ~ N(mean, sigma^2 I), in the mean: the average of f(z) (z - mean) / sigma^2 (eq. 5).

    Unbiased, also where f is random; its variance falls as 1 / b, and grows with the mean of f, which is why `z_scored`
    values are used.

    Args:
        values: f at B samples for each of N means, (N, B).
        noise: the samples' standard normals, (z - mean) / sigma, (N, B, C, H, W).
        sigma: their deviation.

    Example:
        >>> import torch
        >>> noise = torch.randn(1, 100_000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
        >>> slope = torch.tensor([3.0, -1.0])
        >>> search_gradient(0.5 * noise.flatten(2) @ slope, noise, 0.5).round(decimals=1)
        tensor([[[[ 3., -1.]]]])
    """
    return torch.einsum("nb,nbchw->nchw", values, noise) / (values.shape[1] * sigma)


def z_scored(values: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """Each row less its mean, over its deviation; zeros where all values are equal (section 3.3)."""
    centred = values - values.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(TINY)
