"""What a model answered while an objective was evaluated, without another pass."""

from jaxtyping import Float
from torch import Tensor, nn

from smoothed.utils.checks import check_logits
from smoothed.utils.modes import Classifier


class Recorded(nn.Module):
    """`model`, with the mean of the logits that it gave so far: several, where an objective takes several draws.

    A module that holds the model, so that what draws inside of it is still found (see `attacks.replay`).

    Args:
        model: any callable from images to logits (N, K), asked about one batch again and again.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self._total: Tensor | None = None
        self._calls = 0

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The model's logits, (N, K).

        Raises:
            ArgumentError: no logits.
        """
        logits = check_logits(self.model(images), len(images))
        answer = logits.detach()
        self._total = answer if self._total is None else self._total + answer
        self._calls += 1
        return logits

    @property
    def logits(self) -> Float[Tensor, "n k"]:
        """The mean of the logits so far, (N, K), without gradient."""
        if self._total is None:
            raise RuntimeError("the model was not asked")
        return self._total / self._calls
