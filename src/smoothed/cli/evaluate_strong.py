"""`smoothed evaluate --protocol strong`: the worst of many attacks on one vote, fixed beforehand."""

from pathlib import Path
from typing import Any

from smoothed.checkpoint import own_sigma, update_header
from smoothed.cli.console import errors, output, progress_bar, speaks
from smoothed.cli.evaluated import Evaluated
from smoothed.cli.parsing import integers, numbers
from smoothed.errors import ArgumentError
from smoothed.evaluation.certified import CertificationProtocol, CertifiedRow
from smoothed.evaluation.worst_case.certified import certification_of, certify_strong
from smoothed.evaluation.worst_case.cost import total_cost
from smoothed.evaluation.worst_case.evaluate import StrongResult
from smoothed.evaluation.worst_case.evaluate import evaluate_strong as measure
from smoothed.evaluation.worst_case.protocol import StrongProtocol
from smoothed.report.certified import certified_sentence, linf_sentence
from smoothed.report.table import strong_table, sweep_sentence
from smoothed.report.worst_case_certified import add_certified
from smoothed.utils.distributed import parting
from smoothed.utils.files import write_json

DEFAULT_NUM_SAMPLES = 64
"""The M of `Smoothed`, for a checkpoint that says none: fixed before any image was attacked."""


def evaluate_strong(
    evaluated: Evaluated,
    *,
    eps: float,
    steps: int,
    noise: str,
    sigma: str | None,
    sigma_units: str | None,
    vote: str | None,
    num_samples: str | None,
    draws: str,
    sweep_images: int,
    restarts: int,
    queries: int,
    resubmissions: str,
    alpha: float | None,
    runs: int,
    seed: int,
    record: bool,
    json: Path | None,
    certify: bool = False,
) -> None:
    """Measure, print a table, and write what was asked for; the options are those of the command."""
    protocol = StrongProtocol(
        **fixed_beforehand(evaluated, sigma, sigma_units, vote, num_samples),
        noise=noise,
        alpha=alpha,
        eps=eps,
        steps=steps,
        restarts=restarts,
        draws=tuple(integers(draws, "draws")),
        sweep_images=sweep_images,
        queries=queries,
        resubmissions=tuple(integers(resubmissions, "resubmissions")),
        runs=runs,
        seed=seed,
        precision=evaluated.precision,
    )
    certification = certification_of(evaluated.network, evaluated.images, protocol) if certify else None
    if speaks():
        errors.print(forecast(protocol, len(evaluated.images), len(evaluated.images.classes), certification))
    with parting():
        result, certified = _measure(evaluated, protocol, certification)
    if not speaks():
        return
    table = strong_table(result.rows)
    output.print(add_certified(table, certified) if certified else table)
    if result.sweep:
        output.print(sweep_sentence(result.sweep))
    if certified:
        output.print(certified_sentence(certified[0]))
        output.print(linf_sentence(certified[0], eps))
    written = {"data": evaluated.images.name, **result.to_json()}
    if certified:
        written["certified"] = [row.to_json() for row in certified]
    if record:
        update_header(evaluated.path, strong=written)
    if json is not None:
        errors.print(f"rows written to {write_json({'protocol': 'strong', **written}, json)}")


def _measure(
    evaluated: Evaluated, protocol: StrongProtocol, certification: CertificationProtocol | None
) -> tuple[StrongResult, list[CertifiedRow]]:
    """What attacks leave, and what is certified, with a bar for each."""
    with progress_bar() as bar:
        task = bar.add_task("passes")
        result = measure(
            evaluated.network,
            evaluated.images,
            protocol,
            name=evaluated.name,
            out=evaluated.out,
            chunk_size=evaluated.chunk_size,
            processes=evaluated.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if certification is None:
        return result, []
    with progress_bar() as bar:
        task = bar.add_task("certifying")
        certified = certify_strong(
            evaluated.network,
            evaluated.images,
            protocol,
            certification,
            name=evaluated.name,
            out=evaluated.out,
            chunk_size=evaluated.chunk_size,
            processes=evaluated.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return result, certified


def forecast(
    protocol: StrongProtocol, images: int, num_classes: int, certification: CertificationProtocol | None = None
) -> str:
    """What it will cost, in a sentence."""

    def passes(draws: int) -> str:
        swept = [number for number in protocol.draws if number <= draws]
        cost = total_cost(protocol, images, num_classes, draws, swept)
        return f"{cost.forward:,} forward and {cost.backward:,} backward passes with {draws}"

    ends = dict.fromkeys((protocol.draws[0], protocol.draws[-1]))
    told = f"at most {', and '.join(map(passes, ends))} draws a gradient, each of one image; fewer as images break"
    if certification is None:
        return told
    return f"{told}; {images * certification.draws:,} forward passes to certify"


def fixed_beforehand(
    evaluated: Evaluated, sigma: str | None, sigma_units: str | None, vote: str | None, num_samples: str | None
) -> dict[str, Any]:
    """Sigma, its units, the vote and M: as given, or as they were chosen for the checkpoint on other images."""
    card = evaluated.header.get("smoothing") or {}
    if sigma is not None:
        fixed = {"sigma": _one(numbers(sigma, "sigma"), "sigma"), "sigma_units": sigma_units or "normalized"}
    elif not card:
        raise ArgumentError(
            "sigma",
            "a deviation that was fixed beforehand",
            "none in the checkpoint and no --sigma",
            "choose it with `smoothed evaluate --split validation --tune`",
        )
    elif card.get("chosen_on") == evaluated.images.name:
        raise ArgumentError("split", "other images than those that sigma was chosen on", evaluated.images.name)
    else:
        own, units = own_sigma(evaluated.path)
        fixed = {"sigma": own, "sigma_units": units}
    own_count = card.get("num_samples", DEFAULT_NUM_SAMPLES)
    count = own_count if num_samples is None else _one(integers(num_samples, "num-samples"), "num-samples")
    return {**fixed, "num_samples": count, "vote": vote or card.get("vote", "prediction")}


def _one(values: list[Any], option: str) -> Any:  # noqa: ANN401 - a number of either kind
    if len(values) != 1:
        raise ArgumentError(option, "one value with --protocol strong", f"{len(values)}", "fix it beforehand")
    return values[0]
