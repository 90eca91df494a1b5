"""A substitute for a model that only answers: trained on its answers, to be attacked in its place.

Papernot et al. (ASIA CCS 2017): Jacobian-based data augmentation.
"""

import copy
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import one_draw
from smoothed.attacks.query_based.queries import Queries, queries_of
from smoothed.attacks.transfer_based.small_network import small_network
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_inputs, check_logits, check_not_negative, check_positive, naming_channels
from smoothed.utils.modes import Classifier, evaluating


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
    num_samples: int = 1,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A network trained to answer as `model` does, as a source of `transfer` (Papernot et al., algorithm 1).

    Each round asks the model about the images that are new, trains on all of them, and doubles them: beside each image
    x comes x + lambda sign(grad p_y(x)), with p the substitute's probability of the model's answer y. So r rounds ask
    2^(r - 1) times about each of the attacker's images, fewer where `Queries` allows fewer; read `Queries.spent` off.
    lambda turns its sign every few rounds (Papernot et al., 2016, section 4.2): along the gradient, and against it.

    Args:
        model: the target: any callable from images to logits (N, K), or `Queries`. From labels the substitute learns by
            cross-entropy, from logits and shares by that with the model's probabilities.
        inputs: the attacker's own images in [0, 1], (N, C, H, W); the model labels them.
        substitute: maps images to logits (N, K). A copy of it is trained, by Adam, where its parameters require
            gradients; dropout in it draws from torch's default generator. None takes a fresh `small_network`.
        rounds: of labelling and training.
        epochs: passes over the images known so far, in each round.
        step_size: the paper's lambda, in pixel units of [0, 1].
        period: rounds after which lambda turns its sign, the paper's tau (there 3). It is against the gradient, towards
            the boundary, that images teach most: on a linear target nearly all of the gain came with the first turn.
        batch_size: images of a step of training at most.
        learning_rate: Adam's.
        num_samples: answers averaged for each image asked about; each is a query.
        generator: of the order of the images, and of a network that is not given, on the CPU; torch's default one when
            None.

    Returns:
        The trained copy, in eval mode.

    Raises:
        ArgumentError: inputs as `check_inputs` refuses them, a number below its bound, a substitute that has nothing to
            train or another number of classes than the model, fewer queries than `num_samples`.
    """
    inputs = check_inputs(inputs).detach()
    for value, name in (
        (rounds, "rounds"),
        (epochs, "epochs"),
        (period, "period"),
        (batch_size, "batch_size"),
        (num_samples, "num_samples"),
    ):
        check_positive(value, name)
    check_not_negative(step_size, "step_size")
    check_not_negative(learning_rate, "learning_rate")
    queries = queries_of(model, inputs)
    if queries.max_queries is not None and queries.max_queries < num_samples:
        raise ArgumentError("max_queries", f"at least num_samples, {num_samples}", queries.max_queries)
    if substitute is not None and not any(parameter.requires_grad for parameter in substitute.parameters()):
        raise ArgumentError("substitute", "parameters that require gradients", "none")
    images, targets = inputs, _ask(queries, inputs, num_samples)
    classes = targets.shape[1]
    substitute = small_network(inputs, classes, generator) if substitute is None else copy.deepcopy(substitute)
    parameters = [parameter for parameter in substitute.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, learning_rate)
    for number in range(rounds):
        for _ in range(epochs):
            _train_epoch(substitute, optimizer, images, targets, batch_size=batch_size, generator=generator)
        if number + 1 == rounds:
            break
        new = _augmented(substitute, images, targets.argmax(1), step_size * (-1) ** (number // period), batch_size)
        new = new[: _left(queries, len(new), num_samples)]
        if len(new):
            images, targets = torch.cat([images, new]), torch.cat([targets, _ask(queries, new, num_samples)])
    optimizer.zero_grad()
    return substitute.eval()


def _ask(queries: Queries, images: Float[Tensor, "m c h w"], num_samples: int) -> Float[Tensor, "m k"]:
    """The model's probabilities for `images`, which are versions of the attacked images, set by set in their order."""
    rows = torch.arange(len(images), device=images.device) % len(queries.spent)
    answers = queries.ask(images, rows, num_samples)
    return answers if queries.sees == "labels" else answers.softmax(1)


def _left(queries: Queries, wanted: int, num_samples: int) -> int:
    """How many of the `wanted` versions may be asked about. All images have been asked about equally often."""
    if queries.max_queries is None:
        return wanted
    return min(wanted, (queries.max_queries - int(queries.spent.max())) // num_samples * len(queries.spent))


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
    for batch in order.tensor_split(math.ceil(len(images) / batch_size)):  # of about equal size: none too small to norm
        with naming_channels(images):
            logits = check_logits(substitute(images[batch]), len(batch), "substitute")
        if logits.shape[1] != targets.shape[1]:
            raise ArgumentError("substitute", f"logits of {targets.shape[1]} classes, the model's", logits.shape[1])
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
    """One step of length `step_size` along sign(grad p_y): against the cross-entropy's gradient, which can't vanish."""
    with evaluating(substitute):
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        slope = torch.cat([input_gradient(one_draw(), substitute, *part) for part in parts])
    return (images - step_size * slope.sign()).clamp(0, 1)
