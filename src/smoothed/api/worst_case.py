"""`smoothed.worst_case`: accuracy of a smoothed classifier under the worst of many adaptive attacks on each image."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from smoothed.api.arguments import as_tuple, check_arguments, several
from smoothed.api.evaluate import KEEP_IMAGES
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call, paired_gain_of
from smoothed.attacks.radius import settled_radius
from smoothed.evaluation.correctness import OnProgress
from smoothed.evaluation.kept_votes import recorded_samples
from smoothed.evaluation.results import PairedGain, Result
from smoothed.evaluation.worst_case.certified import certification_protocol, certify_worst_case
from smoothed.evaluation.worst_case.evaluate import evaluate_worst_case
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.evaluation.worst_case.rows import MEAN, WORST
from smoothed.smoothing.config import SmoothingConfig
from smoothed.utils.checks import check_positive
from smoothed.utils.devices import resolve_precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes


def worst_case(
    classifier: AnyClassifier,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    eps: float = 8 / 255,
    steps: int = 100,
    restarts: int = 2,
    eot_samples: Sequence[int] = (1, 4, 16, 64),
    sweep_images: int = 200,
    queries: int = 1000,
    resubmissions: Sequence[int] = (1, 10, 100),
    alpha: float | None = None,
    certified: bool = False,
    split: str = "test",
    images: int | None = None,
    keys: tuple[str, str] | None = None,
    name: str | None = None,
    runs: int = 1,
    seed: int = 0,
    precision: str = "float32",
    chunk_size: int = 250,
    keep_images: int = KEEP_IMAGES,
    out: Path | str | None = None,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress | None = None,
    command: str | None = None,
    **more: int,
) -> Result:
    """Attack one vote and its mean network with a suite of adaptive attacks, and evaluate them with fresh votes.

    For each image the worst example of all attacks counts. Sigma and M must have been chosen on other images.

    Args:
        classifier: a `Smoothed` classifier; or a plain network or callable from images (N, C, H, W) in [0, 1] to logits
            (N, K), which gets the rows of the mean network only; or a name or path that `load` takes, with the
            smoothing that its checkpoint stores. Nothing of it is changed.
        data: images and labels, as for `evaluate`.
        eps: L-inf radius of all attacks, in pixel units of [0, 1], at most 1.
        steps: gradient steps of each attempt.
        restarts: attempts of each gradient attack.
        eot_samples: numbers of draws averaged for each gradient, ascending; a sweep chooses the one that attacks best.
        sweep_images: number of images of that sweep, from the first on.
        queries: candidates of the Square attack for each image.
        resubmissions: how often an attacker may submit the same image (N), ascending.
        alpha: bound of the error probability of PREDICT, for a vote that abstains; None never abstains.
        certified: whether to certify the same images within L2 radii as well. Needs Gaussian noise on the image and the
            prediction vote.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: number of images to use, from the first on; None for all.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        runs: number of repetitions, each with fresh attacks and fresh draws.
        seed: seed of all random numbers.
        precision: number format of the votes: `float32`, `bf16` or `auto`; attacks use float32.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose worst examples the result keeps, with the shares of one
            vote before and after the attacks.
        out: folder that stores finished steps, from which an interrupted evaluation continues; None stores nothing.
        processes: processes that share the work; each of them gets the result.
        on_progress: called with the finished amount of work and its total.
        command: how this evaluation was called, for the result's provenance; None for this call.
        more: further fields of `WorstCaseProtocol`: `targets` and `selection_votes`.

    Returns:
        A result with rows for the mean network and for the smoothed classifier, the outcome of each image in `tensors`,
        the sweep over draws in `summary["eot_sweep"]`, and the paired gain of the smoothed classifier over its mean
        network in the worst case in `comparisons`.

    Raises:
        ArgumentError: an option is out of range, or the classifier cannot be evaluated on this data.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint is damaged, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Example:
        >>> import smoothed
        >>> classifier = smoothed.Smoothed(smoothed.load("resnet20-cni-w"), smoothed.Gaussian(0.06), num_samples=4)
        >>> quick = {"steps": 1, "restarts": 1, "eot_samples": (1,), "queries": 2, "resubmissions": (1,)}
        >>> result = smoothed.worst_case(classifier, "sample", images=4, targets=1, selection_votes=1, **quick)
        >>> result.rows[-1]["network"], result.rows[-1]["attack"]
        ('smoothed', 'worst case')

    Source: Athalye et al., 2018; Tramer et al., 2020; Croce and Hein, 2020 (the attacks of the suite).
    """
    check_arguments({**locals(), **more}, eot_samples=several(check_positive), resubmissions=several(check_positive))
    start = time.monotonic()
    given = options_of_call(worst_case, locals())
    subject = Subject.of(classifier, data, split=split, images=images, keys=keys, name=name)
    protocol = WorstCaseProtocol(
        subject.smoothing or SmoothingConfig(num_samples=1),
        alpha=alpha,
        eps=settled_radius(eps, "linf"),
        steps=steps,
        restarts=restarts,
        eot_samples=as_tuple(eot_samples),
        sweep_images=sweep_images,
        queries=queries,
        resubmissions=as_tuple(resubmissions),
        runs=runs,
        seed=seed,
        precision=resolve_precision(precision, subject.device),
        **more,
    )
    common = {"name": subject.name, "chunk_size": chunk_size, "processes": processes}
    folder, kept = None if out is None else Path(out), min(keep_images, len(subject.images))
    certification = certification_protocol(subject.network, subject.images, protocol) if certified else None
    progress = as_progress(on_progress)
    found = evaluate_worst_case(
        subject.network, subject.images, protocol, **common, out=folder, keep_images=kept, on_progress=progress
    )
    rows, tensors = [row.to_json() for row in found.rows], dict(found.tensors)
    summary: dict[str, Any] = {"eot_sweep": [row.to_json() for row in found.sweep]}
    if certification is not None:
        result = certify_worst_case(
            subject.network, subject.images, protocol, certification, **common, out=folder, on_progress=progress
        )
        summary["certified"] = [row.to_json() for row in result.rows]
        tensors |= {f"certified.{name}": tensor for name, tensor in result.tensors.items()}
    if kept:
        tensors["images"] = next(iter(subject.images.first(kept).batches(kept)))[0].cpu()
    setting = {
        **protocol.configuration(),
        "smoothing": protocol.smoothing.to_json(subject.network),
        "kept_images": kept,
        "kept_num_samples": list(recorded_samples(protocol.smoothing.num_samples)) if kept else [],
    }
    return subject.result(
        "worst-case",
        rows,
        command=command or called(worst_case, classifier, data, **given),
        seed=seed,
        seconds=time.monotonic() - start,
        setting=setting,
        summary=summary,
        comparisons=_gain_over_mean_network(rows, tensors),
        tensors=tensors,
    )


def _gain_over_mean_network(rows: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> list[PairedGain]:
    """The gain of the smoothed classifier over its mean network in the worst case; none for a plain network."""
    worst = {row["network"]: row for row in rows if row["attack"] == WORST}
    smoothed = next((row for network, row in worst.items() if network != MEAN), None)
    if smoothed is None:
        return []
    name = f"{smoothed['vote']} vote, M = {smoothed['num_samples']}, over the mean network"
    before, after = tensors["mean.right"][-1], tensors["smoothed.right"][-1]
    return [paired_gain_of(name, "the worst case of all attacks", before, after)]
