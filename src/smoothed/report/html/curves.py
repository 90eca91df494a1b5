"""The charts of each kind of result: accuracy against M, sigma, cost, resubmissions, eps or radius."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW
from smoothed.evaluation.results import Result
from smoothed.evaluation.worst_case.rows import WORST
from smoothed.report.format import format_base
from smoothed.report.html.charts import Chart, ChartCurve, ChartPoint
from smoothed.report.html.classifiers import ShownClassifier, attack_label, shown_classifiers
from smoothed.utils.intervals import interval

DRAWS, SIGMA, ACCURACY = "draws of a vote, M", "sigma, pixel units of [0, 1]", "accuracy, %"

MOST_STEPS = 480
"""Number of parts of the x axis in which a staircase has one point: more than the axis has pixels."""

KINDS_OF_IMAGES = ("clean", "robust")


def result_charts(result: Result) -> list[Chart]:
    """The charts of a result; none for kinds that measure a single setting."""
    return _CHARTS[result.kind](result) if result.kind in _CHARTS else []


def _images_name(images: str, result: Result) -> str:
    return "clean images" if images == "clean" else attack_label(result.setting)


def _measured(result: Result) -> list[str]:
    """The kinds of images that the rows have an accuracy on."""
    return [images for images in KINDS_OF_IMAGES if result.rows and result.rows[0].get(images) is not None]


def _evaluate(result: Result) -> list[Chart]:
    rows = [row for row in result.rows if row["vote"] != ONE_DRAW]
    charts = list[Chart]()
    sigmas, counts = ({row[name] for row in rows} for name in ("sigma", "num_samples"))
    for images in _measured(result) if len(counts) > 1 else ():
        curves = _grouped(rows, "num_samples", images, lambda row: _vote_name(row, len(sigmas) > 1))
        title = f"Accuracy against the number of draws: {_images_name(images, result)}"
        charts.append(Chart(title, DRAWS, ACCURACY, curves, scale="log", note=_base_note(result, images)))
    if len(sigmas) > 1 and None not in sigmas:
        largest = max(counts)
        for images in _measured(result):
            of_largest = [row for row in rows if row["num_samples"] == largest]
            curves = _grouped(of_largest, "sigma", images, lambda row: f"{row['vote']} vote")
            title = f"Accuracy against sigma, M = {largest}: {_images_name(images, result)}"
            charts.append(Chart(title, SIGMA, ACCURACY, curves, note=_base_note(result, images)))
    return charts + _cost_charts(result)


def _cost_charts(result: Result) -> list[Chart]:
    """Accuracy against the draws that votes took on average, where some stopped early."""
    classifiers = [each for each in shown_classifiers(result) if not each.is_base and len(each.num_samples) > 1]
    return [chart for images in _measured(result) if (chart := _cost_chart(result, classifiers, images)) is not None]


def _cost_chart(result: Result, classifiers: Sequence[ShownClassifier], images: str) -> Chart | None:
    curves, stopped = list[ChartCurve](), False
    for each in classifiers:
        points = list[ChartPoint]()
        outcomes_of = each.clean if images == "clean" else each.attacked
        for count, outcomes in zip(each.num_samples, outcomes_of, strict=True):
            if outcomes.draws is None:
                return None
            draws, accuracy = float(outcomes.draws.double().mean()), float(outcomes.right.mean())
            stopped |= draws < count
            points.append(ChartPoint(draws, accuracy, interval(accuracy * len(outcomes.right), len(outcomes.right))))
        curves.append(ChartCurve(each.name, points))
    if not stopped:
        return None
    title = f"Accuracy against cost: {_images_name(images, result)}"
    return Chart(title, "draws until the vote is decided, mean over images", ACCURACY, curves, scale="log")


def _sweep(result: Result) -> list[Chart]:
    best, charts = result.summary["best"], list[Chart]()
    at_best_count = [row for row in result.rows if row["num_samples"] == best["num_samples"]]
    at_best_sigma = [row for row in result.rows if row["sigma"] == best["sigma"]]
    for images in _measured(result):
        name = _images_name(images, result)
        if len(result.setting["sigmas"]) > 1:
            curves = _grouped(at_best_count, "sigma", images, lambda row: f"{row['vote']} vote")
            charts.append(Chart(f"Accuracy against sigma, M = {best['num_samples']}: {name}", SIGMA, ACCURACY, curves))
    for images in _measured(result):
        name = _images_name(images, result)
        if len(result.setting["num_samples"]) > 1:
            curves = _grouped(at_best_sigma, "num_samples", images, lambda row: f"{row['vote']} vote")
            title = f"Accuracy against the number of draws, sigma {best['sigma']:.4g}: {name}"
            charts.append(Chart(title, DRAWS, ACCURACY, curves, scale="log"))
    return charts


def _worst_case(result: Result) -> list[Chart]:
    worst = [row for row in result.rows if row["attack"] == WORST]
    curves = list[ChartCurve]()
    for row in worst:
        name = row["network"] if row["network"].startswith("mean") else f"{row['vote']} vote, M = {row['num_samples']}"
        curves.append(ChartCurve(name, _by_count(row["worst"])))
        if row["num_samples"] > 1:
            curves.append(ChartCurve("one draw (M = 1), same examples", _by_count(row["one_draw"])))
    charts = list[Chart]()
    if any(len(curve.points) > 1 for curve in curves):
        charts.append(
            Chart(
                "Accuracy against resubmissions, worst case",
                "submissions of the same image, N",
                "right in all N, %",
                curves,
                scale="log",
            )
        )
    tried = result.summary.get("eot_sweep", [])
    if len(tried) > 1:
        points = [
            ChartPoint(row["eot_samples"], row["robust"]["mean"], tuple(row["robust"]["interval"])) for row in tried
        ]
        chosen = next(row["eot_samples"] for row in tried if row["chosen"])
        charts.append(
            Chart(
                "Accuracy against the cost of the attack",
                "draws averaged for each gradient",
                ACCURACY,
                [ChartCurve("PGD on the vote", points)],
                scale="log",
                note=f"On {tried[0]['images']} images. The attacks average {chosen} of them.",
            )
        )
    return charts + _certified(result.summary.get("certified", []), {})


def _by_count(accuracies: Mapping[Any, Mapping[str, Any]]) -> list[ChartPoint]:
    """Points from accuracies by N, whose keys are text once they were read from a file."""
    ordered = sorted(((int(count), accuracy) for count, accuracy in accuracies.items()), key=lambda pair: pair[0])
    return [ChartPoint(count, accuracy["mean"], tuple(accuracy["interval"])) for count, accuracy in ordered]


def _certify(result: Result) -> list[Chart]:
    return _certified(result.rows, result.tensors)


def _certified(rows: Sequence[Mapping[str, Any]], tensors: Mapping[str, Any]) -> list[Chart]:
    """Certified accuracy at the radii of the rows, and at every radius where those of the images are known."""
    if not rows:
        return []
    curves = list[ChartCurve]()
    sigmas = list(dict.fromkeys(row["sigma"] for row in rows))
    staircases = _staircases(tensors, len(sigmas)) if "radius" in tensors else []
    for number, sigma in enumerate(sigmas):
        of_sigma = sorted((row for row in rows if row["sigma"] == sigma), key=lambda row: row["radius"])
        if staircases:
            curves.append(ChartCurve(f"sigma {sigma:.4g}", staircases[number], steps=True))
        else:
            points = [ChartPoint(row["radius"], row["certified"], tuple(row["certified_interval"])) for row in of_sigma]
            curves.append(ChartCurve(f"sigma {sigma:.4g}", points))
    note = "No attack within the radius changes the class of these images, with probability 1 - alpha for each."
    return [
        Chart("Certified accuracy against the radius", "L2 radius, pixel units of [0, 1]", ACCURACY, curves, note=note)
    ]


def _staircases(tensors: Mapping[str, Any], sigmas: int) -> list[list[ChartPoint]]:
    """For each sigma the certified accuracy after each radius of its images."""
    staircases = list[list[ChartPoint]]()
    for number in range(sigmas):
        right = tensors["certified_class"][number] == tensors["labels"]
        radii, count = sorted(tensors["radius"][number][right].tolist()), len(right)
        steps = [ChartPoint(0.0, len(radii) / count)]
        steps += [ChartPoint(radius, (len(radii) - place - 1) / count) for place, radius in enumerate(radii)]
        staircases.append(steps)
    longest = max(steps[-1].x for steps in staircases)
    return [_thinned(steps, longest / MOST_STEPS) for steps in staircases]


def _thinned(steps: list[ChartPoint], width: float) -> list[ChartPoint]:
    """The first point, and the last point of each part of the x axis of that width; all points if they are few."""
    if len(steps) <= MOST_STEPS:
        return steps
    return [steps[0], *{round(point.x / width) if width else 0: point for point in steps[1:]}.values()]


def _check(result: Result) -> list[Chart]:
    falling = next((row for row in result.rows if row["name"] == "accuracy falls with eps"), None)
    if falling is None:
        return []
    eps, images, points = result.setting["eps"], result.data["images"], list[ChartPoint]()
    for figure in falling["figures"]:
        multiple = "0" if figure["name"] == "clean" else figure["name"].removesuffix(" eps")
        if figure["unit"] == "percent" and _is_number(multiple):
            bounds = interval(figure["value"] * images, images)
            points.append(ChartPoint(float(multiple) * eps * 255, figure["value"], bounds))
    attack = f"PGD-{result.setting['steps']}"
    curve = ChartCurve(attack, points)
    return [Chart("Accuracy against eps", "eps, in 1/255 of the L-inf norm", ACCURACY, [curve])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _train(result: Result) -> list[Chart]:
    rows = result.rows
    curves = [
        ChartCurve(name, [ChartPoint(row["epoch"], row[field]) for row in rows if row[field] is not None])
        for name, field in (("clean images", "validation_clean"), ("PGD-7", "validation_robust"))
    ]
    return [Chart("Validation accuracy, one forward pass per image", "epoch", ACCURACY, curves)] if rows else []


def _grouped(
    rows: Iterable[Mapping[str, Any]], axis: str, images: str, name: Callable[[Mapping[str, Any]], str]
) -> list[ChartCurve]:
    """One curve for each name, through the rows of that name."""
    groups = dict[str, list[ChartPoint]]()
    for row in rows:
        bounds = row[f"{images}_interval"]
        groups.setdefault(name(row), []).append(ChartPoint(row[axis], row[images], tuple(bounds) if bounds else None))
    return [ChartCurve(name, sorted(points, key=lambda point: point.x)) for name, points in groups.items()]


def _vote_name(row: Mapping[str, Any], with_sigma: bool) -> str:
    sigma = "" if row["sigma"] is None or not with_sigma else f", sigma {row['sigma']:.4g}"
    return f"{row['vote']} vote{sigma}"


def _base_note(result: Result, images: str) -> str:
    base = next((row for row in result.rows if row["vote"] == ONE_DRAW), None)
    if base is None:
        return ""
    low, high = base[f"{images}_interval"]
    name = format_base(result.setting, "one draw without input noise")
    return f"{name.capitalize()}: {100 * base[images]:.1f} % ({100 * low:.1f}-{100 * high:.1f})."


_CHARTS: dict[str, Callable[[Result], list[Chart]]] = {
    "certify": _certify,
    "check": _check,
    "evaluate": _evaluate,
    "sweep": _sweep,
    "train": _train,
    "worst-case": _worst_case,
}
