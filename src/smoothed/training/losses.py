"""Training losses: what the network descends once the attack has made its examples."""

from torch import Tensor, nn
from torch.nn import functional


def adversarial_loss(model: nn.Module, clean: Tensor, adversarial: Tensor, labels: Tensor, weight: float) -> Tensor:
    """(1 - w) CE(f(clean)) + w CE(f(adversarial)), the mean over the batch (eq. 6).

    Each term is a forward pass of its own, with fresh noise and, in train mode, its own batch statistics. A term of
    weight 0 costs nothing.

    Args:
        model: from images to logits (N, K).
        clean: images in [0, 1], (N, C, H, W).
        adversarial: likewise.
        labels: (N,).
        weight: w in [0, 1].

    Returns:
        A number, in nats.
    """
    loss = clean.new_zeros(())
    if weight < 1:
        loss = loss + (1 - weight) * functional.cross_entropy(model(clean).float(), labels)
    if weight > 0:
        loss = loss + weight * functional.cross_entropy(model(adversarial).float(), labels)
    return loss
