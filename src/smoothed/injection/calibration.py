"""Weaken the noise inside a trained network until its clean accuracy falls by no more than a stated share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.injection.layer import NoiseLayer, noise_from, noise_layers, noiseless
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.utils.checks import (
    check_classes,
    check_inputs,
    check_labels,
    check_logits,
    check_network,
    check_positive,
    check_seed,
)
from smoothed.utils.modes import eval_mode


@dataclass(frozen=True)
class Calibration:
    """Result of `calibrate_noise`.

    Attributes:
        strength: factor by which the standard deviation of all noise was multiplied.
        mean_accuracy: accuracy of the mean network, that is without noise, in [0, 1].
        noisy_accuracy: accuracy of a single draw at this strength, averaged over the draws, in [0, 1].
        images: number of images.
        num_samples: number of draws.
    """

    strength: float
    mean_accuracy: float
    noisy_accuracy: float
    images: int
    num_samples: int

    def __str__(self) -> str:
        return (
            f"noise at {self.strength:.3g} of its strength: clean accuracy of a draw {100 * self.noisy_accuracy:.2f} "
            f"%, without noise {100 * self.mean_accuracy:.2f} % ({self.images:,} images, mean of {self.num_samples} "
            "draws)"
        )


def calibrate_noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    largest_loss: float = 0.05,
    largest_strength: float = 1.0,
    tolerance: float = 0.01,
    num_samples: int = 16,
    batch_size: int = 250,
    seed: int = 0,
) -> Calibration:
    """Scale the noise inside `model`, in place, to the largest strength that costs no more than a stated accuracy.

    The cost is the accuracy of the mean network (all noise off) minus the accuracy of a single draw, averaged over
    `num_samples` draws, both in eval mode. A bisection of the factor finds the strength. All factors are compared with
    the same random numbers, so that the result is a function of the seed. If the accuracy does not fall monotonically,
    the result is one of the strengths at which it crosses the stated value.

    Use images that are not the ones on which you report accuracy.

    Args:
        model: network with noise inside (`inject`), from images to logits (N, K). Its mode is restored.
        images: float images (N, C, H, W) in [0, 1].
        labels: true classes (N,), int64.
        largest_loss: largest acceptable loss of accuracy as a share of the images, in (0, 1); 0.05 for five points.
        largest_strength: largest factor, above 0; 1 for the present strength of the noise.
        tolerance: accuracy of the factor, above 0.
        num_samples: number of draws, at least 1.
        batch_size: images of one forward pass; they share one draw of weight noise. With few images, a smaller batch
            averages over more of them.
        seed: seed of the draws. Global generators are left alone.

    Returns:
        The factor and the accuracies without and with noise.

    Raises:
        ArgumentError: `model` has no noise, an argument is out of range, or even noise of strength `tolerance` costs
            more; the noise then stays as it was.

    Example:
        >>> from smoothed.injection import Additive, inject
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> model[1].weight.data = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
        >>> injection = inject(model, activations=Additive(2.0))
        >>> images, labels = torch.full((200, 1, 2, 2), 0.2), torch.zeros(200, dtype=torch.int64)
        >>> found = calibrate_noise(model, images, labels, largest_loss=0.1)  # an image is right if 0.8 + 4 s n > 0
        >>> 0.12 < found.strength < 0.2, found.noisy_accuracy >= 0.9
        (True, True)
    """
    check_network(model, "model")
    check_seed(seed)
    layers = noise_layers(model)
    if not layers:
        raise ArgumentError("model", "a network with noise inside it", "none", "add noise with smoothed.inject first")
    images = check_inputs(images, "images")
    check_labels(labels, images)
    for name, value, limit in (
        ("largest_loss", largest_loss, 1.0),
        ("largest_strength", largest_strength, math.inf),
        ("tolerance", tolerance, largest_strength),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < limit:
            expected = "a finite number above 0" if limit == math.inf else f"a number above 0 and below {limit:g}"
            raise ArgumentError(name, expected, repr(value))
    check_positive(num_samples, "num_samples")
    check_positive(batch_size, "batch_size")
    original = _strengths(layers)
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))

    def correct(strength: float) -> float:
        """Number of correctly classified images of a draw at `strength`, averaged over the draws."""
        _restore(layers, original)
        for layer in layers:
            layer.scale_(strength)
        counts = [
            _correct(model, *batch, Fresh(seeded(mix(seed, sample, number))))
            for sample in range(num_samples)
            for number, batch in enumerate(batches)
        ]
        return sum(counts) / num_samples

    try:
        with eval_mode(model), torch.no_grad():
            mean = sum(_correct(model, *batch, None) for batch in batches)
            lowest = mean - largest_loss * len(images)
            low, high, best = 0.0, largest_strength, 0.0
            found = correct(high)
            if found >= lowest:
                low = high
                best = found
            while high - low > tolerance:
                middle = (low + high) / 2
                found = correct(middle)
                low, high, best = (middle, high, found) if found >= lowest else (low, middle, best)
            if low == 0:
                raise ArgumentError(
                    "largest_loss",
                    "a loss of accuracy that some noise keeps to",
                    f"{largest_loss:g}, which a factor of {high:.3g} on the noise exceeds already",
                    "allow a larger loss, or pass a smaller tolerance to look at weaker noise",
                )
            _restore(layers, original)
            for layer in layers:
                layer.scale_(low)
    except BaseException:
        _restore(layers, original)
        raise
    return Calibration(low, mean / len(images), best / len(images), len(images), num_samples)


def _correct(model: nn.Module, images: Tensor, labels: Tensor, source: Fresh | None) -> int:
    device = next((parameter.device for parameter in model.parameters()), images.device)
    with noiseless(model) if source is None else noise_from(model, source):
        logits = check_logits(model(images.to(device)), len(images))
    check_classes(labels, logits.shape[1])
    return int((logits.argmax(1) == labels.to(device)).sum())


def _strengths(layers: list[NoiseLayer]) -> list[dict[str, Tensor]]:
    return [{name: tensor.detach().clone() for name, tensor in layer.state_dict().items()} for layer in layers]


@torch.no_grad()
def _restore(layers: list[NoiseLayer], strengths: list[dict[str, Tensor]]) -> None:
    for layer, saved in zip(layers, strengths, strict=True):
        for name, tensor in layer.state_dict().items():
            tensor.copy_(saved[name])
