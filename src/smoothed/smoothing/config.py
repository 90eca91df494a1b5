"""Settings of input noise and of smoothed classifiers as plain values, for commands, protocols and result files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self

from torch import nn

from smoothed.checkpoint import Header
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.models.normalize import normalization_std
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import NOISES, Noise, ScaledNoise
from smoothed.smoothing.votes import Vote, resolve
from smoothed.utils.checks import check_callable, check_choice, check_flag, check_not_negative, check_positive
from smoothed.utils.names import name_of


@dataclass(frozen=True)
class NoiseConfig:
    """Input noise by law and standard deviation, or a noise of the user's own.

    Attributes:
        sigma: standard deviation in pixel units of [0, 1], the same for all channels.
        sigma_normalized: standard deviation in the paper's unit, that is relative to the data set's standard deviation
            of each channel. The model must have a `normalize` layer.
        law: a key of `NOISES`: `gaussian`, `uniform` or `laplace`; without effect beside `custom`.
        custom: a noise in place of a law: any callable that `Smoothed` takes. `sigma` beside it only states the noise's
            deviation.

    Raises:
        ArgumentError: neither or both deviations are given, a deviation is negative or not finite, the law is unknown,
            or `custom` cannot be called.
    """

    sigma: float | None = None
    sigma_normalized: float | None = None
    law: str = "gaussian"
    custom: Noise | None = None

    def __post_init__(self) -> None:
        check_choice(self.law, NOISES, "noise")
        if self.custom is not None:
            check_callable(self.custom, "custom")
        if self.sigma is not None:
            check_not_negative(self.sigma, "sigma")
        if self.sigma_normalized is not None:
            check_not_negative(self.sigma_normalized, "sigma_normalized")
        if self.custom is not None and self.sigma_normalized is not None:
            raise ArgumentError("sigma_normalized", "a law of this package", f"the noise {name_of(self.custom)}")
        if self.custom is None and (self.sigma is None) == (self.sigma_normalized is None):
            got = "neither" if self.sigma is None else "both"
            raise ArgumentError("sigma", "exactly one of sigma and sigma_normalized", got)

    @classmethod
    def of(cls, noise: Noise | None) -> Self:
        """Describe the noise of a `Smoothed` classifier; None is noise of deviation 0."""
        if noise is None:
            return cls(sigma=0.0)
        law = next((name for name, kind in NOISES.items() if type(noise) is kind), None)
        if law is not None and isinstance(noise, ScaledNoise) and isinstance(noise.sigma, float | int):
            return cls(sigma=float(noise.sigma), law=law)
        return cls(custom=noise)

    @property
    def name(self) -> str:
        """Name of the distribution: a key of `NOISES`, or the name of the user's own noise."""
        if self.custom is None:
            return self.law
        return next((name for name, kind in NOISES.items() if type(self.custom) is kind), name_of(self.custom))

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values that tell different noises apart, for resumable work."""
        own = self.custom
        return {
            "sigma": self.sigma,
            "sigma_normalized": self.sigma_normalized,
            "law": self.law,
            "custom": own and (repr(own) if isinstance(own, ScaledNoise) else name_of(own)),
        }

    def for_model(self, model: nn.Module) -> Noise:
        """Create the noise in pixel units, with one deviation for all channels or one per channel.

        Raises:
            ArgumentError: `sigma_normalized` is given and the model has no `normalize` layer.
        """
        if self.custom is not None:
            return self.custom
        law = NOISES[self.law]
        if self.sigma is not None:
            return law(self.sigma)
        std = normalization_std(model)
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
        model has no `normalize` layer, and both are None for a noise of the user's own that states no deviation.
        """
        std, noise = normalization_std(model), self.for_model(model)
        if not isinstance(noise, ScaledNoise):
            return {"noise": self.name, "sigma": self.sigma, "sigma_normalized": None}
        sigmas = _channels(noise.sigma)
        normalized = self.sigma_normalized
        if normalized is None and std is not None:
            per_channel = sigmas if len(sigmas) == len(std) else sigmas * len(std)
            if len(per_channel) == len(std):
                mean = fmean(sigma / channel for sigma, channel in zip(per_channel, std, strict=True))
                normalized = float(f"{mean:.12g}")  # the number that was given, without the error of the division
        return {"noise": self.name, "sigma": fmean(sigmas), "sigma_normalized": normalized}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], model: nn.Module) -> Self:
        """Read the noise that the values of `to_json` describe, in the unit that gives the same values for `model`.

        Raises:
            ArgumentError: the values are out of range.
        """
        noise = cls(sigma=record["sigma"], law=record["noise"])
        if record["sigma_normalized"] is None or normalization_std(model) is None:
            return noise
        normalized = cls(sigma_normalized=record["sigma_normalized"], law=record["noise"])
        same = (math.isclose(normalized.to_json(model)[name], record[name]) for name in ("sigma", "sigma_normalized"))
        return normalized if all(same) else noise

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
        vote: a key of `VOTES` (`prediction`, `weighted` or `soft`), or a function from logits to scores.
        num_samples: number of draws of a vote, the paper's M.
        layer: name of a submodule whose input receives the noise instead of the image; None for the image.
        pack_draws: whether one pass may hold several draws of an image (`Smoothed`).

    Raises:
        ArgumentError: the vote is unknown, `num_samples` is below 1, or another setting has the wrong type.
    """

    noise: NoiseConfig = field(default_factory=lambda: NoiseConfig(sigma=0.0))
    vote: str | Vote = "prediction"
    num_samples: int = 64
    layer: str | None = None
    pack_draws: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.noise, NoiseConfig):
            raise ArgumentError("noise", "a NoiseConfig", repr(self.noise))
        resolve(self.vote)
        check_positive(self.num_samples, "num_samples")
        if self.layer is not None and not isinstance(self.layer, str):
            raise ArgumentError("layer", "the name of a layer", repr(self.layer))
        if self.pack_draws is not None:
            check_flag(self.pack_draws, "pack_draws")

    @classmethod
    def of(cls, smoothed: Smoothed) -> Self:
        """Describe a smoothed classifier."""
        noisy = smoothed.noisy_classifier
        # Any other callable may share randomness between rows, whatever it is wrapped in afterwards.
        pack_draws = smoothed.pack_draws if isinstance(smoothed.model, nn.Module) else bool(smoothed.pack_draws)
        return cls(NoiseConfig.of(noisy.noise), smoothed.vote, smoothed.num_samples, noisy.layer, pack_draws)

    @property
    def vote_name(self) -> str:
        """Name of the vote: a key of `VOTES`, or the name of the user's own function."""
        return name_of(self.vote)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values that tell different classifiers apart, for resumable work."""
        return {
            "noise": self.noise.settings(),
            "vote": self.vote_name,
            "num_samples": self.num_samples,
            "layer": self.layer,
        }

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
            model if voter is None or self.layer is not None else voter,  # layers have the names of `model`
            self.noise.for_model(model),
            vote=self.vote,
            num_samples=self.num_samples,
            layer=self.layer,
            pack_draws=self.pack_draws,
            chunk_size=chunk_size,
            seed=seed,
        )

    def to_json(self, model: nn.Module) -> dict[str, Any]:
        """Return all settings as JSON values, with the deviation in both units (`NoiseConfig.to_json`)."""
        return {
            **self.noise.to_json(model),
            "vote": self.vote_name,
            "num_samples": self.num_samples,
            "layer": self.layer,
        }


def _channels(sigma: float | tuple[float, ...]) -> tuple[float, ...]:
    return sigma if isinstance(sigma, tuple) else (sigma,)
