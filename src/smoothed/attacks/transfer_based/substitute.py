"""Training of a substitute network on the answers of a black-box model, to be attacked in its place.

Jacobian-based data augmentation of Papernot et al. (ASIA CCS 2017).
"""

import copy
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import one_draw_loss
from smoothed.attacks.query_based.queries import Queries, as_queries
from smoothed.attacks.transfer_based.small_network import small_network
from smoothed.errors import ArgumentError
from smoothed.utils.checks import (
    check_generator,
    check_inputs,
    check_logits,
    check_network,
    check_not_negative,
    check_positive,
    explaining_channel_errors,
)
from smoothed.utils.modes import Classifier, eval_mode


def train_substitute(
    model: Classifier | Queries,
    inputs: Tensor,
    substitute: nn.Module | None = None,
    *,
    rounds: int = 6,
    epochs: int = 10,
    step_size: float = 0.1,
    period: int = 1,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    eot_samples: int = 1,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Train a network to answer as `model` does, as a source for `transfer` (Papernot et al., algorithm 1).

    Each round queries the model with the new images, trains on all images, and doubles their number: for each image x
    it adds x + lambda sign(grad p_y(x)), where p_y is the substitute's probability of the model's answer y. Thus r
    rounds query the model with 2^(r - 1) versions of each of the attacker's images, or fewer if `Queries` sets a lower
    limit; `Queries.spent` has the number of queries. The sign of lambda alternates every `period` rounds (Papernot et
    al., 2016, section 4.2).

    Args:
        model: target model: any callable from images to logits (N, K), or `Queries`. From labels the substitute learns
            by cross-entropy; from logits or shares, by cross-entropy with the model's probabilities.
        inputs: the attacker's own images in [0, 1], (N, C, H, W), which the model labels.
        substitute: network from images to logits (N, K). A copy of it is trained by Adam, where its parameters require
            gradients; its dropout layers draw from torch's default generator. None for a new `small_network`.
        rounds: number of rounds of queries and training.
        epochs: number of epochs of training per round, on all images so far.
        step_size: length of an augmentation step in pixel units of [0, 1], the paper's lambda.
        period: number of rounds between sign changes of lambda, the paper's tau (3 in the paper). Steps against the
            gradient, towards the decision boundary, are the most informative.
        batch_size: maximum number of images per training step.
        learning_rate: Adam's learning rate.
        eot_samples: number of answers averaged for each queried image; each counts as a query.
        generator: source of the order of the images and of the weights of a new network, on the CPU; None for torch's
            default generator.

    Returns:
        The trained copy, in eval mode.

    Raises:
        ArgumentError: inputs are invalid (see `check_inputs`), a number is below its bound, the substitute has no
            trainable parameters or another number of classes than the model, or `Queries` allows fewer queries than
            `eot_samples`.
    """
    inputs = check_inputs(inputs).detach()
    for value, name in (
        (rounds, "rounds"),
        (epochs, "epochs"),
        (period, "period"),
        (batch_size, "batch_size"),
        (eot_samples, "eot_samples"),
    ):
        check_positive(value, name)
    check_not_negative(step_size, "step_size")
    check_not_negative(learning_rate, "learning_rate")
    check_generator(generator)
    if substitute is not None:
        check_network(substitute, "substitute")
        if not any(parameter.requires_grad for parameter in substitute.parameters()):
            raise ArgumentError("substitute", "a network with parameters that require gradients", "none of them")
    queries = as_queries(model, inputs)
    if queries.max_queries is not None and queries.max_queries < eot_samples:
        raise ArgumentError("max_queries", f"at least eot_samples, {eot_samples}", queries.max_queries)
    images, targets = inputs, _ask(queries, inputs, eot_samples)
    num_classes = targets.shape[1]
    substitute = small_network(inputs, num_classes, generator) if substitute is None else copy.deepcopy(substitute)
    parameters = [parameter for parameter in substitute.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, learning_rate)
    for round_index in range(rounds):
        for _ in range(epochs):
            _train_epoch(substitute, optimizer, images, targets, batch_size=batch_size, generator=generator)
        if round_index + 1 == rounds:
            break
        new = _augmented(substitute, images, targets.argmax(1), step_size * (-1) ** (round_index // period), batch_size)
        new = new[: _num_affordable(queries, len(new), eot_samples)]
        if len(new):
            images, targets = torch.cat([images, new]), torch.cat([targets, _ask(queries, new, eot_samples)])
    optimizer.zero_grad()
    return substitute.eval()


def _ask(queries: Queries, images: Float[Tensor, "m c h w"], eot_samples: int) -> Float[Tensor, "m k"]:
    """Return the model's probabilities for `images`, which are versions of the attacked images, in repeated order."""
    rows = torch.arange(len(images), device=images.device) % len(queries.spent)
    answers = queries.ask(images, rows, eot_samples)
    return answers if queries.sees == "labels" else answers.softmax(1)


def _num_affordable(queries: Queries, wanted: int, eot_samples: int) -> int:
    """Return how many of the `wanted` images may be queried, if all attacked images have had equally many queries."""
    if queries.max_queries is None:
        return wanted
    return min(wanted, (queries.max_queries - int(queries.spent.max())) // eot_samples * len(queries.spent))


@torch.enable_grad()
def _train_epoch(
    substitute: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Float[Tensor, "m c h w"],
    targets: Float[Tensor, "m k"],
    *,
    batch_size: int,
    generator: torch.Generator | None,
) -> None:
    order = torch.randperm(len(images), generator=generator).to(images.device)
    substitute.train()
    # Batches of nearly equal size: a small last one could be too small for batch norm.
    for batch in order.tensor_split(math.ceil(len(images) / batch_size)):
        with explaining_channel_errors(images):
            logits = check_logits(substitute(images[batch]), len(batch), "substitute")
        if logits.shape[1] != targets.shape[1]:
            expected = f"{targets.shape[1]} classes, as many as the model"
            raise ArgumentError("substitute", expected, logits.shape[1])
        optimizer.zero_grad()
        functional.cross_entropy(logits, targets[batch].to(logits)).backward()
        optimizer.step()


def _augmented(
    substitute: nn.Module,
    images: Float[Tensor, "m c h w"],
    labels: Int[Tensor, " m"],
    step_size: float,
    batch_size: int,
) -> Float[Tensor, "m c h w"]:
    """Take a step of length `step_size` along sign(grad p_y).

    The step is against the gradient of the cross-entropy, which has the same direction and does not underflow.
    """
    with eval_mode(substitute):
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        gradient = torch.cat([input_gradient(one_draw_loss(), substitute, *part) for part in parts])
    return (images - step_size * gradient.sign()).clamp(0, 1)
