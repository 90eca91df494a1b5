"""A result as text and as a plot: the tables and sentences of its kind of evaluation."""

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console, RenderableType

from smoothed.errors import ArgumentError
from smoothed.evaluation.certified import CertifiedRow
from smoothed.evaluation.gradient_masking import Finding, summary
from smoothed.evaluation.paper_protocol.rows import Row
from smoothed.evaluation.results import PairedGain, Result
from smoothed.evaluation.saved_examples.evaluate import SavedExamplesRow
from smoothed.evaluation.sweep.sweep import Sweep
from smoothed.evaluation.worst_case.eot_sweep import EOTSweepRow
from smoothed.evaluation.worst_case.rows import WorstCaseRow
from smoothed.report.certified import certified_sentence, certified_table, linf_sentence
from smoothed.report.figures import write_figure
from smoothed.report.format import format_attack, format_base, format_eps, format_percent, format_sigma
from smoothed.report.gradient_masking import gradient_masking_table
from smoothed.report.plot import accuracy_figure
from smoothed.report.saved_examples import origin_sentence, saved_examples_table
from smoothed.report.sweep import SweepReport, peaks_table, sweep_grid, sweep_sentences
from smoothed.report.sweep_plot import sweep_figure
from smoothed.report.table import eot_sweep_sentence, rows_table, worst_case_table
from smoothed.report.worst_case_certified import add_certified

WIDTH = 100
"""Width of `print(result)`, in characters."""


def result_text(result: Result) -> str:
    """Everything that `parts` returns, as plain text."""
    stream = StringIO()
    console = Console(file=stream, width=WIDTH, highlight=False)
    for part in result_parts(result):
        console.print(part)
    return stream.getvalue().rstrip("\n")


def result_parts(result: Result) -> list[RenderableType]:
    """The tables and the sentences of a result, in the order in which they are printed."""
    parts = _PARTS[result.kind](result)
    return [*parts, *_class_note(result)]


def plot_result(result: Result, path: Path | str | None = None) -> Figure:
    """See `Result.plot`."""
    if result.kind not in _FIGURES:
        raise ArgumentError("result", f"one of {', '.join(_FIGURES)}, which have a plot", result.kind)
    figure = _FIGURES[result.kind](result)
    if path is not None:
        write_figure(figure, path)
    return figure


def gain_sentences(gains: Sequence[PairedGain]) -> list[str]:
    """One sentence for each pair of rows: its gains with their intervals, and whether chance alone can explain them."""
    by_name: dict[str, list[str]] = {}
    for gain in gains:
        low, high = (f"{100 * bound:+.1f}" for bound in gain.interval)
        where = "on clean images" if gain.images == "clean" else f"under {gain.images}"
        chance = "" if gain.significant else ": may be chance"
        change = f"{100 * gain.gain:+.1f} points {where} (paired 95 % interval {low} to {high}{chance})"
        by_name.setdefault(gain.name, []).append(change)
    return [f"Gain of the {name}: {' and '.join(changes)}." for name, changes in by_name.items()]


def _evaluate_parts(result: Result) -> list[RenderableType]:
    rows = [Row.from_json(row) for row in result.rows]
    return [rows_table(rows, format_base(result.setting)), *gain_sentences(result.comparisons)]


def _worst_case_parts(result: Result) -> list[RenderableType]:
    rows = [WorstCaseRow.from_json(row) for row in result.rows]
    certified = [CertifiedRow.from_json(row) for row in result.summary.get("certified", ())]
    sweep = [EOTSweepRow.from_json(row) for row in result.summary.get("eot_sweep", ())]
    table = worst_case_table(rows)
    parts: list[RenderableType] = [add_certified(table, certified) if certified else table]
    if sweep:
        parts.append(eot_sweep_sentence(sweep))
    parts += gain_sentences(result.comparisons)
    if certified:
        parts += [certified_sentence(certified[0]), linf_sentence(certified[0], rows[0].eps)]
    return parts


def _certify_parts(result: Result) -> list[RenderableType]:
    rows = [CertifiedRow.from_json(row) for row in result.rows]
    first_of_sigma = {(row.sigma, row.sigma_normalized): row for row in reversed(rows)}
    sentences = [certified_sentence(row) for row in reversed(first_of_sigma.values())]
    return [certified_table(rows), *sentences, linf_sentence(rows[0])]


def _check_parts(result: Result) -> list[RenderableType]:
    findings = [Finding.from_json(row) for row in result.rows]
    setting = result.setting
    draws = "one draw" if setting["eot_samples"] == 1 else f"{setting['eot_samples']} draws"
    attack = f"PGD-{setting['steps']} over {draws}, {format_eps(setting['eps'], 'linf')}"
    sigma = format_sigma(setting["sigma"], setting["sigma_normalized"])
    classifier = f"{setting['vote']} vote of {setting['num_samples']} draws, {sigma}"
    title = f"{result.model['name']}, {result.data['images']} images, {classifier}, {attack}"
    return [gradient_masking_table(findings, title), summary(findings)]


def _sweep_report(result: Result) -> SweepReport:
    if "right" not in result.tensors:
        raise ArgumentError("result", "a sweep with its file of tensors beside it", "one without")
    name = result.model["name"]
    return SweepReport.of(Sweep.from_setting(name, result.data["name"], result.setting, result.tensors["right"]))


def _sweep_parts(result: Result) -> list[RenderableType]:
    report = _sweep_report(result)
    return [sweep_grid(report), peaks_table(report), *sweep_sentences(report)]


def _attack_parts(result: Result) -> list[RenderableType]:
    (row,) = result.rows
    radius = format_eps(row["eps"], row["norm"])
    attack = f"{format_attack(row['attack'], row['steps'])}, {radius}"
    draws = "1 draw" if row["num_samples"] == 1 else f"{row['num_samples']} draws"
    classifier = f"{row['vote']} vote of {draws}"
    classifier += f", {format_sigma(row['sigma'], row['sigma_normalized'])}"
    text = (
        f"{classifier}: {format_percent(row['clean'])} accuracy on clean images, "
        f"{format_percent(row['robust'])} on attacked images ({attack})"
    )
    return [text]


def _examples_parts(result: Result) -> list[RenderableType]:
    rows = [SavedExamplesRow(**row) for row in result.rows]
    return [saved_examples_table(rows), *gain_sentences(result.comparisons), origin_sentence(rows[0])]


def _train_parts(result: Result) -> list[RenderableType]:
    best = result.summary["kept"].get("best")
    if best is None:
        return ["No epoch is finished."]
    clean, robust = best["validation_clean"], best["validation_robust"]
    accuracies = f"clean {format_percent(clean, 2)}, PGD-7 {format_percent(robust, 2)}"
    return [f"Best on validation images: {accuracies} (epoch {best['epoch']:g})."]


_PARTS: dict[str, Callable[[Result], list[RenderableType]]] = {
    "attack": _attack_parts,
    "certify": _certify_parts,
    "check": _check_parts,
    "evaluate": _evaluate_parts,
    "examples": _examples_parts,
    "sweep": _sweep_parts,
    "train": _train_parts,
    "worst-case": _worst_case_parts,
}

_FIGURES: dict[str, Callable[[Result], Figure]] = {
    "evaluate": lambda result: accuracy_figure(
        [Row.from_json(row) for row in result.rows], format_base(result.setting, "one draw, no vote")
    ),
    "sweep": lambda result: sweep_figure(_sweep_report(result)),
}


def _class_note(result: Result) -> list[str]:
    """What remains to be made sure of, where the names of the classes could not be compared."""
    if result.data.get("classes_checked", "names") == "names":
        return []
    labels = len(result.data["classes"])
    outputs = result.model.get("outputs", labels)
    if labels != outputs:
        return [
            f"The model has {outputs} outputs, and the labels go from 0 to {labels - 1}: make sure that they mean the "
            "same classes."
        ]
    return [
        "The class names of the model or of the data set are unknown, so only their number was compared: make sure "
        "that the classes have the same order."
    ]
