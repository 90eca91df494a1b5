"""`smoothed certify`: certified accuracy of any checkpoint, smoothed with Gaussian noise."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.console import errors, output, progress_bar, speaks
from smoothed.cli.parsing import numbers


def certify(
    model: Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of one.")] = "resnet20-cni-w",
    data: Annotated[
        str, typer.Option(help="sample (1,000 bundled test images), cifar10, cifar100, or the folder of either.")
    ] = "sample",
    split: Annotated[str, typer.Option(help="test, validation (held out of training) or train.")] = "test",
    images: Annotated[int, typer.Option(help="Use the first N images. Each takes more than a thousand draws.")] = 100,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Deviation of the Gaussian input noise, or several: 0.12,0.24. The checkpoint's own if not given."
        ),
    ] = None,
    sigma_units: Annotated[
        str | None,
        typer.Option(help="normalized (the paper's and the default: after division by the data's deviation) or pixel."),
    ] = None,
    radii: Annotated[
        str, typer.Option(help="L2 radii at which to give the certified accuracy, in pixels of [0, 1].")
    ] = "0,0.05,0.1,0.25,0.5,1",
    alpha: Annotated[float, typer.Option(help="Bound of the probability of error, for each image.")] = 0.001,
    selection_samples: Annotated[int, typer.Option(help="Draws that choose a class (n0).")] = 100,
    num_samples: Annotated[
        int, typer.Option(help="Draws that bound its probability (n): more of them, larger radii.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    precision: Annotated[
        str, typer.Option(help="Of the votes: auto (bf16 where the hardware has units for it), float32 or bf16.")
    ] = "float32",
    chunk_size: Annotated[int, typer.Option(help="Images of one forward pass of the vote; bounds memory.")] = 250,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Keep what is done in this folder; after a kill the same command goes on. "
            "Other radii or another alpha are read off the same draws."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
) -> None:
    """Certify images against every change within an L2 radius (Cohen et al., 2019), or abstain.

    Noise inside the network is drawn anew for each vote: the certificate is of the vote over both noises.
    """
    from smoothed.checkpoint import own_sigma
    from smoothed.cli.evaluated import Evaluated
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.certified import CertificationProtocol, evaluate_certified
    from smoothed.report.certified import certified_sentence, certified_table, linf_sentence
    from smoothed.utils.distributed import parting
    from smoothed.utils.files import require_writable, write_json

    if sigma is None and sigma_units is not None:
        raise ArgumentError("sigma_units", "--sigma beside it", "none")
    if json is not None:
        require_writable(json)
    evaluated = Evaluated.load(model, data, split, images, precision, chunk_size, out)
    own, own_units = own_sigma(evaluated.path)
    protocol = CertificationProtocol(
        radii=tuple(numbers(radii, "radii")),
        alpha=alpha,
        selection_samples=selection_samples,
        num_samples=num_samples,
        sigma_units=sigma_units or (own_units if sigma is None else "normalized"),
        seed=seed,
        precision=evaluated.precision,
    )
    with _warnings_in_a_line(), parting(), progress_bar() as bar:
        task = bar.add_task("drawing and counting")
        rows = evaluate_certified(
            evaluated.network,
            evaluated.images,
            protocol,
            sigmas=[own] if sigma is None else numbers(sigma, "sigma"),
            name=evaluated.name,
            out=evaluated.out,
            chunk_size=evaluated.chunk_size,
            processes=evaluated.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not speaks():
        return
    output.print(certified_table(rows))
    for row in rows[:: len(protocol.radii)]:
        output.print(certified_sentence(row))
    output.print(linf_sentence(rows[0]))
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print warnings as the command prints errors, inside the block."""

    def show(message: Warning | str, *where: object) -> None:
        del where
        if speaks():
            errors.print(f"warning: {message}", style="yellow")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
