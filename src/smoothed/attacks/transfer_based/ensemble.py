"""An ensemble of classifiers, for transfer attacks on their common weaknesses (Liu et al., ICLR 2017)."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.attacks.averages import AverageName, named_average
from smoothed.errors import ArgumentError
from smoothed.utils.modes import Classifier


class Ensemble(nn.Module):
    """The mean of several classifiers, from images (N, C, H, W) to logits (N, K); differentiable.

    It starts in training mode if any of the modules among the models is in training mode, and otherwise in eval mode.

    Args:
        models: callables from images to logits (N, K), with the same K; they may be random. Modules among them are
            registered as submodules, so that mode changes and `attacks.replay` reach them.
        average: `probabilities` returns the logarithm of the mean softmax, the ensemble of Liu et al. (eq. 3 with equal
            weights). `logits` returns the mean of the logits (Dong et al., 2018), which has the softmax and the margins
            of the mean log-softmax; it does not saturate if one of the models is very confident.

    Raises:
        ArgumentError: there are no models, one of them is not callable, or the average is unknown; at a call, a model
            does not return logits, or the models disagree on the number of classes.
    """

    def __init__(self, models: Sequence[Classifier], *, average: AverageName = "probabilities") -> None:
        super().__init__()
        named_average(average)
        models = tuple(models) if isinstance(models, Iterable) else (models,)
        if not models or not all(callable(model) for model in models):
            raise ArgumentError("models", "at least one callable", [type(model).__name__ for model in models])
        self.models = models
        self.average: AverageName = average
        self.members = nn.ModuleList(model for model in models if isinstance(model, nn.Module))
        self.training = any(member.training for member in self.members)

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return the logits of the mean, (N, K), in at least float32."""
        average = named_average(self.average)
        scores = [average.model_scores(model, inputs) for model in self.models]
        num_classes = [model_scores.shape[1] for model_scores in scores]
        if len(set(num_classes)) > 1:
            raise ArgumentError("models", "the same number of classes in all models", num_classes)
        return average.logits(torch.stack(scores).mean(0))

    def extra_repr(self) -> str:
        """Return the options for `repr`."""
        return f"average={self.average}"
