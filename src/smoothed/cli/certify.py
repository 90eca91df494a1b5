"""`smoothed certify`: certified accuracy of a checkpoint that is smoothed with Gaussian noise."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli import options
from smoothed.cli.console import errors, is_main_process, output, progress_bar
from smoothed.cli.options import DEFAULT_MODEL, run_option, settled_noises, vote_option
from smoothed.cli.parsing import numbers


def certify(
    model: options.Model = DEFAULT_MODEL,
    data: options.Data = "sample",
    split: options.Split = "test",
    images: Annotated[int, typer.Option(help="Number of images to use, from the first on.")] = 100,
    sigma: options.Sigmas = None,
    sigma_normalized: options.SigmasNormalized = None,
    radii: Annotated[
        str, vote_option(help="L2 radii at which to report certified accuracy, in pixel units of [0, 1].")
    ] = "0,0.05,0.1,0.25,0.5,1",
    alpha: Annotated[float, vote_option(help="Bound of the probability that an image is certified wrongly.")] = 0.001,
    selection_samples: Annotated[int, vote_option(help="Draws that choose the class (n0).")] = 100,
    num_samples: Annotated[
        int, vote_option(help="Draws that bound the class's probability (n). More draws give larger radii.")
    ] = 1000,
    seed: options.Seed = 0,
    precision: options.Precision = "float32",
    chunk_size: options.ChunkSize = 250,
    out: Annotated[
        Path | None,
        run_option(
            help="Folder for finished steps. After an interruption, the same command continues from it. "
            "Other radii or another alpha reuse the draws in it."
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Certify the class of each image within an L2 radius, or abstain (Cohen et al., 2019).

    Noise inside the network is drawn anew for each vote: the certificate is that of the vote over both noises.

    Example: smoothed certify --sigma 0.12,0.25 --images 100 --out certified
    """
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.certified import CertificationProtocol, evaluate_certified
    from smoothed.report.certified import certified_sentence, certified_table, linf_sentence
    from smoothed.utils.distributed import leaving_process_group
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    inputs = CommandInputs.load(model, data, split, images, precision, chunk_size, out)
    protocol = CertificationProtocol(
        radii=tuple(numbers(radii, "radii")),
        alpha=alpha,
        selection_samples=selection_samples,
        num_samples=num_samples,
        seed=seed,
        precision=inputs.precision,
    )
    with _warnings_in_a_line(), leaving_process_group(), progress_bar() as bar:
        task = bar.add_task("certifying")
        rows = evaluate_certified(
            inputs.network,
            inputs.images,
            protocol,
            noises=settled_noises(sigma, sigma_normalized, "gaussian", inputs.noise),
            name=inputs.name,
            out=inputs.out,
            chunk_size=inputs.chunk_size,
            processes=inputs.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not is_main_process():
        return
    output.print(certified_table(rows))
    for row in rows[:: len(protocol.radii)]:
        output.print(certified_sentence(row))
    output.print(linf_sentence(rows[0]))
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print warnings in one line, as errors are printed, inside the block."""

    def show(message: Warning | str, *where: object) -> None:
        del where
        if is_main_process():
            errors.print(f"warning: {message}", style="yellow")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
