"""Averages over draws or models: the quantity that is averaged, and its conversion back to logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.objectives import SMALLEST_PROBABILITY
from smoothed.utils.checks import check_choice, check_logits, explaining_channel_errors
from smoothed.utils.modes import Classifier

AverageName = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Average:
    """A way to average several logits (N, K).

    Attributes:
        scores: maps logits (N, K) to the scores (N, K) that are averaged.
        logits: maps mean scores (N, K) back to logits (N, K).
    """

    scores: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]

    def model_scores(self, model: Classifier, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return the scores of one forward pass of `model`, (N, K), in at least float32.

        Raises:
            ArgumentError: the model does not return logits, or expects another number of channels.
        """
        with explaining_channel_errors(images):
            logits = check_logits(model(images), len(images))
        return self.scores(logits.to(torch.promote_types(logits.dtype, torch.float32)))


AVERAGES: dict[str, Average] = {
    "probabilities": Average(lambda logits: logits.softmax(1), lambda mean: mean.clamp_min(SMALLEST_PROBABILITY).log()),
    "logits": Average(lambda logits: logits, lambda mean: mean),
}
"""Averages by name: of softmaxes (Liu et al., 2017; Salman et al., 2019), or of logits (Dong et al., 2018)."""


def named_average(name: AverageName) -> Average:
    """Return the average called `name`.

    Raises:
        ArgumentError: the name is unknown.
    """
    check_choice(name, AVERAGES, "average")
    return AVERAGES[name]
