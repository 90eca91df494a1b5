"""Free adversarial training (Shafahi et al., NeurIPS 2019): the gradient that trains the weights also moves the images.

Each batch is seen m times in a row (`replays`). The perturbation takes one step of length eps along the sign of the
gradient at each of them, and goes over to the next batch.
"""

from collections.abc import Mapping

from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, Together, growing
from smoothed.utils.modes import Classifier


class Free:
    """Remembers the perturbation of each place of the batch, (batch_size, C, H, W)."""

    def __init__(self, options: ExampleOptions, images: int) -> None:
        del images
        if options.norm != "linf":
            raise ArgumentError("norm", "linf with the attack free", options.norm)
        self.options = options
        self.perturbation: Tensor | None = None

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`: a leaf, whose gradient the backward pass leaves behind."""
        del model
        if self.perturbation is None:
            self.perturbation = part.clean.new_zeros(part.total, *part.clean.shape[1:])
        self.perturbation = self.perturbation.to(part.clean.device)
        return (part.clean + self.perturbation[part.places]).clamp(0, 1).requires_grad_()

    def learn(self, part: Part, adversarial: Tensor, together: Together) -> None:
        """See `Examples.learn`."""
        if self.perturbation is None or adversarial.grad is None:
            return
        eps = growing(self.options.eps, part.progress, self.options.eps_warmup)
        moved = (self.perturbation[part.places] + eps * adversarial.grad.sign()).clamp(-eps, eps)
        self.perturbation[together(part.places)] = together(moved)

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {} if self.perturbation is None else {"perturbation": self.perturbation}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.perturbation = state.get("perturbation")
