"""Load saved adversarial images, and verify that they belong to the given data set and to the recorded ball."""

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
from smoothed.evaluation.resume import fingerprint
from smoothed.evaluation.saved_examples.attack import load_examples, pixel_fingerprint, read_examples_record
from smoothed.utils.checks import RANGE_TOLERANCE, check_choice, check_inputs, check_not_negative
from smoothed.utils.imports import is_object_name

REQUIRED_FIELDS = (
    *("images", "labels", "pixel_fingerprint", "data"),
    *("model", "weights", "noise", "sigma", "sigma_normalized"),
    *("attack", "eps", "norm"),
)
"""Fields that the record of a file must have."""


@dataclass(frozen=True, eq=False)
class SavedExamples:
    """Adversarial images and the clean images that they were made from.

    Attributes:
        clean: clean images and their labels.
        adversarial: adversarial version of each image, (N, C, H, W) in [0, 1], on the CPU.
        record: settings of the attack that made them.
    """

    clean: Images
    adversarial: Float[Tensor, "n c h w"]
    record: dict[str, Any]

    @classmethod
    def load(cls, file: Path | str, data: Images) -> Self:
        """Load a file written by `smoothed attack`.

        Args:
            file: path of the file.
            data: data set whose first images were attacked.

        Raises:
            ArgumentError: `data` has other images or labels.
            CheckpointError: the file is missing, damaged or of another kind, or an image lies outside [0, 1] or outside
                the ball stated in the record.
        """
        tensors, record = load_examples(file)
        _require_record(file, record)
        count = record["images"]
        if any(len(tensors.get(name, ())) != count for name in ("images", "labels", "index")):
            raise CheckpointError(f"{file}: expected {count} images, labels and indices, got another number of them")
        if not torch.equal(tensors["index"], torch.arange(count)):
            raise CheckpointError(f"{file}: expected the first images of a data set in order, got other indices")
        try:
            adversarial = check_inputs(tensors["images"], "images")
        except ArgumentError as error:
            raise CheckpointError(f"{file}: {error}") from None
        examples = cls(_clean_images(file, record, data, tensors["labels"]), adversarial, record)
        _require_inside_ball(file, examples)
        return examples

    def first(self, count: int | None) -> Self:
        """The first `count` images; None keeps all.

        Raises:
            DataError: there are fewer than `count` images.
        """
        return type(self)(self.clean.first(count), self.adversarial[:count], self.record)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over (clean images, adversarial images, labels) in batches of `size`, on the device of `clean`."""
        for (inputs, labels), adversarial in zip(self.clean.batches(size), self.adversarial.split(size), strict=True):
            yield inputs, adversarial.to(inputs), labels


def attack_record(file: Path | str) -> dict[str, Any]:
    """The settings of the attack that made the images of `file`, with all `REQUIRED_FIELDS`.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    record = read_examples_record(file)
    _require_record(file, record)
    return record


def _require_record(file: Path | str, record: dict[str, Any]) -> None:
    missing = [name for name in REQUIRED_FIELDS if name not in record]
    if missing:
        raise CheckpointError(f"{file}: expected a record of `smoothed attack`, got one without {', '.join(missing)}")
    for name in ("model", "noise", "vote"):
        if not isinstance(record.get(name, ""), str):
            raise CheckpointError(f"{file}: expected the name of the {name} in its record, got {record[name]!r:.80}")
    try:
        check_choice(record["norm"], NORMS, "norm")
        check_not_negative(record["eps"], "eps")
    except ArgumentError as error:
        raise CheckpointError(f"{file}: {error}") from None


def _clean_images(file: Path | str, record: dict[str, Any], data: Images, labels: Tensor) -> Images:
    """The first images of `data`, verified to be those that were attacked."""
    count = record["images"]
    expected = f"the {count} images of {record['data']} that were attacked to make {file}"
    name, command = str(record["data"]), record.get("command")
    hint = f"pass --data {name}" if is_object_name(name) else f"the attack was {command}" if command else ""
    if len(data) < count:
        raise ArgumentError("data", expected, f"{data.name}, which has {len(data)}", hint)
    first = data.first(count)
    if pixel_fingerprint(first) != record["pixel_fingerprint"]:
        raise ArgumentError("data", expected, f"{data.name}, whose images differ", hint)
    if fingerprint({"labels": first.labels}) != record["labels"] or not torch.equal(first.labels.cpu(), labels):
        raise ArgumentError("data", expected, f"{data.name}, whose labels differ", hint)
    return first


def _require_inside_ball(file: Path | str, examples: SavedExamples) -> None:
    """Raise `CheckpointError` unless each image lies in the ball that the record states.

    Rounding to float32 changes a value by less than `RANGE_TOLERANCE`, so each value has that tolerance.
    """
    norm, eps, start = examples.record["norm"], float(examples.record["eps"]), 0
    for inputs, adversarial, _ in examples.batches(BATCH):
        if adversarial.shape != inputs.shape:
            shapes = f"shape {tuple(inputs.shape[1:])}, got {tuple(adversarial.shape[1:])}"
            raise CheckpointError(f"{file}: expected images of {shapes}")
        delta = adversarial.cpu().double() - inputs.cpu().double()
        if norm == "l0":
            delta = torch.where(delta.abs() <= RANGE_TOLERANCE, 0.0, delta)
        slack = {"linf": RANGE_TOLERANCE, "l2": RANGE_TOLERANCE * delta[0].numel() ** 0.5, "l0": 0.0}[norm]
        distances = norms(delta, norm)
        outside = (distances > eps + slack).nonzero()[:, 0]
        if len(outside):
            first = int(outside[0])
            raise CheckpointError(
                f"{file}: expected images within eps = {eps:.6g} ({norm}) of the clean ones, "
                f"got a distance of {float(distances[first]):.6g} at image {start + first}"
            )
        start += len(inputs)
