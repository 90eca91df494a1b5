"""The part of `smoothed evaluate` that takes saved adversarial examples and evaluates them with fresh votes."""

import os
from pathlib import Path
from typing import Any

from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.inputs import CommandInputs
from smoothed.cli.options import settled_noises
from smoothed.cli.parsing import choices, integers
from smoothed.errors import ArgumentError
from smoothed.evaluation.saved_examples.evaluate import SavedExamplesProtocol
from smoothed.evaluation.saved_examples.evaluate import evaluate_examples as measure
from smoothed.evaluation.saved_examples.load import SavedExamples, attacked_model
from smoothed.report.saved_examples import origin_sentence, saved_examples_table
from smoothed.smoothing.config import SmoothingConfig
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_classes
from smoothed.utils.files import write_json


def evaluate_examples(
    file: Path,
    model: str | None,
    *,
    data: str,
    split: str,
    images: int | None,
    law: str,
    sigma: str | None,
    sigma_normalized: str | None,
    votes: str,
    num_samples: str,
    votes_per_image: int,
    seed: int,
    precision: str,
    chunk_size: int,
    out: Path | None,
    json: Path | None,
) -> None:
    """Vote on the examples, print a table, and write what was asked for. The arguments are the command's options."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ArgumentError("processes", "one with --examples", f"{os.environ['WORLD_SIZE']} processes")
    name = model or attacked_model(file)
    inputs = CommandInputs.load(name, data, split, None, precision, chunk_size, out)
    given = SavedExamples.load(file, inputs.images).first(images)
    check_classes(given.clean.labels, len(inputs.header["classes"]))
    noise = _single(settled_noises(sigma, sigma_normalized, law, inputs.noise), "sigma")
    vote = _single(choices(votes, "votes", VOTES), "votes")
    count = _single(integers(num_samples, "num-samples"), "num-samples")
    protocol = SavedExamplesProtocol(
        SmoothingConfig(noise, vote, count),
        votes_per_image=votes_per_image,
        seed=seed,
        precision=inputs.precision,
    )
    with progress_bar() as bar:
        task = bar.add_task("voting")
        rows = measure(
            inputs.network,
            given,
            protocol,
            name=name,
            out=out,
            chunk_size=chunk_size,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.print(saved_examples_table(rows))
    output.print(origin_sentence(rows[0]))
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")


def _single(values: Any, option: str) -> Any:  # noqa: ANN401 - a list of any kind
    if len(values) != 1:
        raise ArgumentError(option, "one value with --examples", len(values))
    return values[0]
