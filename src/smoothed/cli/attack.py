"""`smoothed attack`: adversarial examples of a network, in a file with the record of how they were made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.console import command_line, note, progress
from smoothed.cli.options import (
    STORED,
    DataOptions,
    ModelOptions,
    OneAttackOptions,
    PrecisionRunOptions,
    SmoothingOptions,
    vote_option,
)


@dataclass(frozen=True)
class AttackSmoothingOptions(SmoothingOptions):
    """One smoothed classifier under attack."""

    vote: Annotated[
        str | None,
        vote_option("Vote used to report accuracy on the attacked images.", show_default=f"{STORED}, or prediction"),
    ] = None


def attack(
    examples: Annotated[Path, typer.Option(help="File to write the adversarial examples to (.safetensors).")],
    model: ModelOptions,
    data: DataOptions,
    attack: OneAttackOptions,
    smoothing: AttackSmoothingOptions,
    run: PrecisionRunOptions,
) -> None:
    """Attack a network and write the adversarial examples to a file.

    The file holds `images` (float32 in [0, 1], not rounded to 8 bits), `labels`, and `index` (the number of each image
    in its data set). Its header holds all settings and the vote's accuracy on clean and on attacked images.
    `smoothed evaluate --examples FILE` evaluates the examples with fresh votes.

    Examples:
        smoothed attack --attack epgd --examples epgd.safetensors
        smoothed attack --attack mine:attack --images 100 --examples own.safetensors
    """
    from smoothed.api.attack import attack as make
    from smoothed.cli.inputs import CommandInputs
    from smoothed.cli.results import check_files, show_result

    attack.check()
    check_files(run.json, report=run.report, others=[examples])
    inputs = CommandInputs.load(model, data)
    classifier = inputs.classifier(inputs.smoothing(smoothing))
    with progress("attacking") as on_progress:
        result = make(
            classifier,
            inputs.images,
            **inputs.attack(attack),
            examples=examples,
            name=inputs.name,
            seed=run.seed,
            precision=run.precision,
            chunk_size=run.chunk_size,
            out=run.out,
            on_progress=on_progress,
            command=command_line(),
        )
    note(f"images written to {examples}")
    show_result(result, run.json, report=run.report)
