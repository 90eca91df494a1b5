"""Two results on the same images: whether they are the same, and the paired test of each pair of classifiers."""

from dataclasses import dataclass

import torch

from smoothed.errors import ArgumentError
from smoothed.evaluation.results import PairedGain, Result
from smoothed.report.format import format_percent
from smoothed.report.html.classifiers import ImageOutcomes, ShownClassifier, main_classifier, shown_classifiers
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


def pair_lines(first: Result, second: Result) -> list[PairLine]:
    """The paired tests of the second result against the first.

    The first lines compare the classifiers that each report shows first. Further lines compare votes that both results
    have under the same name, at every M that both have.
    """
    ours, theirs = shown_classifiers(first), shown_classifiers(second)
    mine, other = ours[main_classifier(ours)], theirs[main_classifier(theirs)]
    lines = _lines(mine, other, -1, -1)
    for before in ours:
        after = next((each for each in theirs if each.name == before.name), None)
        for place, count in enumerate(before.num_samples):
            if after is None or count not in after.num_samples:
                continue
            at = after.num_samples.index(count)
            is_main = before is mine and after is other and place == len(before.num_samples) - 1
            if not is_main or at != len(after.num_samples) - 1:
                lines += _lines(before, after, place, at)
    return lines


def _lines(before: ShownClassifier, after: ShownClassifier, place: int, at: int) -> list[PairLine]:
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
    """The paired test of the first classifiers under attack, or on clean images, in words."""
    of_main = [line.gain for line in lines if line.gain.name == lines[0].gain.name]
    line = of_main[1] if len(of_main) > 1 else of_main[0]
    where = "on clean images" if line.images == "clean images" else f"under attack ({line.images})"
    told = f"{line.gain} points (paired 95 % interval {line.bounds}; sign test {line.p})"
    reading = {
        "helps": "The second result is better than the first",
        "hurts": "The second result is worse than the first",
        "may be chance": "These images can't tell the two results apart",
    }[line.reading]
    return f"{reading} {where}: {told}."
