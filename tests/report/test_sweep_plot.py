"""The picture of a sweep."""

from dataclasses import replace

import pytest
from matplotlib.collections import QuadMesh
from matplotlib.image import imread

from smoothed.report.sweep import SweepReport
from smoothed.report.sweep_plot import plot_sweep, sweep_figure
from sweeps import ROBUST, SETTING, made


@pytest.mark.slow
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


def drawn(sigmas, counts):
    """The figure of a sweep over these sigmas and numbers of draws."""
    robust = [[[50 + place for place in range(len(counts))]]] * len(sigmas)
    return sweep_figure(SweepReport.of(made(robust, sigmas, counts, ("soft",))))


@pytest.mark.parametrize(
    ("sigmas", "edges"), [((0.0, 0.1, 0.3), [-0.05, 0.05, 0.2, 0.4]), ((0.2,), [-0.3, 0.7])], ids=["several", "one"]
)
def test_cells_lie_around_their_sigma(sigmas, edges):
    mesh = next(each for axis in drawn(sigmas, (1, 8)).axes for each in axis.collections if isinstance(each, QuadMesh))
    assert mesh.get_coordinates()[0, :, 0].tolist() == pytest.approx(edges)


@pytest.mark.parametrize(
    ("counts", "lines"),
    [((1, 8, 64), [1, 8, 64]), (tuple(2**power for power in range(10)), [1, 4, 16, 128, 512])],
    ids=["all", "some"],
)
def test_few_lines_with_both_ends(counts, lines):
    (legend,) = drawn((0.1, 0.2), counts).legends
    assert [text.get_text() for text in legend.get_texts()] == [f"M = {count}" for count in lines]
