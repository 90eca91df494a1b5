"""Adversarial images of a whole set, and a file of them with the record of how they were made."""

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
from smoothed.evaluation.attacking import attack_draws
from smoothed.evaluation.correctness import ATTACK, BATCH, CLEAN, ROBUST, OnProgress, ignore_progress
from smoothed.evaluation.fresh_votes import Votes, vote_afresh
from smoothed.evaluation.resume import SAMPLE, Records, Tensors, digest
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed
from smoothed.utils.devices import Precision

KIND = "adversarial images"

STREAMS = {"clean": CLEAN, "attacked": ROBUST}


@dataclass(frozen=True, eq=False)
class AdversarialSet:
    """Adversarial images, and votes on what they were made of and on themselves.

    Attributes:
        images: float32, in [0, 1], (N, C, H, W), not rounded to 8 bits.
        labels: true classes, (N,).
        clean: one vote on each clean image.
        attacked: one vote on each adversarial image, of fresh draws.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    clean: Votes
    attacked: Votes


def attack_images(
    smoothed: Smoothed,
    data: Images,
    attack: Attack,
    *,
    seed: int = 0,
    precision: Precision = "float32",
    records: Records | None = None,
    on_progress: OnProgress = ignore_progress,
) -> AdversarialSet:
    """Attack every image of `data`.

    Args:
        smoothed: the attack sees a fresh draw of all of its noise at each pass; its vote says what that did.
        data: images on the model's device.
        attack: with its options settled.
        seed: of everything random.
        precision: of the votes.
        records: keeps the batches done, from which a killed attack goes on; their configuration says all else that is
            given here. None keeps nothing.
        on_progress: called after each batch, done now or before.

    Raises:
        CheckpointError: a record is damaged.
        OutputError: a record can't be written.
    """
    records = records or Records(None, {})
    batches, total = list[Tensors](), -(-len(data) // BATCH)
    for number, (inputs, labels) in enumerate(data.batches(BATCH)):
        key = mix(seed, number)
        compute = partial(_attack_batch, smoothed, attack, inputs, labels, key=key, precision=precision)
        batches.append(records.once(f"batch{number:04d}", compute))
        on_progress(number + 1, total)
    tensors = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    clean, attacked = (
        Votes.from_tensors({name.removeprefix(f"{stream}-"): tensor for name, tensor in tensors.items()})
        for stream in STREAMS
    )
    return AdversarialSet(tensors["images"], tensors["labels"], clean, attacked)


def _attack_batch(
    smoothed: Smoothed, attack: Attack, inputs: Tensor, labels: Tensor, *, key: int, precision: Precision
) -> Tensors:
    """Adversarial images, their labels, and the counts of a vote on clean and on attacked images."""
    made = attack_draws(smoothed.model, smoothed.one_draw.noise, attack, inputs, labels, seed=mix(key, ATTACK))
    tensors = {"images": made.float(), "labels": labels}
    for (name, stream), images in zip(STREAMS.items(), (inputs, made), strict=True):
        votes = vote_afresh(smoothed, images, labels, 1, seed=mix(key, stream), precision=precision)
        tensors |= {f"{name}-{field}": counts for field, counts in votes.to_tensors().items()}
    return tensors


def levels(data: Images) -> str:
    """A fingerprint of the first images in their 8 bits: the same on every device, unlike the last bit of a float."""
    pixels, _ = next(iter(data.batches(SAMPLE)))
    return digest({"levels": (255 * pixels).round().to(torch.uint8)})


def save_adversarial(path: Path | str, made: AdversarialSet, record: dict[str, Any]) -> Path:
    """Write `images`, `labels`, `index` (the place of each in its set) and `record` to a safetensors file, atomically.

    Raises:
        OutputError: the file can't be written.
    """
    tensors = {"images": made.images, "labels": made.labels, "index": torch.arange(len(made.labels))}
    return write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "kind": KIND, **record})


def load_adversarial(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a file that `save_adversarial` wrote.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    record = read_record(path)
    return read_tensors(path)[0], record


def read_record(path: Path | str) -> dict[str, Any]:
    """The record alone, without reading the images; raises as `load_adversarial`."""
    record = read_header(path)
    if record.get("kind") != KIND:
        raise CheckpointError(f"{path}: expected {KIND}, got a file of another kind")
    return record
