"""Single-step attacks: FGSM (Goodfellow et al., 2015; the paper's eq. 1), FGSM with a random start, and N-FGSM."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.objectives import Objective, objective_or_default
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_callable, check_generator, check_inputs, check_labels, check_not_negative
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
    """One step of length `eps` along the sign of the gradient, from the inputs (eq. 1).

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: L-inf radius in pixel units of [0, 1]: one number, or one radius per image, (N,).
        objective: objective to ascend, or to descend if `targeted`; None for the cross-entropy of one draw.
        targeted: whether `labels` are target classes.

    Returns:
        Images in [0, 1] within `eps` of the inputs, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: as for `pgd`.
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
    """One step from a uniform random start, projected onto the ball (Wong, Rice and Kolter, 2020: fast training).

    As in the authors' code, batch norms use the statistics of the batch for the gradient (see `nfgsm`). Long training
    with this attack can still collapse to a masked gradient; training with N-FGSM is more stable.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: L-inf radius in pixel units of [0, 1].
        step_size: length of the step in pixel units of [0, 1]; None for 1.25 eps.
        objective: objective to ascend; None for the cross-entropy of one draw.
        generator: source of the random start, on the inputs' device; None for torch's default generator.

    Returns:
        Images in [0, 1] within `eps` of the inputs, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: as for `pgd`.
    """
    check_callable(model, "model")
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_not_negative(eps, "eps")
    check_generator(generator)
    objective = objective_or_default(objective)
    step_size = 1.25 * eps if step_size is None else check_not_negative(step_size, "step_size")
    start = (inputs + uniform_(torch.empty_like(inputs), -eps, eps, generator)).clamp(0, 1)
    with batch_statistics(model):
        gradient = input_gradient(objective, model, start, labels)
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
    """Noisy FGSM (de Jorge et al., 2022): uniform noise, then one step, without projection; a cheap training attack.

    The result may be `start_eps + eps` from the inputs: it does not measure robustness at `eps`. As in the authors'
    code, batch norms use the statistics of the batch for the gradient.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: length of the step in pixel units of [0, 1].
        start_eps: bound of the uniform noise in pixel units of [0, 1]; None for 2 eps.
        objective: objective to ascend; None for the cross-entropy of one draw.
        generator: source of the uniform noise, on the inputs' device; None for torch's default generator.

    Returns:
        Images in [0, 1], (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: as for `pgd`.
    """
    check_callable(model, "model")
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_not_negative(eps, "eps")
    check_generator(generator)
    objective = objective_or_default(objective)
    start_eps = 2 * eps if start_eps is None else check_not_negative(start_eps, "start_eps")
    noisy = inputs + uniform_(torch.empty_like(inputs), -start_eps, start_eps, generator)
    with batch_statistics(model):
        gradient = input_gradient(objective, model, noisy, labels)
    return (noisy + eps * gradient.sign()).clamp(0, 1)
