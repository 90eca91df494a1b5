"""Recording of a model's logits while an objective is evaluated, which saves another forward pass."""

from jaxtyping import Float
from torch import Tensor, nn

from smoothed.utils.checks import check_logits
from smoothed.utils.modes import Classifier


class Recorded(nn.Module):
    """A wrapper of `model` that keeps the mean of the logits of all its forward passes on one batch.

    It is a module that contains the model, so that `attacks.replay` finds the model's random generators.

    Args:
        model: any callable from images to logits (N, K); every call must be on the same batch.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self._total: Tensor | None = None
        self._calls = 0

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return the model's logits, (N, K).

        Raises:
            ArgumentError: the model does not return logits.
        """
        logits = check_logits(self.model(images), len(images))
        detached = logits.detach()
        self._total = detached if self._total is None else self._total + detached
        self._calls += 1
        return logits

    @property
    def logits(self) -> Float[Tensor, "n k"]:
        """Mean of the logits so far, (N, K), without gradient."""
        if self._total is None:
            raise RuntimeError("no logits are recorded: the model has not been called")
        return self._total / self._calls
