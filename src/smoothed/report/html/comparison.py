"""Two results on the same images: whether they are the same, and the paired test of each pair of classifiers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smoothed.errors import ArgumentError
from smoothed.evaluation.results import PairedGain, Result
from smoothed.report.format import format_percent
from smoothed.report.html.classifiers import (
    ImageOutcomes,
    ShownClassifier,
    all_classifiers,
    main_classifier,
    shown_classifiers,
    shown_sigma,
)
from smoothed.report.html.verdict import GainLine

# Largest difference of pixels that is rounding: half a step of an 8-bit image.
ROUNDING = 0.5 / 255


@dataclass(frozen=True)
class PairLine:
    """A classifier of the first result and one of the second, on the same images.

    Attributes:
        first: accuracy of the first one in percent.
        second: accuracy of the second one in percent.
        gain: the paired test of the second one against the first.
    """

    first: str
    second: str
    gain: GainLine


def check_same_images(first: Result, second: Result, argument: str = "against") -> None:
    """Raise `ArgumentError` unless two results have outcomes of the same images.

    Args:
        first: a result.
        second: the result that it shall be compared with.
        argument: name of the argument in error messages.
    """
    for result in (first, second):
        if not shown_classifiers(result):
            has = "no outcomes of images" if result.kind == "train" else "no file of tensors beside it"
            expected = "two results with the outcome of each image"
            raise ArgumentError(argument, expected, f"one of the kind {result.kind} with {has}")
    expected = "two results on the same images"
    if not torch.equal(first.tensors["labels"], second.tensors["labels"]):
        got = " and ".join(f"{result.data['images']} images of {result.data['name']}" for result in (first, second))
        labels = " with other labels" if first.data["images"] == second.data["images"] else ""
        raise ArgumentError(argument, expected, got + labels, "evaluate both with the same data and the same --images")
    if first.data.get("pixels") != second.data.get("pixels") and not _same_pixels(first, second):
        got = f"images of {first.data['name']} and of {second.data['name']} with other pixels"
        raise ArgumentError(argument, expected, got)


def _same_pixels(first: Result, second: Result) -> bool:
    """Whether the kept images are the same but for rounding, which changes the fingerprint on another device."""
    kept = [result.tensors.get("images") for result in (first, second)]
    if kept[0] is None or kept[1] is None or kept[0].shape[1:] != kept[1].shape[1:]:
        return False
    count = min(len(kept[0]), len(kept[1]))
    return count > 0 and float((kept[0][:count] - kept[1][:count]).abs().max()) < ROUNDING


@dataclass(frozen=True)
class ChosenRow:
    """Which row of a result to compare; None leaves a part of the choice to the result.

    Attributes:
        vote: name of the vote; `none` for one draw without input noise, or the network without noise.
        sigma: standard deviation of the input noise in pixel units of [0, 1], to the four digits that tables show.
        num_samples: number of draws, M.
    """

    vote: str | None = None
    sigma: float | None = None
    num_samples: int | None = None


ANY_ROW = ChosenRow()


def pair_lines(first: Result, second: Result, rows: tuple[ChosenRow, ChosenRow] = (ANY_ROW, ANY_ROW)) -> list[PairLine]:
    """The paired tests of the second result against the first.

    The first lines compare the chosen rows. What is not chosen is as in the report: the noise and the vote of the
    classifier or of its checkpoint if the result knows them, else the first vote; and the largest M. Further lines
    compare every other row that both results have, if it is chosen in both.

    Args:
        first: a result.
        second: a result on the same images.
        rows: what to compare of each of them.

    Raises:
        ArgumentError: a result has no such row. The message lists those that it has.
    """
    chosen = zip((first, second), rows, ("first", "second"), strict=True)
    ours, theirs = (_chosen(result, row, which) for result, row, which in chosen)
    mine, other = _first_shown(ours, first), _first_shown(theirs, second)
    lines = _lines(*mine, *other)
    for before, place in ours:
        for after, at in theirs:
            bases = before.is_base and after.is_base and first.kind == second.kind
            same = (bases or before.name == after.name) and before.num_samples[place] == after.num_samples[at]
            if same and ((before, place), (after, at)) != (mine, other):
                lines += _lines(before, place, after, at)
    return lines


Place = tuple[ShownClassifier, int]
"""A classifier and the place of one of its M."""


def sigma_of_normalized(result: Result, value: float, which: str = "first") -> float:
    """The sigma in pixel units, as `ChosenRow` takes it, of those rows whose sigma in the paper's unit is `value`.

    Args:
        result: a result.
        value: standard deviation in the paper's unit, to the four digits that tables show.
        which: which of the two results it is, for the message.

    Raises:
        ArgumentError: no row has this sigma.
    """
    known = [row for row in result.rows if row.get("sigma_normalized") is not None]
    sigmas = {shown_sigma(row["sigma_normalized"]): row["sigma"] for row in known}
    found = sigmas.get(shown_sigma(value))
    if found is None:
        expected = f"a sigma of the {which} result in the paper's unit ({', '.join(sigmas) or 'none'})"
        raise ArgumentError("sigma-normalized", expected, f"{value:g}")
    return found


def _chosen(result: Result, row: ChosenRow, which: str) -> list[Place]:
    """The rows of the first or of the second result that fit the choice."""
    classifiers = shown_classifiers(result) if row == ANY_ROW else all_classifiers(result)
    every = found = [(each, place) for each in classifiers for place in range(len(each.num_samples))]
    fits = {
        "vote": lambda each, _: each.vote == row.vote,
        "sigma": lambda each, _: shown_sigma(each.sigma) == shown_sigma(row.sigma),
        "num_samples": lambda each, place: each.num_samples[place] == row.num_samples,
    }
    for part, fit in fits.items():
        value = getattr(row, part)
        if value is None:
            continue
        left = [(each, place) for each, place in found if fit(each, place)]
        if not left:
            raise ArgumentError(part, f"a row of the {which} result: {_listed_rows(every)}", _request(row))
        found = left
    return found


def _first_shown(rows: Sequence[Place], result: Result) -> Place:
    """The row of the largest M of the classifier that reports show first; if it is none of these, of its sigma."""
    classifiers = list(dict.fromkeys(each for each, _ in rows))
    own = next((each for each in shown_classifiers(result) if each.is_own), None)
    same_sigma = [each for each in classifiers if own is not None and not each.is_base and _have_same_sigma(each, own)]
    found = classifiers if any(each.is_own for each in classifiers) or not same_sigma else same_sigma
    main = found[main_classifier(found)]
    return [row for row in rows if row[0] is main][-1]


def _have_same_sigma(one: ShownClassifier, other: ShownClassifier) -> bool:
    return shown_sigma(one.sigma) == shown_sigma(other.sigma)


def _listed_rows(rows: Sequence[Place]) -> str:
    counts = dict[ShownClassifier, list[int]]()
    for each, place in rows:
        counts.setdefault(each, []).append(each.num_samples[place])
    return "; ".join(
        f"{f'none ({each.name})' if each.is_base else each.name}, M = {', '.join(map(str, of_each))}"
        for each, of_each in counts.items()
    )


def _request(row: ChosenRow) -> str:
    sigma = None if row.sigma is None else f"{row.sigma:g} (pixel units)"
    given = {"vote": row.vote, "sigma": sigma, "M": row.num_samples}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)


def _lines(before: ShownClassifier, place: int, after: ShownClassifier, at: int) -> list[PairLine]:
    names = [f"{each.name}, M = {each.num_samples[number]}" for each, number in ((before, place), (after, at))]
    name = names[0] if names[0] == names[1] else f"first: {names[0]}; second: {names[1]}"
    lines = [_line(name, "clean", before.clean[place], after.clean[at])]
    if before.attacked and after.attacked:
        attacks = before.attack if before.attack == after.attack else f"first: {before.attack}; second: {after.attack}"
        lines.append(_line(name, attacks, before.attacked[place], after.attacked[at]))
    return lines


def _line(name: str, images: str, before: ImageOutcomes, after: ImageOutcomes) -> PairLine:
    gain = PairedGain.of(name, images, before.right, after.right)
    first, second = (format_percent(float(each.right.mean())) for each in (before, after))
    return PairLine(first, second, GainLine.of(gain, before.right, after.right))


def comparison_sentence(lines: list[PairLine]) -> str:
    """The paired test of the first rows under attack, or on clean images, in words."""
    of_main = [line.gain for line in lines if line.gain.name == lines[0].gain.name]
    line = of_main[1] if len(of_main) > 1 else of_main[0]
    where = "on clean images" if line.images == "clean images" else f"under attack ({line.images})"
    told = f"{line.gain} points (paired 95 % interval {line.bounds}; sign test {line.p})"
    reading = {
        "helps": f"The second result is better than the first {where}",
        "hurts": f"The second result is worse than the first {where}",
        "may be chance": f"The difference between the two results {where} may be chance",
    }[line.reading]
    return f"{reading}: {told}."
