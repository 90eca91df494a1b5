"""Learning to learn to defend, L2L (Jiang et al., AISTATS 2021): an attacker network makes the examples.

Both networks are trained alternately.

The attacker a maps an image x and the gradient g of its loss to a perturbation (`l2l`, their Grad L2L):

    x' = clip(x + d, 0, 1),    d = eps tanh(a(x, g / max |g|)),    g the gradient of CE(f(x), y) with respect to x

`l2l-2`, their 2-Step L2L, applies it once more, to x' and the gradient there, and clips the sum of both perturbations
to the ball. In each step, the classifier f takes a descent step on its loss at x'; the attacker then takes an ascent
step on CE(f(x'), y) by Adam. As in the published code, the gradient is taken with batch statistics for the classifier's
step and with running statistics for the attacker's. That code divides g by its largest element in the whole batch; here
it is the largest of the image, so that examples do not depend on the batch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from smoothed.attacks import one_draw_loss
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import checked_logits
from smoothed.errors import ArgumentError
from smoothed.training.batch import Part
from smoothed.training.examples.attacked import CleanExamples
from smoothed.training.examples.attacker import Attacker, new_attacker
from smoothed.training.examples.examples import ExampleOptions, linear_warmup
from smoothed.utils.modes import Classifier, batch_statistics, eval_mode

LEARNING_RATE = 1e-3
"""Learning rate of the attacker's Adam, Jiang et al.'s."""
WEIGHT_DECAY = 2e-4
"""Weight decay of the attacker, that of the published code."""
NUMBER_OF_GRADIENTS = {"l2l": 1, "l2l-2": 2}

# Avoids 0 / 0 for an image whose gradient is 0.
TINY = 1e-30


class LearnedExamples(CleanExamples):
    """Examples of an attacker network, whose weights and state of Adam are the state of these examples.

    The attacker ascends the cross-entropy whatever the loss of the classifier is. On a network with noise, each
    gradient is that of one draw.

    Raises:
        ArgumentError: the norm is not `linf`.
    """

    def __init__(self, options: ExampleOptions, images: int) -> None:
        super().__init__(options, images)
        if options.norm != "linf":
            hint = "the attacker's tanh bounds each pixel"
            raise ArgumentError("norm", f"linf with attack {options.attack}", options.norm, hint)
        self.attacker: Attacker | None = None
        self._optimizer: torch.optim.Adam | None = None
        self._restored: Mapping[str, Tensor] = {}

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        attacker = self._attacker(part.clean)
        with batch_statistics(model), torch.no_grad():
            return self._attacked(model, attacker, part)

    def gradient(self, model: Classifier, part: Part) -> Tensor:
        """Return the gradient of the mean cross-entropy on `part` with respect to the attacker's weights, (P,)."""
        attacker = self._attacker(part.clean)
        with eval_mode(model), torch.enable_grad():
            logits = checked_logits(model, self._attacked(model, attacker, part), part.labels)
            loss = functional.cross_entropy(logits, part.labels)
            gradients = torch.autograd.grad(loss, list(attacker.parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])

    def ascend(self, gradient: Tensor) -> None:
        """Take one step of Adam up a gradient with respect to the attacker's weights, (P,), in place."""
        if self.attacker is None or self._optimizer is None:
            return
        parameters = list(self.attacker.parameters())
        pieces = gradient.split([parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        if self.attacker is None or self._optimizer is None:
            return self._restored
        named = dict(self.attacker.named_parameters())
        weights = {f"attacker.{name}": parameter.detach() for name, parameter in named.items()}
        moments = {
            f"adam.{key}.{name}": value
            for name, parameter in named.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }
        return {**weights, **moments}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`. The attacker is made when the first images show how many channels it needs."""
        self.attacker, self._optimizer, self._restored = None, None, dict(state)

    def _attacker(self, images: Tensor) -> Attacker:
        if self.attacker is None:
            self.attacker = new_attacker(images.shape[1], self.options.seed, images)
            self._optimizer = torch.optim.Adam(
                self.attacker.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, maximize=True
            )
            for name, parameter in self.attacker.named_parameters():
                self._restore_parameter(self._optimizer, name, parameter)
            self._restored = {}
        return self.attacker

    @torch.no_grad()
    def _restore_parameter(self, optimizer: torch.optim.Adam, name: str, parameter: Tensor) -> None:
        if f"attacker.{name}" not in self._restored:
            return
        parameter.copy_(self._restored[f"attacker.{name}"])
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = self._restored.get(f"adam.{key}.{name}")
            if value is not None:
                # Adam keeps the number of its steps on the CPU.
                optimizer.state[parameter][key] = value.clone() if key == "step" else value.to(parameter)

    def _attacked(self, model: Classifier, attacker: Attacker, part: Part) -> Tensor:
        """The examples of `part`, differentiable with respect to the attacker's weights where gradients are on."""
        clean, options = part.clean, self.options
        eps = linear_warmup(options.eps, part.progress, options.eps_warmup)
        images, delta = clean, torch.zeros_like(clean)
        for _ in range(NUMBER_OF_GRADIENTS[options.attack]):
            gradient = scaled(input_gradient(one_draw_loss(), model, images, part.labels))
            with torch.autocast(clean.device.type, enabled=False):
                delta = (delta + eps * attacker(images, gradient.to(clean.dtype))).clamp(-eps, eps)
            images = (clean + delta).clamp(0, 1)
        return images


def scaled(gradients: Tensor) -> Tensor:
    """Return gradients (N, C, H, W) divided by the largest magnitude of each image: numbers in [-1, 1]."""
    return gradients / gradients.abs().amax((1, 2, 3), keepdim=True).clamp_min(TINY)
