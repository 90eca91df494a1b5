"""The picture of a sweep."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from smoothed.report import sweep_plot
from smoothed.report.sweep import SweepReport
from smoothed.report.sweep_plot import plot_sweep
from sweeps import ROBUST, SETTING, made


def test_the_plot_is_a_png_and_replaces_the_old_one(tmp_path):
    report = SweepReport.of(made(ROBUST))
    path = tmp_path / "deep" / "plot.png"
    plot_sweep(report, path)
    pixels = imread(plot_sweep(report, path))
    assert pixels.shape[0] > 800
    assert pixels.std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == ["plot.png"]


def test_one_cell_without_an_attack_has_a_picture_too(tmp_path):
    sweep = made([[[62]]], (0.1,), (1,), ("soft",))
    clean = replace(sweep, right=sweep.right[1:], setting={**SETTING, "attack": "none", "steps": None, "eps": None})
    assert imread(plot_sweep(SweepReport.of(clean), tmp_path / "plot.png")).std() > 0.05


def test_cells_lie_around_their_sigma():
    assert sweep_plot._edges([0, 0.1, 0.3]) == pytest.approx([-0.05, 0.05, 0.2, 0.4])
    assert np.all(sweep_plot._edges([0.2]) == [-0.3, 0.7])


def test_few_lines_with_both_ends():
    assert sweep_plot._spread([1, 8, 64]) == [1, 8, 64]
    assert sweep_plot._spread([2**power for power in range(10)]) == [1, 4, 16, 128, 512]
