"""What is averaged over draws or over models, and how the mean becomes logits again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.objectives import SMALLEST_PROBABILITY
from smoothed.utils.checks import check_choice, check_logits, naming_channels
from smoothed.utils.modes import Classifier

AverageName = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Average:
    """A kind of mean of several logits (N, K).

    Attributes:
        scores: from logits (N, K) to what is averaged, (N, K).
        logits: from the mean of the scores to logits (N, K) again.
    """

    scores: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]

    def of(self, model: Classifier, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The scores of one answer of `model`, in float32 at least.

        Raises:
            ArgumentError: a model that gives no logits, or that is for other channels.
        """
        with naming_channels(images):
            logits = check_logits(model(images), len(images))
        return self.scores(logits.to(torch.promote_types(logits.dtype, torch.float32)))


AVERAGES: dict[str, Average] = {
    "probabilities": Average(lambda logits: logits.softmax(1), lambda mean: mean.clamp_min(SMALLEST_PROBABILITY).log()),
    "logits": Average(lambda logits: logits, lambda mean: mean),
}
"""By name: the softmaxes (Liu et al., 2017; Salman et al., 2019), or the logits themselves (Dong et al., 2018)."""


def average_of(name: AverageName) -> Average:
    """The average called `name`.

    Raises:
        ArgumentError: an unknown name.
    """
    check_choice(name, AVERAGES, "average")
    return AVERAGES[name]
