"""The table of the worst-case evaluation, and the sentence on its sweep."""

from dataclasses import replace

import torch
from rich.console import Console

import known
from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.worst_case.eot_sweep import EOTSweepRow
from smoothed.evaluation.worst_case.rows import WorstCaseRow
from smoothed.report.table import eot_sweep_sentence, worst_case_table


def row(attack, right, count, network="smoothed", runs=1, **settings):
    numbers = torch.tensor(right)
    count, zeros = torch.full_like(numbers, count), torch.zeros_like(numbers)
    votes = VoteCounts(count, numbers, count, numbers, zeros + 1, zeros)
    protocol = replace(known.QUICK, eps=8 / 255, **settings)
    names = {"model": "toy", "network": network, "attack": attack, "attacked": 3.0, "eot_samples": 4}
    noise = known.UNIFORM.to_json(known.Threshold())
    return WorstCaseRow.from_votes(protocol, [votes] * runs, [votes], **names, **noise)


def text(table, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    console.file.close()
    return console.export_text()


def test_it_shows_each_attack_under_its_network():
    rows = [row("none", [10, 10], 10, "mean network"), row("pgd-ce", [5, 4], 5), row("worst case", [9, 5], 10)]
    shown = text(worst_case_table(rows)).splitlines()
    assert shown[0].startswith("toy, 2 images, L-inf 8/255, prediction vote of M = 1, sigma 0.2887")
    names = [line.split("  ")[1].strip() for line in shown if line.startswith("  ")]
    assert [name for name in names if name] == ["attack", "mean network", "none", "smoothed", "pgd-ce", "worst case"]
    (pgd,) = (line.split() for line in shown if "pgd-ce" in line)
    # tried on, robust, interval, all of 2 and of 10 votes right, the same for single draws after one of them, tied
    assert pgd[1:] == ["3", "90.0", "27.9-99.5", "80.0", "-", "90.0", "80.0", "-", "20.0"]
    (worst,) = (line.split() for line in shown if "worst case" in line)
    assert worst[3] == "70.0"
    assert worst[5:7] == [f"{50 * (8 / 10 + 5 * 4 / 90):.1f}", "0.0"]


def test_it_shows_deviations_and_abstentions_where_there_are_any():
    shown = text(worst_case_table([row("worst case", [9, 5], 10, runs=2, alpha=0.05)]), width=120)
    assert "70.0 ± 0.0" in shown
    assert "abstained" in shown
    assert "abstained" not in text(worst_case_table([row("worst case", [9, 5], 10)]))


def test_the_footnote_explains_the_columns_that_there_are():
    for counts in ((1,), (1, 2)):
        shown = text(worst_case_table([row("worst case", [9, 5], 10, resubmissions=counts)]), width=200)
        (header,) = (line for line in shown.splitlines() if line.strip().startswith("attack "))
        assert ("N = 2" in header) == ("N = n" in shown) == (counts == (1, 2))


def test_the_sentence_says_what_the_sweep_found():
    few = EOTSweepRow(1, Accuracy(0.5, (0.4, 0.6), 0.0), None, None, False, False, 200, 20)
    many = replace(few, eot_samples=4, robust=Accuracy(0.4, (0.3, 0.5), 0.0), chosen=True, flat=True)
    found = "Robust accuracy by draws per gradient, on 200 images: 50.0 % with 1, 40.0 % with 4"
    assert eot_sweep_sentence([few, many]) == (
        f"{found}; the last increase gained nothing significant (95 % interval). The attacks average 4 draws."
    )
    assert eot_sweep_sentence([few, replace(many, flat=False)]) == (
        f"{found}; the attack still gains, so add larger numbers to --eot-samples. The attacks average 4 draws."
    )


def test_every_column_at_once_is_whole_in_eighty_columns():
    rows = [row("mypackage.attacks:brighten_all", [5, 4], 5, runs=2), row("worst case", [9, 5], 10, runs=2, alpha=0.05)]
    shown = text(worst_case_table(rows), width=80)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    numbers = [part for line in shown.splitlines() for part in line.split() if part[0].isdigit()]
    wide = text(worst_case_table(rows), width=200).splitlines()
    expected = [part for line in wide for part in line.split() if part[0].isdigit()]
    assert sorted(numbers) == sorted(expected)
    assert len(expected) > 20
