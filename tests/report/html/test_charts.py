"""Places of points on charts, and ticks."""

import pytest

from smoothed.report.html.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, ChartCurve, ChartPoint, drawn


def chart(*points, **options):
    curve = ChartCurve("a", [ChartPoint(*point) for point in points], options.pop("steps", False))
    return Chart("title", "x", "y", [curve], **options)


def test_points_lie_where_their_values_are():
    (figure,) = drawn([chart((0.0, 0.2), (1.0, 0.4), (4.0, 0.6), y_range=(0.0, 1.0))])
    (curve,) = figure.curves
    left, right = LEFT + 8, WIDTH - RIGHT - 8
    top, bottom = TOP, HEIGHT - BOTTOM
    across = [left + (right - left) * share for share in (0, 0.25, 1)]
    down = [bottom - (bottom - top) * share for share in (0.2, 0.4, 0.6)]
    assert curve["points"] == [pytest.approx(point, abs=0.06) for point in zip(across, down, strict=True)]
    assert curve["path"].count("L") == 2


def test_a_log_axis_has_equal_distances_between_doublings():
    (figure,) = drawn([chart((1, 0.1), (2, 0.1), (8, 0.1), scale="log")])
    first, second, third = (x for x, _ in figure.curves[0]["points"])
    assert third - second == pytest.approx(2 * (second - first), abs=0.2)
    assert [text for _, text in figure.x_ticks] == ["1", "2", "8"]


def test_charts_without_a_range_share_the_smallest_one_of_whole_tens():
    figures = drawn(
        [chart((0, 0.42, (0.38, 0.45)), (1, 0.5)), chart((0, 0.71), (1, 0.6)), chart((0, 0.1), y_range=(0, 1))]
    )
    ticks = [[text for _, text in figure.y_ticks] for figure in figures]
    assert ticks[0] == ticks[1] == ["30", "40", "50", "60", "70", "80"]
    assert ticks[2] == ["0", "20", "40", "60", "80", "100"]
    (whisker,) = figures[0].curves[0]["whiskers"]
    assert whisker[1] > figures[0].curves[0]["points"][0][1] > whisker[2]


def test_many_values_have_few_round_ticks_and_one_value_has_an_axis():
    (figure,) = drawn([chart(*((number / 50, 0.5) for number in range(51)))])
    assert [text for _, text in figure.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    (figure,) = drawn([chart((3.0, 0.5))])
    assert [text for _, text in figure.x_ticks] == ["3"]
    assert drawn([chart()]) == []
    (figure,) = drawn([chart(*((2.0**power, 0.5) for power in range(12)), scale="log")])
    assert [text for _, text in figure.x_ticks][:3] == ["1", "4", "16"]
    assert len(figure.x_ticks) <= 9


def test_steps_keep_their_height_until_the_next_point():
    (figure,) = drawn([chart((0.0, 1.0), (1.0, 0.5), steps=True)])
    path = figure.curves[0]["path"]
    assert "H" in path
    assert path.index("H") < path.index("V")


def test_fractions_on_the_x_axis_are_shown_in_percent():
    (figure,) = drawn([chart((0.0, 0.5), (1.0, 0.5), x_percent=True, diagonal=True)])
    assert [text for _, text in figure.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert [text for _, text in figure.y_ticks][-1] == "60"


def test_charts_on_a_given_range_keep_to_it():
    figures = drawn([chart((0, 0.42), (1, 0.5)), chart((0, 0.1), y_range=(0, 1))], (0.2, 0.7))
    assert [text for _, text in figures[0].y_ticks] == ["20", "30", "40", "50", "60", "70"]
    assert figures[1].y_ticks[-1][1] == "100"


def test_a_chart_knows_whether_points_have_intervals():
    with_one, without = drawn([chart((0, 0.42), (1, 0.5, (0.4, 0.6))), chart((0, 0.1), (1, 0.2))])
    assert with_one.has_intervals
    assert not without.has_intervals
