"""Rows of a table with our numbers and the paper's, read from the results that are there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from smoothed.evaluation.results import Accuracy, PairedGain, Result
from smoothed.paper.declaration import Measurement, RowSpec, TableSpec
from smoothed.paper.differences import PublishedDifference
from smoothed.paper.folder import RunFolder
from smoothed.report.format import format_attack

KINDS_SHOWN = ("clean", "robust")


@dataclass(frozen=True)
class ShownRow:
    """A row of a table.

    Attributes:
        spec: its declaration.
        values: the row of the result that it is read from; None where it has not been run.
        differences: our accuracy minus the paper's, by `clean` and `robust`, where both exist.
        right: whether each image was right in each run, (runs, images), by `clean` and `robust`.
        prints: fingerprints of the images and labels, by which rows are compared image by image.
        provenance: where the numbers come from, as JSON values.
    """

    spec: RowSpec
    values: dict[str, Any] | None = None
    differences: dict[str, PublishedDifference] = field(default_factory=dict)
    right: dict[str, Tensor] = field(default_factory=dict, repr=False)
    prints: tuple[Any, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def accuracy(self, kind: str) -> Accuracy | None:
        """Our accuracy on `clean` or `robust` images; None where it has not been measured."""
        if self.values is None or self.values.get(kind) is None:
            return None
        return Accuracy(self.values[kind], tuple(self.values[f"{kind}_interval"]), self.values[f"{kind}_std"])

    def published(self, kind: str) -> tuple[float, float | None] | None:
        """The paper's accuracy and deviation, in percent; None where it prints none."""
        numbers = self.spec.published
        value = None if numbers is None else getattr(numbers, kind)
        return None if value is None else (value, getattr(numbers, f"{kind}_std"))

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        spec = self.spec
        return {
            "label": spec.label,
            "group": spec.group,
            "note": spec.note,
            "result": None if spec.measurement is None else spec.measurement.name,
            "row": self.values,
            "published": None if spec.published is None else vars(spec.published),
            "differences": {kind: difference.to_json() for kind, difference in self.differences.items()},
            "provenance": self.provenance,
        }


def shown_rows(table: TableSpec, folder: RunFolder) -> list[ShownRow]:
    """All rows of a table in the folder's schedule; those that have not been run have no values.

    Raises:
        DataError: a result is damaged.
    """
    loaded: dict[str, Result | None] = {}
    rows = []
    for spec in table.rows_in(folder.schedule.name):
        if spec.measurement is None:
            rows.append(ShownRow(spec))
            continue
        name = spec.measurement.name
        if name not in loaded:
            loaded[name] = folder.load_result(name)
        rows.append(_shown(spec, loaded[name], folder, table))
    return rows


def comparisons(rows: list[ShownRow]) -> Iterator[PairedGain]:
    """The declared comparisons of rows on the same images, where both have been run."""
    by_label = {row.spec.label: row for row in rows}
    for row in rows:
        for label in row.spec.against:
            other = by_label[label]
            for kind in KINDS_SHOWN:
                if row.prints != other.prints or kind not in row.right or kind not in other.right:
                    continue
                before, after = (shown.right[kind].double().mean(0) for shown in (other, row))
                yield PairedGain.of(f"{row.spec.label}, against {label}", kind, before, after)


def index_of(spec: RowSpec, result: Result, folder: RunFolder) -> int | None:
    """Number of the row of a result that has the vote and the M of a row of a table; None if it has no such row."""
    if spec.vote is None:
        return 0 if result.rows else None
    count = folder.schedule.samples(spec.num_samples or 1)
    matches = (i for i, row in enumerate(result.rows) if (row["vote"], row["num_samples"]) == (spec.vote, count))
    return next(matches, None)


def attack_label(source: Measurement, steps: int) -> str:
    """Name of the attack of an evaluation with that many steps, such as `EPGD-7 (8 draws)`."""
    if source.attack == "nattack":
        return "NAttack"
    name = format_attack(source.attack, steps)
    draws = "" if source.eot_samples == 1 else f" ({source.eot_samples} draws)"
    return name + draws + ("" if source.source is None else ", transferred")


def _shown(spec: RowSpec, result: Result | None, folder: RunFolder, table: TableSpec) -> ShownRow:
    index = None if result is None else index_of(spec, result, folder)
    if result is None or index is None:
        return ShownRow(spec)
    values = result.rows[index]
    right = {
        name.removesuffix(".right"): tensor[index] for name, tensor in result.tensors.items() if name.endswith(".right")
    }
    prints = tuple(result.data.get(name) for name in ("pixels", "labels", "images"))
    shown = ShownRow(spec, values, {}, right, prints, result.provenance)
    for kind in KINDS_SHOWN:
        published, ours = shown.published(kind), shown.accuracy(kind)
        if published is None or ours is None:
            continue
        shown.differences[kind] = PublishedDifference.of(
            ours.mean,
            published[0],
            std=ours.std,
            runs=values["runs"],
            images=values["images"],
            published_std=published[1],
            same_images=table.same_images,
        )
    return shown
