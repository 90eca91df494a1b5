"""`smoothed worst-case`: the accuracy that the worst of many adaptive attacks leaves, for one vote fixed beforehand."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from smoothed.cli.console import command_line, is_main_process, note, progress
from smoothed.cli.options import (
    DataOptions,
    LinfEps,
    ModelOptions,
    PrecisionRunOptions,
    Record,
    Runs,
    SmoothingOptions,
    attack_option,
    run_option,
    vote_option,
)

if TYPE_CHECKING:
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.certified import CertificationProtocol
    from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
    from smoothed.smoothing.config import SmoothingConfig


@dataclass(frozen=True)
class SuiteOptions:
    """Strength of the attacks."""

    eps: LinfEps = "8/255"  # pyright: ignore[reportAssignmentType] - parsed by `fraction`
    steps: Annotated[int, attack_option("Gradient steps of each attempt (the paper's k).")] = 100
    restarts: Annotated[int, attack_option("Starts of each gradient attack.")] = 2
    eot_samples: Annotated[
        str,
        attack_option(
            "Draws averaged for each gradient, separated by commas. A sweep chooses the number that attacks best.",
            metavar="LIST",
        ),
    ] = "1,4,16,64"
    sweep_images: Annotated[int, attack_option("Number of images of that sweep, from the first on.")] = 200
    queries: Annotated[
        int,
        attack_option("Candidates of the Square attack for each image, each the mean of --eot-samples answers."),
    ] = 1000
    resubmissions: Annotated[
        str,
        attack_option("How often an attacker may submit the same image (N), separated by commas.", metavar="LIST"),
    ] = "1,10,100"


@dataclass(frozen=True)
class WorstCaseSmoothingOptions(SmoothingOptions):
    """One smoothed classifier, which may abstain."""

    alpha: Annotated[
        float | None,
        vote_option(
            "Let the vote abstain on close decisions (PREDICT), with this upper bound on its error probability.",
            show_default="it never abstains",
        ),
    ] = None


def worst_case(
    model: ModelOptions,
    data: DataOptions,
    attack: SuiteOptions,
    smoothing: WorstCaseSmoothingOptions,
    run: PrecisionRunOptions,
    certify: Annotated[
        bool,
        run_option(
            "Certify the same images within L2 radii, too. Needs Gaussian noise and the prediction vote.", "--certify"
        ),
    ] = False,
    runs: Runs = 1,
    record: Record = False,
) -> None:
    """Attack one vote and its mean network with many adaptive attacks, and report what fresh votes still get right.

    For each image the worst example of all attacks counts. Sigma and M must have been chosen on other images:
    by `smoothed sweep`, or in a checkpoint by `smoothed evaluate --split validation --tune`.

    Examples:
        smoothed worst-case --images 100 --out worst-case
        smoothed worst-case --model mine:network --sigma 0.1 --images 50
    """
    from smoothed.api.worst_case import worst_case as measure
    from smoothed.checkpoint import update_header
    from smoothed.cli.inputs import CommandInputs, require_own_checkpoint
    from smoothed.cli.parsing import integers
    from smoothed.cli.results import check_files, show_result
    from smoothed.evaluation.worst_case.certified import certification_protocol
    from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
    from smoothed.utils.distributed import leaving_process_group

    if record:
        require_own_checkpoint(model.model)
    check_files(run.json, report=run.report)
    options: dict[str, Any] = {
        "alpha": smoothing.alpha,
        "eps": attack.eps,
        "steps": attack.steps,
        "restarts": attack.restarts,
        "eot_samples": tuple(integers(attack.eot_samples, "eot-samples")),
        "sweep_images": attack.sweep_images,
        "queries": attack.queries,
        "resubmissions": tuple(integers(attack.resubmissions, "resubmissions")),
        "runs": runs,
        "seed": run.seed,
    }
    inputs = CommandInputs.load(model, data)
    config = fixed_beforehand(inputs, smoothing)
    protocol = WorstCaseProtocol(config, **options)
    certification = certification_protocol(inputs.network, inputs.images, protocol) if certify else None
    told = [forecast(protocol, len(inputs.images), len(inputs.images.classes), certification)]
    with leaving_process_group(), progress("passes (a backward pass counts as two)") as show_progress:

        def on_progress(done: int, total: int) -> None:
            while told:  # once the work begins, so that an error before it stands alone
                note(told.pop())
            show_progress(done, total)

        result = measure(
            inputs.classifier(config),
            inputs.images,
            **options,
            certified=certify,
            name=inputs.name,
            precision=run.precision,
            chunk_size=run.chunk_size,
            out=run.out,
            processes=inputs.processes,
            on_progress=on_progress,
            command=command_line(),
        )
    if not is_main_process():
        return
    show_result(result, run.json, report=run.report)
    if record:
        entry = {"data": result.data["name"], "setting": result.setting, "rows": result.rows, **result.summary}
        update_header(inputs.own_checkpoint, worst_case=entry)


def forecast(
    protocol: "WorstCaseProtocol",
    images: int,
    num_classes: int,
    certification: "CertificationProtocol | None" = None,
) -> str:
    """The largest cost of the evaluation, in a sentence."""
    from smoothed.evaluation.worst_case.suite import total_cost

    def passes(draws: int) -> str:
        swept = [number for number in protocol.eot_samples if number <= draws]
        cost = total_cost(protocol, images, num_classes, draws, swept)
        number = "1 draw" if draws == 1 else f"{draws} draws"
        return f"{cost.forward:,} forward and {cost.backward:,} backward passes with {number} a gradient"

    ends = dict.fromkeys((protocol.eot_samples[0], protocol.eot_samples[-1]))
    told = f"Cost: at most {', and '.join(map(passes, ends))}; images that break early save some of it"
    if certification is None:
        return told
    return f"{told}; {images * certification.draws:,} forward passes to certify"


def fixed_beforehand(inputs: "CommandInputs", options: SmoothingOptions) -> "SmoothingConfig":
    """Noise, vote and M as given, or as they were chosen for the checkpoint on other images.

    Raises:
        ArgumentError: no noise was chosen, or it was chosen on the images that are to be attacked.
    """
    from smoothed.cli.inputs import no_sigma
    from smoothed.errors import ArgumentError
    from smoothed.utils.imports import is_object_name

    is_own_noise = options.noise is not None and is_object_name(options.noise)
    if options.sigma is None and options.sigma_normalized is None and not is_own_noise:
        if not inputs.smoothing_card:
            raise no_sigma(inputs.name)
        if inputs.smoothing_card.get("chosen_on") == inputs.images.name:
            raise ArgumentError("split", "other images than those that sigma was chosen on", inputs.images.name)
    config = inputs.smoothing(options)
    assert config is not None  # noqa: S101 - there is noise, or an error above
    return config
