"""`smoothed evaluate`: clean and attacked accuracy under one attack, for every vote at every M."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.cli.console import command_line, is_main_process, progress, show
from smoothed.cli.options import (
    ATTACK_PANEL,
    DEFAULT_MODEL,
    MODEL_HELP,
    MODEL_PANEL,
    NOISE_HELP,
    SEVERAL_NUM_SAMPLES_HELP,
    SIGMAS_HELP,
    STORED,
    VOTES_HELP,
    DataOptions,
    ModelOptions,
    NoisesOptions,
    OneAttackOptions,
    Plot,
    PrecisionRunOptions,
    Record,
    Runs,
    SmoothingOptions,
    option,
    vote_option,
)
from smoothed.errors import ArgumentError

if TYPE_CHECKING:
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.results import Result
    from smoothed.smoothing.config import NoiseConfig

EXAMPLES_PANEL = "Saved adversarial examples"

DEFAULT_NUM_SAMPLES_LIST = "1,8,64"
OF_ATTACK = "with --examples: as in the attack"


@dataclass(frozen=True)
class EvaluatedModelOptions(ModelOptions):
    """The network, which with `--examples` is the attacked one."""

    model: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        str | None,
        option(
            MODEL_PANEL,
            MODEL_HELP,
            show_default=f"{DEFAULT_MODEL}; with --examples: the attacked one, with its weights",
        ),
    ] = None


@dataclass(frozen=True)
class EvaluatedSmoothingOptions(NoisesOptions):
    """Smoothed classifiers, read off the same draws."""

    noise: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        str | None, vote_option(NOISE_HELP, show_default=f"{STORED}, or gaussian; {OF_ATTACK}")
    ] = None
    sigma: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        str | None, vote_option(SIGMAS_HELP, metavar="LIST", show_default=f"{STORED}; {OF_ATTACK}")
    ] = None
    votes: Annotated[
        str | None,
        vote_option(VOTES_HELP, metavar="LIST", show_default=f"all; {OF_ATTACK}"),
    ] = None
    num_samples: Annotated[
        str | None,
        vote_option(
            SEVERAL_NUM_SAMPLES_HELP,
            metavar="LIST",
            show_default=f"{DEFAULT_NUM_SAMPLES_LIST}; {OF_ATTACK}",
        ),
    ] = None
    tune: Annotated[
        bool,
        vote_option(
            "Store in the checkpoint the sigma with the best robust accuracy of the first vote at the largest M. Needs "
            "--split validation and the path of a checkpoint; for other networks, see `smoothed sweep`.",
            "--tune",
        ),
    ] = False


def evaluate(
    context: typer.Context,
    model: EvaluatedModelOptions,
    data: DataOptions,
    attack: OneAttackOptions,
    smoothing: EvaluatedSmoothingOptions,
    run: PrecisionRunOptions,
    examples: Annotated[
        Path | None,
        option(
            EXAMPLES_PANEL,
            "File written by `smoothed attack`. Its examples receive fresh votes, in place of an attack. Noise, vote "
            "and M are those of the attack where they are not given.",
        ),
    ] = None,
    votes_per_image: Annotated[
        int,
        option(EXAMPLES_PANEL, "Fresh votes on each image, clean and adversarial. The accuracy is their mean."),
    ] = 1,
    runs: Runs = 1,
    record: Record = False,
    plot: Plot = None,
) -> None:
    """Measure clean and attacked accuracy of one draw and of every vote, as the paper does.

    The attacker knows the whole network and sees one fresh draw of all noise at each gradient; an EOT attack averages
    --eot-samples of them. Votes use draws that the attack has not seen. `smoothed worst-case` attacks harder.

    Examples:
        smoothed evaluate --sigma 0,0.03,0.06 --images 500
        smoothed evaluate --model mine:network --data mine:images --sigma 0.1
    """
    from smoothed.api.evaluate_examples import check_examples_file
    from smoothed.cli.inputs import require_own_checkpoint
    from smoothed.cli.results import check_files, show_result

    _refuse_ignored_options(context, examples)
    if smoothing.tune and data.split != "validation":
        raise ArgumentError("tune", "--split validation", f"--split {data.split}")
    if smoothing.tune or record:
        require_own_checkpoint(model.model or DEFAULT_MODEL)
    attack.check()
    check_files(run.json, plot, run.report)
    if examples is not None:
        check_examples_file(examples)
        result = _evaluate_examples(examples, model, data, smoothing, run, votes_per_image)
        show_result(result, run.json, report=run.report)
        return
    inputs, noises, result = _evaluate_attack(model, data, attack, smoothing, run, runs, plot)
    if not is_main_process():
        return
    show_result(result, run.json, plot, run.report)
    if smoothing.tune:
        _store_sigma(inputs, noises, result)
    if record:
        from smoothed.checkpoint import update_header

        update_header(inputs.own_checkpoint, results=result.rows)


def _evaluate_attack(
    model: ModelOptions,
    data: DataOptions,
    attack: OneAttackOptions,
    smoothing: EvaluatedSmoothingOptions,
    run: PrecisionRunOptions,
    runs: int,
    plot: Path | None,
) -> "tuple[CommandInputs, list[NoiseConfig], Result]":
    """The inputs, the noises, and the result under one attack."""
    from smoothed.api.evaluate import evaluate as measure
    from smoothed.cli.inputs import CommandInputs, no_sigma
    from smoothed.cli.own import own_votes
    from smoothed.cli.parsing import choices, integers
    from smoothed.smoothing.votes import VOTES
    from smoothed.utils.distributed import leaving_process_group

    votes = choices(smoothing.votes or "all", "votes", VOTES)
    counts = integers(smoothing.num_samples or DEFAULT_NUM_SAMPLES_LIST, "num-samples")
    sigmas = _listed_sigmas(smoothing)
    if plot is not None and max(len(values or ()) for values in sigmas) > 1:
        raise ArgumentError("plot", "one sigma beside it", "several", "`smoothed sweep` plots accuracy against sigma")
    inputs = CommandInputs.load(_with_model(model, model.model or DEFAULT_MODEL), data)
    noises = inputs.noises(smoothing.noise, *sigmas)
    if not noises and (smoothing.votes or smoothing.num_samples):
        raise no_sigma(inputs.name)
    if smoothing.tune:
        _require_storable(noises)
    arguments: dict[str, Any] = {} if not noises else {"votes": own_votes(votes), "num_samples": counts}
    with leaving_process_group(), progress("attacking and voting") as on_progress:
        result = measure(
            inputs.network,
            inputs.images,
            **inputs.attack(attack),
            **arguments,
            noises=noises,
            name=inputs.name,
            runs=runs,
            seed=run.seed,
            precision=run.precision,
            chunk_size=run.chunk_size,
            out=run.out,
            processes=inputs.processes,
            on_progress=on_progress,
            command=command_line(),
        )
    return inputs, noises, result


def _evaluate_examples(
    examples: Path,
    model: ModelOptions,
    data: DataOptions,
    smoothing: EvaluatedSmoothingOptions,
    run: PrecisionRunOptions,
    votes_per_image: int,
) -> "Result":
    """The result on saved examples."""
    from dataclasses import replace

    from smoothed.api.evaluate_examples import evaluate_examples
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.saved_examples.load import attack_record
    from smoothed.utils.checks import check_positive

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ArgumentError("processes", "one with --examples", f"{os.environ['WORLD_SIZE']} processes")
    check_positive(votes_per_image, "votes_per_image")
    record = attack_record(examples)
    if model.model is None:
        _require_loadable(record)
    inputs = CommandInputs.load(_with_model(model, model.model or record["model"]), replace(data, images=None))
    if model.model is None:
        _require_attacked(inputs, record)
    config = inputs.smoothing(_smoothing_of_attack(smoothing, record, inputs))
    with progress("voting") as on_progress:
        return evaluate_examples(
            inputs.classifier(config),
            examples,
            inputs.images,
            votes_per_image=votes_per_image,
            images=data.images,
            name=inputs.name,
            seed=run.seed,
            precision=run.precision,
            chunk_size=run.chunk_size,
            out=run.out,
            on_progress=on_progress,
            command=command_line(),
        )


def _require_loadable(record: dict[str, Any]) -> None:
    """Raise `ArgumentError` unless the attacked network is a checkpoint; a file names no code to be run."""
    from smoothed.api.load import checkpoint_path
    from smoothed.utils.imports import is_object_name

    name = record["model"]
    if is_object_name(name) or checkpoint_path(name) is None:
        expected = f"--model, because the attacked network {name} is no checkpoint"
        raise ArgumentError("model", expected, "none", _as_in_the_attack(record))


def _require_attacked(inputs: "CommandInputs", record: dict[str, Any]) -> None:
    """Raise `ArgumentError` unless the network has the weights of the attacked one."""
    from smoothed.evaluation.resume import fingerprint

    if fingerprint(inputs.network.state_dict()) != record["weights"]:
        expected = f"the attacked network {record['model']}"
        raise ArgumentError("model", expected, "one with other weights", _as_in_the_attack(record))


def _as_in_the_attack(record: dict[str, Any]) -> str:
    return f"give --model with its --weights and --normalize as in: {record.get('command', 'the attack')}"


def _smoothing_of_attack(
    options: EvaluatedSmoothingOptions, record: dict[str, Any], inputs: "CommandInputs"
) -> SmoothingOptions:
    """The noise, the vote and the M that were given, else those of the attack."""
    from smoothed.cli.parsing import choices, integers
    from smoothed.smoothing.config import NoiseConfig
    from smoothed.smoothing.input_noise import NOISES
    from smoothed.smoothing.votes import VOTES

    def recorded(argument: str, name: str, known: Iterable[str]) -> str:
        if name not in known:  # a file names no code to be run
            expected = f"--{argument}, because the attack had {name}, which is no name of this package"
            raise ArgumentError(argument, expected, "none")
        return name

    sigmas, sigmas_normalized = _listed_sigmas(options)
    sigma, normalized = _single(sigmas, "sigma"), _single(sigmas_normalized, "sigma-normalized")
    law = options.noise or recorded("noise", record["noise"], NOISES)
    if sigma is None and normalized is None and law in NOISES and record["sigma"] is not None:
        stored = NoiseConfig.from_record({**record, "noise": law}, inputs.network)
        sigma, normalized = stored.sigma, stored.sigma_normalized
    votes = options.votes or recorded("votes", record.get("vote", "prediction"), VOTES)
    counts = [record.get("num_samples", 1)]
    if options.num_samples is not None:
        counts = integers(options.num_samples, "num-samples")
    vote = _single(choices(votes, "votes", VOTES), "votes")
    return SmoothingOptions(law, sigma, normalized, vote, _single(counts, "num-samples"))


def _with_model(model: ModelOptions, name: str) -> ModelOptions:
    return ModelOptions(name, model.model_args, model.weights, model.normalize, model.outputs)


def _listed_sigmas(options: NoisesOptions) -> tuple[list[float] | None, list[float] | None]:
    from smoothed.cli.parsing import numbers

    sigma, normalized = options.sigma, options.sigma_normalized
    return (
        None if sigma is None else numbers(sigma, "sigma"),
        None if normalized is None else numbers(normalized, "sigma-normalized"),
    )


def _single(values: Any, argument: str) -> Any:  # noqa: ANN401 - a list of any kind
    """The only value of a list; None for None."""
    if values is None:
        return None
    if len(values) != 1:
        raise ArgumentError(argument, "one value with --examples", len(values))
    return values[0]


def _require_storable(noises: "list[NoiseConfig]") -> None:
    if not noises or any(noise.custom is not None for noise in noises):
        raise ArgumentError("tune", "noise of this package, which a checkpoint can store", "none of it")


def _store_sigma(inputs: "CommandInputs", noises: "list[NoiseConfig]", result: "Result") -> None:
    """Store the best sigma in the checkpoint."""
    from smoothed.checkpoint import update_header
    from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row, choose_sigma, smoothing_card
    from smoothed.report.format import format_sigma

    rows = [Row.from_json(row) for row in result.rows]
    vote = next(row.vote for row in rows if row.vote != ONE_DRAW)
    chosen = choose_sigma(rows, vote)
    card = smoothing_card(chosen, rows, inputs.images.name)
    if noises[0].sigma is not None:
        card["sigma_normalized"] = None  # it differs between channels: the mean would give other noise
    update_header(inputs.own_checkpoint, smoothing=card)
    show(f"The checkpoint now stores {format_sigma(chosen.sigma, chosen.sigma_normalized)}.")


def _refuse_ignored_options(context: typer.Context, examples: Path | None) -> None:
    """Raise `ArgumentError` on an option that has no effect with, or without, `--examples`."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        of_attack = getattr(parameter, "rich_help_panel", None) == ATTACK_PANEL
        if examples is not None and (of_attack or parameter.name in {"tune", "record", "runs", "plot"}):
            raise ArgumentError(str(parameter.name), "no such option with --examples", "an option of the attack")
        if examples is None and parameter.name == "votes_per_image":
            raise ArgumentError("votes_per_image", "--examples beside it", "none")
