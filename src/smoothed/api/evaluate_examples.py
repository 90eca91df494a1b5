"""`smoothed.evaluate_examples`: accuracy of any classifier on saved adversarial examples, with fresh votes."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smoothed.api.arguments import check_arguments
from smoothed.api.evaluate import KEEP_IMAGES
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress
from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.kept_votes import recorded_samples
from smoothed.evaluation.results import PairedGain, Result
from smoothed.evaluation.saved_examples.evaluate import SavedExamplesProtocol
from smoothed.evaluation.saved_examples.evaluate import evaluate_examples as measure
from smoothed.evaluation.saved_examples.load import SavedExamples
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_classes
from smoothed.utils.devices import resolve_precision
from smoothed.utils.files import check_path


def evaluate_examples(
    classifier: AnyClassifier,
    examples: Path | str,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    votes_per_image: int = 1,
    split: str = "test",
    images: int | None = None,
    keys: tuple[str, str] | None = None,
    name: str | None = None,
    seed: int = 0,
    precision: str = "float32",
    chunk_size: int = 250,
    keep_images: int = KEEP_IMAGES,
    out: Path | str | None = None,
    on_progress: OnProgress | None = None,
    command: str | None = None,
) -> Result:
    """Measure the accuracy of a classifier on the adversarial examples of `attack`, and on the images they come from.

    The votes use draws that the attack has not seen. If the examples were made on another classifier, this is accuracy
    under transfer.

    Args:
        classifier: a `Smoothed` classifier, which keeps its noise, vote and M; or any callable from images (N, C, H, W)
            in [0, 1] to logits (N, K), or a name or path that `load` takes, which receive the noise, the vote and the M
            of the attack. Nothing of it is changed.
        examples: file that `attack` or the command `smoothed attack` wrote.
        data: images and labels that were attacked, from the first on, as for `evaluate`. They are compared with the
            fingerprints in the file.
        votes_per_image: number of fresh votes on each clean and each adversarial image; the accuracy is their mean.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: number of images to use, from the first on; None for all that were attacked.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        seed: seed of all random numbers.
        precision: number format of the votes: `float32`, `bf16` or `auto`.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, that the result keeps with their adversarial versions and the
            shares of the first vote on both.
        out: folder that stores finished batches, from which an interrupted evaluation continues; None stores nothing.
        on_progress: called with the finished forward passes of single images and their total.
        command: how this evaluation was called, for the result's provenance; None for this call.

    Returns:
        A result with one row for single draws and one for the vote. `tensors` holds, for `clean` and `robust` images,
        (N,) each, `NAME.right`, the right votes of `votes_per_image`, and `NAME.right_draws`, the right draws of
        `NAME.draws`, and for the kept images the shares of the first vote. The paired gain of the vote over one draw is
        in `comparisons`.

    Raises:
        ArgumentError: the file does not exist, `data` are other images, an option is out of range, or the noise or the
            vote of the attack is a function of the user's own and `classifier` is no `Smoothed`.
        DataError: the data set does not exist or is damaged.
        CheckpointError: a file is damaged or of another kind, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Example:
        >>> import smoothed, tempfile
        >>> model = smoothed.load("resnet20-cni-w")
        >>> file = Path(tempfile.mkdtemp()) / "examples.safetensors"
        >>> _ = smoothed.attack(model, "sample", attack="fgsm", images=4, examples=file)
        >>> classifier = smoothed.Smoothed(model, smoothed.Gaussian(0.06), num_samples=4)
        >>> result = smoothed.evaluate_examples(classifier, file, "sample")
        >>> [row["num_samples"] for row in result.rows]
        [1, 4]
    """
    check_arguments(locals(), examples=check_path)
    start = time.monotonic()
    given = {"examples": str(examples), **options_of_call(evaluate_examples, locals())}
    check_examples_file(examples)
    subject = Subject.of(classifier, data, split=split, keys=keys, name=name)
    saved = SavedExamples.load(examples, subject.images).first(images)
    check_classes(saved.clean.labels, subject.num_classes)
    subject = replace(subject, images=saved.clean)
    protocol = SavedExamplesProtocol(
        SmoothingConfig.of(classifier)
        if isinstance(classifier, Smoothed)
        else _attacked_smoothing(saved.record, subject),
        votes_per_image=votes_per_image,
        seed=seed,
        precision=resolve_precision(precision, subject.device),
    )
    kept = min(keep_images, len(saved.clean))
    found = measure(
        subject.network,
        saved,
        protocol,
        name=subject.name,
        keep_images=kept,
        out=None if out is None else Path(out),
        chunk_size=chunk_size,
        on_passes=as_progress(on_progress),
    )
    tensors = {
        f"{images_name}.{field}": getattr(counts, field)
        for images_name, counts in found.votes.items()
        for field in ("right", "right_draws", "draws")
    }
    for images_name, record in found.records.items():
        tensors |= {f"{images_name}.{name}": tensor for name, tensor in record.items()}
    if kept:
        tensors["images"] = next(iter(saved.clean.batches(kept)))[0].cpu()
        tensors["adversarial"] = saved.adversarial[:kept].cpu()
    return subject.result(
        "examples",
        [row.to_json() for row in found.rows],
        command=command or called(evaluate_examples, classifier, data, **given),
        seed=seed,
        seconds=time.monotonic() - start,
        setting={
            "votes_per_image": votes_per_image,
            "precision": protocol.precision,
            **protocol.smoothing.to_json(subject.network),
            "kept_images": kept,
            "kept_num_samples": list(recorded_samples(protocol.smoothing.num_samples)) if kept else [],
            "examples": saved.record,
        },
        comparisons=_gains(protocol, found.votes, saved.record["attack"]),
        tensors=tensors,
    )


def check_examples_file(examples: Path | str) -> None:
    """Raise `ArgumentError` if there is no such file."""
    if not Path(examples).is_file():
        raise ArgumentError("examples", "a file that `smoothed attack` wrote", f"{examples}, which does not exist")


def _attacked_smoothing(record: dict[str, Any], subject: Subject) -> SmoothingConfig:
    """The noise, the vote and the M of the attack, as its record states them."""
    vote = record.get("vote", "prediction")
    for kind, name, known in (("noise", record["noise"], NOISES), ("vote", vote, VOTES)):
        if name not in known:
            expected = f"a Smoothed classifier, because the {kind} of the attack, {name}, is a function of one's own"
            hint = "for example Smoothed(model, noise, vote=vote, num_samples=64)"
            raise ArgumentError("classifier", expected, subject.name, hint)
    return SmoothingConfig(NoiseConfig.from_record(record, subject.network), vote, record.get("num_samples", 1))


def _gains(protocol: SavedExamplesProtocol, votes: dict[str, VoteCounts], attack: str) -> list[PairedGain]:
    """The paired gain of the vote over one draw, on clean and on adversarial images; none for a vote of one draw."""
    smoothing = protocol.smoothing
    if smoothing.num_samples == 1:
        return []
    name = f"{smoothing.vote_name} vote, M = {smoothing.num_samples}, over one draw"

    def draw_shares(counts: VoteCounts) -> torch.Tensor:
        return counts.right_draws.double() / counts.draws

    return [
        PairedGain.of(name, images, draw_shares(votes[stream]), votes[stream].shares)
        for stream, images in (("clean", "clean"), ("robust", attack))
    ]
