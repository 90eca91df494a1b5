"""Single-step attacks: FGSM (Goodfellow et al., 2015; the paper's eq. 1) and N-FGSM for training."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import Objective, one_draw
from smoothed.attacks.pgd import pgd
from smoothed.checks import check_inputs, check_labels, check_not_negative
from smoothed.modes import Classifier, batch_statistics


def fgsm(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    objective: Objective | None = None,
    targeted: bool = False,
) -> Float[Tensor, "n c h w"]:
    """One step of length `eps` along the gradient's sign, from the inputs themselves (eq. 1).

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: L-inf radius in pixel units of [0, 1].
        objective: what to ascend; the cross-entropy of one draw when None.
        targeted: whether `labels` are what the attack wants.

    Returns:
        Images in [0, 1] within `eps` of the inputs, (N, C, H, W).

    Raises:
        ArgumentError: as `pgd`.
    """
    return pgd(
        model,
        inputs,
        labels,
        eps=eps,
        step_size=eps,
        steps=1,
        objective=objective,
        targeted=targeted,
        random_start=False,
    )


def nfgsm(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    start_eps: float | None = None,
    objective: Objective | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n c h w"]:
    """Noisy FGSM (de Jorge et al., 2022), a cheap attack to train with: uniform noise, then one step, no projection.

    The result is as far as `start_eps + eps` from the inputs: it is for training, and no measure of robustness. The
    gradient is taken under the batch's statistics, as its authors do: with frozen ones, a ResNet-20 learned within an
    epoch to mask its gradient (PGD-7 accuracy fell to 2.5 %), which it did not with the batch's.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: length of the step in pixel units of [0, 1].
        start_eps: bound of the uniform noise, likewise; 2 eps when None.
        objective: what to ascend; the cross-entropy of one draw when None.
        generator: on the inputs' device; torch's default one when None.

    Returns:
        Images in [0, 1], (N, C, H, W).

    Raises:
        ArgumentError: as `pgd`.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_not_negative(eps, "eps")
    start_eps = 2 * eps if start_eps is None else check_not_negative(start_eps, "start_eps")
    noisy = inputs + torch.empty_like(inputs).uniform_(-start_eps, start_eps, generator=generator)
    with batch_statistics(model):
        gradient = input_gradient(objective or one_draw(), model, noisy, labels)
    return (noisy + eps * gradient.sign()).clamp(0, 1)
