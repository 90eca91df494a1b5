"""First-order stationary condition, FOSC (Wang et al., ICML 2019): how far an adversarial example is from converging.

For a loss f, an image x and an example x' in the L-inf ball of radius eps around x, the condition is

    c(x') = max over z in the ball of <z - x', grad f(x')> = eps ||grad f(x')||_1 - <x' - x, grad f(x')>

(their eq. 4 and 5). It is 0 at a stationary point of the constrained problem: where the gradient vanishes, or where
each pixel is at the edge of the ball to which the gradient points. Unlike the loss, it is comparable between images.
"""

from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import check_radius
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import Objective, objective_or_default
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_callable, check_inputs, check_labels
from smoothed.utils.modes import Classifier, eval_mode


def fosc(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    adversarial: Tensor,
    eps: float | Tensor,
    objective: Objective | None = None,
) -> Float[Tensor, " n"]:
    """Return the first-order stationary condition c of each adversarial example; small values mean convergence.

    Bounds of the pixels, [0, 1], are not part of the condition, as in the paper. On a random model, c of a few draws
    overestimates c of the expected gradient, because the L1 norm is convex; average draws with `objective`. As a check
    for masked gradients, c near 0 at the start of an attack says that the gradient vanishes there.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images x in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        adversarial: examples x' in the ball around the inputs, (N, C, H, W).
        eps: L-inf radius in pixel units of [0, 1]: one number, or one radius per image, (N,).
        objective: function f that the attack ascends; the cross-entropy of one draw if None.

    Returns:
        c of each image, (N,), at least 0 for examples in the ball.

    Raises:
        ArgumentError: images, labels or eps are invalid, or `adversarial` has another shape than `inputs`.

    Source: Wang et al., On the Convergence and Robustness of Adversarial Training, ICML 2019, section 3.
    """
    check_callable(model, "model")
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    if not isinstance(adversarial, Tensor) or not adversarial.is_floating_point() or adversarial.shape != inputs.shape:
        got = f"shape {tuple(adversarial.shape)}" if isinstance(adversarial, Tensor) else type(adversarial).__name__
        raise ArgumentError("adversarial", f"a float tensor of images of shape {tuple(inputs.shape)}", got)
    radius = check_radius(eps, inputs, "eps")
    with eval_mode(model):
        gradient = input_gradient(objective_or_default(objective), model, adversarial.detach(), labels)
    return stationarity(gradient, adversarial.detach() - inputs, radius)


def stationarity(
    gradient: Float[Tensor, "n c h w"], displacement: Float[Tensor, "n c h w"], eps: float | Tensor
) -> Float[Tensor, " n"]:
    """Return eps ||g||_1 - <d, g> of each image, for gradients g and displacements d from the clean image.

    Args:
        gradient: gradient of each image's own loss.
        displacement: adversarial minus clean images, in pixel units of [0, 1].
        eps: L-inf radius in the same units: a number, or one for each image, (N, 1, 1, 1).
    """
    return (eps * gradient.abs() - displacement * gradient).flatten(1).sum(1)
