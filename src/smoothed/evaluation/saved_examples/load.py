"""Adversarial images that are given in a file, held against what they were made of before anything is computed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.min_norm.minimum import NORMS, norms
from smoothed.data.images import Images
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.correctness import BATCH
from smoothed.evaluation.resume import digest
from smoothed.evaluation.saved_examples.attack import levels, load_adversarial, read_record
from smoothed.utils.checks import RANGE_TOLERANCE, check_choice, check_inputs, check_not_negative

NEEDED = (
    *("images", "labels", "levels", "data"),
    *("model", "weights", "noise", "sigma", "sigma_units"),
    *("attack", "eps", "norm"),
)
"""What a record must say."""


@dataclass(frozen=True, eq=False)
class Given:
    """Adversarial images and the clean ones that they were made of.

    Attributes:
        clean: images and labels.
        adversarial: a version of each, (N, C, H, W), in [0, 1], on the CPU.
        record: how they were made.
    """

    clean: Images
    adversarial: Float[Tensor, "n c h w"]
    record: dict[str, Any]

    @classmethod
    def load(cls, file: Path | str, data: Images) -> Self:
        """The images of a file that `smoothed attack` wrote.

        Args:
            file: its path.
            data: the set whose first images were attacked.

        Raises:
            ArgumentError: `data` has other images or labels.
            CheckpointError: the file is missing, damaged or of another kind, or an image is not in [0, 1] or not in the
                ball that the record states.
        """
        tensors, record = load_adversarial(file)
        _require_record(file, record)
        count = record["images"]
        if any(len(tensors.get(name, ())) != count for name in ("images", "labels", "index")):
            raise CheckpointError(f"{file}: expected {count} images, labels and places, got another number of them")
        if not torch.equal(tensors["index"], torch.arange(count)):
            raise CheckpointError(f"{file}: expected the first images of a set, in order, got others")
        try:
            adversarial = check_inputs(tensors["images"], "images")
        except ArgumentError as error:
            raise CheckpointError(f"{file}: {error}") from None
        given = cls(_its_images(file, record, data, tensors["labels"]), adversarial, record)
        _require_inside(file, given)
        return given

    def first(self, count: int | None) -> Self:
        """The first `count` of them, or all when None.

        Raises:
            DataError: fewer images than asked for.
        """
        return type(self)(self.clean.first(count), self.adversarial[:count], self.record)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Clean images, adversarial ones and labels, at most `size` at a time, on the device of the clean ones."""
        for (inputs, labels), made in zip(self.clean.batches(size), self.adversarial.split(size), strict=True):
            yield inputs, made.to(inputs), labels


def attacked_model(file: Path | str) -> str:
    """The name or path of the checkpoint that the images of `file` were made on.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    record = read_record(file)
    _require_record(file, record)
    return record["model"]


def _require_record(file: Path | str, record: dict[str, Any]) -> None:
    missing = [name for name in NEEDED if name not in record]
    if missing:
        raise CheckpointError(f"{file}: expected a record of `smoothed attack`, got one without {', '.join(missing)}")
    try:
        check_choice(record["norm"], NORMS, "norm")
        check_not_negative(record["eps"], "eps")
    except ArgumentError as error:
        raise CheckpointError(f"{file}: {error}") from None


def _its_images(file: Path | str, record: dict[str, Any], data: Images, labels: Tensor) -> Images:
    """The images of `data` that the file was made of, the first ones."""
    count = record["images"]
    expected = f"the {count} images that {file} was made of, {record['data']}"
    if len(data) < count:
        raise ArgumentError("data", expected, f"{data.name}, which has {len(data)}")
    first = data.first(count)
    if levels(first) != record["levels"]:
        raise ArgumentError("data", expected, f"{data.name}, whose images differ")
    if digest({"labels": first.labels}) != record["labels"] or not torch.equal(first.labels.cpu(), labels):
        raise ArgumentError("data", expected, f"{data.name}, whose labels differ")
    return first


def _require_inside(file: Path | str, given: Given) -> None:
    """Raise `CheckpointError` unless each image lies in the ball that the record states.

    Rounding to float32 moves a value by less than `RANGE_TOLERANCE`, so each value is allowed as much.
    """
    norm, eps, start = given.record["norm"], float(given.record["eps"]), 0
    for inputs, made, _ in given.batches(BATCH):
        if made.shape != inputs.shape:
            shapes = f"shape {tuple(inputs.shape[1:])}, got {tuple(made.shape[1:])}"
            raise CheckpointError(f"{file}: expected images of {shapes}")
        delta = made.cpu().double() - inputs.cpu().double()
        if norm == "l0":
            delta = torch.where(delta.abs() <= RANGE_TOLERANCE, 0.0, delta)
        slack = {"linf": RANGE_TOLERANCE, "l2": RANGE_TOLERANCE * delta[0].numel() ** 0.5, "l0": 0.0}[norm]
        sizes = norms(delta, norm)
        outside = (sizes > eps + slack).nonzero()[:, 0]
        if len(outside):
            worst = int(outside[0])
            raise CheckpointError(
                f"{file}: expected images within eps = {eps:.6g} ({norm}) of the clean ones, "
                f"got a distance of {float(sizes[worst]):.6g} at image {start + worst}"
            )
        start += len(inputs)
