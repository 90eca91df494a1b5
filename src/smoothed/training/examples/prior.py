"""Prior-guided single-step training, FGSM-PGI (Jia et al., ECCV 2022).

The attack on an image starts from a perturbation that was stored in the previous epoch.

For each training image, the run remembers a start eta and a momentum m of gradient signs. In each epoch, with the
gradient g of the loss at x + eta, a step alpha and the projection P onto the ball of radius eps (their FGSM-MEP):

    delta = P(eta + alpha sign(g))          the perturbation on which the weights are trained
    m <- mu m + sign(g)
    eta <- P(eta + alpha sign(m))           the start in the next epoch

The loss `consistency` is theirs: it also asks for the same output at x + eta and at x + delta.

In the authors' code for CIFAR-10 (`FGSM_MEP.py`), mu is 0.3, the weight of the loss is 10 and alpha is eps, as here.
It differs from the algorithm above in its momentum, which sums gradients divided by the L1 norm of the batch's gradient
in place of their signs, in re-initialised starts every 40 of its 110 epochs, and in starts that do not follow an
image's crop. It trains on targets of 0.6 for the label and 0.4 for the other classes (`label_smoothing` of 0.44 for ten
classes).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smoothed.attacks import one_draw_loss
from smoothed.attacks.gradient import input_gradient
from smoothed.errors import ArgumentError
from smoothed.rng.rows import uniform_
from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, GatherRows, linear_warmup
from smoothed.utils.modes import Classifier, batch_statistics

DECAY = 0.3
"""Factor mu on the earlier signs, of the authors' code for CIFAR-10."""


class PriorExamples:
    """Single-step examples that start from a remembered perturbation of each of the N training images.

    Starts and momenta, (N, C, H, W) each, are kept in the coordinates of the image before its crop and flip, as
    float16: 600 MB for CIFAR. Values outside the crop are kept. Crops made inside a data set cannot be taken into
    account; stored starts then do not match the images. The first start of an image is uniform in the ball. Steps have
    the length `relative_step_size` eps, which the paper sets to eps. As for the other single-step attacks of training,
    batch norms use the statistics of the batch for the gradient.

    Raises:
        ArgumentError: the norm is not `linf`.
    """

    def __init__(self, options: ExampleOptions, images: int) -> None:
        if options.norm != "linf":
            raise ArgumentError(
                "norm", "linf with attack fgsm-pgi", options.norm, "its steps follow the gradient's sign"
            )
        self.options, self.images = options, images
        self.starts: Tensor | None = None
        self.momenta: Tensor | None = None
        self._reference: Tensor | None = None
        self._learned: tuple[Tensor, Tensor] | None = None

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        clean, options = part.clean, self.options
        eps = linear_warmup(options.eps, part.progress, options.eps_warmup)
        step = options.relative_step_size * eps
        starts, momenta = self._rows(part)
        eta, momentum = self._augmented(part, starts), self._augmented(part, momenta)
        # Drawn at each step, so that the numbers after it do not depend on which images are new.
        uniform = uniform_(torch.empty_like(clean), -1, 1, part.row_generator) * eps
        is_new = ~momenta.flatten(1).any(1).view(-1, 1, 1, 1)
        eta = torch.where(is_new, uniform, eta.clamp(-eps, eps))
        self._reference = (clean + eta).clamp(0, 1)
        with batch_statistics(model):
            sign = input_gradient(one_draw_loss(), model, self._reference, part.labels).sign()
        momentum = DECAY * momentum + sign
        next_eta = (eta + step * momentum.sign()).clamp(-eps, eps)
        self._learned = self._restored(part, next_eta, starts), self._restored(part, momentum, momenta)
        return (clean + (eta + step * sign).clamp(-eps, eps)).clamp(0, 1)

    def reference(self, part: Part) -> Tensor:
        """See `Examples.reference`: x + eta."""
        return part.clean if self._reference is None else self._reference

    def learn(self, part: Part, adversarial: Tensor, gather: GatherRows) -> None:
        """See `Examples.learn`."""
        del adversarial
        if self._learned is None or self.starts is None or self.momenta is None:
            return
        index = gather(part.index).to(self.starts.device)
        for memory, rows in zip((self.starts, self.momenta), self._learned, strict=True):
            memory[index] = gather(rows).to(memory)
        self._learned = None

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        if self.starts is None or self.momenta is None:
            return {}
        return {"starts": self.starts, "momenta": self.momenta}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.starts, self.momenta = state.get("starts"), state.get("momenta")

    def _rows(self, part: Part) -> tuple[Tensor, Tensor]:
        """The starts and momenta of the images of `part`, in the dtype of the images."""
        clean = part.clean
        if self.starts is None or self.momenta is None:
            shape = (self.images, *clean.shape[1:])
            self.starts, self.momenta = (torch.zeros(shape, dtype=torch.float16, device=clean.device) for _ in range(2))
        self.starts, self.momenta = self.starts.to(clean.device), self.momenta.to(clean.device)
        index = part.index.to(clean.device)
        return self.starts[index].to(clean.dtype), self.momenta[index].to(clean.dtype)

    def _augmented(self, part: Part, rows: Tensor) -> Tensor:
        return rows if part.augmentation is None else part.augmentation.apply(rows)

    def _restored(self, part: Part, rows: Tensor, originals: Tensor) -> Tensor:
        """Rows in the coordinates of the images before their augmentation."""
        return rows.contiguous() if part.augmentation is None else part.augmentation.undo(rows, originals)
