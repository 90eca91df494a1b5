"""NAttack (Li et al., ICML 2019): learns a Gaussian distribution of adversarial examples from queries."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import TINY, Norm, ball
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.query_based.query_attack import QueryAttack
from smoothed.errors import ArgumentError
from smoothed.rng.counter_based import normals, positions
from smoothed.rng.rows import Randomness, uniform_
from smoothed.rng.seeds import mix_rows
from smoothed.utils.checks import check_generator, check_not_negative, check_positive
from smoothed.utils.modes import Classifier

# Scales pixels into (-1, 1), so that 0 and 1 have coordinates in tanh space at which a step still has an effect.
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
    eot_samples: int = 1,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs from a Gaussian in tanh space, whose mean ascends its samples' losses (algorithm 1).

    A sample z stands for the image (tanh(z) + 1) / 2, projected onto the ball. Each step queries the mean and
    `population` samples, and moves the mean by `learning_rate` times the search gradient of the z-scored losses. The
    first query is the image itself. An image is done at its first success, by a sample or the mean; without a success
    its last mean is returned.

    A random classifier answers each query by a fresh draw, and the search gradient averages over draws and samples
    together.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: radius in pixel units of [0, 1], of each pixel for `linf` and of the whole image for `l2`.
        norm: `linf` or `l2`.
        max_queries: maximum number of queries per image; the limit of `Queries` applies too. None for 1,000 if
            `Queries` sets no limit.
        population: number of samples per step, at least 2, the paper's b. The last step uses the remaining queries.
        sigma: standard deviation of the samples in tanh space.
        learning_rate: step length of the mean in tanh space, per unit of the search gradient.
        loss: loss of the answers to ascend, or to descend if `targeted`.
        targeted: whether `labels` are target classes.
        eot_samples: number of answers averaged for each sample; each counts as a query.
        confidence: margin in logits above which an image is done; infinity uses all queries.
        generator: source of one seed per image, on the inputs' device; None for torch's default generator. Given its
            seed, the result for an image does not depend on the others; with `rng.rows.RowGenerator` the seed does not
            depend on its batch.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps or learning_rate is
            negative, the norm is unknown, population is below 2, sigma is not positive, the answers are only labels, or
            there are fewer queries than `eot_samples`.
    """
    project = ball(norm).project
    check_not_negative(eps, "eps")
    check_generator(generator)
    check_not_negative(learning_rate, "learning_rate")
    if check_positive(population, "population") < 2:
        raise ArgumentError("population", "at least 2, since the losses of the samples are compared", population)
    if check_not_negative(sigma, "sigma") == 0:
        raise ArgumentError("sigma", "a standard deviation above 0", sigma)
    search = QueryAttack(
        "nattack",
        model,
        inputs,
        labels,
        loss=loss,
        targeted=targeted,
        max_queries=max_queries,
        eot_samples=eot_samples,
        confidence=confidence,
    )
    inputs = search.inputs
    mean = torch.atanh((2 * inputs - 1) * SHRINKAGE)
    seeds = uniform_(torch.empty(len(inputs), dtype=torch.float64, device=inputs.device), 0, 2**52, generator)
    seeds = seeds.to(torch.int64)

    def images_of(latent: Tensor, rows: Tensor) -> Tensor:
        """Return the images of latent points (M, P, C, H, W), which are overwritten to save memory."""
        centre = inputs[rows][:, None]
        delta = latent.tanh_().mul_(0.5).add_(0.5 - centre)
        return project(delta.flatten(0, 1), eps).view(latent.shape).add_(centre).clamp_(0, 1)

    def step(rows: Tensor, num_samples: int, step_index: int) -> None:
        shape = (num_samples, *inputs.shape[1:])
        keys = mix_rows(seeds[rows], step_index).to(inputs.device)
        noise = normals(keys, positions(math.prod(shape), keys.device), inputs.dtype).view(len(rows), *shape)
        latent = torch.cat([mean[rows][:, None], torch.add(mean[rows][:, None], noise, alpha=sigma)], 1)
        candidates = images_of(latent, rows)
        values = search.ask(candidates, rows)[:, 1:].to(noise)
        mean[rows] += learning_rate * search_gradient(z_scored(values), noise, sigma)

    search.ask(inputs[:, None], search.active)
    remaining, step_index = search.max_candidates - 1, 0
    while remaining > 2 and len(search.active):
        num_samples = min(population, remaining - 1)
        for rows in search.batches(num_samples + 1):
            step(rows, num_samples, step_index)
        remaining, step_index = remaining - num_samples - 1, step_index + 1
    if not step_index:
        return search.result(inputs)
    all_rows = torch.arange(len(inputs), device=inputs.device)
    return search.result(images_of(mean[:, None].clone(), all_rows)[:, 0])


def search_gradient(
    values: Float[Tensor, "n b"], noise: Float[Tensor, "n b c h w"], sigma: float
) -> Float[Tensor, "n c h w"]:
    """Estimate the gradient of E f(z), z ~ N(mean, sigma^2 I), with respect to the mean (eq. 5).

    The estimate is the average of f(z) (z - mean) / sigma^2 over samples. It is unbiased, even if f is random. Its
    variance falls as 1 / B and grows with the mean of f, which is why `z_scored` values are used.

    Args:
        values: f at B samples for each of N means, (N, B).
        noise: standard normal noise of the samples, (z - mean) / sigma, (N, B, C, H, W).
        sigma: standard deviation of the samples.

    Returns:
        The estimates, (N, C, H, W).

    Example:
        >>> import torch
        >>> noise = torch.randn(1, 100_000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
        >>> slope = torch.tensor([3.0, -1.0])
        >>> search_gradient(0.5 * noise.flatten(2) @ slope, noise, 0.5).round(decimals=1)
        tensor([[[[ 3., -1.]]]])
    """
    return torch.einsum("nb,nbchw->nchw", values, noise) / (values.shape[1] * sigma)


def z_scored(values: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """Return each row minus its mean, over its standard deviation; zeros if all values are equal (section 3.3)."""
    centred = values - values.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(TINY)
