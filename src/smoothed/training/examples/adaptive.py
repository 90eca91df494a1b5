"""Instance-adaptive adversarial training, IAAT (Balaji, Goldstein and Hoffman, 2019): a radius for each image.

An image that is still classified correctly at a larger radius gets that one; one that is not even at its own gets a
smaller one; the change is smoothed over the epochs. Radii start at eps, and stay there for the first epochs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, Together, settled_attack
from smoothed.utils.modes import Classifier, evaluating

# The authors' numbers for CIFAR-10.
STEP = 1.9 / 255
SMOOTHING = 0.1
WARMUP_EPOCHS = 5


class Adaptive:
    """Remembers the radius of each image of the training set, (images,), in pixel units of [0, 1]."""

    def __init__(self, options: ExampleOptions, images: int) -> None:
        self.options = options
        self.radii = torch.full((images,), float(options.eps))
        self._chosen: Tensor | None = None

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        own = self.radii[part.index.cpu()].to(part.clean.device)
        if part.epoch >= WARMUP_EPOCHS:
            own = (1 - SMOOTHING) * own + SMOOTHING * self._choose(model, part, own)
        self._chosen = own
        return settled_attack(self.options, part.progress, eps=own)(model, part.clean, part.labels, part.rows)

    def _choose(self, model: Classifier, part: Part, own: Tensor) -> Tensor:
        """The authors' algorithm 2: the larger radius, the image's own, or the smaller one, (n,)."""

        def withstands(radii: Tensor) -> Tensor:
            attacked = settled_attack(self.options, part.progress, eps=radii)(model, part.clean, part.labels, part.rows)
            with evaluating(model), torch.no_grad():
                return model(attacked).argmax(1) == part.labels

        larger, smaller = own + STEP, (own - STEP).clamp_min(0)
        return torch.where(withstands(larger), larger, torch.where(withstands(own), own, smaller))

    def learn(self, part: Part, adversarial: Tensor, together: Together) -> None:
        """See `Examples.learn`."""
        del adversarial
        if self._chosen is not None:
            self.radii[together(part.index).cpu()] = together(self._chosen).cpu()

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {"radii": self.radii}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.radii = state["radii"]
