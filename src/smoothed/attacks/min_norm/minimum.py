"""What attacks that look for the smallest perturbation share: norms, the search's record, and a budget for its end."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.ball import ball
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.objectives import Draws
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_choice, check_inputs, check_labels, check_not_negative
from smoothed.utils.modes import Classifier

MinimumNorm = Literal["linf", "l2", "l0"]
NORMS = ("linf", "l2", "l0")
Images = Float[Tensor, "n c h w"]


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in float32 at least: half precision is for the network, not for steps and distances."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def norms(delta: Images, norm: MinimumNorm) -> Float[Tensor, " n"]:
    """The norm of each perturbation, (N,): the largest value, the Euclidean length, or how many positions changed.

    A pixel of `l0` is a position, all of its channels together, as in Carlini and Wagner's attack on colour images.

    Raises:
        ArgumentError: an unknown norm.
    """
    check_choice(norm, NORMS, "norm")
    delta = wide(delta)
    if norm == "l0":
        return (delta != 0).any(1).flatten(1).sum(1).to(delta)
    return delta.flatten(1).abs().amax(1) if norm == "linf" else delta.flatten(1).norm(dim=1)


class Search:
    """A search for the smallest perturbation: judges images, and keeps the smallest one of each that succeeded.

    A random model is judged by the very draws that gave the gradient. The smallest of many lucky successes is kept, so
    norms come out too small and successes too many, the more so the fewer draws and the more steps: judge the result by
    fresh draws.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        norm: which to make small.
        draws: turns `loss` into an objective of the model.
        loss: whose gradient is wanted; success is judged by the margin, whatever the loss.
        confidence: the margin, in logits, that a success must exceed.
        targeted: whether `labels` are what the attack wants.

    Attributes:
        images: the adversarial inputs of the smallest norm so far, the inputs where there are none, (N, C, H, W).
        sizes: their norms, infinite where there are none, (N,).

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, a negative confidence.
    """

    def __init__(
        self,
        model: Classifier,
        inputs: Tensor,
        labels: Tensor,
        *,
        norm: MinimumNorm,
        draws: Draws,
        loss: Loss = margin,
        confidence: float = 0.0,
        targeted: bool = False,
    ) -> None:
        self.model = model
        self.inputs = check_inputs(inputs).detach()
        self.labels = check_labels(labels, inputs)
        self.norm: MinimumNorm = norm
        self.draws = draws
        self.loss = loss
        self.confidence = check_not_negative(confidence, "confidence")
        self.sign = -1.0 if targeted else 1.0
        self.images = self.inputs.clone()
        self.sizes = wide(self.inputs).new_full((len(inputs),), torch.inf)

    @property
    def found(self) -> Bool[Tensor, " n"]:
        """Which images have an adversarial version so far, (N,)."""
        return self.sizes.isfinite()

    def judge(
        self, images: Float[Tensor, "m c h w"], rows: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, " m"], Float[Tensor, "m c h w"]]:
        """Judge versions of the inputs `rows`, and keep those that succeed with the smallest norm so far.

        Returns:
            The mean margin of the draws towards success, less the confidence, (M,): above 0 where the attack succeeds.
            And the gradient of the loss towards success, (M, C, H, W).
        """
        margins: list[Tensor] = []

        def watched(logits: Tensor, labels: Tensor) -> Tensor:
            margins.append(margin(logits, labels).detach())
            return self.loss(logits, labels)

        slope = self.sign * input_gradient(self.draws(watched), self.model, images, self.labels[rows])
        values = self.sign * torch.stack(margins).mean(0) - self.confidence
        sizes = norms(wide(images) - wide(self.inputs[rows]), self.norm)
        better = (values > 0) & (sizes < self.sizes[rows])
        self.sizes[rows[better]] = sizes[better]
        self.images[rows[better]] = images[better]
        return values, wide(slope)

    def standing(self) -> Int[Tensor, " m"]:
        """The rows of the inputs that do not succeed as they are, which is where there is something to search."""
        rows = torch.arange(len(self.inputs), device=self.inputs.device)
        values, _ = self.judge(self.inputs, rows)
        return rows[values <= 0]


def bounded(attack: Callable[..., Tensor], *, eps: float, norm: MinimumNorm) -> Callable[..., Tensor]:
    """`attack`, which looks for the smallest perturbation, as one within a budget.

    Adversarial inputs whose norm is at most `eps` stay as they are. The perturbation of the others is projected onto
    the ball; for `l0` the positions with the longest change are kept. Where the attack found nothing, the inputs stay.

    Args:
        attack: from (model, inputs, labels) to adversarial inputs, such as `partial(ddn, steps=100)`.
        eps: the radius in pixel units of [0, 1], or the number of positions for `l0`.
        norm: `linf`, `l2` or `l0`.

    Returns:
        A function of (model, inputs, labels, generator=None), as attacks by name are. These attacks draw nothing: its
        generator is not used.

    Raises:
        ArgumentError: a negative `eps`, or an unknown norm.
    """
    check_not_negative(eps, "eps")
    check_choice(norm, NORMS, "norm")

    def within(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        del generator
        inputs = check_inputs(inputs).detach()
        adversarial = attack(model, inputs, labels)
        delta = adversarial - inputs
        projected = _largest_positions(delta, int(eps)) if norm == "l0" else ball(norm).project(delta, eps)
        inside = (norms(delta, norm) <= eps).view(-1, 1, 1, 1)
        return torch.where(inside, adversarial, (inputs + projected).clamp(0, 1))

    return within


def _largest_positions(delta: Images, count: int) -> Images:
    """`delta` at the `count` positions where it is longest, and 0 elsewhere."""
    lengths = delta.square().sum(1).flatten(1)
    kept = torch.zeros_like(lengths).scatter(1, lengths.topk(min(count, lengths.shape[1]), dim=1).indices, 1)
    return delta * kept.view(len(delta), 1, *delta.shape[2:])
