"""`smoothed.attack`: adversarial examples of any classifier, in a file with the record of how they were made."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smoothed.acceleration.fast import Fast
from smoothed.api.arguments import check_arguments, check_writable, optional
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call
from smoothed.attacks import EVALUATION_ATTACKS, Attack
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import BATCH, OnProgress
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol
from smoothed.evaluation.paper_protocol.rows import NO_ATTACK
from smoothed.evaluation.results import Result
from smoothed.evaluation.resume import ResumeFolder, fingerprint, fingerprints
from smoothed.evaluation.saved_examples.attack import attack_dataset, pixel_fingerprint, save_examples
from smoothed.smoothing.config import SmoothingConfig
from smoothed.utils.devices import resolve_precision


def attack(
    classifier: AnyClassifier,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    attack: str | Attack = "pgd",
    eps: float | None = None,
    norm: str = "linf",
    steps: int = 7,
    eot_samples: int = 8,
    max_queries: int = 1000,
    sees: str = "logits",
    sources: Mapping[str, nn.Module] | None = None,
    examples: Path | str | None = None,
    split: str = "test",
    images: int | None = None,
    keys: tuple[str, str] | None = None,
    name: str | None = None,
    seed: int = 0,
    precision: str = "float32",
    chunk_size: int = 250,
    out: Path | str | None = None,
    on_progress: OnProgress | None = None,
    command: str | None = None,
) -> Result:
    """Attack a classifier, and return the adversarial examples with one vote on each of them.

    Args:
        classifier: a `Smoothed` classifier; or any callable from images (N, C, H, W) in [0, 1] to logits (N, K); or a
            name or path that `load` takes, with the smoothing that its checkpoint stores. Nothing of it is changed.
        data: images and labels, as for `evaluate`.
        attack: name of an attack, or a function (model, inputs, labels, generator) -> adversarial inputs.
        eps: radius in pixel units of [0, 1], for an L0 attack a number of pixels; None for 8/255 (L-inf) or 0.5 (L2).
        norm: norm of the radius, `linf` or `l2`; attacks with a norm of their own ignore it.
        steps: gradient steps of the attack (k).
        eot_samples: draws averaged for each gradient of an EOT attack, or for each query of a black-box attack.
        max_queries: queries per image of a black-box attack.
        sees: what a black-box attacker observes: `logits`, `shares` or `labels`.
        sources: networks that a transfer attack starts from, by name.
        examples: file to write the adversarial examples to as well (safetensors), with the record of how they were
            made; `smoothed evaluate --examples FILE` reads it.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: number of images to use, from the first on; None for all.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        seed: seed of all random numbers.
        precision: number format of the votes: `float32`, `bf16` or `auto`; attacks use float32.
        chunk_size: rows of one forward pass of the vote.
        out: folder that stores finished batches, from which an interrupted attack continues; None stores nothing.
        on_progress: called with the finished forward passes of single images and their estimated total; a pass with a
            gradient counts as three.
        command: how this evaluation was called, for the result's provenance; None for this call.

    Returns:
        A result with one row (accuracy of one vote on clean and on attacked images). `tensors` holds the clean `images`
        and the `adversarial` ones, (N, C, H, W) float32 in [0, 1], not rounded to 8 bits, `labels` (N,), and
        `clean.right` and `robust.right` (N,).

    Raises:
        ArgumentError: an option is out of range, or the classifier cannot be attacked on this data.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint is damaged, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Example:
        >>> import smoothed
        >>> result = smoothed.attack(smoothed.load("resnet20-cni-w"), "sample", attack="fgsm", images=4)
        >>> result.tensors["adversarial"].shape
        torch.Size([4, 3, 32, 32])
    """
    check_arguments(locals(), examples=optional(check_writable))
    start = time.monotonic()
    given = options_of_call(attack_function, locals())
    if attack == NO_ATTACK:
        raise ArgumentError("attack", f"an attack, one of {', '.join(EVALUATION_ATTACKS)}", attack)
    subject = Subject.of(classifier, data, split=split, images=images, keys=keys, name=name)
    network, sources = subject.network, sources or {}
    protocol = PaperProtocol(
        attack=attack,
        eps=eps,
        norm=norm,
        steps=steps,
        eot_samples=eot_samples,
        max_queries=max_queries,
        sees=sees,  # pyright: ignore[reportArgumentType] - checked by the attack
        seed=seed,
        precision=resolve_precision(precision, subject.device),
    )
    method = protocol.build_attack(tuple(sources.values()))
    assert method is not None  # noqa: S101 - `none` is refused above
    smoothing = subject.smoothing or SmoothingConfig(num_samples=1)
    smoothed = smoothing.smooth(network, voter=Fast(network), chunk_size=chunk_size, seed=seed)
    prints = {**fingerprints(network, subject.images), "pixel_fingerprint": pixel_fingerprint(subject.images)}
    settings = {
        "model": subject.name,
        **protocol.setting(),
        **smoothing.to_json(network),
        "sources": list(sources),
        "source_weights": [fingerprint(source.state_dict()) for source in sources.values()],
    }
    resume = ResumeFolder(None if out is None else Path(out), {"protocol": "attack", **settings, **prints})
    made = attack_dataset(
        smoothed,
        subject.images,
        method,
        seed=seed,
        precision=protocol.precision,
        resume=resume,
        attack_passes=protocol.attack_passes,
        on_passes=as_progress(on_progress),
    )
    clean, robust = made.clean.shares, made.attacked.shares
    row = {**settings, "clean": float(clean.mean()), "robust": float(robust.mean()), "images": len(subject.images)}
    command = command or called(attack_function, classifier, data, **given)
    if examples is not None:
        save_examples(examples, made, {**row, **prints, "command": command})
    return subject.result(
        "attack",
        [row],
        command=command,
        seed=seed,
        seconds=time.monotonic() - start,
        setting=settings,
        summary={"examples": None if examples is None else str(examples)},
        tensors={
            "images": torch.cat([inputs.cpu() for inputs, _ in subject.images.batches(BATCH)]),
            "adversarial": made.images,
            "labels": made.labels,
            "clean.right": clean.bool(),
            "robust.right": robust.bool(),
        },
    )


attack_function = attack
