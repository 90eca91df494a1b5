"""Tables, figures and pages of a run that is half done, from results written by hand."""

import json
import shutil
from io import StringIO

import pytest
from rich.console import Console

from made_results import Page, evaluated
from smoothed.errors import ArgumentError, DataError
from smoothed.evaluation.results import Result
from smoothed.paper.appendix_report import appendix_rows
from smoothed.paper.catalog import DECLARATIONS
from smoothed.paper.differences import PublishedDifference
from smoothed.paper.draw import curve_points, draw
from smoothed.paper.figures import FIGURE_B3, FIGURE_B4
from smoothed.paper.folder import RunFolder, existing_folder
from smoothed.paper.pages import write_pages, write_results_page
from smoothed.paper.show import appendix_markdown, appendix_tables, gain_lines, markdown_table, terminal_table
from smoothed.paper.shown import comparisons, shown_rows
from smoothed.paper.tables import TABLE_1

CNI, VOTE = "cni-w.pgd-7.one-draw", "cni-w.pgd-7.sigma-0.24"


def cells(page, label):
    """The cells of a row of a Markdown table."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def half_done(folder, write_result):
    """One draw of CNI-W (16 and 8 of 20 right) and its vote (17 and 14); all else has not been run."""
    write_result(CNI, clean=16, robust=8)
    write_result(VOTE, clean=17, robust=14, vote="prediction", num_samples=4, sigma=0.24)
    return folder


def test_a_half_done_table(half_done):
    rows = shown_rows(TABLE_1, half_done)
    page = markdown_table(TABLE_1, rows, half_done)
    assert cells(page, "AT, one draw") == [
        *("AT, one draw", "PGD-2", "", "", "", "", "83.84*", "", "", "39.14 ± 0.05", "", "")
    ]
    difference = PublishedDifference.of(0.7, 55.92, std=0.0, runs=1, images=20, published_std=0.22)
    low, high = difference.interval
    assert cells(page, "CNI-W, vote, sigma 0.24")[1:] == [
        *("PGD-2", "4", "0.24", "20", "1"),
        *("81.44 ± 0.06", "85.00 (75.0-95.0)", cells(page, "CNI-W, vote, sigma 0.24")[8]),
        *("55.92 ± 0.22", "70.00 (60.0-80.0)", f"+14.1 ({low:+.1f} to {high:+.1f})"),
    ]
    assert cells(page, "CNI-W, vote, tuned sigma")[3:] == ["tuned", *[""] * 8]


def test_a_table_of_which_nothing_has_been_run_has_no_rows(folder):
    page = markdown_table(TABLE_1, shown_rows(TABLE_1, folder), folder)
    assert page == f"## table-1: {TABLE_1.title}\n\nNot run.\n"


def test_a_table_in_a_narrow_terminal_is_complete(half_done):
    console = Console(width=80, record=True, file=StringIO())
    console.print(terminal_table(TABLE_1, shown_rows(TABLE_1, half_done), half_done))
    printed = console.export_text()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    line = next(line for line in printed.splitlines() if "55.92 ± 0.22" in line)
    assert line.split()[:6] == ["PGD-2", "55.92", "±", "0.22", "70.0", "(60.0-80.0)"]
    assert "20 images, 1 runs, unless stated" in printed


def test_rows_are_compared_image_by_image(half_done):
    gains = list(comparisons(shown_rows(TABLE_1, half_done)))
    assert [(gain.images, gain.gain) for gain in gains] == [
        ("clean", pytest.approx(0.05)),
        ("robust", pytest.approx(0.3)),
    ]
    # Six of twenty images are gained and none is lost; Bonett and Price add one of each.
    centre = 6 / 22
    half = 1.96 * ((8 / 22 - centre**2) / 22) ** 0.5
    assert gains[1].interval == pytest.approx((centre - half, centre + half))
    clean, robust = gain_lines(gains)
    assert clean.startswith("CNI-W, vote, sigma 0.24, against CNI-W, one draw: +5.0 points")
    assert clean.endswith("on clean images; the interval includes 0.")
    assert robust.endswith("on attacked images.")


def test_rows_on_other_images_are_not_compared(folder, write_result):
    write_result(CNI, clean=16, robust=8, pixels="other")
    write_result(VOTE, clean=17, robust=12, vote="prediction", num_samples=4)
    assert list(comparisons(shown_rows(TABLE_1, folder))) == []


def test_a_result_without_the_row_leaves_it_empty(folder, write_result):
    write_result(VOTE, clean=17, robust=12, vote="soft", num_samples=4)
    row = next(row for row in shown_rows(TABLE_1, folder) if row.spec.label == "CNI-W, vote, sigma 0.24")
    assert row.values is None


def test_points_of_curves(folder, write_result):
    for radius, robust in ((2, 15), (16, 5)):
        write_result(
            f"cni-w.pgd-7.eps-{radius}.sigma-0.24",
            clean=18,
            robust=robust,
            vote="prediction",
            num_samples=4,
            eps=radius / 255,
        )
    (panel,) = FIGURE_B4.panels
    points = curve_points(FIGURE_B4, panel, panel.curves[0], folder, {})
    assert [(x, accuracy) for x, accuracy, _ in points] == [(0.0, 0.9), (2.0, 0.75), (16.0, 0.25)]
    write_result(
        "cni-w.epgd-4x8.sigma-0.24", clean=18, robust=9, vote="prediction", num_samples=4, steps=4, eot_samples=8
    )
    panel = FIGURE_B3.panels[1]
    curve = next(curve for curve in panel.curves if curve.label == "EPGD")
    assert [point[:2] for point in curve_points(FIGURE_B3, panel, curve, folder, {})] == [(32.0, 0.45)]
    figure = draw(FIGURE_B3, folder)
    assert [len(axis.lines) for axis in figure.axes] == [0, 1, 1]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries.count("95 % interval over images") == 1
    assert entries[-1] == "95 % interval over images"
    # Some points of the curve have not been run: no line joins those that have.
    assert [line.get_linestyle() for axis in figure.axes for line in axis.lines] == ["None", "None"]
    assert "EPGD, incomplete" in entries
    figure.canvas.draw()
    title, legend = figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()
    assert title.x1 <= figure.bbox.x1
    assert not title.overlaps(legend)


def test_a_figure_without_results_is_not_drawn(folder):
    assert all(draw(DECLARATIONS[name], folder) is None for name in ("figure-1", "figure-b3"))


def test_pages_of_a_half_done_run(half_done, tmp_path):
    page = write_pages(["table-1", "figure-1"], half_done, tmp_path / "pages").read_text(encoding="utf-8")
    assert "schedule `tiny`" in page
    assert "## figure-1: CNI-W, prediction vote: accuracy against sigma for several M\n" in page
    assert "Not run." in page
    assert "| a machine | 0.1.0 | `smoothed paper run` | 0.02 |" in page
    values = json.loads((tmp_path / "pages/table-1.json").read_text())
    by_label = {row["label"]: row for row in values["rows"]}
    assert by_label["CNI-W, one draw"]["row"]["robust"] == 0.4
    assert by_label["CNI-W, one draw"]["published"]["robust"] == 48.84
    assert by_label["AT, one draw"]["row"] is None
    copied = tmp_path / "pages/results"
    assert {path.stem for path in copied.glob("*.json")} == {CNI, VOTE}
    assert Result.load(copied / f"{CNI}.json").rows[0]["clean"] == 0.8
    # A run in another folder goes on from them.
    shutil.copytree(copied, tmp_path / "other/results")
    other = RunFolder(tmp_path / "other", half_done.schedule)
    assert list(comparisons(shown_rows(TABLE_1, other))) == list(comparisons(shown_rows(TABLE_1, half_done))) != []


def test_refusals(folder, tmp_path):
    with pytest.raises(ArgumentError, match=r"out: expected the folder of a run, with paper.json in it"):
        existing_folder(tmp_path)
    assert existing_folder(folder.path).schedule.name == "tiny"
    (folder.path / "paper.json").write_text('{"schedule": "fulll", "version": "0"}')
    with pytest.raises(ArgumentError, match="did you mean ful"):
        existing_folder(folder.path)
    (folder.path / "paper.json").write_text("{}")
    with pytest.raises(DataError, match="expected schedule and version, got nothing"):
        existing_folder(folder.path)
    folder.result(CNI).parent.mkdir()
    folder.result(CNI).write_text("{")
    with pytest.raises(DataError, match="expected the JSON of a result"):
        shown_rows(TABLE_1, folder)


def test_the_tables_of_the_appendix_fit_into_80_columns():
    values = appendix_rows(num_samples=50)
    console = Console(width=80, file=StringIO())
    for table in appendix_tables(values):
        console.print(table)
    printed = console.file.getvalue()
    assert "…" not in printed
    row = values["objective"][5]
    half = (row["estimate_interval"][1] - row["estimate_interval"][0]) / 2
    assert f"{row['estimate']:.4g} ± {half:.1g}" in printed
    assert f"| {row['p']:.4g} | {row['margin']:.4g} | " in appendix_markdown(values)


def test_all_finished_evaluations_are_one_html_page(folder, tmp_path):
    """Those of the named tables, with the sweep behind them; other results of the folder are left out."""
    made = {CNI: evaluated(20, name="one draw"), VOTE: evaluated(20, name="vote"), "unknown": evaluated(20)}
    for name, result in made.items():
        result.save(folder.result(name))
    path = write_results_page(["table-1"], folder, tmp_path / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.all("h1") == ["The paper's evaluations, schedule tiny"]
    assert [text for text in page.all("a") if text in made] == [CNI, VOTE]
    assert [text for text in page.all("h2") if text.startswith(VOTE)] == [f"{VOTE}: vote"]
    assert page.all("h2")[0] == "2 results"
    with pytest.raises(ArgumentError, match=r"report: expected at least one finished evaluation, got none in .*run"):
        write_results_page(["figure-1"], folder, tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()
