"""Certified lines under the worst-case table: each number in the column of its meaning."""

from dataclasses import replace

import torch
from rich.console import Console

import known
from smoothed.evaluation.certified import CertifiedRow
from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.worst_case.rows import WorstCaseRow
from smoothed.report.table import worst_case_table
from smoothed.report.worst_case_certified import add_certified
from smoothed.utils.intervals import interval


def certified(radius, count):
    return CertifiedRow(
        model="toy", sigma=0.06, sigma_normalized=0.24, sigma_smallest=0.06, radius=radius, dimensions=3072,
        linf_eps=radius / 3072**0.5, certified=count / 200, certified_interval=interval(count, 200),
        clean=0.6, clean_interval=(0.5, 0.7), predict_abstained=0.05, predict_abstained_interval=(0.0, 0.1),
        abstained=0.125, abstained_interval=(0.1, 0.2), mean_radius=0.07, images=200, alpha=0.001,
        selection_samples=100, num_samples=1000, seed=0, precision="float32",
    )  # fmt: skip


def worst_case(**settings):
    """Of two images, 9 and 5 of 10 votes are right."""
    count, zeros = torch.tensor([10, 10]), torch.tensor([0, 0])
    votes = VoteCounts(count, torch.tensor([9, 5]), count, torch.tensor([9, 5]), zeros, zeros)
    protocol = replace(known.QUICK, **settings)
    noise = known.UNIFORM.to_json(known.Threshold())
    names = {"model": "toy", "network": "smoothed", "attack": "worst case", "attacked": 2.0, "eot_samples": 4}
    return WorstCaseRow.from_votes(protocol, [votes], [votes], **names, **noise)


def lines(rows, **settings):
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(add_certified(worst_case_table([worst_case(**settings)]), rows))
    console.file.close()
    return [line.split() for line in console.export_text().splitlines()]


def test_radii_stand_below_the_worst_case():
    rows = [certified(0.0, 110), certified(8 / 255, 61), certified(8 / 255 * 3072**0.5, 0)]
    shown = lines(rows)
    place = shown.index(["certified,", "L2"])
    assert any(line[:2] == ["worst", "case"] for line in shown[:place])
    cells = shown[place + 1 : place + 4]
    # r = radius, images, certified, interval; what it says nothing of is a dash
    assert cells[0][:6] == ["r", "=", "0", "200", "55.0", "48.1-61.7"]
    assert cells[1][:6] == ["r", "=", "0.0314", "200", "30.5", "24.5-37.2"]
    assert cells[2][:6] == ["r", "=", "1.74", "200", "0.0", "0.0-1.9"]
    assert all(set(line[6:]) == {"-"} for line in cells)


def test_abstentions_have_their_column_where_there_is_one():
    (line,) = (line for line in lines([certified(0.1, 61)], alpha=0.05) if line[:3] == ["r", "=", "0.1"])
    assert line[-1] == "12.5"
