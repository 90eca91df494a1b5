"""The table of accuracies on saved examples, and the sentence on their origin."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from smoothed.evaluation.saved_examples.evaluate import SavedExamplesRow
from smoothed.report.saved_examples import origin_sentence, saved_examples_table
from smoothed.utils.intervals import interval

VOTE = SavedExamplesRow(
    model="toy", vote="soft", num_samples=8, sigma=0.24, sigma_normalized=0.96, noise="gaussian", attack="pgd",
    eps=8 / 255, norm="linf", attacked_model="other", attacked_sigma=0.1, same_classifier=False,
    clean=0.6, clean_interval=interval(120, 200), robust=0.45, robust_interval=interval(90, 200),
    data="set", images=200, votes_per_image=2, precision="float32", seed=0,
)  # fmt: skip
ONE_DRAW = replace(VOTE, vote="prediction", num_samples=1, votes_per_image=16, clean=0.55, robust=0.4)


@pytest.mark.parametrize(
    ("change", "radius"),
    [({}, "L-inf 8/255"), ({"norm": "l2", "eps": 0.5}, "L2 0.5"), ({"norm": "l0", "eps": 3}, "L0 3 pixels")],
)
def test_the_table_shows_both_rows(change, radius):
    console = Console(width=120, file=io.StringIO())
    console.print(saved_examples_table([replace(row, **change) for row in (ONE_DRAW, VOTE)]))
    shown = console.file.getvalue()
    assert f"toy, 200 images, pgd, {radius}, votes per image: 2" in shown
    lines = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert ["one", "draw", "1", "0.24", "55.00", "53.1-66.5", "40.00", "38.3-51.9"] in lines
    assert ["soft", "8", "0.24", "60.00", "53.1-66.5", "45.00", "38.3-51.9"] in lines  # Wilson's intervals


def test_the_sentence_says_whose_the_images_are():
    assert "made on other at sigma 0.1, not on this model with this noise" in origin_sentence(VOTE)
    assert "made on this model with this noise" in origin_sentence(replace(VOTE, same_classifier=True))
