"""Settings of input noise and of smoothed classifiers as plain values, for commands, protocols and result files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self

from torch import nn

from smoothed.checkpoint import Header
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import NOISES, ScaledNoise
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_choice, check_not_negative, check_positive


@dataclass(frozen=True)
class NoiseConfig:
    """Input noise by law and standard deviation; give exactly one of the two deviations.

    Attributes:
        sigma: standard deviation in pixel units of [0, 1], the same for all channels.
        sigma_normalized: standard deviation in the paper's unit, that is relative to the data set's standard deviation
            of each channel. The model must have a `normalize` layer.
        law: a key of `NOISES`: `gaussian`, `uniform` or `laplace`.

    Raises:
        ArgumentError: neither or both deviations are given, a deviation is negative or not finite, or the law is
            unknown.
    """

    sigma: float | None = None
    sigma_normalized: float | None = None
    law: str = "gaussian"

    def __post_init__(self) -> None:
        check_choice(self.law, NOISES, "noise")
        if (self.sigma is None) == (self.sigma_normalized is None):
            got = "neither" if self.sigma is None else "both"
            raise ArgumentError("sigma", "exactly one of sigma and sigma_normalized", got)
        if self.sigma is not None:
            check_not_negative(self.sigma, "sigma")
        if self.sigma_normalized is not None:
            check_not_negative(self.sigma_normalized, "sigma_normalized")

    def for_model(self, model: nn.Module) -> ScaledNoise:
        """Create the noise in pixel units, with one deviation for all channels or one per channel.

        Raises:
            ArgumentError: `sigma_normalized` is given and the model has no `normalize` layer.
        """
        law = NOISES[self.law]
        if self.sigma is not None:
            return law(self.sigma)
        std = _channel_std(model)
        if std is None:
            raise ArgumentError(
                "sigma_normalized",
                "a model with a `normalize` layer",
                type(model).__name__,
                "give sigma in pixel units instead",
            )
        return law.normalized(self.sigma_normalized or 0.0, std)

    def to_json(self, model: nn.Module) -> dict[str, Any]:
        """Return the law and the deviation in both units as JSON values.

        A deviation that differs between channels is given as its mean over channels. `sigma_normalized` is None if the
        model has no `normalize` layer.
        """
        std = _channel_std(model)
        sigma = fmean(_channels(self.for_model(model).sigma))
        normalized = self.sigma_normalized
        if normalized is None and std is not None:
            normalized = fmean((self.sigma or 0.0) / channel for channel in std)
        return {"noise": self.law, "sigma": sigma, "sigma_normalized": normalized}

    @classmethod
    def from_header(cls, header: Header, law: str = "gaussian") -> Self:
        """Read the input noise recorded in a checkpoint's header; deviation 0 if none is recorded.

        Args:
            header: the header of a checkpoint.
            law: a key of `NOISES`: the law of the noise to create.

        Raises:
            CheckpointError: the header's `smoothing` entry is malformed.
        """
        chosen = header.get("smoothing")
        if chosen is None:
            return cls(sigma=0.0, law=law)
        if not isinstance(chosen, Mapping):
            raise CheckpointError(f"checkpoint: expected smoothing with sigma or sigma_normalized, got {chosen!r}")
        if "sigma_units" in chosen:
            raise CheckpointError(
                "checkpoint: expected smoothing with sigma and sigma_normalized, got sigma_units of an older version; "
                "choose sigma again with `smoothed evaluate --split validation --tune`"
            )
        try:
            if chosen.get("sigma_normalized") is not None:
                return cls(sigma_normalized=float(chosen["sigma_normalized"]), law=law)
            return cls(sigma=float(chosen["sigma"]), law=law)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint: expected smoothing with sigma or sigma_normalized, got {chosen!r}"
            ) from error


@dataclass(frozen=True)
class SmoothingConfig:
    """Settings of a smoothed classifier, as plain values and without the network.

    Attributes:
        noise: noise added to the input.
        vote: a key of `VOTES`: `prediction`, `weighted` or `soft`.
        num_samples: number of draws of a vote, the paper's M.
        layer: name of a submodule whose input receives the noise instead of the image; None for the image.

    Raises:
        ArgumentError: the vote is unknown, or `num_samples` is below 1.
    """

    noise: NoiseConfig = field(default_factory=lambda: NoiseConfig(sigma=0.0))
    vote: str = "prediction"
    num_samples: int = 64
    layer: str | None = None

    def __post_init__(self) -> None:
        check_choice(self.vote, VOTES, "vote")
        check_positive(self.num_samples, "num_samples")

    def smooth(
        self,
        model: nn.Module,
        *,
        voter: nn.Module | None = None,
        chunk_size: int | None = None,
        seed: int | None = None,
    ) -> Smoothed:
        """Create the smoothed classifier of `model`.

        Args:
            model: network from images (N, C, H, W) in [0, 1] to logits (N, K).
            voter: an equivalent, faster form of the network that computes the draws (`Fast`); None for `model` itself.
            chunk_size: maximum number of rows in one forward pass; None for the default of `Smoothed`.
            seed: integer seed of all draws; None takes a random seed from the operating system.

        Raises:
            ArgumentError: `sigma_normalized` is given and the model has no `normalize` layer, or the layer is unknown.
        """
        return Smoothed(
            model if voter is None else voter,
            self.noise.for_model(model),
            vote=self.vote,
            num_samples=self.num_samples,
            layer=self.layer,
            chunk_size=chunk_size,
            seed=seed,
        )

    def to_json(self, model: nn.Module) -> dict[str, Any]:
        """Return all settings as JSON values, with the deviation in both units (`NoiseConfig.to_json`)."""
        return {**self.noise.to_json(model), "vote": self.vote, "num_samples": self.num_samples, "layer": self.layer}


def _channel_std(model: nn.Module) -> list[float] | None:
    normalize = getattr(model, "normalize", None)
    return None if normalize is None else normalize.std.flatten().tolist()


def _channels(sigma: float | tuple[float, ...]) -> tuple[float, ...]:
    return sigma if isinstance(sigma, tuple) else (sigma,)
