"""`smoothed worst-case`: the accuracy that the worst of many adaptive attacks leaves, for one vote fixed beforehand."""

from typing import TYPE_CHECKING, Annotated, Any

from smoothed.cli import options
from smoothed.cli.options import DEFAULT_MODEL, attack_option, run_option, vote_option
from smoothed.cli.parsing import names
from smoothed.smoothing.votes import VOTES

if TYPE_CHECKING:
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.certified import CertificationProtocol, CertifiedRow
    from smoothed.evaluation.worst_case.evaluate import WorstCaseResult
    from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
    from smoothed.smoothing.config import SmoothingConfig

DEFAULT_NUM_SAMPLES = 64
"""M for a checkpoint that stores none: the default of `Smoothed`."""


def worst_case(
    model: options.Model = DEFAULT_MODEL,
    data: options.Data = "sample",
    split: options.Split = "test",
    images: options.Images = None,
    eps: options.Eps = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    steps: options.Steps = 100,
    restarts: Annotated[int, attack_option(help="Starts of each gradient attack.")] = 2,
    eot_samples: Annotated[
        str,
        attack_option(
            help="Draws averaged for each gradient, separated by commas. A sweep chooses the number that attacks best."
        ),
    ] = "1,4,16,64",
    sweep_images: Annotated[int, attack_option(help="Number of images of that sweep, from the first on.")] = 200,
    queries: Annotated[
        int,
        attack_option(help="Candidates of the Square attack for each image, each the mean of --eot-samples answers."),
    ] = 1000,
    resubmissions: Annotated[
        str, attack_option(help="How often an attacker may submit the same image (N), separated by commas.")
    ] = "1,10,100",
    noise: options.Noise = "gaussian",
    sigma: options.Sigma = None,
    sigma_normalized: options.SigmaNormalized = None,
    vote: Annotated[
        str | None,
        vote_option(help=f"Vote of the smoothed classifier: {names(VOTES)}.", show_default="the checkpoint's own"),
    ] = None,
    num_samples: Annotated[
        int | None,
        vote_option(help="Draws of each vote (the paper's M).", show_default="the checkpoint's own, or 64"),
    ] = None,
    alpha: Annotated[
        float | None,
        vote_option(
            help="Let the vote abstain (PREDICT): bound of its error probability.", show_default="it never abstains"
        ),
    ] = None,
    certify: Annotated[
        bool,
        run_option(
            "--certify",
            help="Certify the same images within L2 radii, too. Needs Gaussian noise and the prediction vote.",
        ),
    ] = False,
    runs: options.Runs = 1,
    seed: options.Seed = 0,
    precision: options.Precision = "float32",
    chunk_size: options.ChunkSize = 250,
    out: options.Out = None,
    record: Annotated[bool, run_option("--record", help="Store the result in the checkpoint's header, too.")] = False,
    json: options.Json = None,
) -> None:
    """Attack one vote and its mean network with many adaptive attacks, and report what fresh votes still get right.

    For each image the worst example of all attacks counts. Sigma and M must have been chosen on other images, by
    `smoothed evaluate --split validation --tune` or by you.

    Example: smoothed worst-case --images 100 --out worst-case
    """
    from smoothed.checkpoint import bundled, update_header
    from smoothed.cli.console import errors, is_main_process, output
    from smoothed.cli.inputs import CommandInputs
    from smoothed.cli.parsing import integers
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.worst_case.certified import certification_protocol
    from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
    from smoothed.report.certified import certified_sentence, linf_sentence
    from smoothed.report.table import eot_sweep_sentence, worst_case_table
    from smoothed.report.worst_case_certified import add_certified
    from smoothed.utils.distributed import leaving_process_group
    from smoothed.utils.files import require_writable, write_json

    if record and model in bundled():
        raise ArgumentError("model", "the path of a checkpoint of your own to write to", model)
    if json is not None:
        require_writable(json)
    inputs = CommandInputs.load(model, data, split, images, precision, chunk_size, out)
    protocol = WorstCaseProtocol(
        fixed_beforehand(inputs, noise, sigma, sigma_normalized, vote, num_samples),
        alpha=alpha,
        eps=eps,
        steps=steps,
        restarts=restarts,
        eot_samples=tuple(integers(eot_samples, "eot-samples")),
        sweep_images=sweep_images,
        queries=queries,
        resubmissions=tuple(integers(resubmissions, "resubmissions")),
        runs=runs,
        seed=seed,
        precision=inputs.precision,
    )
    certification = certification_protocol(inputs.network, inputs.images, protocol) if certify else None
    if is_main_process():
        errors.print(forecast(protocol, len(inputs.images), len(inputs.images.classes), certification))
    with leaving_process_group():
        result, certified = _measure(inputs, protocol, certification)
    if not is_main_process():
        return
    table = worst_case_table(result.rows)
    output.print(add_certified(table, certified) if certified else table)
    if result.sweep:
        output.print(eot_sweep_sentence(result.sweep))
    if certified:
        output.print(certified_sentence(certified[0]))
        output.print(linf_sentence(certified[0], eps))
    written = {"data": inputs.images.name, **result.to_json()}
    if certified:
        written["certified"] = [row.to_json() for row in certified]
    if record:
        update_header(inputs.path, worst_case=written)
    if json is not None:
        errors.print(f"rows written to {write_json({'protocol': 'worst-case', **written}, json)}")


def _measure(
    inputs: "CommandInputs", protocol: "WorstCaseProtocol", certification: "CertificationProtocol | None"
) -> "tuple[WorstCaseResult, list[CertifiedRow]]":
    """The result of the attacks and the certified rows, with a progress bar for each."""
    from smoothed.cli.console import progress_bar
    from smoothed.evaluation.worst_case.certified import certify_worst_case
    from smoothed.evaluation.worst_case.evaluate import evaluate_worst_case

    common: dict[str, Any] = {
        "name": inputs.name,
        "out": inputs.out,
        "chunk_size": inputs.chunk_size,
        "processes": inputs.processes,
    }
    with progress_bar() as bar:
        task = bar.add_task("forward passes")
        result = evaluate_worst_case(
            inputs.network,
            inputs.images,
            protocol,
            **common,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if certification is None:
        return result, []
    with progress_bar() as bar:
        task = bar.add_task("certifying")
        certified = certify_worst_case(
            inputs.network,
            inputs.images,
            protocol,
            certification,
            **common,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return result, certified


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
        return f"{cost.forward:,} forward and {cost.backward:,} backward passes with {draws}"

    ends = dict.fromkeys((protocol.eot_samples[0], protocol.eot_samples[-1]))
    told = f"Cost: at most {', and '.join(map(passes, ends))} draws a gradient; images that break early save some of it"
    if certification is None:
        return told
    return f"{told}; {images * certification.draws:,} forward passes to certify"


def fixed_beforehand(
    inputs: "CommandInputs",
    law: str,
    sigma: float | None,
    sigma_normalized: float | None,
    vote: str | None,
    num_samples: int | None,
) -> "SmoothingConfig":
    """Noise, vote and M as given, or as they were chosen for the checkpoint on other images.

    Raises:
        ArgumentError: no sigma was chosen, or it was chosen on the images that are to be attacked.
    """
    from smoothed.cli.options import settled_noise
    from smoothed.errors import ArgumentError
    from smoothed.smoothing.config import SmoothingConfig

    card = inputs.header.get("smoothing") or {}
    if sigma is None and sigma_normalized is None:
        if not card:
            raise ArgumentError(
                "sigma",
                "a deviation that was fixed beforehand",
                "none in the checkpoint and no --sigma",
                "choose it with `smoothed evaluate --split validation --tune`",
            )
        if card.get("chosen_on") == inputs.images.name:
            raise ArgumentError("split", "other images than those that sigma was chosen on", inputs.images.name)
    noise = settled_noise(sigma, sigma_normalized, law, inputs.noise)
    own_count = card.get("num_samples", DEFAULT_NUM_SAMPLES)
    count = own_count if num_samples is None else num_samples
    return SmoothingConfig(noise, vote or card.get("vote", "prediction"), count)
