"""The interval of a difference to a published number."""

import numpy as np
import pytest

from smoothed.paper.differences import TEST_IMAGES, PublishedDifference


def test_all_images_and_no_deviation_leave_the_runs_alone():
    found = PublishedDifference.of(
        0.56, 55.0, std=0.002, runs=4, images=TEST_IMAGES, published_std=0.3, published_runs=5
    )
    assert found.points == pytest.approx(1.0)
    half = 1.96 * (0.2**2 / 4 + 0.3**2 / 5) ** 0.5
    assert found.interval == pytest.approx((1 - half, 1 + half))
    assert not found.assumed


def test_a_missing_deviation_counts_as_zero_and_is_marked():
    found = PublishedDifference.of(0.5, 50.0, std=0.0, runs=1, images=TEST_IMAGES, published_std=None)
    assert (found.points, found.interval, found.assumed) == (0.0, (0.0, 0.0), True)


@pytest.mark.parametrize("same_images", [True, False])
def test_the_interval_covers_what_images_do(same_images):
    """Samples of images of a known accuracy: the interval holds the true difference 95 times of 100."""
    rng = np.random.default_rng(0)
    images, repeats, covered = 400, 2000, 0
    ours = rng.permutation(np.arange(TEST_IMAGES) < 6000)
    for _ in range(repeats):
        chosen = rng.choice(ours, images, replace=False)
        # The paper's accuracy: that of all images, or that of as many other images of a population at 60 %.
        published = 60.0 if same_images else 100 * rng.binomial(TEST_IMAGES, 0.6) / TEST_IMAGES
        accuracy = chosen.mean() if same_images else rng.binomial(images, 0.6) / images
        low, high = PublishedDifference.of(
            accuracy, published, std=0.0, runs=1, images=images, published_std=0.0, same_images=same_images
        ).interval
        covered += low <= 0 <= high
    assert covered / repeats == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("ours", [0.0, 1.0])
def test_the_interval_has_a_width_where_all_images_have_the_same_outcome(ours):
    """By hand: (0 + 2) / (16 + 4) = 0.1, or 0.9; its variance is 0.09 / 16, times the share of the images left out."""
    found = PublishedDifference.of(ours, 50.0, std=0.0, runs=1, images=16, published_std=None)
    half = 196 * (0.09 / 16 * (1 - 16 / 10_000)) ** 0.5
    assert found.interval == pytest.approx((100 * ours - 50 - half, 100 * ours - 50 + half), rel=1e-3)
