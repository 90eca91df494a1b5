"""Results: accuracies with their intervals, and the one class of result that every evaluation returns and saves."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from smoothed.checkpoint import FORMAT_VERSION, SUFFIX, read_header, read_tensors, write_tensors
from smoothed.errors import ArgumentError, CheckpointError, DataError
from smoothed.utils.checks import check_choice
from smoothed.utils.files import check_path, write_json
from smoothed.utils.intervals import interval, mean_and_deviation

if TYPE_CHECKING:
    import pandas as pd

# Half-width of a 95 % normal interval, in standard errors.
Z = 1.96

SCHEMA = "smoothed-result"
SCHEMA_VERSION = 1

KINDS = ("attack", "certify", "check", "evaluate", "examples", "sweep", "train", "worst-case")
"""The evaluations that return a `Result`; each is named as its command."""


# Names of the attributes of a result in its JSON file.
_PARTS = ("kind", "model", "data", "setting", "rows", "comparisons", "summary", "tensors", "provenance")


@dataclass(frozen=True)
class Accuracy:
    """An accuracy over images, in [0, 1].

    Attributes:
        mean: mean over runs.
        interval: 95 % Wilson interval over images. It treats each image as right or wrong; for shares of right votes,
            whose variance is at most as large, it is conservative.
        std: sample standard deviation over runs; 0 for a single run.
    """

    mean: float
    interval: tuple[float, float]
    std: float

    @classmethod
    def of_shares(cls, runs: Sequence[Tensor]) -> Self:
        """Accuracy from the probability of a correct classification of each image, (N,), in each run."""
        mean, deviation = mean_and_deviation([float(shares.double().mean()) for shares in runs])
        images = len(runs[0])
        return cls(mean, interval(min(max(mean, 0.0), 1.0) * images, images), deviation)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON values of an accuracy."""
        return cls(values["mean"], tuple(values["interval"]), values["std"])


def paired_gain(before: Tensor, after: Tensor) -> tuple[float, tuple[float, float]]:
    """Mean of `before - after`, (N,) each, and its 95 % interval by the normal approximation."""
    mean, deviation = mean_and_deviation((before - after).double().tolist())
    half_width = Z * deviation / math.sqrt(len(before))
    return mean, (mean - half_width, mean + half_width)


@dataclass(frozen=True)
class PairedGain:
    """The difference of accuracy between two rows on the same images.

    Attributes:
        name: what is compared, such as `prediction vote, M = 64, against one draw`.
        images: `clean`, or the name of the attack.
        gain: mean over images of the second row's accuracy minus the first's, in [-1, 1].
        interval: 95 % interval of `gain` over images: that of Bonett and Price (2012) for paired proportions, applied
            to differences. It is the normal interval after adding one image with a difference of 1 and one of -1, so
            it has a positive width even if all images agree.
    """

    name: str
    images: str
    gain: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, name: str, images: str, before: Tensor, after: Tensor) -> Self:
        """Compare the accuracy of each image, (N,) in [0, 1], in two rows."""
        differences = after.double() - before.double()
        count = len(differences) + 2
        centre = float(differences.sum()) / count
        variance = (float(differences.square().sum()) + 2) / count - centre**2
        half_width = Z * math.sqrt(variance / count)
        bounds = (max(-1.0, centre - half_width), min(1.0, centre + half_width))
        return cls(name, images, float(differences.mean()), bounds)

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True, eq=False)
class Result:
    """Result of an evaluation: rows, the outcome of each image, the setting, and where the numbers come from.

    `print` shows a table and a sentence that says what it means. `save` writes a JSON file, and the tensors to a
    safetensors file beside it; `Result.load` reads both. docs/results-format.md describes every field.

    Attributes:
        kind: name of the evaluation, one of `KINDS`.
        rows: one dict of JSON values for each line of the table.
        setting: settings that all rows share, as JSON values.
        model: name and fingerprint of the model, as JSON values.
        data: name, size, classes and fingerprints of the data set, as JSON values.
        provenance: version, command or call, seed, hardware, date and duration, as JSON values.
        summary: further findings of this kind of evaluation, as JSON values.
        comparisons: differences between rows on the same images.
        tensors: outcomes of each image and images, by the names that docs/results-format.md describes.

    Raises:
        ArgumentError: `kind` is unknown, or another attribute has the wrong type.
    """

    kind: str
    rows: list[dict[str, Any]]
    setting: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    comparisons: list[PairedGain] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "kind")
        for name, of in (("rows", dict), ("comparisons", PairedGain)):
            values = getattr(self, name)
            if not isinstance(values, list):
                raise ArgumentError(name, f"a list of {of.__name__}", f"an object of type {type(values).__name__}")
            others = [type(value).__name__ for value in values if not isinstance(value, of)]
            if others:
                raise ArgumentError(name, f"a list of {of.__name__}", f"an object of type {others[0]} in it")
        for name in ("setting", "model", "data", "provenance", "summary", "tensors"):
            value = getattr(self, name)
            if not isinstance(value, dict):
                raise ArgumentError(name, "a dict", f"an object of type {type(value).__name__}")

    def __str__(self) -> str:
        from smoothed.report.result import result_text  # noqa: PLC0415 - runs upward, so only when it is called

        return result_text(self)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row of that number."""
        return self.rows[index]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def row(self, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
        """Return the only row with the given values, such as `row(vote="soft", num_samples=64)`.

        Raises:
            ArgumentError: no row, or several, have these values.
        """
        found = [row for row in self.rows if all(row.get(name) == value for name, value in values.items())]
        if len(found) != 1:
            raise ArgumentError("row", "values that exactly one row has", f"{values}, which {len(found)} rows have")
        return found[0]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the tensors as JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "model": self.model,
            "data": self.data,
            "setting": self.setting,
            "rows": self.rows,
            "comparisons": [{**vars(gain), "interval": list(gain.interval)} for gain in self.comparisons],
            "summary": self.summary,
            "tensors": {name: list(tensor.shape) for name, tensor in self.tensors.items()},
            "provenance": self.provenance,
        }

    def save(self, path: Path | str) -> Path:
        """Write the result to a JSON file, and its tensors to a safetensors file of the same name beside it.

        Args:
            path: path of the JSON file; both files are replaced atomically, the JSON file last.

        Returns:
            `path` as a `Path`.

        Raises:
            ArgumentError: `path` is no path, the name of the file ends in `.safetensors`, or another file has the name
                of the tensors' file.
            OutputError: a file can't be written.
        """
        path = check_result_path(path)
        beside = tensors_path(path)
        if self.tensors:
            write_tensors(beside, self.tensors, {"format_version": FORMAT_VERSION, "kind": self.kind})
        elif beside.is_file() and path.is_file():
            beside.unlink()  # the tensors of an earlier result of the same name
        return write_json(self.to_json(), path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a result that `save` or a command's `--json` wrote. Missing tensors leave `tensors` empty.

        Raises:
            ArgumentError: `path` is no path.
            DataError: the file is missing, no JSON, or no result of this schema; or the tensors do not belong to it.
        """
        path = check_path(path, "path")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: could not be read ({error.strerror or error})") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: expected the JSON of a result, got a file that is no JSON ({error})") from None
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise DataError(f"{path}: expected a result of smoothed (schema {SCHEMA}), got another JSON file")
        if values.get("schema_version") != SCHEMA_VERSION:
            found = values.get("schema_version")
            raise DataError(f"{path}: expected schema version {SCHEMA_VERSION}, got {found}; update smoothed")
        missing = [name for name in _PARTS if name not in values]
        if missing or values["kind"] not in KINDS:
            got = f"one without {', '.join(missing)}" if missing else f"the kind {values['kind']!r}"
            raise DataError(f"{path}: expected a result of one of the kinds {', '.join(KINDS)}, got {got}")
        if not isinstance(values["tensors"], dict):
            raise DataError(f"{path}: expected the shapes of tensors by name, got {values['tensors']!r}")
        tensors: dict[str, Tensor] = {}
        if values["tensors"] and tensors_path(path).is_file():
            try:
                tensors, _ = read_tensors(tensors_path(path))
            except CheckpointError as error:
                raise DataError(str(error)) from None
            shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
            if shapes != values["tensors"]:
                raise DataError(
                    f"{tensors_path(path)}: expected the tensors of {path.name}, got those of another result"
                )
        parts = {name: values[name] for name in _PARTS}
        try:
            gains = [PairedGain(**{**entry, "interval": tuple(entry["interval"])}) for entry in values["comparisons"]]
            return cls(**{**parts, "comparisons": gains, "tensors": tensors})
        except (KeyError, TypeError, ArgumentError) as error:
            raise DataError(f"{path}: expected the parts of a result, got others ({error})") from None

    def to_pandas(self) -> "pd.DataFrame":
        """Return the rows as a `pandas.DataFrame`, whose `to_csv`, `to_markdown` and `to_latex` write tables.

        An interval becomes two columns, `NAME_low` and `NAME_high`.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd  # noqa: PLC0415 - not a dependency of the package

        return pd.DataFrame([_flat(row) for row in self.rows])

    def plot(self, path: Path | str | None = None) -> Any:  # noqa: ANN401 - a matplotlib figure
        """Draw the result and return the matplotlib figure.

        Args:
            path: file to write as well; its suffix gives the format, such as .png, .pdf or .svg.

        Raises:
            ArgumentError: this kind of result has no plot, or the format is unknown.
            OutputError: the file can't be written.
        """
        from smoothed.report.result import plot_result  # noqa: PLC0415 - runs upward, so only when it is called

        return plot_result(self, path)

    def report(self, path: Path | str, *, against: "Result | None" = None) -> Path:
        """Write the result as one HTML file, which opens in a browser without a network.

        The page has the verdict, the threat model, each image with its votes, charts, and the provenance. Pictures are
        those of at most 200 images, and the file is smaller than 5 MB. A result that was read without its file of
        tensors has a page without images.

        Args:
            path: file to write, which ends in .html; it is replaced atomically.
            against: a second result on the same images. It is shown beside this one, image by image, with the paired
                test of its accuracy minus that of this result.

        Returns:
            `path` as a `Path`.

        Raises:
            ArgumentError: `path` is no path or ends in another suffix, or `against` is no result on the same images.
            OutputError: the file can't be written.
        """
        from smoothed.report.html.page import write_report  # noqa: PLC0415 - runs upward, so only when it is called

        return write_report(self, path, against)


def tensors_path(path: Path | str) -> Path:
    """Path of the safetensors file beside the JSON file `path`."""
    return Path(path).with_suffix(SUFFIX)


def check_result_path(path: Path | str, argument: str = "path") -> Path:
    """Return `path` if a result may be written to it.

    Args:
        path: path of the JSON file.
        argument: name of the argument in error messages.

    Raises:
        ArgumentError: `path` is no path, the name of the file ends in `.safetensors`, or the file of that name beside
            it, which the tensors would replace, is not that of a result.
    """
    path = check_path(path, argument)
    if path.suffix.lower() == SUFFIX:
        raise ArgumentError(argument, "the name of a JSON file", path.name, "for example result.json")
    beside = tensors_path(path)
    if beside.is_file():
        try:
            is_results = read_header(beside).get("kind") in KINDS
        except CheckpointError:
            is_results = False
        if not is_results:
            expected = f"another name, because {beside.name} lies beside it and holds something else than a result"
            raise ArgumentError(argument, expected, path.name)
    return path


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row with an interval as two columns and nested dicts as columns with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        elif name.endswith("interval"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        else:
            flat[key] = value
    return flat
