"""What the service serves: a network with its smoothing, the names of its classes, and example images."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.api.subject import AnyClassifier, Subject
from smoothed.checkpoint import package_version
from smoothed.data.images import Images, has_named_classes
from smoothed.errors import ArgumentError
from smoothed.injection import noise_layers, noiseless
from smoothed.serve.images import Shape
from smoothed.serve.settings import ServeSettings
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.smoothing.votes import VOTES, Vote
from smoothed.utils.checks import check_logits
from smoothed.utils.modes import eval_mode

ATTACKS = ("pgd", "epgd")
BUNDLED = 60
"""Number of example images, which the explorer shows."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A network, its smoothing, and its public description. Only one thread may call the network.

    Attributes:
        name: name of the model.
        network: network from images in [0, 1] to logits (N, K).
        voter: an equivalent, faster form of the network, which computes the draws of votes.
        smoothing: noise, vote and number of draws where a request states none.
        classes: names of the K classes.
        images: example images of the size that the network takes.
        chunk_size: largest number of rows in a pass; None for the default of `Smoothed`.
    """

    name: str
    network: nn.Module
    voter: nn.Module
    smoothing: SmoothingConfig
    classes: tuple[str, ...]
    images: Images
    chunk_size: int | None = None

    @classmethod
    def of(
        cls,
        classifier: AnyClassifier,
        data: Any = "sample",  # noqa: ANN401 - whatever `as_images` takes
        *,
        name: str | None = None,
        precision: str = "float32",
        chunk_size: int | None = None,
    ) -> Self:
        """Take a smoothed classifier, or the name of a checkpoint that stores its smoothing.

        Args:
            classifier: see `smoothed.evaluate`.
            data: images of the size that the network takes, of which the first `BUNDLED` are shown.
            name: name of the model; None for the name it was loaded by, else its class.
            precision: number format of votes: `float32`, `bf16` or `auto`. Attacks use float32.
            chunk_size: largest number of rows in a pass; None for the default of `Smoothed`.

        Raises:
            ArgumentError: the classifier is a plain network, gives no logits, or has other classes than the data.
            DataError: the data set does not exist or is damaged.
        """
        subject = Subject.of(classifier, data, images=BUNDLED, at_most=True, name=name)
        smoothing = subject.required_smoothing("serve")
        images, count = subject.images, subject.num_classes
        known = subject.class_names or (images.classes if has_named_classes(images) else ())
        classes = tuple(known) if len(known) == count else tuple(map(str, range(count)))
        voter = Fast(subject.network, precision)
        return cls(subject.name, subject.network, voter, smoothing, classes, images, chunk_size)

    @cached_property
    def shape(self) -> Shape:
        """Channels, height and width of the images that the network takes."""
        channels, height, width = next(iter(self.images.batches(1)))[0].shape[1:]
        return channels, height, width

    @cached_property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.images.device

    @property
    def votes(self) -> dict[str, str | Vote]:
        """The votes that requests may name: those of the package, and the classifier's own."""
        return {**{name: name for name in VOTES}, self.smoothing.vote_name: self.smoothing.vote}

    def noise_config(self, sigma: float | None) -> NoiseConfig:
        """The input noise of a deviation in pixel units; None for the classifier's own.

        Raises:
            ArgumentError: the classifier's noise is a function of the user's own, which has no other deviation.
        """
        own = self.smoothing.noise
        if sigma is None:
            return own
        if own.custom is not None and own.name not in NOISES:
            raise ArgumentError("sigma", "none, because the noise is a function of the service's owner", f"{sigma:g}")
        return NoiseConfig(sigma=sigma, law=own.name)

    def smoothed(
        self,
        sigma: float | None,
        *,
        vote: str | None = None,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> Smoothed:
        """The smoothed classifier of a request; None for what the model states.

        Raises:
            ArgumentError: an argument is out of range.
        """
        config = replace(
            self.smoothing,
            noise=self.noise_config(sigma),
            vote=self.smoothing.vote if vote is None else self.votes[vote],
            num_samples=self.smoothing.num_samples if num_samples is None else num_samples,
        )
        return config.smooth(self.network, voter=self.voter, chunk_size=self.chunk_size, seed=seed)

    def noisy_network(self, sigma: float | None, generator: torch.Generator) -> NoisyClassifier:
        """The network with its noise, one draw at a time, for attacks."""
        noise = self.noise_config(sigma).for_model(self.network)
        return NoisyClassifier(self.network, noise, layer=self.smoothing.layer, generator=generator)

    @torch.no_grad()
    def mean_network(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, " k"]:
        """The logits of the network with all noise off, (K,)."""
        with noiseless(self.network), eval_mode(self.network):
            return check_logits(self.network(image[None]), 1)[0].float()

    def describe(self, settings: ServeSettings) -> dict[str, Any]:
        """What clients are told of the model, as JSON values."""
        header = getattr(self.network, "checkpoint_header", None) or {}
        smoothing = self.smoothing.to_json(self.network)
        laws = dict.fromkeys(type(layer.law or layer).__name__ for layer in noise_layers(self.network))
        return {
            "model": self.name,
            "version": package_version(),
            "classes": list(self.classes),
            "input_shape": list(self.shape),
            "sigma": smoothing["sigma"],
            "sigma_normalized": smoothing["sigma_normalized"],
            "noise": smoothing["noise"],
            "vote": self.smoothing.vote_name,
            "num_samples": min(self.smoothing.num_samples, settings.num_samples),
            "injection": ", ".join(laws) or None,
            "architecture": header.get("architecture"),
            "votes": list(self.votes),
            "attacks": list(ATTACKS),
            "limits": settings.shown(),
        }
