"""Training losses: what the network descends once the adversarial examples are made. Pure functions, then their names.

Each forward pass has fresh noise and, in train mode, its own batch statistics. A term of weight 0 costs nothing.
All are means over the batch, in nats; logits are taken to float32 (float64 stays).
"""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.modes import Classifier

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]


def adversarial_loss(
    model: Classifier,
    clean: Images,
    adversarial: Images,
    labels: Labels,
    *,
    weight: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - w) CE(f(clean)) + w CE(f(adversarial)) (eq. 6).

    Args:
        model: from images to logits (N, K).
        clean: images in [0, 1], (N, C, H, W).
        adversarial: likewise.
        labels: (N,).
        weight: w in [0, 1].
        label_smoothing: s in [0, 1]: the target is (1 - s) on the label plus s / K on every class.

    Returns:
        A number.
    """
    loss = clean.new_zeros(())
    for share, images in ((1 - weight, clean), (weight, adversarial)):
        if share > 0:
            logits = _logits(model, images)
            loss = loss + share * functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return loss


def bernoulli_loss(
    model: Classifier,
    clean: Images,
    adversarial: Images,
    labels: Labels,
    *,
    weight: float,
    label_smoothing: float = 0.0,
    randomness: Randomness = None,
) -> Tensor:
    """CE(f(x + B delta)), B ~ Bernoulli(q) for each image: eq. 23 but for its Gaussian part, which is the input noise.

    Args:
        model: as in `adversarial_loss`, as are `clean`, `adversarial`, `labels` and `label_smoothing`.
        clean: x.
        adversarial: x + delta.
        labels: (N,).
        weight: q in [0, 1].
        label_smoothing: s in [0, 1].
        randomness: of B.

    Returns:
        A number; its expectation is the loss of `adversarial_loss` at w = q, but for batch statistics.
    """
    draws = uniform_(torch.empty(len(clean), 1, 1, 1, device=clean.device), 0, 1, randomness)
    images = torch.where(draws < weight, adversarial, clean)
    return functional.cross_entropy(_logits(model, images), labels, label_smoothing=label_smoothing)


def trades_loss(
    model: Classifier,
    clean: Images,
    adversarial: Images,
    labels: Labels,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """CE(f(clean)) + beta KL(f(clean) || f(adversarial)) (Zhang et al., 2019, eq. 5 with beta = 1 / lambda).

    Args:
        model: as in `adversarial_loss`, as are `clean`, `adversarial`, `labels` and `label_smoothing`.
        clean: x.
        adversarial: x', which the divergence was raised at.
        labels: (N,).
        beta: 1 / lambda, at least 0; at 0 this is natural training.
        label_smoothing: s in [0, 1], of the first term.

    Returns:
        A number. The gradient goes through both sides of the divergence.
    """
    natural = _logits(model, clean)
    loss = functional.cross_entropy(natural, labels, label_smoothing=label_smoothing)
    if beta > 0:
        loss = loss + beta * _divergence(natural, _logits(model, adversarial)).mean()
    return loss


def mart_loss(
    model: Classifier,
    clean: Images,
    adversarial: Images,
    labels: Labels,
    *,
    beta: float,
) -> Tensor:
    """BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)) (Wang et al., 2020, eq. 11 with beta its lambda).

    BCE is the boosted cross-entropy, -log p_y(x') - log(1 - max over k != y of p_k(x')) (its eq. 8).

    Args:
        model: as in `adversarial_loss`, as are `clean`, `adversarial` and `labels`.
        clean: x.
        adversarial: x'.
        labels: (N,).
        beta: at least 0; at 0 this is BCE alone.

    Returns:
        A number. The gradient goes through both sides of the divergence and through its weight, as the authors' does.
    """
    attacked = _logits(model, adversarial)
    loss = boosted_cross_entropy(attacked, labels).mean()
    if beta > 0:
        natural = _logits(model, clean)
        missed = 1 - natural.softmax(1).gather(1, labels[:, None])[:, 0]
        loss = loss + beta * (_divergence(natural, attacked) * missed).mean()
    return loss


def boosted_cross_entropy(logits: Float[Tensor, "n k"], labels: Labels) -> Float[Tensor, " n"]:
    """-log p_y - log(1 - max over k != y of p_k), exact where the wrong class is all but certain."""
    own = functional.one_hot(labels, logits.shape[1]).bool()
    wrong = logits.masked_fill(own, -torch.inf).argmax(1, keepdim=True)
    # 1 - p_k is the mass of the other classes: a difference of logarithms, never of probabilities near 1.
    others = logits.scatter(1, wrong, -torch.inf).logsumexp(1) - logits.logsumexp(1)
    return functional.cross_entropy(logits, labels, reduction="none") - others


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(softmax(first) || softmax(second)) of each image, (N,)."""
    target = first.log_softmax(1)
    return functional.kl_div(second.log_softmax(1), target, reduction="none", log_target=True).sum(1)


def _logits(model: Classifier, images: Tensor) -> Tensor:
    logits = model(images)
    return logits if logits.dtype == torch.float64 else logits.float()


Loss = Callable[[Classifier, Tensor, Tensor, Tensor, Randomness], Tensor]
"""A loss with its options settled: from (model, clean, adversarial, labels, randomness) to a number to descend."""


class LossOptions(Protocol):
    """What a configuration says of its loss."""

    @property
    def adversarial_weight(self) -> float: ...  # noqa: D102
    @property
    def beta(self) -> float: ...  # noqa: D102
    @property
    def label_smoothing(self) -> float: ...  # noqa: D102


def _adversarial(options: LossOptions) -> Loss:
    return lambda model, clean, adversarial, labels, _: adversarial_loss(
        model,
        clean,
        adversarial,
        labels,
        weight=options.adversarial_weight,
        label_smoothing=options.label_smoothing,
    )


def _bernoulli(options: LossOptions) -> Loss:
    return lambda model, clean, adversarial, labels, randomness: bernoulli_loss(
        model,
        clean,
        adversarial,
        labels,
        weight=options.adversarial_weight,
        label_smoothing=options.label_smoothing,
        randomness=randomness,
    )


def _trades(options: LossOptions) -> Loss:
    return lambda model, clean, adversarial, labels, _: trades_loss(
        model, clean, adversarial, labels, beta=options.beta, label_smoothing=options.label_smoothing
    )


def _mart(options: LossOptions) -> Loss:
    return lambda model, clean, adversarial, labels, _: mart_loss(model, clean, adversarial, labels, beta=options.beta)


LOSSES: dict[str, Callable[[LossOptions], Loss]] = {
    "adversarial": _adversarial,
    "bernoulli": _bernoulli,
    "trades": _trades,
    "mart": _mart,
}
"""From a name to a function of a configuration that settles the loss."""
