"""The attack of TRADES (Zhang et al., 2019): PGD on the divergence from the model's prediction on the clean image."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.attacks.ball import Norm
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.objectives import Objective, checked_logits
from smoothed.rng.rows import Randomness, normal_
from smoothed.utils.checks import check_callable, check_generator, check_inputs, check_labels
from smoothed.utils.modes import Classifier, eval_mode

# Standard deviation of the start around the clean image, where the divergence has zero gradient (Zhang et al.).
START_DEVIATION = 0.001


def divergence_from(clean_logits: Float[Tensor, "n k"]) -> Objective:
    """Return the objective KL(softmax(clean_logits) || softmax(f(x))) of one draw, in nats; it ignores the labels."""
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
    """PGD on the divergence from the clean prediction, from a Gaussian start of deviation 0.001 (TRADES, algorithm 1).

    The clean prediction is one draw, taken once. The authors' code evaluates it anew at each step, which is equivalent
    for a network without noise.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: classes (N,), int64; checked, but not used by the objective.
        eps: radius in pixel units of [0, 1]: one number, or one radius per image, (N,).
        step_size: length of a step in pixel units of [0, 1], as `eps`; None for eps / 4 (the authors' 2/255 at 8/255).
        steps: number of gradient steps.
        norm: `linf` or `l2`.
        generator: source of the Gaussian start, on the inputs' device; None for torch's default generator.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: as for `pgd`.
    """
    check_callable(model, "model")
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_generator(generator)
    with eval_mode(model), torch.no_grad():
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
