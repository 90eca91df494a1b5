"""Peaks of sweeps whose outcomes are set by hand."""

import pytest

from smoothed.evaluation.sweep.paired import sign_test
from smoothed.evaluation.sweep.peaks import find_best, find_peaks
from smoothed.utils.intervals import interval
from sweeps import ROBUST, made


def peaks_of(sweep):
    return find_peaks(sweep, sweep.cells())


def test_the_peak_of_each_vote_and_m():
    peaks = peaks_of(made(ROBUST))
    assert [(peak.cell.vote, peak.cell.num_samples, peak.cell.sigma) for peak in peaks] == [
        ("prediction", 1, 0.2), ("prediction", 8, 0.2), ("soft", 1, 0.1), ("soft", 8, 0.2),
    ]  # fmt: skip
    peak = peaks[1]
    assert peak.cell.criterion.interval == interval(62, 100)
    assert peak.candidates == (0.1, 0.2, 0.3)
    assert list(peak.versus) == [0.0, 0.1, 0.3]
    zero = peak.versus[0.0]
    assert (zero.wins, zero.losses, zero.gain) == (21, 0, pytest.approx(0.21))
    assert zero.p == sign_test(21, 0) == pytest.approx(2 / 2**21)
    assert zero.significant
    assert not peak.versus[0.1].significant


def test_the_best_of_all_and_what_may_be_as_good():
    best = find_best(found := made(ROBUST), peaks_of(found))
    assert (best.peak.cell.vote, best.peak.cell.num_samples, best.peak.cell.sigma) == ("prediction", 8, 0.2)
    assert best.num_samples == (8,)  # 14 images more than one draw
    assert best.votes == ("prediction", "soft")  # 4 images
    written = best.to_json()
    assert (written["sigma"], written["may_be_best"]) == (0.2, (0.1, 0.2, 0.3))
    assert [versus["sigma"] for versus in written["versus"]] == [0.0, 0.1, 0.3]


def test_equals_go_to_fewer_draws_and_less_noise():
    best = find_best(found := made([[[50, 50], [50, 50]]] * 4), peaks_of(found)).peak
    assert (best.cell.num_samples, best.cell.sigma, best.cell.vote) == (1, 0.0, "prediction")
    assert list(best.versus) == [0.1]
    assert best.versus[0.1].p == 1


def test_without_sigma_0_there_are_neighbours_alone():
    peaks = peaks_of(made(ROBUST, sigmas=(0.1, 0.2, 0.3, 0.4)))
    assert list(peaks[1].versus) == [0.2, 0.4]
    (peak,) = peaks_of(made([[[7]]], sigmas=(0.1,), counts=(1,), votes=("soft",)))
    assert (peak.versus, peak.candidates) == ({}, (0.1,))
