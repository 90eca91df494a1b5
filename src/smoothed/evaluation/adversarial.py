"""Adversarial images of a whole set, and a file of them with the record of how they were made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks import Attack
from smoothed.checkpoint import FORMAT_VERSION, read_tensors, write_tensors
from smoothed.data.images import Images
from smoothed.devices import Precision
from smoothed.errors import CheckpointError
from smoothed.evaluation.attacking import attack_draws
from smoothed.evaluation.fresh_votes import Votes, vote_afresh
from smoothed.evaluation.outcomes import ATTACK, BATCH, CLEAN, ROBUST, OnProgress, ignore_progress
from smoothed.randomness import mix
from smoothed.smoothing import Smoothed

KIND = "adversarial images"


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
    on_progress: OnProgress = ignore_progress,
) -> AdversarialSet:
    """Attack every image of `data`.

    Args:
        smoothed: the attack sees a fresh draw of all of its noise at each pass; its vote says what that did.
        data: images on the model's device.
        attack: with its options settled.
        seed: of everything random.
        precision: of the votes.
        on_progress: called after each batch.
    """
    images, labels, votes = list[Tensor](), list[Tensor](), {CLEAN: list[Votes](), ROBUST: list[Votes]()}
    total = -(-len(data) // BATCH)
    for number, (inputs, own) in enumerate(data.batches(BATCH)):
        key = mix(seed, number)
        made = attack_draws(smoothed.model, smoothed.one_draw.noise, attack, inputs, own, seed=mix(key, ATTACK))
        for stream, seen in ((CLEAN, inputs), (ROBUST, made)):
            votes[stream].append(vote_afresh(smoothed, seen, own, 1, seed=mix(key, stream), precision=precision))
        images.append(made.float().cpu())
        labels.append(own.cpu())
        on_progress(number + 1, total)
    return AdversarialSet(torch.cat(images), torch.cat(labels), Votes.joined(votes[CLEAN]), Votes.joined(votes[ROBUST]))


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
    tensors, record = read_tensors(path)
    if record.get("kind") != KIND:
        raise CheckpointError(f"{path}: expected {KIND}, got a file of another kind")
    return tensors, record
