"""The table and the sentences of certified accuracy."""

import io

import pytest
from rich.console import Console

from smoothed.evaluation.certified import CertifiedRow
from smoothed.report.certified import certified_sentence, certified_table, linf_sentence
from smoothed.utils.intervals import interval


def row(sigma, radius, certified):
    return CertifiedRow(
        model="toy", sigma=sigma, sigma_normalized=4 * sigma, sigma_smallest=sigma, radius=radius, dimensions=3072,
        linf_eps=radius / 3072**0.5, certified=certified / 200, certified_interval=interval(certified, 200),
        clean=0.6, clean_interval=interval(120, 200), predict_abstained=0.05,
        predict_abstained_interval=interval(10, 200), abstained=0.1, abstained_interval=interval(20, 200),
        mean_radius=0.0712, images=200, alpha=0.001, selection_samples=100, num_samples=1000, seed=0,
        precision="float32",
    )  # fmt: skip


@pytest.fixture
def shown():
    console = Console(width=120, file=io.StringIO())
    console.print(certified_table([row(0.12, 0.0, 110), row(0.12, 0.25, 98), row(0.24, 0.0, 90)]))
    return console.file.getvalue()


def test_the_table_shows_every_row(shown):
    assert "toy, 200 images, 100 + 1000 draws, alpha 0.001" in shown
    lines = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert ["0.12", "0", "0.00", "55.00", "48.1-61.7"] in lines
    assert ["0.12", "0.25", "1.15", "49.00", "42.2-55.9"] in lines  # 0.25 / sqrt(3072) * 255; Wilson's interval
    assert ["0.24", "0", "0.00", "45.00", "38.3-51.9"] in lines
    assert shown.count("├") == 1  # a rule between the sigmas


def test_the_sentences():
    assert certified_sentence(row(0.06, 0.0, 90)) == (
        "At sigma 0.06 (0.24 normalised): PREDICT is correct on 60.0 % (53.1-66.5) of the images and abstains on "
        "5.0 % (2.7-9.0); CERTIFY abstains on 10.0 % (6.6-14.9). The mean certified L2 radius is 0.0712, where wrong "
        "and abstained images count as 0."
    )
    assert "r / sqrt(3072): eps = 8/255 requires r = 1.74." in linf_sentence(row(0.24, 0.0, 90))
