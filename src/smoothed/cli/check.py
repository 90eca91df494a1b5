"""`smoothed check`: gradient-masking checks of a smoothed classifier."""

from dataclasses import dataclass
from typing import Annotated

from smoothed.cli.console import command_line, progress
from smoothed.cli.options import (
    DATA_PANEL,
    IMAGES_HELP,
    DataOptions,
    LinfEps,
    ModelOptions,
    RunOptions,
    SmoothingOptions,
    attack_option,
    option,
)

MOST_IMAGES = 128
"""Number of images where `--images` is not given and there are more."""


@dataclass(frozen=True)
class CheckedDataOptions(DataOptions):
    """The images, few by default."""

    images: Annotated[
        int | None,
        option(
            DATA_PANEL,
            f"{IMAGES_HELP} Verdicts need about 100 or more.",
            show_default=f"at most {MOST_IMAGES}",
        ),
    ] = None


@dataclass(frozen=True)
class CheckAttackOptions:
    """Strength of the attacks."""

    eps: LinfEps = "8/255"  # pyright: ignore[reportAssignmentType] - parsed by `fraction`
    steps: Annotated[
        int, attack_option("Gradient steps of PGD. Black-box queries and random tries grow with them.")
    ] = 10
    eot_samples: Annotated[
        int, attack_option("Draws averaged for each gradient of the white-box attack, the reference attack.")
    ] = 4


def check(
    model: ModelOptions,
    data: CheckedDataOptions,
    attack: CheckAttackOptions,
    smoothing: SmoothingOptions,
    run: RunOptions,
) -> None:
    """Check a classifier for gradient masking, that is, for attacks that fail for reasons other than robustness.

    Each check measures one flaw on the images with a 95 % interval and concludes pass, suspicious or unclear
    (the interval crosses the threshold: use more images).
    Accuracies are those of the vote on fresh draws. The exit code is 0 whatever the verdict.

    Examples:
        smoothed check --images 200 --json checks.json
        smoothed check --model mine:network --sigma 0.1 --num-samples 8
    """
    from smoothed.api.check import check as measure
    from smoothed.cli.inputs import CommandInputs
    from smoothed.cli.results import check_files, show_result

    check_files(run.json, report=run.report)
    inputs = CommandInputs.load(model, data, at_most=MOST_IMAGES)
    classifier = inputs.classifier(inputs.smoothing(smoothing))
    with progress("checking") as on_progress:
        result = measure(
            classifier,
            inputs.images,
            eps=attack.eps,
            steps=attack.steps,
            eot_samples=attack.eot_samples,
            images=None,
            name=inputs.name,
            seed=run.seed,
            chunk_size=run.chunk_size,
            out=run.out,
            on_progress=on_progress,
            command=command_line(),
        )
    show_result(result, run.json, report=run.report)
