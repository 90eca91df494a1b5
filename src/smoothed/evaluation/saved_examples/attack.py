"""Attack a whole data set, and save the adversarial images with a record of how they were made."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks import Attack
from smoothed.checkpoint import FORMAT_VERSION, read_header, read_tensors, write_tensors
from smoothed.data.images import Images
from smoothed.errors import CheckpointError
from smoothed.evaluation.correctness import (
    BATCH,
    OnProgress,
    attack_noisy_classifier,
    ignore_progress,
)
from smoothed.evaluation.fresh_votes import VoteCounts, take_votes
from smoothed.evaluation.progress import PassProgress
from smoothed.evaluation.resume import FINGERPRINT_IMAGES, ResumeFolder, Tensors, fingerprint
from smoothed.evaluation.streams import BatchStream
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed
from smoothed.utils.devices import Precision

KIND = "adversarial images"

STREAMS = {"clean": BatchStream.CLEAN_VOTES, "attacked": BatchStream.ATTACKED_VOTES}


@dataclass(frozen=True, eq=False)
class AdversarialExamples:
    """Adversarial images, with votes on them and on the clean images.

    Attributes:
        images: adversarial images, (N, C, H, W) float32 in [0, 1], not rounded to 8 bits.
        labels: true classes, (N,) int64.
        clean: one vote on each clean image.
        attacked: one vote on each adversarial image, with fresh draws.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    clean: VoteCounts
    attacked: VoteCounts


def attack_dataset(
    smoothed: Smoothed,
    data: Images,
    attack: Attack,
    *,
    seed: int = 0,
    precision: Precision = "float32",
    resume: ResumeFolder | None = None,
    on_progress: OnProgress = ignore_progress,
    attack_passes: int = 0,
    on_passes: OnProgress = ignore_progress,
) -> AdversarialExamples:
    """Attack every image of `data`.

    Args:
        smoothed: classifier to attack. The attack sees a fresh draw of all of its noise at each forward pass; the vote
            is used to count correct images.
        data: images on the device of the model.
        attack: attack with its options set.
        seed: seed of all randomness.
        precision: number format of the votes.
        resume: folder that stores finished batches, from which an interrupted attack continues. Its configuration must
            contain all other arguments. None stores nothing.
        on_progress: called after each batch, including batches loaded from `resume`.
        attack_passes: estimated passes of the attack per image, for `on_passes`.
        on_passes: called after each pass with the finished passes and an estimate of their total, as `PassProgress`
            counts them.

    Raises:
        CheckpointError: a stored batch is damaged.
        OutputError: a batch can't be stored.
    """
    resume = resume or ResumeFolder(None, {})
    batches, total = list[Tensors](), -(-len(data) // BATCH)
    passes = attack_passes + len(STREAMS) * smoothed.num_samples
    progress = PassProgress(passes * len(data), on_passes)
    for number, (inputs, labels) in enumerate(data.batches(BATCH)):
        compute = partial(
            _attack_batch,
            smoothed,
            attack,
            inputs,
            labels,
            key=mix(seed, number),
            precision=precision,
            progress=progress,
            attack_passes=attack_passes,
        )
        with progress.batch(passes * len(inputs)):
            batches.append(resume.compute_once(f"batch{number:04d}", compute))
        on_progress(number + 1, total)
    tensors = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    clean, attacked = (
        VoteCounts.from_tensors({name.removeprefix(f"{stream}-"): tensor for name, tensor in tensors.items()})
        for stream in STREAMS
    )
    return AdversarialExamples(tensors["images"], tensors["labels"], clean, attacked)


def _attack_batch(
    smoothed: Smoothed,
    attack: Attack,
    inputs: Tensor,
    labels: Tensor,
    *,
    key: int,
    precision: Precision,
    progress: PassProgress,
    attack_passes: int,
) -> Tensors:
    """Adversarial images, their labels, and the counts of one vote on clean and on adversarial images."""
    noisy = smoothed.noisy_classifier
    seed = mix(key, BatchStream.ATTACK)
    with progress.part(len(inputs) * attack_passes, smoothed.model):
        adversarial = attack_noisy_classifier(
            smoothed.model, noisy.noise, attack, inputs, labels, seed=seed, layer=noisy.layer
        )
    tensors = {"images": adversarial.float(), "labels": labels}
    for (name, stream), images in zip(STREAMS.items(), (inputs, adversarial), strict=True):
        with progress.part(len(images) * smoothed.num_samples, smoothed.model):
            votes = take_votes(smoothed, images, labels, 1, seed=mix(key, stream), precision=precision)
        tensors |= {f"{name}-{field}": counts for field, counts in votes.to_tensors().items()}
    return tensors


def pixel_fingerprint(data: Images) -> str:
    """Fingerprint of the first images, rounded to 8 bits, so that it is the same on every device."""
    pixels, _ = next(iter(data.batches(FINGERPRINT_IMAGES)))
    return fingerprint({"pixel_fingerprint": (255 * pixels).round().to(torch.uint8)})


def save_examples(path: Path | str, examples: AdversarialExamples, record: dict[str, Any]) -> Path:
    """Write adversarial examples to a safetensors file, atomically.

    The file holds `images`, `labels` and `index` (position of each image in its data set); the header holds `record`.

    Args:
        path: path of the file.
        examples: adversarial images of the first images of a data set, in order.
        record: settings of the attack, as JSON values.

    Returns:
        The path of the file.

    Raises:
        OutputError: the file can't be written.
    """
    count = len(examples.labels)
    tensors = {"images": examples.images, "labels": examples.labels, "index": torch.arange(count)}
    return write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "kind": KIND, **record})


def load_examples(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the record of a file written by `save_examples`.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    record = read_examples_record(path)
    return read_tensors(path)[0], record


def read_examples_record(path: Path | str) -> dict[str, Any]:
    """Read the record of a file written by `save_examples`, without its images.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    record = read_header(path)
    if record.get("kind") != KIND:
        raise CheckpointError(f"{path}: expected {KIND} written by `smoothed attack`, got a file of another kind")
    return record
