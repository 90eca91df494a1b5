"""The picture of a sweep."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
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
    [((1, 8, 64), [64, 8, 1]), (tuple(2**power for power in range(10)), [512, 128, 16, 4, 1])],
    ids=["all", "some"],
)
def test_few_lines_with_both_ends(counts, lines):
    labels = legend_labels(drawn((0.1, 0.2), counts))
    assert labels[: len(lines)] == [f"M = {count}" for count in lines]
    assert labels[len(lines)] == f"95 % interval over images,\nM = {counts[-1]}"


def of(votes, counts, same=0):
    """The figure of a sweep whose curves differ by at least one image in a hundred, or coincide."""
    step = 0 if same else 1
    robust = [
        [
            [40 + 4 * place + step * (len(counts) * vote + count) for count in range(len(counts))]
            for vote in range(votes)
        ]
        for place in range(4)
    ]
    names = ("prediction", "weighted", "soft")[:votes]
    return sweep_figure(SweepReport.of(made(robust, counts=counts, votes=names)))


def legend_labels(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def curves(axis):
    return [line for line in axis.lines if len(line.get_xdata())]


@pytest.mark.parametrize(
    ("votes", "counts", "labels", "panels", "title"),
    [
        (2, (8,), ["prediction vote", "weighted vote"], [""], "toy: 100 images of toy validation, M = 8"),
        (1, (1, 8, 64), ["M = 64", "M = 8", "M = 1"], [""], "toy: 100 images of toy validation, prediction vote"),
        (
            3, (1, 8, 64), ["M = 64", "M = 8", "M = 1"], ["prediction vote", "weighted vote", "soft vote"],
            "toy: 100 images of toy validation",
        ),
        (1, (8,), [], [""], "toy: 100 images of toy validation, prediction vote, M = 8"),
    ],
    ids=["two votes", "three M", "both", "one curve"],
)  # fmt: skip
def test_curves_are_named_by_what_differs(votes, counts, labels, panels, title):
    figure = of(votes, counts)
    shown = legend_labels(figure)
    assert shown[: len(labels)] == labels
    assert shown[len(labels)].startswith("95 % interval over images")
    assert len(shown) == len(labels) + 3  # the interval, the star and the dot
    top = figure.axes[: len(panels)]
    assert [axis.get_title(loc="left") for axis in top] == panels
    assert [len(curves(axis)) for axis in top] == [max(len(labels), 1)] * len(panels)
    assert figure.get_suptitle() == title
    assert figure.axes[0].get_ylabel() == "accuracy, %\nclean images"
    assert figure.axes[len(panels)].get_ylabel() == "accuracy, %\nPGD-7, L-inf 8/255"
    assert figure.axes[-2].get_xlabel() == "sigma, pixel units of [0, 1]"


@pytest.mark.parametrize("votes", [2, 3])
def test_each_row_of_the_heat_map_is_a_vote_where_there_is_one_m(votes):
    heat = of(votes, (8,)).axes[2]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["prediction", "weighted", "soft"][:votes]
    assert heat.yaxis_inverted()  # the first vote on top, as in the legend
    (mesh,) = (each for each in heat.collections if isinstance(each, QuadMesh))
    assert mesh.get_array()[:, 0].tolist() == [40, 41, 42][:votes]


@pytest.mark.parametrize(("votes", "counts"), [(2, (8,)), (1, (1, 8, 64)), (1, (1, 2, 4, 8, 16)), (3, (8,))])
def test_all_curves_are_seen_where_they_coincide(votes, counts):
    figure = of(votes, counts, same=True)
    axis = figure.axes[1]  # of attacked images
    for artist in [*axis.collections, axis.get_xaxis(), axis.get_yaxis()]:
        artist.set_visible(False)
    styles = {(line.get_color(), line.get_marker(), str(line._unscaled_dash_pattern)) for line in curves(axis)}
    assert len(styles) == len(curves(axis)) == max(votes, len(counts))
    assert [len(set(each)) for each in zip(*styles, strict=True)] == [len(styles)] * 3
    for markers in (True, False):
        for line in curves(axis):
            line.set_markersize(line.get_markersize() if markers else 0)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
        box = axis.get_window_extent()
        panel = pixels[round(len(pixels) - box.y1) : round(len(pixels) - box.y0), round(box.x0) : round(box.x1)]
        for line in curves(axis):
            colour = np.array(to_rgb(line.get_color())) * 255
            near = (np.abs(panel - colour) < 3).all(-1).any(0)  # by columns of pixels
            assert near.mean() > 0.08


@pytest.mark.parametrize(("votes", "counts"), [(2, (8,)), (1, (1, 8, 64)), (3, (1, 8, 64))])
def test_the_legend_and_the_titles_overlap_nothing(votes, counts):
    names = tuple(f"mypackage.votes_of_mine:trimmed_mean_{number}" for number in range(votes))
    robust = [[[40 + place for _ in counts] for _ in names] for place in range(4)]
    figure = sweep_figure(SweepReport.of(made(robust, counts=counts, votes=names)))
    figure.canvas.draw()
    (legend,) = figure.legends
    panels = [axis.get_tightbbox() for axis in figure.axes]
    box = legend.get_window_extent()
    # The colour bar's labels may end below the legend, never behind it.
    assert not any(box.overlaps(panel) for panel in panels)
    assert box.x1 <= figure.bbox.x1
    assert not box.overlaps(figure._suptitle.get_window_extent())
    titles = [axis._left_title.get_window_extent() for axis in figure.axes if axis.get_title(loc="left")]
    assert all(left.x1 < right.x0 for left, right in pairwise(titles))


def test_panels_beside_each_other_share_their_axis_and_all_span_the_same_points():
    figure = of(3, (1, 8, 64))
    limits = [axis.get_ylim() for axis in figure.axes]
    assert len(set(limits[:3])) == len(set(limits[3:6])) == 1
    clean, robust = limits[0], limits[3]
    assert clean[1] - clean[0] == pytest.approx(robust[1] - robust[0])
    assert clean[0] < 90
    assert 100 < clean[1] < 105  # all curves are at 100 %, with room for their markers
    assert robust[0] < 40
    assert robust[1] > 60
