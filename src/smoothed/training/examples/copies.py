"""Random copies in place of attacked images: a noisy copy (stability training), or the worst of several (MaxUp).

Stability training (Zheng et al., CVPR 2016) asks for the same output on an image x and on x' = x + sigma n. The loss
`trades` on these copies is its objective, CE(f(x), y) + beta KL(f(x) || f(x')). The paper names the divergence but
writes the cross-entropy of the two outputs, -sum p(x) log p(x'), which differs by the entropy of p(x); it does not say
whether x' is clipped to [0, 1]. Here the divergence is used, and copies are not clipped.

MaxUp (Gong et al., 2020) minimises the mean over images of max over i <= m of L(f(x_i'), y) for m random copies of x
(their eq. 2). The gradient of a maximum is that of its largest term, so only the worst copy needs a backward pass.
"""

import torch
from torch import Tensor
from torch.nn import functional

from smoothed.attacks.objectives import checked_logits
from smoothed.data.augment import Augmentation, draw_augmentation
from smoothed.rng.rows import normal_
from smoothed.rng.seeds import mix, seeded
from smoothed.training.batch import Part
from smoothed.training.examples.attacked import CleanExamples
from smoothed.training.streams import RowStream
from smoothed.utils.modes import Classifier, batch_statistics


def noisy_copy(part: Part, sigma: float) -> Tensor:
    """Return the images of `part` plus Gaussian noise of deviation `sigma` in pixel units of [0, 1], not clipped."""
    unit = normal_(torch.empty_like(part.clean, memory_format=torch.contiguous_format), part.row_generator)
    return part.clean + sigma * unit


def cropped_copy(part: Part, number: int) -> Tensor:
    """Return the images of `part`, each shifted by up to 4 pixels; copies of another `number` have other shifts."""
    rows = part.row_generator
    generator = seeded(mix(rows.row_seed, RowStream.COPIES, number))
    count, device = len(part.clean), part.clean.device
    drawn = draw_augmentation(generator, count, device=device, first=rows.first, total=part.total)
    # Copies are not mirrored: `augmentation` decides whether mirrored images are used.
    return Augmentation(drawn.tops, drawn.lefts, torch.zeros_like(drawn.flips), drawn.padding).apply(part.clean)


class NoisyExamples(CleanExamples):
    """One noisy copy of each image, of deviation `copy_sigma`."""

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        del model
        return noisy_copy(part, self.options.copy_sigma)


class WorstNoisyExamples(CleanExamples):
    """The noisy copy of each image, among `copies` of deviation `copy_sigma`, with the largest cross-entropy.

    The worst copy is chosen with batch statistics and without a gradient. A network with noise draws it afresh for each
    copy and for the loss; the paper does not consider such networks.
    """

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        worst, largest = part.clean, part.clean.new_full((len(part.clean),), -torch.inf)
        with batch_statistics(model), torch.no_grad():
            for number in range(self.options.copies):
                images = self.copy(part, number)
                logits = checked_logits(model, images, part.labels)
                smoothing = self.options.label_smoothing
                loss = functional.cross_entropy(logits, part.labels, reduction="none", label_smoothing=smoothing)
                worse = loss > largest
                worst = torch.where(worse.view(-1, 1, 1, 1), images, worst)
                largest = torch.where(worse, loss, largest)
        return worst

    def copy(self, part: Part, number: int) -> Tensor:
        """Return copy `number` of each image."""
        del number
        return noisy_copy(part, self.options.copy_sigma)


class WorstCropExamples(WorstNoisyExamples):
    """The shifted copy of each image, among `copies`, with the largest cross-entropy."""

    def copy(self, part: Part, number: int) -> Tensor:
        """See `WorstNoisyExamples.copy`."""
        return cropped_copy(part, number)
