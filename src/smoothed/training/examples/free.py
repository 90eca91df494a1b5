"""Free adversarial training (Shafahi et al., NeurIPS 2019): the gradient that trains the weights also moves the images.

Each batch is used for m consecutive steps (`replays`). At each of them, the perturbation takes one step of length eps
along the sign of the gradient. The next batch starts from the last perturbation.
"""

from collections.abc import Mapping

from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, GatherRows, linear_warmup
from smoothed.utils.modes import Classifier


class FreeExamples:
    """Examples from a perturbation for each position in the batch, (batch_size, C, H, W).

    Raises:
        ArgumentError: the norm is not `linf`.
    """

    def __init__(self, options: ExampleOptions, images: int) -> None:
        del images
        if options.norm != "linf":
            raise ArgumentError("norm", "linf with attack free", options.norm)
        self.options = options
        self.perturbation: Tensor | None = None

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`. The result is a leaf tensor, whose gradient `learn` uses."""
        del model
        if self.perturbation is None:
            self.perturbation = part.clean.new_zeros(part.total, *part.clean.shape[1:])
        self.perturbation = self.perturbation.to(part.clean.device)
        return (part.clean + self.perturbation[part.positions]).clamp(0, 1).requires_grad_()

    def reference(self, part: Part) -> Tensor:
        """See `Examples.reference`."""
        return part.clean

    def learn(self, part: Part, adversarial: Tensor, gather: GatherRows) -> None:
        """See `Examples.learn`."""
        if self.perturbation is None or adversarial.grad is None:
            return
        eps = linear_warmup(self.options.eps, part.progress, self.options.eps_warmup)
        moved = (self.perturbation[part.positions] + eps * adversarial.grad.sign()).clamp(-eps, eps)
        self.perturbation[gather(part.positions)] = gather(moved)

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {} if self.perturbation is None else {"perturbation": self.perturbation}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.perturbation = state.get("perturbation")
