"""Several classifiers as one, to attack what they have in common (Liu et al., ICLR 2017)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.attacks.averages import AverageName, average_of
from smoothed.errors import ArgumentError
from smoothed.utils.modes import Classifier


class Ensemble(nn.Module):
    """The mean of several classifiers, from images (N, C, H, W) to logits (N, K); differentiable.

    Args:
        models: any callables from images to logits (N, K), of the same K; they may be random. Modules among them are
            submodules, so that modes and replays reach them.
        average: `probabilities` gives the logarithm of the mean softmax, the ensemble of Liu et al. (their eq. 3 with
            equal weights). `logits` gives the mean of the logits (Dong et al., 2018), which every softmax and margin
            takes for the mean of the log-softmaxes: it does not saturate where one of the models is sure.

    It begins in eval mode if all modules among the models are in it.

    Raises:
        ArgumentError: no models, one that can't be called, an unknown average; when called, models that give no logits
            or disagree on the number of classes.
    """

    def __init__(self, models: Sequence[Classifier], *, average: AverageName = "probabilities") -> None:
        super().__init__()
        average_of(average)
        models = tuple(models)
        if not models or not all(callable(model) for model in models):
            raise ArgumentError("models", "at least one callable", [type(model).__name__ for model in models])
        self.models = models
        self.average: AverageName = average
        self.members = nn.ModuleList(model for model in models if isinstance(model, nn.Module))
        self.training = any(member.training for member in self.members)

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits of the mean, (N, K), in float32 at least."""
        average = average_of(self.average)
        scores = [average.of(model, inputs) for model in self.models]
        classes = [each.shape[1] for each in scores]
        if len(set(classes)) > 1:
            raise ArgumentError("models", "the same number of classes in all", classes)
        return average.logits(torch.stack(scores).mean(0))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"average={self.average}"
