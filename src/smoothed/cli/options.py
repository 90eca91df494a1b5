"""Options that several commands share: each is declared once, with its help, its unit and its range.

A class is a group of options (`grouping.expanded`), in one panel. A command with other defaults takes a subclass.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from smoothed.cli.choices import EVALUATION_ATTACKS, NOISES, NORMS, SEES, VOTES
from smoothed.cli.parsing import duration, fraction, names
from smoothed.errors import ArgumentError

DEFAULT_MODEL = "resnet20-cni-w"
DEFAULT_NUM_SAMPLES = 64
"""M of a network that states none: the default of `Smoothed`."""

MODEL_PANEL = "Model"
DATA_PANEL = "Data"
ATTACK_PANEL = "Attack"
VOTE_PANEL = "Smoothing"
RUN_PANEL = "Running and output"

OWN_CODE = "package.module:name"
STORED = "the checkpoint's own"


def option(panel: str, help_text: str, *names_of_option: str, **more: Any) -> Any:  # noqa: ANN401 - typer's own type
    """An option in a panel."""
    return typer.Option(*names_of_option, help=help_text, rich_help_panel=panel, **more)


def attack_option(help_text: str, *names_of_option: str, **more: Any) -> Any:  # noqa: ANN401
    """An option in the panel of the attack."""
    return option(ATTACK_PANEL, help_text, *names_of_option, **more)


def vote_option(help_text: str, *names_of_option: str, **more: Any) -> Any:  # noqa: ANN401
    """An option in the panel of the smoothed classifier."""
    return option(VOTE_PANEL, help_text, *names_of_option, **more)


def run_option(help_text: str, *names_of_option: str, **more: Any) -> Any:  # noqa: ANN401
    """An option in the panel of what is run and written."""
    return option(RUN_PANEL, help_text, *names_of_option, **more)


MODEL_HELP = (
    "A bundled name, the path of a checkpoint, zoo/NAME, or package.module:function that returns a network from images "
    "in [0, 1] to logits, such as timm:create_model."
)


def model_args_option(panel: str, named_by: str) -> Any:  # noqa: ANN401
    """The option for arguments of the user's function, which the option `named_by` names."""
    return option(panel, f"Arguments of the function of {named_by}, as a JSON object.", metavar="JSON")


def weights_option(panel: str, network: str) -> Any:  # noqa: ANN401
    """The option for weights of `network`, a noun for the help text."""
    return option(
        panel,
        f"File of weights (a checkpoint, a safetensors file, or a torch file of a state dict) for {network}.",
    )


def normalize_option(panel: str, network: str) -> Any:  # noqa: ANN401
    """The option for mean and deviation of the inputs of `network`, a noun for the help text."""
    return option(
        panel,
        "Mean and deviation of each channel in pixel units of [0, 1], such as 0.49,0.46,0.41/0.23,0.22,0.23, if "
        f"{network} expects normalised images.",
        metavar="MEAN/STD",
    )


@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    model: Annotated[str, option(MODEL_PANEL, MODEL_HELP)] = DEFAULT_MODEL
    model_args: Annotated[str | None, model_args_option(MODEL_PANEL, "--model")] = None
    weights: Annotated[Path | None, weights_option(MODEL_PANEL, "the network of --model")] = None
    normalize: Annotated[str | None, normalize_option(MODEL_PANEL, "the network of --model")] = None
    outputs: Annotated[str, option(MODEL_PANEL, "What the network returns: logits or probabilities.")] = "logits"


IMAGES_HELP = "Number of images to use, from the first on."


@dataclass(frozen=True)
class DataOptions:
    """The images."""

    data: Annotated[
        str,
        option(
            DATA_PANEL,
            "Images: sample (1,000 bundled CIFAR-10 test images), cifar10, cifar100, a folder, or "
            "package.module:function that is called without arguments and returns data.",
        ),
    ] = "sample"
    data_keys: Annotated[
        str | None,
        option(
            DATA_PANEL,
            "Keys of image and label in items that are mappings, or their positions in tuples.",
            metavar="IMAGE,LABEL",
            show_default="image,label and similar names",
        ),
    ] = None
    split: Annotated[
        str,
        option(DATA_PANEL, "Split of a named data set: test, validation (held out of training) or train."),
    ] = "test"
    images: Annotated[int | None, option(DATA_PANEL, IMAGES_HELP, show_default="all")] = None


Eps = Annotated[
    float | None,
    attack_option(
        "Radius of the attack: a number or a fraction such as 8/255, in pixel units of [0, 1], at most 1 in the L-inf "
        "norm; for L0 attacks a number of pixels.",
        parser=fraction,
        metavar="NUMBER",
        show_default="8/255 (linf), 0.5 (l2)",
    ),
]
LinfEps = Annotated[
    float,
    attack_option(
        "L-inf radius in pixel units of [0, 1]: a number or a fraction such as 8/255.",
        parser=fraction,
        metavar="NUMBER",
    ),
]


NORM_HELP = f"Norm of the radius: {names(NORMS)}."
STEPS_HELP = "Gradient steps of the attack (the paper's k)."


@dataclass(frozen=True)
class OneAttackOptions:
    """One attack."""

    attack: Annotated[
        str,
        attack_option(
            f"Name of the attack: {names(EVALUATION_ATTACKS)}; none for clean images only; or {OWN_CODE} of a function "
            "(model, inputs, labels, generator)."
        ),
    ] = "pgd"
    eps: Eps = None
    norm: Annotated[str, attack_option(f"{NORM_HELP} Attacks with a norm of their own ignore it.")] = "linf"
    steps: Annotated[int, attack_option(STEPS_HELP)] = 7
    eot_samples: Annotated[
        int,
        attack_option("Draws averaged for each gradient of an EOT attack, or for each query of a black-box attack."),
    ] = 8
    max_queries: Annotated[int, attack_option("Queries that a black-box attack may make for each image.")] = 1000
    sees: Annotated[str, attack_option(f"What a black-box attacker observes: {names(SEES)}.")] = "logits"
    source: Annotated[
        list[str] | None,
        attack_option(
            "Network that a transfer attack starts from, as in --model. Repeat the option for an ensemble.",
            metavar="MODEL",
        ),
    ] = None

    def check(self) -> None:
        """Raise `ArgumentError` for options that do not belong together, before any work."""
        if self.source and self.attack != "transfer":
            raise ArgumentError("source", "--attack transfer beside it", f"--attack {self.attack}")


NOISE_HELP = (
    f"Input noise: {names(NOISES)}, or {OWN_CODE}: with --sigma, a function of a deviation that returns the noise; "
    "without it, the noise itself, a function (inputs, generator) or (inputs)."
)
NoiseName = Annotated[str | None, vote_option(NOISE_HELP, show_default=f"{STORED}, or gaussian")]


def normalized_help(option: str, example: str = "") -> str:
    """The help of an option that stands for `option` in the paper's unit."""
    return f"Instead of {option}, in the paper's unit (relative to the data set's standard deviation){example}."


@dataclass(frozen=True)
class NoiseOptions:
    """One input noise."""

    noise: NoiseName = None
    sigma: Annotated[
        float | None,
        vote_option("Standard deviation of the input noise, in pixel units of [0, 1].", show_default=STORED),
    ] = None
    sigma_normalized: Annotated[float | None, vote_option(normalized_help("--sigma"))] = None


NUM_SAMPLES_HELP = "Draws of each vote (the paper's M)"


@dataclass(frozen=True)
class SmoothingOptions(NoiseOptions):
    """One smoothed classifier."""

    vote: Annotated[
        str | None,
        vote_option(
            f"Vote of the smoothed classifier: {names(VOTES)}, or {OWN_CODE} of a function from logits to scores.",
            show_default=f"{STORED}, or prediction",
        ),
    ] = None
    num_samples: Annotated[
        int | None,
        vote_option(f"{NUM_SAMPLES_HELP}.", show_default=f"{STORED}, or {DEFAULT_NUM_SAMPLES}"),
    ] = None


SIGMAS_HELP = (
    "Standard deviations of the input noise, in pixel units of [0, 1]: 0,0.03,0.06, or FIRST:LAST:STEP with both ends, "
    "such as 0:0.12:0.01."
)
Sigmas = Annotated[str | None, vote_option(SIGMAS_HELP, metavar="LIST", show_default=STORED)]
SigmasNormalized = Annotated[str | None, vote_option(normalized_help("--sigma", ": 0,0.12,0.24"), metavar="LIST")]
SEVERAL_NUM_SAMPLES_HELP = f"{NUM_SAMPLES_HELP}: 1,8,64 or 1,2,4,..,512. All are read off the same draws."
VOTES_HELP = f"Votes, separated by commas: all, or some of {names(VOTES)}, or {OWN_CODE}."


@dataclass(frozen=True)
class NoisesOptions:
    """Several input noises, one after the other."""

    noise: NoiseName = None
    sigma: Sigmas = None
    sigma_normalized: SigmasNormalized = None


SEED_HELP = "Seed of all random numbers."
Seed = Annotated[int, run_option(SEED_HELP)]
PRECISIONS_HELP = "float32, bf16, or auto (bf16 where the hardware supports it)"
VotePrecision = Annotated[str, run_option(f"Precision of the votes: {PRECISIONS_HELP}.")]
OUT_HELP = "Folder for finished steps. After an interruption, the same command continues from it."
RUN_FOLDER_HELP = "Folder of the run. The same command continues a run that was stopped."
TimeLimit = Annotated[
    float | None,
    run_option(
        "Time after which the run stores its state and stops: 90s, 25m, 1.5h.",
        parser=duration,
        metavar="TIME",
        show_default="none",
    ),
]
Json = Annotated[
    Path | None,
    run_option("JSON file for the result; its tensors, if any, are written to a .safetensors file of the same name."),
]
Report = Annotated[
    Path | None,
    run_option("HTML file for a report of the result. It opens in a browser and needs no other file."),
]
Plot = Annotated[Path | None, run_option("File for a plot; its suffix gives the format: .png, .pdf, .svg.")]
Runs = Annotated[int, run_option("Number of repetitions, each with a fresh attack and fresh draws.")]
Record = Annotated[bool, run_option("Store the result in the checkpoint's header, too.", "--record")]
Device = Annotated[str, run_option("Device: auto (a GPU if there is one), cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, run_option("Print only results and errors, without progress and notes.", "--quiet", "-q")]


def json_option(content: str, panel: str | None = None) -> Any:  # noqa: ANN401
    """The option `--json` of a command that writes something else than a `Result`: `content`, a noun."""
    return typer.Option(help=f"File to write {content} to, as JSON.", rich_help_panel=panel)


@dataclass(frozen=True)
class RunOptions:
    """How an evaluation is run, and what is written."""

    seed: Seed = 0
    chunk_size: Annotated[
        int, run_option("Number of images in one forward pass of the vote. Memory grows with it.")
    ] = 250
    out: Annotated[Path | None, run_option(OUT_HELP)] = None
    json: Json = None
    report: Report = None


@dataclass(frozen=True)
class PrecisionRunOptions(RunOptions):
    """The same for votes in a precision of one's choice."""

    precision: VotePrecision = "float32"


@dataclass(frozen=True)
class QuietOptions:
    """Options of every command, which may stand before it, too."""

    quiet: Quiet = False


@dataclass(frozen=True)
class SharedOptions(QuietOptions):
    """Options of every command that computes."""

    device: Device = "auto"
