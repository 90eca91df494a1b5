"""What commands work on, made from the strings of the command line: a network, images, an attack, and smoothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from smoothed.api.load import checkpoint_path, load
from smoothed.checkpoint import Header, bundled
from smoothed.cli.console import warn
from smoothed.cli.options import DEFAULT_NUM_SAMPLES, DataOptions, ModelOptions, OneAttackOptions, SmoothingOptions
from smoothed.cli.own import own_attack, own_data, own_noises, own_vote
from smoothed.cli.parsing import keys, statistics
from smoothed.data.adapt import as_images
from smoothed.data.images import Images
from smoothed.data.loader import is_stream
from smoothed.data.split import SPLITS
from smoothed.errors import ArgumentError
from smoothed.injection import noise_layers
from smoothed.smoothing.classifier import LARGEST_USUAL_SIGMA, Smoothed
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.input_noise import NOISES
from smoothed.utils.checks import check_choice
from smoothed.utils.devices import best_device
from smoothed.utils.distributed import Processes
from smoothed.utils.imports import is_object_name

# Two deviations that differ by less than this share are taken for one.
SAME_SIGMA = 1e-3


@dataclass(frozen=True, eq=False)
class CommandInputs:
    """A network and images.

    Attributes:
        name: name of the network as the user gave it.
        path: path of its checkpoint; None for networks of other kinds.
        network: network from images in [0, 1] to logits, on the chosen device.
        images: images to evaluate.
        processes: processes that share the work.
    """

    name: str
    path: Path | None
    network: nn.Module
    images: Images
    processes: Processes

    @classmethod
    def load(cls, model: ModelOptions, data: DataOptions, *, at_most: int | None = None) -> Self:
        """Load the network and the images.

        Args:
            model: options of the network.
            data: options of the images.
            at_most: number of images where `--images` is not given and there are more; None for all.
        """
        processes = Processes.started()  # first, because it assigns each process its GPU
        device = best_device()
        images = images_from_options(data, at_most)
        network = load(
            model.model,
            model_args=model.model_args,
            weights=model.weights,
            normalize=None if model.normalize is None else statistics(model.normalize),
            outputs=model.outputs,  # pyright: ignore[reportArgumentType] - checked by `load`
            device=device,
        )
        path = checkpoint_path(model.model) if model.weights is None else None
        return cls(model.model, path, network, images, processes)

    @property
    def header(self) -> Header:
        """The header of the network's checkpoint; empty without one."""
        return getattr(self.network, "checkpoint_header", None) or {}

    @property
    def smoothing_card(self) -> dict[str, Any]:
        """The smoothing that the checkpoint stores; empty if it stores none."""
        return self.header.get("smoothing") or {}

    @property
    def own_checkpoint(self) -> Path:
        """Path of the user's own checkpoint, for commands that write to it.

        Raises:
            ArgumentError: the network is bundled, or is no checkpoint.
        """
        require_own_checkpoint(self.name)
        if self.path is None:
            raise ArgumentError("model", "the path of a checkpoint of your own to write to", "other weights for it")
        return self.path

    def attack(self, options: OneAttackOptions) -> dict[str, Any]:
        """The arguments of public functions that take one attack."""
        return {
            "attack": own_attack(options.attack),
            "eps": options.eps,
            "norm": options.norm,
            "steps": options.steps,
            "eot_samples": options.eot_samples,
            "max_queries": options.max_queries,
            "sees": options.sees,
            "sources": {name: _load_source(name) for name in options.source or ()},
        }

    def noises(
        self, noise: str | None, sigmas: Sequence[float] | None, sigmas_normalized: Sequence[float] | None
    ) -> list[NoiseConfig]:
        """The input noises that were given, else that of the checkpoint.

        Returns:
            A list of noises; noise of deviation 0 for a network with noise of its own and no stored deviation; empty
            for a network without any noise.

        Raises:
            ArgumentError: both units are given, a deviation is out of range, or there is no such noise.
        """
        warn_of_unit(sigmas or (), self.smoothing_card)
        given = own_noises(noise, sigmas, sigmas_normalized)
        if given is not None:
            return given
        if self.smoothing_card or noise_layers(self.network):
            stored = self.smoothing_card.get("noise", "gaussian")
            return [NoiseConfig.from_header(self.header, noise or (stored if stored in NOISES else "gaussian"))]
        if noise is not None:
            raise no_sigma(self.name)
        return []

    def smoothing(self, options: SmoothingOptions) -> SmoothingConfig | None:
        """The noise, vote and M that were given, else those of the checkpoint; None for a network without any noise.

        Raises:
            ArgumentError: as in `noises`; a vote or an M is given for a network without any noise.
        """
        noises = self.noises(options.noise, as_list(options.sigma), as_list(options.sigma_normalized))
        if not noises:
            if options.vote is not None or options.num_samples is not None:
                raise no_sigma(self.name)
            return None
        card, count = self.smoothing_card, options.num_samples
        vote = card.get("vote", "prediction") if options.vote is None else options.vote
        return SmoothingConfig(
            noises[0], own_vote(vote), card.get("num_samples", DEFAULT_NUM_SAMPLES) if count is None else count
        )

    def classifier(self, smoothing: SmoothingConfig | None) -> Smoothed | nn.Module:
        """The smoothed classifier, or the network where `smoothing` is None."""
        return self.network if smoothing is None else smoothing.smooth(self.network)


def images_from_options(options: DataOptions, at_most: int | None = None) -> Images:
    """The images of the options `--data`, `--data-keys`, `--split` and `--images`.

    Raises:
        ArgumentError: there is no such function, or it returns no data.
        DataError: the data set does not exist or is damaged, or has fewer images.
    """
    check_choice(options.split, SPLITS, "split")
    data, count = own_data(options.data), options.images
    images = as_images(
        data,
        options.split,
        keys=None if options.data_keys is None else keys(options.data_keys),
        name=options.data if is_object_name(options.data) else None,
        count=(count or at_most) if is_stream(data) else None,
    )
    return images.first(min(at_most, len(images)) if count is None and at_most is not None else count)


def _load_source(name: str) -> nn.Module:
    """A network that a transfer attack starts from."""
    try:
        return load(name, device=best_device())
    except ArgumentError as error:
        raise error.named("source") from None


def require_own_checkpoint(model: str) -> None:
    """Raise `ArgumentError` unless `model` names a checkpoint that is not bundled, so that it may be written to."""
    if model in bundled() or checkpoint_path(model) is None:
        raise ArgumentError("model", "the path of a checkpoint of your own to write to", model)


def no_sigma(name: str) -> ArgumentError:
    """The error where input noise is needed, and neither the options nor the checkpoint state its deviation."""
    hint = (
        "give --sigma (0 for no input noise), which `smoothed sweep` helps to choose on other images, or a checkpoint "
        "that stores a sigma"
    )
    return ArgumentError("sigma", "a standard deviation of the input noise", f"none for {name}", hint)


def warn_of_unit(sigmas: Sequence[float], card: dict[str, Any]) -> None:
    """Warn if a deviation in pixel units is that of the checkpoint in the paper's unit, or is large."""
    normalized, pixels, largest = card.get("sigma_normalized"), card.get("sigma"), max(sigmas, default=0)
    if normalized and pixels and any(abs(sigma - normalized) <= SAME_SIGMA * normalized for sigma in sigmas):
        warn(
            f"sigma {normalized:g} is the checkpoint's sigma in the paper's unit; in pixel units it is {pixels:.4g}: "
            f"pass --sigma-normalized {normalized:g}, or --sigma {pixels:.4g}"
        )
    elif LARGEST_USUAL_SIGMA < largest <= 1:
        warn(
            f"sigma {largest:g} is more than half of the range of a pixel; it is in pixel units of [0, 1], and "
            "--sigma-normalized takes the paper's unit"
        )


def as_list(value: float | None) -> list[float] | None:
    """A list of one number; None for None."""
    return None if value is None else [value]
