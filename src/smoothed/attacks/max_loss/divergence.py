"""The attack inside TRADES (Zhang et al., 2019): away from the network's own answer on the clean image."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.attacks.ball import Norm
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.objectives import Objective, checked_logits
from smoothed.rng.rows import Randomness, normal_
from smoothed.utils.checks import check_inputs
from smoothed.utils.modes import Classifier, evaluating

# Zhang et al. start this far from the clean image, where the divergence itself has no slope.
START_DEVIATION = 0.001


def divergence_from(clean_logits: Float[Tensor, "n k"]) -> Objective:
    """KL(softmax(clean_logits) || softmax(f(x))) of one draw, in nats; `labels` are not looked at."""
    probabilities = clean_logits.softmax(1)

    def objective(
        model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        logits = checked_logits(model, inputs, labels)
        return functional.kl_div(logits.log_softmax(1), probabilities, reduction="none").sum(1)

    return objective


def divergence_pgd(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor | None = None,
    steps: int = 10,
    norm: Norm = "linf",
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """PGD on the divergence from the clean prediction, from a start of deviation 0.001 (TRADES, algorithm 1).

    The clean prediction is taken once, by one draw, where the authors' code takes it anew at each step: the same for a
    network without noise.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: (N,), checked and otherwise ignored.
        eps: radius in pixel units of [0, 1].
        step_size: likewise; eps / 4 when None (the authors' 2/255 at 8/255).
        steps: gradients taken.
        norm: `linf` or `l2`.
        generator: as in `pgd`.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W).

    Raises:
        ArgumentError: as `pgd`.
    """
    inputs = check_inputs(inputs).detach()
    with evaluating(model), torch.no_grad():
        clean_logits = checked_logits(model, inputs, labels)
    start = inputs + START_DEVIATION * normal_(torch.empty_like(inputs), generator)
    return pgd(
        model,
        inputs,
        labels,
        eps=eps,
        step_size=step_size,
        steps=steps,
        norm=norm,
        objective=divergence_from(clean_logits),
        start=start,
    )
