"""`smoothed evaluate --protocol paper`: one attack, every vote, every M."""

from collections.abc import Sequence
from pathlib import Path

from smoothed.attacks.query_based.queries import Sees
from smoothed.checkpoint import load, own_sigma, update_header
from smoothed.cli.console import errors, output, progress_bar, speaks
from smoothed.cli.evaluated import Evaluated
from smoothed.cli.parsing import integers, numbers
from smoothed.evaluation.paper_protocol.evaluate import Protocol, evaluate
from smoothed.evaluation.paper_protocol.tune import choose_sigma, smoothing_card
from smoothed.report.table import rows_table
from smoothed.utils.distributed import parting
from smoothed.utils.files import write_json


def evaluate_paper(
    evaluated: Evaluated,
    *,
    attack: str,
    eps: float,
    norm: str,
    steps: int,
    attack_samples: int,
    max_queries: int,
    sees: Sees,
    source: Sequence[str],
    noise: str,
    sigma: str | None,
    sigma_units: str | None,
    votes: str,
    num_samples: str,
    runs: int,
    seed: int,
    tune: bool,
    record: bool,
    json: Path | None,
) -> None:
    """Measure, print a table, and write what was asked for; the options are those of the command."""
    chosen_sigma, chosen_units = own_sigma(evaluated.path)
    protocol = Protocol(
        attack=attack,
        eps=eps,
        norm=norm,
        steps=steps,
        attack_samples=attack_samples,
        max_queries=max_queries,
        sees=sees,
        votes=tuple(votes.split(",")),
        num_samples=tuple(integers(num_samples, "num-samples")),
        noise=noise,
        sigma_units=sigma_units or (chosen_units if sigma is None else "normalized"),
        runs=runs,
        seed=seed,
        precision=evaluated.precision,
    )
    sources = {name: load(name, device=evaluated.images.labels.device) for name in source}
    protocol.settled_attack(tuple(sources.values()))  # what it refuses, it refuses before there is a bar
    with parting(), progress_bar() as bar:
        task = bar.add_task("attacking and voting")
        rows = evaluate(
            evaluated.network,
            evaluated.images,
            protocol,
            sigmas=[chosen_sigma] if sigma is None else numbers(sigma, "sigma"),
            name=evaluated.name,
            sources=sources,
            out=evaluated.out,
            chunk_size=evaluated.chunk_size,
            processes=evaluated.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not speaks():
        return
    output.print(rows_table(rows))
    if tune:
        chosen = choose_sigma(rows, protocol.votes[0])
        update_header(evaluated.path, smoothing=smoothing_card(chosen, rows, evaluated.images.name))
        output.print(f"sigma {chosen.sigma:g} ({chosen.sigma_units}) is now the checkpoint's own")
    if record:
        update_header(evaluated.path, results=[row.to_json() for row in rows])
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")
