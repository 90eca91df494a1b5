"""Training losses, as functions of clean and adversarial images, and their names.

All losses are means over the batch, in nats, computed in float32 (float64 for float64 logits). Each forward pass has
fresh noise and, in train mode, its own batch statistics. Terms of weight 0 are not computed.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import output_logits
from smoothed.utils.modes import Classifier
from smoothed.utils.shapes import ImageBatch, LabelBatch

# L2 distance up to which an adversarial example counts as the image itself.
SMALLEST_DISTANCE = 1e-6


def adversarial_loss(
    model: Classifier,
    clean: ImageBatch,
    adversarial: ImageBatch,
    labels: LabelBatch,
    *,
    weight: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - w) CE(f(clean)) + w CE(f(adversarial)) (eq. 6).

    Args:
        model: classifier f from images to logits (N, K).
        clean: clean images in [0, 1], float (N, C, H, W).
        adversarial: adversarial images in [0, 1], float (N, C, H, W).
        labels: true classes, int64 (N,).
        weight: weight w of the adversarial term, in [0, 1].
        label_smoothing: s in [0, 1]; the target is (1 - s) on the label plus s / K on every class.

    Returns:
        Scalar loss.
    """
    loss = clean.new_zeros(())
    for share, images in ((1 - weight, clean), (weight, adversarial)):
        if share > 0:
            logits = _logits(model, images)
            loss = loss + share * functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return loss


def bernoulli_loss(
    model: Classifier,
    clean: ImageBatch,
    adversarial: ImageBatch,
    labels: LabelBatch,
    *,
    weight: float,
    label_smoothing: float = 0.0,
    randomness: Randomness = None,
) -> Tensor:
    """CE(f(x + B delta)), B ~ Bernoulli(q) for each image (eq. 23, whose Gaussian part is the training's input noise).

    Args:
        model: classifier f from images to logits (N, K).
        clean: clean images x in [0, 1], float (N, C, H, W).
        adversarial: adversarial images x + delta in [0, 1], float (N, C, H, W).
        labels: true classes, int64 (N,).
        weight: probability q of an adversarial image, in [0, 1].
        label_smoothing: s in [0, 1]; the target is (1 - s) on the label plus s / K on every class.
        randomness: source of the random numbers B.

    Returns:
        Scalar loss. Its expectation equals `adversarial_loss` at w = q, up to differences in batch statistics.
    """
    draws = uniform_(torch.empty(len(clean), 1, 1, 1, device=clean.device), 0, 1, randomness)
    images = torch.where(draws < weight, adversarial, clean)
    return functional.cross_entropy(_logits(model, images), labels, label_smoothing=label_smoothing)


def trades_loss(
    model: Classifier,
    clean: ImageBatch,
    adversarial: ImageBatch,
    labels: LabelBatch,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """CE(f(clean)) + beta KL(f(clean) || f(adversarial)) (Zhang et al., 2019, eq. 5 with beta = 1 / lambda).

    Args:
        model: classifier f from images to logits (N, K).
        clean: clean images in [0, 1], float (N, C, H, W).
        adversarial: adversarial images in [0, 1], float (N, C, H, W), which maximise the divergence.
        labels: true classes, int64 (N,).
        beta: weight of the divergence, 1 / lambda, at least 0; 0 is natural training.
        label_smoothing: s in [0, 1]; the target of the first term is (1 - s) on the label plus s / K on every class.

    Returns:
        Scalar loss. The gradient flows through both arguments of the divergence.
    """
    natural = _logits(model, clean)
    loss = functional.cross_entropy(natural, labels, label_smoothing=label_smoothing)
    if beta > 0:
        loss = loss + beta * _divergence(natural, _logits(model, adversarial)).mean()
    return loss


def mart_loss(
    model: Classifier,
    clean: ImageBatch,
    adversarial: ImageBatch,
    labels: LabelBatch,
    *,
    beta: float,
) -> Tensor:
    """BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)) (Wang et al., 2020, eq. 11 with beta = lambda).

    BCE is the boosted cross-entropy, -log p_y(x') - log(1 - max over k != y of p_k(x')) (their eq. 8).

    Args:
        model: classifier from images to logits (N, K), whose softmax is p.
        clean: clean images x in [0, 1], float (N, C, H, W).
        adversarial: adversarial images x' in [0, 1], float (N, C, H, W).
        labels: true classes y, int64 (N,).
        beta: weight of the divergence term, at least 0; 0 leaves BCE only.

    Returns:
        Scalar loss. The gradient flows through both arguments of the divergence and through its weight, as in the
        authors' code.
    """
    attacked = _logits(model, adversarial)
    loss = boosted_cross_entropy(attacked, labels).mean()
    if beta > 0:
        natural = _logits(model, clean)
        misclassification = 1 - natural.softmax(1).gather(1, labels[:, None])[:, 0]
        loss = loss + beta * (_divergence(natural, attacked) * misclassification).mean()
    return loss


def consistency_loss(
    model: Classifier,
    start: ImageBatch,
    adversarial: ImageBatch,
    labels: LabelBatch,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """CE(f(adversarial)) + beta mean over classes of (f(adversarial) - f(start))^2 (Jia et al., 2022: FGSM-PGI).

    The paper writes the squared L2 norm of the difference without saying whether f is the logits or the softmax, and
    how classes are weighted. Here f is the logits, and the squares are averaged over classes, as in the authors' code,
    whose weight for CIFAR-10 is 10.

    Args:
        model: classifier f from images to logits (N, K).
        start: images from which the attack started, in [0, 1], float (N, C, H, W).
        adversarial: adversarial images in [0, 1], float (N, C, H, W).
        labels: true classes, int64 (N,).
        beta: weight of the squared differences, the paper's lambda, at least 0; 0 leaves the cross-entropy only.
        label_smoothing: s in [0, 1]; the target of the first term is (1 - s) on the label plus s / K on every class.

    Returns:
        Scalar loss. The gradient flows through both outputs.
    """
    attacked = _logits(model, adversarial)
    loss = functional.cross_entropy(attacked, labels, label_smoothing=label_smoothing)
    if beta > 0:
        loss = loss + beta * functional.mse_loss(attacked, _logits(model, start))
    return loss


def csat_loss(
    model: Classifier,
    clean: ImageBatch,
    adversarial: ImageBatch,
    labels: LabelBatch,
    *,
    weight: float,
    beta: float,
    lipschitz_weight: float,
    label_smoothing: float = 0.0,
    randomness: Randomness = None,
) -> Tensor:
    """Equation 6 + beta D + gamma S: departures from linearity and a local Lipschitz term (Sarkar et al., 2019: CSAT).

    D is the mean over images of |f(x_t) - (1 - t) f(x) - t f(x')| at the transformed image x_t = (1 - t) x + t x', with
    t uniform in [0, 1] for each image, and S that of |f(x') - f(x)| / |x' - x|, all in L2 norms. Both are 0 for an
    image whose adversarial example is the image itself.

    Only the abstract of the paper was available. It states that a network is made linear in transformed input and
    feature space, within adversarial training, with an additional local Lipschitz regulariser. This implementation
    therefore chooses: features are logits, so that any classifier can be trained; x_t lies between the image and its
    adversarial example; norms are not squared, so that noise that changes between passes does not dominate the
    gradient. Choose both weights on held-out images.

    Args:
        model: classifier f from images to logits (N, K).
        clean: clean images x in [0, 1], float (N, C, H, W).
        adversarial: adversarial images x' in [0, 1], float (N, C, H, W).
        labels: true classes, int64 (N,).
        weight: weight w of the adversarial cross-entropy, in [0, 1]; the clean one has the weight 1 - w.
        beta: weight of D, at least 0.
        lipschitz_weight: weight gamma of S, at least 0.
        label_smoothing: s in [0, 1]; the target is (1 - s) on the label plus s / K on every class.
        randomness: source of the random numbers t.

    Returns:
        Scalar loss. The gradient flows through all outputs.
    """
    if beta == lipschitz_weight == 0:
        return adversarial_loss(model, clean, adversarial, labels, weight=weight, label_smoothing=label_smoothing)
    natural, attacked = _logits(model, clean), _logits(model, adversarial)
    loss = clean.new_zeros(())
    for share, logits in ((1 - weight, natural), (weight, attacked)):
        if share > 0:
            loss = loss + share * functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    distance = torch.linalg.vector_norm((adversarial - clean).flatten(1), dim=1)
    moved = distance > SMALLEST_DISTANCE
    if beta > 0:
        t = uniform_(clean.new_empty(len(clean), 1, 1, 1), 0, 1, randomness)
        between = _logits(model, (1 - t) * clean + t * adversarial)
        t = t.flatten(1).to(natural.dtype)
        departure = torch.linalg.vector_norm(between - (1 - t) * natural - t * attacked, dim=1)
        loss = loss + beta * (departure * moved).mean()
    if lipschitz_weight > 0:
        slope = torch.linalg.vector_norm(attacked - natural, dim=1) / distance.clamp_min(SMALLEST_DISTANCE)
        loss = loss + lipschitz_weight * (slope * moved).mean()
    return loss


def boosted_cross_entropy(logits: Float[Tensor, "n k"], labels: LabelBatch) -> Float[Tensor, " n"]:
    """-log p_y - log(1 - max over k != y of p_k) of each image, accurate also if a wrong class has p_k near 1.

    Args:
        logits: logits (N, K), whose softmax is p.
        labels: true classes y, int64 (N,).

    Returns:
        Losses, (N,), in nats.
    """
    is_label = functional.one_hot(labels, logits.shape[1]).bool()
    wrong = logits.masked_fill(is_label, -torch.inf).argmax(1, keepdim=True)
    # log(1 - p_k) is computed as the log of the other classes' mass, because 1 - p_k loses precision for p_k near 1.
    others = logits.scatter(1, wrong, -torch.inf).logsumexp(1) - logits.logsumexp(1)
    return functional.cross_entropy(logits, labels, reduction="none") - others


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(softmax(first) || softmax(second)) of each image, (N,)."""
    target = first.log_softmax(1)
    return functional.kl_div(second.log_softmax(1), target, reduction="none", log_target=True).sum(1)


def _logits(model: Classifier, images: Tensor) -> Tensor:
    logits = output_logits(model(images))
    return logits if logits.dtype == torch.float64 else logits.float()


TrainingLoss = Callable[[Classifier, Tensor, Tensor, Tensor, Randomness], Tensor]
"""Function from (model, clean, adversarial, labels, randomness) to the scalar loss; its options are set."""


class LossOptions(Protocol):
    """Settings of the loss; `TrainingConfig` describes them."""

    @property
    def adversarial_weight(self) -> float: ...  # noqa: D102
    @property
    def beta(self) -> float: ...  # noqa: D102
    @property
    def lipschitz_weight(self) -> float: ...  # noqa: D102
    @property
    def label_smoothing(self) -> float: ...  # noqa: D102


def _adversarial(options: LossOptions) -> TrainingLoss:
    return lambda model, clean, adversarial, labels, _: adversarial_loss(
        model,
        clean,
        adversarial,
        labels,
        weight=options.adversarial_weight,
        label_smoothing=options.label_smoothing,
    )


def _bernoulli(options: LossOptions) -> TrainingLoss:
    return lambda model, clean, adversarial, labels, randomness: bernoulli_loss(
        model,
        clean,
        adversarial,
        labels,
        weight=options.adversarial_weight,
        label_smoothing=options.label_smoothing,
        randomness=randomness,
    )


def _trades(options: LossOptions) -> TrainingLoss:
    return lambda model, clean, adversarial, labels, _: trades_loss(
        model, clean, adversarial, labels, beta=options.beta, label_smoothing=options.label_smoothing
    )


def _mart(options: LossOptions) -> TrainingLoss:
    return lambda model, clean, adversarial, labels, _: mart_loss(model, clean, adversarial, labels, beta=options.beta)


def _consistency(options: LossOptions) -> TrainingLoss:
    return lambda model, start, adversarial, labels, _: consistency_loss(
        model, start, adversarial, labels, beta=options.beta, label_smoothing=options.label_smoothing
    )


def _csat(options: LossOptions) -> TrainingLoss:
    return lambda model, clean, adversarial, labels, randomness: csat_loss(
        model,
        clean,
        adversarial,
        labels,
        weight=options.adversarial_weight,
        beta=options.beta,
        lipschitz_weight=options.lipschitz_weight,
        label_smoothing=options.label_smoothing,
        randomness=randomness,
    )


TRAINING_LOSSES: dict[str, Callable[[LossOptions], TrainingLoss]] = {
    "adversarial": _adversarial,
    "bernoulli": _bernoulli,
    "trades": _trades,
    "mart": _mart,
    "consistency": _consistency,
    "csat": _csat,
}
"""Functions by name that create the loss from its options."""

COMPARE_WITH_START = ("consistency",)
"""Losses that take the images from which the attack started in place of the clean ones."""
