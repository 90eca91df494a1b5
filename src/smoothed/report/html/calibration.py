"""Whether vote shares are probabilities, and what accuracy a vote reaches that abstains where its margin is small."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.report.html.charts import Chart, ChartCurve, ChartPoint
from smoothed.report.html.classifiers import ImageOutcomes, ShownClassifier
from smoothed.utils.intervals import interval

BINS = 10
"""Number of bins of equal width in which shares are compared with accuracies."""

# Number of coverages at which accuracy is shown.
COVERAGES = 20


def reliability(
    shares: Float[Tensor, "n k"], right: Bool[Tensor, " n"], bins: int = BINS
) -> list[tuple[float, float, int]]:
    """Mean share of the winning class, accuracy, and number of images, in each bin of that share that holds images."""
    top = shares.double().amax(1)
    places = (top * bins).long().clamp(0, bins - 1)
    return [
        (float(top[places == place].mean()), float(right[places == place].double().mean()), count)
        for place in range(bins)
        if (count := int((places == place).sum()))
    ]


def calibration_error(shares: Float[Tensor, "n k"], right: Bool[Tensor, " n"], bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al., 2015): mean distance of share and accuracy over bins, by images."""
    return sum(abs(share - accuracy) * count for share, accuracy, count in reliability(shares, right, bins)) / len(
        right
    )


def accuracy_by_coverage(
    shares: Float[Tensor, "n k"], right: Bool[Tensor, " n"], points: int = COVERAGES
) -> list[tuple[float, float, int]]:
    """Coverage, accuracy and number of the images with the largest margins, at up to `points` coverages.

    The margin is the largest share minus the second. Images of equal margin are kept or left out together.
    """
    first, second = shares.double().topk(2, 1).values.unbind(1)
    margins, order = (first - second).sort(descending=True, stable=True)
    hits = right[order].double().cumsum(0)
    wanted = {round(len(right) * number / points) for number in range(1, points + 1)}
    kept = sorted({_with_equals(margins, count) for count in wanted if count})
    return [(count / len(right), float(hits[count - 1]) / count, count) for count in kept]


def _with_equals(margins: Float[Tensor, " n"], count: int) -> int:
    """The smallest number of images that is at least `count` and splits no group of equal margins."""
    return int((margins >= margins[count - 1]).sum())


def calibration_charts(classifier: ShownClassifier, labels: Int[Tensor, " n"]) -> list[Chart]:
    """A reliability diagram, and accuracy against coverage, of the largest M; none without vote shares."""
    sets = {"clean images": classifier.clean[-1]}
    if classifier.attacked:
        sets[classifier.attack] = classifier.attacked[-1]
    known = {name: outcomes for name, outcomes in sets.items() if outcomes.shares is not None and len(outcomes.shares)}
    if not known:
        return []
    rights = {name: shown_right(outcomes, labels) for name, outcomes in known.items()}
    errors = ", ".join(
        f"{100 * calibration_error(_shares(outcomes), rights[name]):.1f} points on {_on(name)}"
        for name, outcomes in known.items()
    )
    count = len(next(iter(rights.values())))
    what = f"{classifier.name}, M = {classifier.num_samples[-1]}, {count} images"
    bins = {name: reliability(_shares(outcomes), rights[name]) for name, outcomes in known.items()}
    coverages = {name: accuracy_by_coverage(_shares(outcomes), rights[name]) for name, outcomes in known.items()}
    return [
        Chart(
            "Calibration of the vote's shares",
            "share of the winning class, %",
            "accuracy, %",
            _curves(bins),
            y_range=(0.0, 1.0),
            x_percent=True,
            diagonal=True,
            note=f"{what}. The dotted line is a vote whose share is the probability of being right. Expected "
            f"calibration error: {errors}.",
        ),
        Chart(
            "Accuracy against coverage",
            "images that the vote answers, %",
            "accuracy on these, %",
            _curves(coverages),
            y_range=(0.0, 1.0),
            x_percent=True,
            note=f"{what}. The vote abstains on the images with the smallest margins.",
        ),
    ]


def shown_right(outcomes: ImageOutcomes, labels: Int[Tensor, " n"]) -> Bool[Tensor, " kept"]:
    """Whether the class with the largest share is the true one, for the images with shares."""
    shares = _shares(outcomes)
    return shares.argmax(1) == labels[: len(shares)]


def _shares(outcomes: ImageOutcomes) -> Tensor:
    return torch.empty(0, 2) if outcomes.shares is None else outcomes.shares


def _curves(points: Mapping[str, Sequence[tuple[float, float, int]]]) -> list[ChartCurve]:
    return [
        ChartCurve(name, [ChartPoint(x, y, interval(y * count, count)) for x, y, count in of_name])
        for name, of_name in points.items()
    ]


def _on(name: str) -> str:
    return name if name == "clean images" else f"images under {name}"
