"""Instance-adaptive adversarial training, IAAT (Balaji, Goldstein and Hoffman, 2019): a radius for each image.

The radius of an image grows if the image is still classified correctly at a larger radius, and shrinks if it is
misclassified at its current radius; changes are smoothed over the epochs. All radii start at eps and stay there for the
first epochs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, GatherRows, scheduled_attack
from smoothed.utils.modes import Classifier, eval_mode

# The values of Balaji et al. for CIFAR-10.
STEP = 1.9 / 255
SMOOTHING = 0.1
WARMUP_EPOCHS = 5


class AdaptiveExamples:
    """Examples of PGD with a radius for each of the N training images: `radii`, (N,), in pixel units of [0, 1]."""

    def __init__(self, options: ExampleOptions, images: int) -> None:
        self.options = options
        self.radii = torch.full((images,), float(options.eps))
        self._chosen: Tensor | None = None

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        radii = self.radii[part.index.cpu()].to(part.clean.device)
        if part.epoch >= WARMUP_EPOCHS:
            radii = (1 - SMOOTHING) * radii + SMOOTHING * self._choose(model, part, radii)
        self._chosen = radii
        attack = scheduled_attack(self.options, part.progress, eps=radii)
        return attack(model, part.clean, part.labels, part.row_generator)

    def _choose(self, model: Classifier, part: Part, current: Tensor) -> Tensor:
        """Choose the larger, the current or the smaller radius for each image, (n,) (Balaji et al., algorithm 2)."""

        def is_robust(radii: Tensor) -> Tensor:
            attack = scheduled_attack(self.options, part.progress, eps=radii)
            attacked = attack(model, part.clean, part.labels, part.row_generator)
            with eval_mode(model), torch.no_grad():
                return model(attacked).argmax(1) == part.labels

        larger, smaller = current + STEP, (current - STEP).clamp_min(0)
        return torch.where(is_robust(larger), larger, torch.where(is_robust(current), current, smaller))

    def reference(self, part: Part) -> Tensor:
        """See `Examples.reference`."""
        return part.clean

    def learn(self, part: Part, adversarial: Tensor, gather: GatherRows) -> None:
        """See `Examples.learn`."""
        del adversarial
        if self._chosen is not None:
            self.radii[gather(part.index).cpu()] = gather(self._chosen).cpu()

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {"radii": self.radii}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.radii = state["radii"]
