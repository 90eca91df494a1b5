"""The table of the strong protocol, and the sentence on its sweep."""

from dataclasses import replace

import torch
from rich.console import Console

import known
from smoothed.evaluation.fresh_votes import Votes
from smoothed.evaluation.worst_case.eot_sweep import SweepRow
from smoothed.evaluation.worst_case.rows import Accuracy, StrongRow
from smoothed.report.table import strong_table, sweep_sentence


def row(attack, right, count, network="smoothed", runs=1, **settings):
    numbers = torch.tensor(right)
    count, zeros = torch.full_like(numbers, count), torch.zeros_like(numbers)
    votes = Votes(count, numbers, count, numbers, zeros + 1, zeros)
    protocol = replace(known.QUICK, eps=8 / 255, **settings)
    return StrongRow.from_votes(
        protocol, [votes] * runs, [votes], model="toy", network=network, attack=attack, attacked=3.0, attack_samples=4
    )


def text(table, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    console.file.close()
    return console.export_text()


def test_it_shows_each_attack_under_its_network():
    rows = [row("none", [10, 10], 10, "mean network"), row("pgd-ce", [5, 4], 5), row("worst case", [9, 5], 10)]
    shown = text(strong_table(rows)).splitlines()
    assert shown[0].startswith("toy, 2 images, eps 8/255, prediction vote of M = 1, sigma 0.288675 pixel")
    names = [line.split("  ")[1].strip() for line in shown if line.startswith("  ")]
    assert [name for name in names if name] == ["attack", "mean network", "none", "smoothed", "pgd-ce", "worst case"]
    (pgd,) = (line.split() for line in shown if "pgd-ce" in line)
    # tried on, robust, interval, all of 2 and of 10 votes right, the same for single draws after one of them, tied
    assert pgd[1:] == ["3", "90.0", "34.2-100.0", "80.0", "-", "90.0", "80.0", "-", "20.0"]
    (worst,) = (line.split() for line in shown if "worst case" in line)
    assert worst[3] == "70.0"
    assert worst[5:7] == [f"{50 * (8 / 10 + 5 * 4 / 90):.1f}", "0.0"]


def test_it_shows_deviations_and_abstentions_where_there_are_any():
    shown = text(strong_table([row("worst case", [9, 5], 10, runs=2, alpha=0.05)]), width=120)
    assert "70.0 ± 0.0" in shown
    assert "abstained" in shown
    assert "abstained" not in text(strong_table([row("worst case", [9, 5], 10)]))


def test_the_sentence_says_what_the_sweep_found():
    few = SweepRow(1, Accuracy(0.5, (0.4, 0.6), 0.0), None, None, False, False, 200, 20)
    many = replace(few, attack_samples=4, robust=Accuracy(0.4, (0.3, 0.5), 0.0), chosen=True, flat=True)
    found = "Draws a gradient, on 200 images: 50.0 % with 1, 40.0 % with 4"
    assert sweep_sentence([few, many]) == f"{found}; flat there. The attacks take 4."
    assert sweep_sentence([few, replace(many, flat=False)]) == (
        f"{found}; and not flat yet: give --draws more. The attacks take 4."
    )
