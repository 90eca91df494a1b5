"""`smoothed paper`: list, run and show the paper's tables and figures."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.cli.console import command_line, invocation, is_main_process, note, progress_bar, show
from smoothed.cli.options import RUN_FOLDER_HELP, RUN_PANEL, TimeLimit, json_option, option, run_option
from smoothed.cli.parsing import names
from smoothed.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress

    from smoothed.paper.plan import PaperStep

SCHEDULE_NAMES = ("full", "cpu", "tiny")
SCHEDULE_HELP = (
    f"How long to train and on how much to evaluate: {names(SCHEDULE_NAMES)}. full is the paper's, for GPUs; cpu is "
    "sized for two cores; tiny takes minutes and only checks that everything runs."
)
LAUNCH_PANEL = "Several processes"
LAUNCHER_NAMES = ("none", "local", "accelerate", "slurm")
LOGGED_EVERY = 60.0
"""Seconds between lines on the progress of a step where the output is no terminal."""


def paper_app(
    wrapped: Callable[[Callable[..., None]], Callable[..., None]], paragraphs: Callable[[str], str]
) -> typer.Typer:
    """The subcommands of `smoothed paper`.

    Args:
        wrapped: function from a command to the function that Typer is given.
        paragraphs: function from a docstring to a help text.
    """
    app = typer.Typer(
        help="Reproduce the paper's tables and figures: list them, run them, show them beside the paper's numbers.",
        no_args_is_help=True,
    )
    for name, command in (("list", list_declarations), ("run", run), ("show", show_results)):
        app.command(name, help=paragraphs(command.__doc__ or ""))(wrapped(command))
    return app


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAMES]...", help="Names from `smoothed paper list`; all of them if none is given.", show_default=False
    ),
]
PaperScheduleName = Annotated[str, run_option(SCHEDULE_HELP)]


def list_declarations(
    schedule: PaperScheduleName = "cpu",
    out: Annotated[Path | None, run_option("Folder of a run: shows how many steps of each are done.")] = None,
    json: Annotated[Path | None, json_option("the list", RUN_PANEL)] = None,
) -> None:
    """List the tables and figures: the networks that each needs, and what it costs on this machine.

    Hours are estimated from a probe of some seconds, for a machine that does nothing else. Votes are counted with all
    draws, although many stop earlier. Networks and results that several need are made once; the last row counts them
    once.

    Examples:
        smoothed paper list
        smoothed paper list --schedule full
        smoothed paper list --out runs/paper
    """
    from rich import box
    from rich.table import Column, Table

    from smoothed.paper.catalog import DECLARATIONS
    from smoothed.paper.cost import probe, step_hours
    from smoothed.paper.folder import RunFolder, existing_folder
    from smoothed.paper.plan import left_out, make_plan
    from smoothed.paper.schedules import PAPER_SCHEDULES
    from smoothed.paper.steps import is_done
    from smoothed.utils.checks import check_choice
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    chosen = PAPER_SCHEDULES[check_choice(schedule, PAPER_SCHEDULES, "schedule")]
    folder = RunFolder(Path("runs"), chosen) if out is None else existing_folder(out)
    times = probe({"resnet20"} if folder.schedule.small_images else folder.schedule.architectures)
    made = Table(
        Column("name", no_wrap=True),
        "networks to train",
        Column("training, h", justify="right"),
        Column("evaluation, h", justify="right"),
        Column("done", justify="right"),
        box=box.SIMPLE_HEAD,
    )
    rows: list[dict[str, Any]] = []
    for name in (*DECLARATIONS, ""):
        steps = make_plan([name] if name else [], folder.schedule)
        trained = [step.network.run_name for step in steps if step.kind == "train" and step.network is not None]
        hours = {
            kind: sum(
                step_hours(step, folder, times) for step in steps if (step.kind == "train") == (kind == "training")
            )
            for kind in ("training", "evaluation")
        }
        done = 0 if out is None else sum(is_done(step, folder) for step in steps)
        missing = left_out(name, folder.schedule) if name else []
        networks = ", ".join(trained) if name else f"{len(trained)} networks"
        networks += f" (not in this schedule: {', '.join(missing)})" if missing else ""
        progress = "" if out is None else f"{done}/{len(steps)}"
        cells = [f"{hours['training']:.1f}", f"{hours['evaluation']:.1f}", progress]
        made.add_row(name or "all", networks, *cells, end_section=name == list(DECLARATIONS)[-1])
        title = DECLARATIONS[name].title if name else "all"
        entry = {"name": name or "all", "title": title, "networks": trained, "left_out": missing}
        rows.append({**entry, "hours": hours, "steps": len(steps), "done": done if out is not None else None})
    show(made)
    for row in rows[:-1]:
        show(f"{row['name']}: {row['title']}")
    if json is not None:
        note(f"list written to {write_json({'schedule': folder.schedule.name, 'declarations': rows}, json)}")


def run(
    out: Annotated[Path, run_option(RUN_FOLDER_HELP)],
    declarations: Names = None,
    schedule: PaperScheduleName = "cpu",
    zoo: Annotated[
        Path, run_option("Folder of finished networks NAME.safetensors, which are not trained again.")
    ] = Path("zoo"),
    time_limit: TimeLimit = None,
    training: Annotated[
        bool,
        run_option("Train missing networks, or only evaluate the finished ones.", show_default="--training"),
    ] = True,
    launcher: Annotated[
        str,
        option(
            LAUNCH_PANEL,
            f"How the steps are run: {names(LAUNCHER_NAMES)}. none: this process. local: processes that each take "
            "steps of their own. accelerate: processes that share each step, one a GPU. slurm: jobs that each take "
            "steps of their own; the command ends when they are submitted.",
        ),
    ] = "none",
    workers: Annotated[
        int, option(LAUNCH_PANEL, "Number of processes or jobs, for all launchers but none.", min=1)
    ] = 2,
    slurm: Annotated[
        str | None,
        option(
            LAUNCH_PANEL, "Options of sbatch for each job: partition=gpu,timeout_min=600.", metavar="NAME=VALUE,..."
        ),
    ] = None,
) -> None:
    """Train the networks that tables and figures need, tune sigma on held-out images, and evaluate on test images.

    Each step is stored when it is done. After Ctrl-C, a kill or the end of --time-limit, the same command goes on. A
    name may also be that of a network, which is then trained. Several such commands may work in one folder at once,
    also on several machines that share it: each takes steps that no other one works at.

    Examples:
        smoothed paper run table-1 --out runs/paper
        smoothed paper run table-1 table-4 figure-1 --schedule full --out runs/full
        smoothed paper run --out runs/paper --time-limit 8h
        smoothed paper run --out runs/paper --no-training
        smoothed paper run --out runs/paper --launcher local --workers 4
        smoothed paper run --out runs/paper --launcher slurm --slurm partition=gpu
    """
    from smoothed.paper.plan import check_names
    from smoothed.paper.run import run_paper
    from smoothed.paper.schedules import PAPER_SCHEDULES
    from smoothed.utils.checks import check_choice
    from smoothed.utils.distributed import Processes, leaving_process_group

    chosen = PAPER_SCHEDULES[check_choice(schedule, PAPER_SCHEDULES, "schedule")]
    check_names(declarations or ())
    settings = _slurm_settings(slurm, check_choice(launcher, LAUNCHER_NAMES, "launcher"))
    if launcher != "none":
        arguments = _worker_arguments(out, declarations or (), schedule, zoo, time_limit, training=training)
        _launch(launcher, arguments, workers, out, settings)
        return
    with leaving_process_group(), closing(_Shown(progress_bar())) as observer:
        outcome = run_paper(
            declarations or (),
            chosen,
            out,
            zoo=zoo,
            time_limit=time_limit,
            observer=observer,
            command=command_line(),
            processes=Processes.started(),
            training=training,
        )
    if not is_main_process():
        raise typer.Exit(1 if outcome.failed else 0)
    if not outcome.total:
        show(
            f"No evaluation is possible with the finished networks in {out} and {zoo}. "
            "Run without --no-training to train the missing ones."
        )
        return
    show(f"{outcome.done} of {outcome.total} steps are done, {outcome.seconds:.0f} s in this call.")
    if outcome.failed:
        show(f"Failed: {', '.join(outcome.failed)}. Steps that wait for them: {len(outcome.waiting)}.")
        raise typer.Exit(1)
    if not outcome.finished:
        show("The same command goes on.")
    show(f"See `smoothed paper show --out {out}`.")


def _slurm_settings(text: str | None, launcher: str) -> dict[str, str | int]:
    """The options of sbatch by name; numbers are integers."""
    if text is None:
        return {}
    if launcher != "slurm":
        raise ArgumentError("slurm", "none without --launcher slurm", repr(text))
    settings: dict[str, str | int] = {}
    for part in text.split(","):
        name, sign, value = part.strip().partition("=")
        if not (name.isidentifier() and sign and value):
            raise ArgumentError("slurm", "NAME=VALUE,...", repr(text))
        settings[name] = int(value) if value.isdecimal() else value
    return settings


def _worker_arguments(
    out: Path, declarations: "Sequence[str]", schedule: str, zoo: Path, time_limit: float | None, *, training: bool
) -> list[str]:
    """Arguments of this program for each worker, which may run in another folder."""
    limit = [] if time_limit is None else ["--time-limit", f"{time_limit:g}s"]
    device = ["--device", invocation().device]
    where = ["--schedule", schedule, "--out", str(out.absolute()), "--zoo", str(zoo.absolute())]
    train = [] if training else ["--no-training"]
    return [*device, "paper", "run", *declarations, *where, *limit, *train]


def _launch(launcher: str, arguments: list[str], workers: int, out: Path, settings: dict[str, str | int]) -> None:
    """Start the workers; wait for them unless they are jobs of a cluster."""
    import subprocess

    from smoothed.paper import launchers

    command = launchers.worker_command(arguments)
    if launcher == "slurm":
        jobs = launchers.submit(command, workers, out / "jobs", settings, SLURM)
        show(f"Jobs: {', '.join(jobs)}. Their output is in {out / 'jobs'}; see `smoothed paper list --out {out}`.")
        return
    if launcher == "accelerate":
        code = subprocess.run(launchers.accelerate_command(command, workers), check=False).returncode  # noqa: S603
        raise typer.Exit(code)
    note(f"{workers} processes work in {out}; their output is in {out / 'logs'}")
    codes = launchers.start_local(command, workers, out / "logs", lambda _: time.sleep(0.2))
    if failed := [str(number) for number, code in enumerate(codes) if code]:
        show(f"Failed: {', '.join(f'worker-{number}' for number in failed)}; see {out / 'logs'}.")
        raise typer.Exit(1)
    show(f"All {workers} processes have ended. See `smoothed paper show --out {out}`.")


SLURM = "slurm"
"""Name of the cluster that jobs are submitted to."""


def show_results(
    out: Annotated[Path, run_option("Folder of a run.")],
    declarations: Names = None,
    pages: Annotated[
        Path | None,
        run_option(
            "Folder for the claims and tables in Markdown and JSON, the figures and the results.",
            show_default="OUT/pages",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        run_option("File for a page of all finished results that opens in a browser: .html.", show_default="none"),
    ] = None,
) -> None:
    """Show tables beside the paper's numbers and which of its claims hold, and write both and the figures to files.

    The cells of rows that have not been run stay empty. Each difference has a 95 % interval, which counts the
    deviations over runs, the published and ours, and our choice of test images. A claim is judged if all tables and
    figures that it needs are named; it is undecided if one of them has not been run.

    Examples:
        smoothed paper show --out runs/paper
        smoothed paper show table-1 figure-1 --out runs/paper --pages docs/results/paper
        smoothed paper show --out runs/paper --report results.html
    """
    from smoothed.cli.results import check_files
    from smoothed.paper.catalog import DECLARATIONS
    from smoothed.paper.declaration import TableSpec
    from smoothed.paper.folder import existing_folder
    from smoothed.paper.pages import appendix_values, write_pages, write_results_page
    from smoothed.paper.show import (
        APPENDIX_NOTE,
        CLAIMS_HOW,
        HOW,
        appendix_tables,
        claims_lines,
        claims_table,
        gain_lines,
        terminal_table,
    )
    from smoothed.paper.shown import comparisons, shown_rows
    from smoothed.paper.verdicts import judge_claims
    from smoothed.utils.checks import check_choice

    chosen = [check_choice(name, DECLARATIONS, "names") for name in declarations or DECLARATIONS]
    check_files(None, report=report)
    folder = existing_folder(out)
    show(f"Schedule {folder.schedule.name}: {folder.schedule.about}. Attack steps and M are those of the schedule.")
    for name in chosen:
        spec = DECLARATIONS[name]
        if isinstance(spec, TableSpec):
            rows = shown_rows(spec, folder)
            if all(row.values is None for row in rows):
                show(f"{name}: not run")
                continue
            show(terminal_table(spec, rows, folder))
            for sentence in gain_lines(comparisons(rows)):
                show(sentence)
        elif name == "appendix-a" and (values := appendix_values(folder)) is not None:
            for part in (*appendix_tables(values), APPENDIX_NOTE):
                show(part)
    show(HOW)
    if claims := judge_claims(folder, chosen):
        for part in (claims_table(claims), CLAIMS_HOW, *claims_lines(claims, folder)):
            show(part)
    page = write_pages(chosen, folder, pages or out / "pages")
    note(f"claims, tables, figures and results written to {page.parent}")
    if report is not None:
        note(f"report written to {write_results_page(chosen, folder, report)}")


class _Shown:
    """Bars in a terminal, from the first step on, and lines elsewhere."""

    def __init__(self, bar: "Progress") -> None:
        self.bar = bar
        self.steps = bar.add_task("steps", total=None)
        self.present = bar.add_task("", total=None, visible=False)
        self.name, self.logged = "", 0.0

    def begin(self, step: "PaperStep", number: int, total: int) -> None:
        """See `RunObserver.begin`."""
        self.name, self.logged = step.name, time.monotonic()
        if self.bar.console.is_terminal:
            self.bar.start()
        self.bar.update(self.steps, completed=number - 1, total=total)
        self.bar.reset(self.present, description=step.name, total=None, visible=True)
        if not self.bar.console.is_terminal:
            note(f"{number}/{total} {step.name}")

    def progress(self, done: int, total: int) -> None:
        """See `RunObserver.progress`."""
        self.bar.update(self.present, completed=done, total=total)
        if not self.bar.console.is_terminal and time.monotonic() - self.logged > LOGGED_EVERY:
            self.logged = time.monotonic()
            note(f"{self.name}: {done}/{total}")

    def note(self, text: str) -> None:
        """See `RunObserver.note`."""
        note(text)

    def close(self) -> None:
        """Take the bars down."""
        if self.bar.live.is_started:
            self.bar.stop()
