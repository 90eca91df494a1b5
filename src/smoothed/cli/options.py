"""Options that several commands share: each is declared once, with its help, its unit and its range."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES
from smoothed.cli.parsing import fraction, names, numbers
from smoothed.errors import ArgumentError
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES

if TYPE_CHECKING:
    from smoothed.smoothing.config import NoiseConfig

DEFAULT_MODEL = "resnet20-cni-w"
ALL_IMAGES = "all"

ATTACK_PANEL = "Attack"
VOTE_PANEL = "Smoothing"
RUN_PANEL = "Running and output"


def attack_option(**more: Any) -> Any:  # noqa: ANN401 - typer's own type
    """An option in the panel of the attack."""
    return typer.Option(rich_help_panel=ATTACK_PANEL, **more)


def vote_option(*names_of_option: str, **more: Any) -> Any:  # noqa: ANN401 - typer's own type
    """An option in the panel of the smoothed classifier."""
    return typer.Option(*names_of_option, rich_help_panel=VOTE_PANEL, **more)


def run_option(*names_of_option: str, **more: Any) -> Any:  # noqa: ANN401 - typer's own type
    """An option in the panel of what is run and written."""
    return typer.Option(*names_of_option, rich_help_panel=RUN_PANEL, **more)


Model = Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of a checkpoint file.")]
Data = Annotated[
    str,
    typer.Option(
        help="Images: sample (1,000 bundled CIFAR-10 test images), cifar10, cifar100, or the folder of either."
    ),
]
Split = Annotated[str, typer.Option(help="Part of the data: test, validation (held out of training) or train.")]
Images = Annotated[
    int | None, typer.Option(help="Number of images to use, from the first on.", show_default=ALL_IMAGES)
]

Attack = Annotated[str, attack_option(help=f"Name of the attack: {names(EVALUATION_ATTACKS)}.")]
Eps = Annotated[
    float,
    attack_option(
        parser=fraction,
        metavar="NUMBER",
        help="Radius of the attack in pixel units of [0, 1]: a number, or a fraction such as 8/255.",
    ),
]
Norm = Annotated[
    str, attack_option(help=f"Norm of the radius: {names(BALLS)}. Attacks with a norm of their own ignore it.")
]
Steps = Annotated[int, attack_option(help="Gradient steps of the attack (the paper's k).")]
EotSamples = Annotated[
    int,
    attack_option(help="Draws averaged for each gradient of an EOT attack, or for each query of a black-box attack."),
]
MaxQueries = Annotated[int, attack_option(help="Queries that a black-box attack may make for each image.")]
Sees = Annotated[str, attack_option(help=f"What a black-box attacker observes: {names(SEES)}.")]
Source = Annotated[
    list[str] | None,
    attack_option(help="Checkpoint that a transfer attack starts from. Repeat the option for an ensemble."),
]

Noise = Annotated[str, vote_option(help=f"Distribution of the input noise: {names(NOISES)}.")]
Sigma = Annotated[
    float | None,
    vote_option(
        help="Standard deviation of the input noise, in pixel units of [0, 1].", show_default="the checkpoint's own"
    ),
]
SigmaNormalized = Annotated[
    float | None,
    vote_option(help="Instead of --sigma: relative to the data set's standard deviation (the paper's unit)."),
]
Sigmas = Annotated[
    str | None,
    vote_option(
        help="Standard deviations of the input noise, in pixel units of [0, 1]: 0,0.03,0.06 or 0:0.12:0.01.",
        show_default="the checkpoint's own",
    ),
]
SigmasNormalized = Annotated[
    str | None,
    vote_option(
        help="Instead of --sigma: relative to the data set's standard deviation (the paper's unit): 0,0.12,0.24."
    ),
]
Vote = Annotated[str, vote_option(help=f"Vote of the smoothed classifier: {names(VOTES)}.")]
NumSamples = Annotated[int, vote_option(help="Draws of each vote (the paper's M).")]

Seed = Annotated[int, run_option(help="Seed of all random numbers.")]
Runs = Annotated[int, run_option(help="Number of repetitions, each with a fresh attack and fresh draws.")]
Precision = Annotated[
    str, run_option(help="Precision of the votes: float32, bf16, or auto (bf16 where the hardware has units for it).")
]
ChunkSize = Annotated[int, run_option(help="Images of one forward pass of the vote. Memory grows with it.")]
Out = Annotated[
    Path | None,
    run_option(help="Folder for finished steps. After an interruption, the same command continues from it."),
]
Json = Annotated[Path | None, run_option(help="File to write the results to, as JSON.")]


def settled_noise(
    sigma: float | None, sigma_normalized: float | None, law: str, default: "NoiseConfig"
) -> "NoiseConfig":
    """The noise of `--sigma` or `--sigma-normalized`; that of the checkpoint, `default`, where neither was given.

    Raises:
        ArgumentError: both were given, or a negative deviation.
    """
    from dataclasses import replace

    from smoothed.smoothing.config import NoiseConfig

    _require_one_unit(sigma, sigma_normalized)
    if sigma is None and sigma_normalized is None:
        return replace(default, law=law)
    return NoiseConfig(sigma, sigma_normalized, law)


def settled_noises(
    sigmas: str | None, sigmas_normalized: str | None, law: str, default: "NoiseConfig"
) -> "list[NoiseConfig]":
    """The same for lists of deviations, as `numbers` reads them."""
    from dataclasses import replace

    from smoothed.smoothing.config import NoiseConfig

    _require_one_unit(sigmas, sigmas_normalized)
    if sigmas is not None:
        return [NoiseConfig(sigma=value, law=law) for value in numbers(sigmas, "sigma")]
    if sigmas_normalized is not None:
        return [NoiseConfig(sigma_normalized=v, law=law) for v in numbers(sigmas_normalized, "sigma-normalized")]
    return [replace(default, law=law)]


def _require_one_unit(sigma: object, sigma_normalized: object) -> None:
    if sigma is not None and sigma_normalized is not None:
        raise ArgumentError("sigma", "either --sigma or --sigma-normalized", "both")


def require_transfer(source: list[str] | None, attack: str) -> None:
    """Refuse `--source` beside an attack that transfers nothing."""
    if source and attack != "transfer":
        raise ArgumentError("source", "--attack transfer beside it", f"--attack {attack}")
