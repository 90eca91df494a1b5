"""`smoothed.check`: gradient-masking checks of a classifier."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from smoothed.acceleration.fast import Fast
from smoothed.api.arguments import check_arguments
from smoothed.api.evaluate import KEEP_IMAGES
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call
from smoothed.attacks.radius import settled_radius
from smoothed.evaluation.correctness import OnProgress
from smoothed.evaluation.gradient_masking import CheckSettings, Defence, run_checks, summary
from smoothed.evaluation.kept_votes import recorded_samples
from smoothed.evaluation.results import Result
from smoothed.smoothing.config import SmoothingConfig

# Black-box queries and random tries for each gradient step, so that one option sets the effort of all attacks.
QUERIES, TRIES = 10, 5


def check(
    classifier: AnyClassifier,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    eps: float = 8 / 255,
    steps: int = 10,
    eot_samples: int = 4,
    split: str = "test",
    images: int | None = 128,
    keys: tuple[str, str] | None = None,
    name: str | None = None,
    seed: int = 0,
    chunk_size: int = 250,
    keep_images: int = KEEP_IMAGES,
    out: Path | str | None = None,
    on_progress: OnProgress | None = None,
    command: str | None = None,
) -> Result:
    """Check a classifier for gradient masking, that is, for attacks that fail for reasons other than robustness.

    Each check measures one flaw on the images with a 95 % interval and concludes `pass`, `suspicious` or `unclear`.

    Args:
        classifier: a `Smoothed` classifier; or any callable from images (N, C, H, W) in [0, 1] to logits (N, K); or a
            name or path that `load` takes, with the smoothing that its checkpoint stores. Nothing of it is changed.
        data: images and labels, as for `evaluate`; the images in use are held in memory.
        eps: L-inf radius in pixel units of [0, 1], above 0 and at most 1.
        steps: gradient steps of PGD. Black-box queries (10 a step) and random tries (5 a step) grow with them.
        eot_samples: draws averaged for each gradient of the white-box attack, the reference attack.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: largest number of images to use, from the first on; verdicts need about 100 or more. None for all.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        seed: seed of all random numbers.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose pixels and vote shares the result keeps, before and
            after the reference attack.
        out: folder that stores finished checks, from which interrupted checks continue; None stores nothing.
        on_progress: called with the number of finished checks and their total.
        command: how this evaluation was called, for the result's provenance; None for this call.

    Returns:
        A result with one row for each check, and the accuracy of each image under the attacks that the checks share in
        `tensors`.

    Raises:
        ArgumentError: an option is out of range, or the classifier cannot be evaluated on this data.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint is damaged, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Source: Athalye et al., 2018; Carlini et al., 2019.
    """
    check_arguments(locals())
    start = time.monotonic()
    given = options_of_call(check, locals())
    settings = CheckSettings(
        eps=settled_radius(eps, "linf"),
        steps=steps,
        eot_samples=eot_samples,
        queries=QUERIES * steps,
        tries=TRIES * steps,
        seed=seed,
    )
    subject = Subject.of(classifier, data, split=split, images=images, at_most=True, keys=keys, name=name)
    smoothing = subject.smoothing or SmoothingConfig(num_samples=1)
    smoothed = smoothing.smooth(subject.network, voter=Fast(subject.network), chunk_size=chunk_size, seed=seed)
    folder = None if out is None else Path(out)
    defence = Defence.of(smoothed, subject.images, settings, name=subject.name, out=folder, keep_images=keep_images)
    findings = run_checks(defence, on_progress=as_progress(on_progress))
    return subject.result(
        "check",
        [finding.to_json() for finding in findings],
        command=command or called(check, classifier, data, **given),
        seed=seed,
        seconds=time.monotonic() - start,
        setting={
            **asdict(settings),
            **smoothing.to_json(subject.network),
            "kept_num_samples": list(recorded_samples(defence.vote_draws)) if keep_images else [],
        },
        summary={"sentence": summary(findings)},
        tensors=_tensors(defence, keep_images),
    )


def _tensors(defence: Defence, kept: int) -> dict[str, torch.Tensor]:
    """Accuracy of each image under the attacks that the checks share, and the kept images."""
    accuracies = {
        "clean.accuracy": defence.clean_accuracy,
        "white_box.accuracy": defence.white_box_accuracy,
        "transfer.accuracy": defence.transfer_accuracy,
        "mean_network.accuracy": defence.mean_network_accuracy,
    }
    images = {
        "labels": defence.labels,
        "images": defence.inputs[:kept],
        "adversarial": defence.white_box_examples[:kept],
    }
    records = {"clean": defence.clean_record, "white_box": defence.white_box_record}
    votes = {f"{prefix}.{name}": tensor for prefix, record in records.items() for name, tensor in record.items()}
    return {name: tensor.detach().cpu() for name, tensor in {**accuracies, **images, **votes}.items()}
