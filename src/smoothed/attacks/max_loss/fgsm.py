"""Single-step attacks: FGSM (Goodfellow et al., 2015; the paper's eq. 1), with a random start, and N-FGSM."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.objectives import Objective, one_draw
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_inputs, check_labels, check_not_negative
from smoothed.utils.modes import Classifier, batch_statistics


def fgsm(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
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


def fgsm_random_start(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step_size: float | None = None,
    objective: Objective | None = None,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """One step from a uniform start, projected (Wong, Rice and Kolter, 2020: fast adversarial training).

    The gradient is taken under the batch's statistics, as its authors do (see `nfgsm`). Long runs with it can collapse
    to a masked gradient all the same; N-FGSM is the steadier one.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: L-inf radius in pixel units of [0, 1].
        step_size: likewise; 1.25 eps when None.
        objective: what to ascend; the cross-entropy of one draw when None.
        generator: as in `pgd`.

    Returns:
        Images in [0, 1] within `eps` of the inputs, (N, C, H, W).

    Raises:
        ArgumentError: as `pgd`.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_not_negative(eps, "eps")
    step_size = 1.25 * eps if step_size is None else check_not_negative(step_size, "step_size")
    start = (inputs + uniform_(torch.empty_like(inputs), -eps, eps, generator)).clamp(0, 1)
    with batch_statistics(model):
        gradient = input_gradient(objective or one_draw(), model, start, labels)
    return (inputs + (start + step_size * gradient.sign() - inputs).clamp(-eps, eps)).clamp(0, 1)


def nfgsm(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    start_eps: float | None = None,
    objective: Objective | None = None,
    generator: Randomness = None,
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
        generator: as in `pgd`.

    Returns:
        Images in [0, 1], (N, C, H, W).

    Raises:
        ArgumentError: as `pgd`.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_not_negative(eps, "eps")
    start_eps = 2 * eps if start_eps is None else check_not_negative(start_eps, "start_eps")
    noisy = inputs + uniform_(torch.empty_like(inputs), -start_eps, start_eps, generator)
    with batch_statistics(model):
        gradient = input_gradient(objective or one_draw(), model, noisy, labels)
    return (noisy + eps * gradient.sign()).clamp(0, 1)
