"""The part of `smoothed evaluate` that attacks: one attack, every vote, every M."""

from pathlib import Path

from smoothed.attacks.query_based.queries import Sees
from smoothed.checkpoint import update_header
from smoothed.cli.console import errors, is_main_process, output, progress_bar
from smoothed.cli.inputs import CommandInputs
from smoothed.cli.options import settled_noises
from smoothed.cli.parsing import choices, integers
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, evaluate
from smoothed.evaluation.paper_protocol.rows import choose_sigma, smoothing_card
from smoothed.report.format import format_sigma
from smoothed.report.table import rows_table
from smoothed.smoothing.votes import VOTES
from smoothed.utils.distributed import leaving_process_group
from smoothed.utils.files import write_json


def evaluate_paper(
    model: str,
    *,
    data: str,
    split: str,
    images: int | None,
    attack: str,
    eps: float,
    norm: str,
    steps: int,
    eot_samples: int,
    max_queries: int,
    sees: Sees,
    source: list[str] | None,
    law: str,
    sigma: str | None,
    sigma_normalized: str | None,
    votes: str,
    num_samples: str,
    runs: int,
    seed: int,
    precision: str,
    chunk_size: int,
    out: Path | None,
    tune: bool,
    record: bool,
    json: Path | None,
) -> None:
    """Measure, print a table, and write what was asked for. The arguments are the options of the command."""
    inputs = CommandInputs.load(model, data, split, images, precision, chunk_size, out)
    protocol = PaperProtocol(
        attack=attack,
        eps=eps,
        norm=norm,
        steps=steps,
        eot_samples=eot_samples,
        max_queries=max_queries,
        sees=sees,
        votes=choices(votes, "votes", VOTES),
        num_samples=tuple(integers(num_samples, "num-samples")),
        runs=runs,
        seed=seed,
        precision=inputs.precision,
    )
    noises = settled_noises(sigma, sigma_normalized, law, inputs.noise)
    sources = inputs.load_sources(source)
    protocol.build_attack(tuple(sources.values()))  # raises on a wrong option before the progress bar starts
    with leaving_process_group(), progress_bar() as bar:
        task = bar.add_task("attacking and voting")
        rows = evaluate(
            inputs.network,
            inputs.images,
            protocol,
            noises=noises,
            name=inputs.name,
            sources=sources,
            out=inputs.out,
            chunk_size=inputs.chunk_size,
            processes=inputs.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not is_main_process():
        return
    output.print(rows_table(rows))
    if tune:
        chosen = choose_sigma(rows, protocol.votes[0])
        card = smoothing_card(chosen, rows, inputs.images.name)
        if sigma is not None:
            card["sigma_normalized"] = None  # it differs between channels: the mean would give other noise
        update_header(inputs.path, smoothing=card)
        output.print(f"The checkpoint now stores {format_sigma(chosen.sigma, chosen.sigma_normalized)}.")
    if record:
        update_header(inputs.path, results=[row.to_json() for row in rows])
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")
