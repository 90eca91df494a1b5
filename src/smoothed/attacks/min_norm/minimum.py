"""Common parts of the minimum-norm attacks: norms, the record of a search, and the projection onto a fixed radius."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.ball import ball
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.objectives import ObjectiveFactory, check_objective_factory
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import (
    check_callable,
    check_choice,
    check_flag,
    check_inputs,
    check_labels,
    check_not_negative,
)
from smoothed.utils.modes import Classifier
from smoothed.utils.shapes import ImageBatch

MinimumNorm = Literal["linf", "l2", "l0"]
NORMS = ("linf", "l2", "l0")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return `tensor` in at least float32: steps and distances need more precision than the network."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def norms(delta: ImageBatch, norm: MinimumNorm) -> Float[Tensor, " n"]:
    """Return the norm of each perturbation, (N,): maximum, Euclidean norm, or number of changed pixels.

    A pixel of `l0` is a position with all of its channels, as in Carlini and Wagner's attack on colour images.

    Raises:
        ArgumentError: the norm is unknown.
    """
    check_choice(norm, NORMS, "norm")
    delta = at_least_float32(delta)
    if norm == "l0":
        return (delta != 0).any(1).flatten(1).sum(1).to(delta)
    return delta.flatten(1).abs().amax(1) if norm == "linf" else delta.flatten(1).norm(dim=1)


class Search:
    """Record of a search for the smallest perturbation: evaluates images, and keeps the smallest success of each input.

    On a random model, success is judged by the same draws that give the gradient. The smallest of many lucky successes
    is kept, so norms come out too small and successes too many, the more so with few draws and many steps: judge the
    results by fresh draws.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        norm: norm to minimise, `linf`, `l2` or `l0`.
        make_objective: makes an objective of `loss`, and so determines the number of draws.
        loss: loss whose gradient is returned. Success is judged by the margin, whatever the loss.
        confidence: margin in logits that a success must exceed.
        targeted: whether `labels` are target classes.

    Attributes:
        images: adversarial inputs with the smallest norm so far, or the inputs if there is none, (N, C, H, W).
        norms: norms of their perturbations, infinite if there is none, (N,).

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), confidence is negative, or
            another argument has the wrong type.
    """

    def __init__(
        self,
        model: Classifier,
        inputs: Tensor,
        labels: Tensor,
        *,
        norm: MinimumNorm,
        make_objective: ObjectiveFactory,
        loss: Loss = margin,
        confidence: float = 0.0,
        targeted: bool = False,
    ) -> None:
        check_callable(model, "model")
        check_objective_factory(make_objective)
        self.model = model
        self.inputs = check_inputs(inputs).detach()
        self.labels = check_labels(labels, inputs)
        self.norm: MinimumNorm = norm
        self.make_objective = make_objective
        self.loss = loss
        self.confidence = check_not_negative(confidence, "confidence")
        self.sign = -1.0 if check_flag(targeted, "targeted") else 1.0
        self.images = self.inputs.clone()
        self.norms = at_least_float32(self.inputs).new_full((len(inputs),), torch.inf)

    @property
    def found(self) -> Bool[Tensor, " n"]:
        """Mask of the images that have an adversarial version so far, (N,)."""
        return self.norms.isfinite()

    def judge(
        self, images: Float[Tensor, "m c h w"], rows: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, " m"], Float[Tensor, "m c h w"]]:
        """Evaluate versions of the inputs `rows`, and keep the successes with the smallest norm so far.

        Returns:
            The mean margin of the draws minus the confidence, (M,), positive if the attack succeeds (the margin is
            negated for a targeted attack), and the gradient of the loss towards success, (M, C, H, W).
        """
        margins: list[Tensor] = []

        def recording_loss(logits: Tensor, labels: Tensor) -> Tensor:
            margins.append(margin(logits, labels).detach())
            return self.loss(logits, labels)

        gradient = self.sign * input_gradient(
            self.make_objective(recording_loss), self.model, images, self.labels[rows]
        )
        if not margins:
            raise ArgumentError("make_objective", "an objective that calls the given loss", "one that does not call it")
        values = self.sign * torch.stack(margins).mean(0) - self.confidence
        new_norms = norms(at_least_float32(images) - at_least_float32(self.inputs[rows]), self.norm)
        better = (values > 0) & (new_norms < self.norms[rows])
        self.norms[rows[better]] = new_norms[better]
        self.images[rows[better]] = images[better]
        return values, at_least_float32(gradient)

    def rows_to_attack(self) -> Int[Tensor, " m"]:
        """Return the indices of the inputs that are not adversarial themselves, (M,)."""
        rows = torch.arange(len(self.inputs), device=self.inputs.device)
        values, _ = self.judge(self.inputs, rows)
        return rows[values <= 0]


def within_radius(attack: Callable[..., Tensor], *, eps: float, norm: MinimumNorm) -> Callable[..., Tensor]:
    """Turn a minimum-norm attack into an attack inside a ball of radius `eps`.

    Adversarial inputs whose norm is at most `eps` are returned as they are. Larger perturbations are projected onto the
    ball; for `l0` the positions with the largest change are kept. If the attack found nothing, the inputs are returned.

    Args:
        attack: maps (model, inputs, labels) to adversarial inputs, such as `partial(ddn, steps=100)`.
        eps: radius in pixel units of [0, 1], or number of pixels for `l0`.
        norm: `linf`, `l2` or `l0`.

    Returns:
        A function of (model, inputs, labels, generator=None), with the signature of `Attack`. The generator is not
        used, since minimum-norm attacks draw no random numbers.

    Raises:
        ArgumentError: `eps` is negative, or the norm is unknown.
    """
    check_not_negative(eps, "eps")
    check_choice(norm, NORMS, "norm")
    check_callable(attack, "attack")

    def projected_attack(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        del generator
        inputs = check_inputs(inputs).detach()
        adversarial = attack(model, inputs, labels)
        delta = adversarial - inputs
        projected = _largest_positions(delta, int(eps)) if norm == "l0" else ball(norm).project(delta, eps)
        inside = (norms(delta, norm) <= eps).view(-1, 1, 1, 1)
        return torch.where(inside, adversarial, (inputs + projected).clamp(0, 1))

    return projected_attack


def _largest_positions(delta: ImageBatch, count: int) -> ImageBatch:
    """Return `delta` at the `count` positions with the largest change, and 0 elsewhere."""
    lengths = delta.square().sum(1).flatten(1)
    kept = torch.zeros_like(lengths).scatter(1, lengths.topk(min(count, lengths.shape[1]), dim=1).indices, 1)
    return delta * kept.view(len(delta), 1, *delta.shape[2:])
