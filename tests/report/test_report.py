"""Tables, sentences, plots and JSON of rows."""

import json

import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from rich.console import Console

from smoothed.errors import OutputError
from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.evaluation.results import PairedGain
from smoothed.report.plot import plot_accuracy
from smoothed.report.result import gain_sentences
from smoothed.report.table import rows_table
from smoothed.utils.files import write_json


def row(vote, count, clean, robust, sigma=0.1, **attack):
    attack = {"attack": "pgd", "steps": 7, "eps": 8 / 255, **attack}
    return Row.from_counts(
        clean=clean, robust=robust, images=200, model="toy", vote=vote, num_samples=count, sigma=sigma,
        sigma_normalized=sigma and 4 * sigma, noise="gaussian", eot_samples=1, precision="float32", seed=0, **attack,
    )  # fmt: skip


@pytest.fixture
def rows():
    votes = [row(vote, count, [150 + count], [90 + count]) for vote in ("prediction", "soft") for count in (1, 8)]
    return [row(ONE_DRAW, 1, [150], [90], sigma=0.0), *votes]


def text(table):
    console = Console(width=120, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    console.file.close()
    return console.export_text()


def test_the_table_shows_every_row(rows):
    shown = text(rows_table(rows))
    assert "toy, 200 images, PGD-7, L-inf 8/255" in shown
    assert "one draw" in shown
    assert "79.00" in shown  # 158 of 200
    assert "49.00" in shown  # 98 of 200
    assert "42.2-55.9" in shown  # Wilson's interval of it


def test_deviations_are_shown_where_there_are_runs():
    assert "75.50 ± 0.71" in text(rows_table([row("soft", 8, [150, 152], [90, 90])]))


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        ({"attack": "cw-l0", "steps": 30, "eps": 12, "norm": "l0"}, "CW-L0-30, L0 12 pixels"),
        ({"norm": "l2", "eps": 0.5}, "PGD-7, L2 0.5"),
        ({"attack": "fgsm", "steps": 1, "eps": 4 / 255}, "FGSM, L-inf 4/255"),
        ({"attack": "shift", "steps": None}, "shift, L-inf 8/255"),
    ],
)
def test_eps_is_shown_in_the_unit_of_its_norm(attack, shown, monkeypatch, tmp_path):
    rows = [row(ONE_DRAW, 1, [150], [90], sigma=0.0, **attack), row("soft", 8, [150], [90], **attack)]
    assert f"toy, 200 images, {shown}" in text(rows_table(rows)).splitlines()[0]
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda _axes, title, **_: titles.append(title))
    plot_accuracy(rows, tmp_path / "plot.png")
    assert titles == ["clean images", shown]


def test_without_an_attack_there_are_no_columns_of_it():
    attack = {"attack": "none", "steps": None, "eps": None, "norm": None}
    shown = text(rows_table([row("soft", 8, [150], None, sigma=None, **attack)]))
    assert shown.splitlines()[0].strip() == "toy, 200 images"
    cells = [line.replace("│", " ").replace("┃", " ").split() for line in shown.splitlines()]
    assert ["vote", "M", "sigma", "clean", "%", "95", "%", "interval"] in cells
    assert ["soft", "8", "-", "75.00", "68.6-80.5"] in cells  # Wilson's interval of 150 of 200


def test_a_sentence_says_what_was_gained_and_whether_chance_explains_it():
    gains = [
        PairedGain("soft vote, M = 8, over one draw", "PGD-7", 0.019, (0.003, 0.035)),
        PairedGain("soft vote, M = 8, over one draw", "clean", -0.004, (-0.02, 0.012)),
    ]
    assert gain_sentences(gains) == [
        "Gain of the soft vote, M = 8, over one draw: +1.9 points under PGD-7 (paired 95 % interval +0.3 to +3.5) and "
        "-0.4 points on clean images (paired 95 % interval -2.0 to +1.2: may be chance).",
    ]


def test_the_plot_is_a_png_and_replaces_the_old_one(rows, tmp_path):
    path = tmp_path / "deep" / "plot.png"
    plot_accuracy(rows, path)
    pixels = imread(plot_accuracy(rows, path))
    assert pixels.shape[0] > 300
    assert pixels.std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == ["plot.png"]


def test_json_has_a_row_each_with_the_promised_names(rows, tmp_path):
    written = json.loads(write_json([row.to_json() for row in rows], tmp_path / "rows.json").read_text())
    promised = {"model", "vote", "num_samples", "sigma", "attack", "eps", "clean", "clean_interval", "robust"}
    assert all(promised | {"robust_interval", "images"} <= set(entry) for entry in written)
    assert [entry["num_samples"] for entry in written] == [1, 1, 8, 1, 8]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written"):
        write_json([], tmp_path / "file" / "rows.json")
