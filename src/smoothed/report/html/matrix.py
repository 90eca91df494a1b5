"""What each attack of a worst-case evaluation breaks: a table with one line for each attack, and a matrix of images."""

from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

from smoothed.evaluation.results import Result
from smoothed.evaluation.worst_case.rows import CLEAN, WORST
from smoothed.report.format import format_interval, format_percent
from smoothed.report.html.classifiers import networks, tried_shares

LEVELS = 5
"""Number of shades of a cell, from no right vote to right votes alone."""

NOT_TRIED = -1
"""The cell of an image that an earlier attack had already broken in all votes."""


@dataclass(frozen=True)
class AttackLine:
    """One attack on one network.

    Attributes:
        attack: its name; `clean images` and `worst case` for the first and the last line.
        attacked: number of images it was tried on.
        draws: draws averaged for each gradient; empty if it has none.
        accuracy: accuracy that it leaves, in percent.
        bounds: the interval of it.
        resubmitted: accuracy after each number of resubmissions.
        broken: images with at most half of their votes right; None for an unknown number.
        first: images of which this is the first line that breaks them; None for the last line.
        worst: images whose worst example it made, the mean over runs; None for the first and the last line.
        cells: shade of each shown image, 0 (no vote is right) to `LEVELS` - 1 (all are right); `NOT_TRIED` for an image
            that the attack was tried on in no run.
    """

    attack: str
    attacked: str
    draws: str
    accuracy: str
    bounds: str
    resubmitted: list[str]
    broken: int | None = None
    first: int | None = None
    worst: str | None = None
    cells: list[int] = field(default_factory=list)

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """Neighbouring cells of the same shade: their shade, the place of the first one, and their number."""
        groups = [(level, len(list(cells))) for level, cells in groupby(self.cells)]
        starts = accumulate((count for _, count in groups), initial=0)
        return [(level, start, count) for (level, count), start in zip(groups, starts, strict=False)]


@dataclass(frozen=True)
class AttackMatrix:
    """All attacks on one network.

    Attributes:
        network: name of the network.
        resubmissions: numbers of resubmissions, above 1.
        lines: clean images, the attacks in their order, and the worst case.
        images: numbers of the images of the cells, those with the lowest accuracy in the worst case first.
        made: for each of these images the line of the attack that made its worst example; 0 for the clean image.
    """

    network: str
    resubmissions: list[int]
    lines: list[AttackLine]
    images: list[int]
    made: list[int]


def attack_matrices(result: Result, most: int) -> list[AttackMatrix]:
    """The matrix of each network of a worst-case result, the smoothed classifier first.

    Args:
        result: a result of any kind; other kinds have none.
        most: largest number of images in the cells.
    """
    if result.kind != "worst-case":
        return []
    found = networks(result) or dict.fromkeys((row["network"] for row in result.rows), "")
    return [_matrix(result, network, prefix, most) for network, prefix in reversed(found.items())]


def _matrix(result: Result, network: str, prefix: str, most: int) -> AttackMatrix:
    rows = [row for row in result.rows if row["network"] == network]
    resubmissions = sorted(int(count) for count in rows[-1]["worst"] if int(count) > 1)
    if not prefix:
        lines = [_line(row, resubmissions) for row in rows]
        return AttackMatrix(network, resubmissions, lines, [], [])
    right = result.tensors[f"{prefix}.right"]  # (rows, runs, images)
    shares, tried = right.double().mean(1), tried_shares(right)
    worst = result.tensors[f"{prefix}.worst_attack"]  # (runs, images)
    order = torch.argsort(shares[-1] + 1e-3 * shares[0], stable=True)[:most]
    broken = shares <= 0.5
    first = _first_broken(tried[:-1])
    lines = list[AttackLine]()
    for number, row in enumerate(rows):
        is_attack = 0 < number < len(rows) - 1
        made = f"{float((worst == number - 1).double().sum(1).mean()):g}" if is_attack else None
        broke_first = first[number] if number < len(first) else None
        seen = {"broken": int(broken[number].sum()), "first": broke_first, "worst": made}
        lines.append(_line(row, resubmissions, **seen, cells=_levels(tried[number, order])))
    return AttackMatrix(network, resubmissions, lines, order.tolist(), (worst[0, order] + 1).tolist())


def _first_broken(tried: Tensor) -> list[int]:
    """For each line the number of images with at most half of their votes right there, and on no earlier line."""
    broken = tried <= 0.5  # false where the attack was not tried
    return (broken & (broken.cumsum(0) == 1)).sum(1).tolist()


def _line(row: dict[str, Any], resubmissions: list[int], **seen: Any) -> AttackLine:  # noqa: ANN401 - fields of the line
    names, attack = {CLEAN: "clean images", WORST: "worst case"}, str(row["attack"])
    by_count = {int(count): accuracy for count, accuracy in row["worst"].items()}
    return AttackLine(
        names.get(attack, attack),
        f"{row['attacked']:g}",
        "" if row["eot_samples"] is None else str(row["eot_samples"]),
        format_percent(row["robust"]["mean"]),
        format_interval(row["robust"]["interval"]),
        [format_percent(by_count[count]["mean"]) if count in by_count else "-" for count in resubmissions],
        **seen,
    )


def _levels(shares: Tensor) -> list[int]:
    """0 for no right vote and `LEVELS` - 1 for right votes alone, others in between; `NOT_TRIED` for NaN."""
    between = 1 + (shares * (LEVELS - 2)).long().clamp(0, LEVELS - 3)
    levels = torch.where(shares <= 0, 0, torch.where(shares >= 1, LEVELS - 1, between))
    return torch.where(shares.isnan(), NOT_TRIED, levels).tolist()
