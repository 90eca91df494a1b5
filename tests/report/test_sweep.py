"""What a sweep says in the terminal and in JSON, on outcomes set by hand."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from smoothed.report.sweep import (
    LINES,
    SweepReport,
    format_ranges,
    peaks_table,
    selection_warning,
    sweep_grid,
    sweep_sentences,
    thinned,
)
from sweeps import ROBUST, SETTING, made


def text(table, width=80):
    console = Console(width=width, file=io.StringIO(), soft_wrap=True)  # as the command prints
    console.print(table)
    return console.file.getvalue()


def lines(table):
    return [line.split() for line in text(table).splitlines()]


@pytest.fixture
def report():
    return SweepReport.of(made(ROBUST))


def test_the_grid_shows_the_best_vote_and_marks_the_peaks(report):
    shown = lines(sweep_grid(report))
    assert ["0", "40.0", "41.0", "31.9-50.8", "100.0"] in shown  # Wilson's interval of 41 of 100
    assert ["0.2", "48.0°", "62.0*", "52.2-70.9", "100.0"] in shown
    assert ["0.3", "30.0", "61.0", "51.2-70.0", "100.0"] in shown
    title = text(sweep_grid(report)).splitlines()[0]
    assert title.strip() == "toy, 100 images, prediction vote: accuracy in %, PGD-7, L-inf 8/255"


def test_a_large_grid_is_thinned_and_fits_a_screen():
    sigmas = tuple(number / 100 for number in range(51))
    counts = tuple(2**power for power in range(10))
    robust = [[[50 - abs(number - 23)] * 10] for number in range(51)]
    shown = text(sweep_grid(SweepReport.of(made(robust, sigmas, counts, ("soft",)))))
    assert "20 of 51 sigmas; 7 of 10 Ms" in " ".join(shown.split())
    assert "…" not in shown
    assert {"0", "0.22", "0.23", "0.24", "0.5"} <= {line.split()[0] for line in shown.splitlines() if line.strip()}


def test_thinning_keeps_the_ends_and_what_surrounds_the_best():
    assert thinned([1, 2, 3], 2, LINES) == [1, 2, 3]
    assert thinned(list(range(100)), 50, 10) == [0, 10, 20, 30, 40, 49, 50, 51, 60, 70, 80, 90, 99]
    assert thinned(list(range(100)), 0, 25) == [0, 1, *range(4, 100, 4), 99]


def test_each_vote_at_its_peak(report):
    shown = text(peaks_table(report))
    assert "Each vote at its best sigma, M = 8" in shown
    rows = {line[:22].strip(): line[22:].split() for line in shown.splitlines()}
    assert rows["best sigma"] == ["0.2", "0.2"]
    assert rows["PGD-7 %"] == ["62.0", "58.0"]
    assert rows["may be the best"] == ["0.1-0.3", "0.1-0.2"]
    assert " ".join(rows["gain over sigma 0"]) == "+21.0 (p < 0.001) +18.0 (p < 0.001)"
    assert " ".join(rows["gain over next lower"]) == "+2.0 (p = 0.5) +3.0 (p = 0.25)"  # 2 / 2^2, 2 / 2^3


def test_the_sentences(report):
    assert sweep_sentences(report) == [
        "Best setting on these 100 images: sigma 0.2, prediction vote, M = 8, with 62.0 % (52.2-70.9) under PGD-7, "
        "100.0 % (96.3-100.0) on clean images (95 % intervals).",
        "The best sigma is one of 0.1-0.3 (3 of 4; 95 % confidence); these images can't tell them apart.",
        "Gains over other sigmas on the same images, in points: +21.0 over 0 (p < 0.001), +2.0 over 0.1 (p = 0.5), "
        "+1.0 over 0.3 (p = 1). Only the gain over 0 is significant.",
        "At this sigma and vote, fewer draws are significantly worse.",
        "At this sigma and M, the soft vote is not significantly worse than the prediction vote.",
    ]


def test_the_sentences_where_nothing_can_be_told():
    said = sweep_sentences(SweepReport.of(made([[[50, 51], [50, 50]]] * 4)))
    assert "These images can't tell which of the 4 sigmas is the best; use more images." in said
    assert said[2].endswith("+0.0 over 0.1 (p = 1). No gain is significant.")
    assert "At this sigma and vote, M = 1 is not significantly worse than M = 8: fewer draws may suffice." in said


def test_the_sentences_where_all_is_plain():
    robust = [[[10, 20], [1, 1]], [[10, 90], [1, 1]], [[10, 50], [1, 1]], [[10, 50], [1, 1]]]
    said = sweep_sentences(SweepReport.of(made(robust)))
    assert said[1:] == [
        "No other sigma can be the best (95 % confidence).",
        "Gains over other sigmas on the same images, in points: +70.0 over 0 (p < 0.001), +40.0 over 0.2 (p < 0.001). "
        "Every gain is significant.",
        "At this sigma and vote, fewer draws are significantly worse.",
        "At this sigma and M, the other votes are significantly worse.",
    ]


def test_one_cell_on_clean_images():
    sweep = made([[[62]]], (0.1,), (1,), ("soft",), normalized=(0.4,))
    clean = replace(sweep, right=sweep.right[1:], setting={**SETTING, "attack": "none", "steps": None, "eps": None})
    said = sweep_sentences(SweepReport.of(clean))
    assert said == [
        "Best setting on these 100 images: sigma 0.1 (0.4 normalised), soft vote, M = 1, with 62.0 % (52.2-70.9) on "
        "clean images (95 % intervals).",
        "Only one sigma was measured, so there is nothing to compare it with.",
    ]
    shown = text(sweep_grid(SweepReport.of(clean)))
    assert "soft vote: accuracy in %, clean images" in shown
    assert ["0.1", "62.0*", "52.2-70.9"] in lines(sweep_grid(SweepReport.of(clean)))


def test_json_has_every_cell_and_what_was_concluded(report):
    written = json.loads(json.dumps(report.to_json()))
    assert (written["criterion"], written["data"]) == ("robust", "toy validation")
    assert len(written["rows"]) == 16
    assert len(written["peaks"]) == 4
    (row,) = [row for row in written["rows"] if (row["vote"], row["num_samples"], row["sigma"]) == ("soft", 8, 0.3)]
    assert (row["robust"], row["clean"], row["images"]) == (0.4, 1.0, 100)
    best = written["best"]
    assert (best["sigma"], best["vote"], best["num_samples"]) == (0.2, "prediction", 8)
    assert best["may_be_best"] == [0.1, 0.2, 0.3]
    assert best["versus"][0]["sigma"] == 0
    assert (best["versus"][0]["wins"], best["versus"][0]["losses"]) == (21, 0)


def test_words():
    assert format_ranges([1, 2, 4, 7, 8, 9], range(10)) == "1-2, 4, 7-9"
    assert "test images (cifar10 test); select sigma and M on other images (--split validation)" in selection_warning(
        "cifar10 test"
    )
