"""The images of a schedule: the data sets, or a few small images for tests."""

from functools import lru_cache

from smoothed.data.images import Images
from smoothed.data.imageset import ImageSet
from smoothed.data.named import load_images
from smoothed.data.sample import load_sample
from smoothed.data.split import SPLITS
from smoothed.paper.schedules import PaperSchedule
from smoothed.utils.checks import check_choice

SMALL_IMAGES = 64
"""Number of images in each split of the small data set."""


def schedule_images(schedule: PaperSchedule, data: str, split: str) -> Images:
    """The images of a split, all of them.

    Args:
        schedule: schedule of the run.
        data: `cifar10` or `cifar100`.
        split: `train`, `validation` (held out of training) or `test`.

    Raises:
        ArgumentError: the split is unknown.
        DataError: the data set does not exist or is damaged.
    """
    check_choice(split, SPLITS, "split")
    return _small(data, split) if schedule.small_images else _loaded(data, split)


@lru_cache(maxsize=4)
def _loaded(data: str, split: str) -> Images:
    return load_images(data, split)


def _small(data: str, split: str) -> ImageSet:
    """Every fourth pixel of some bundled images; the splits have no image in common."""
    start = SMALL_IMAGES * SPLITS.index(split)
    few = load_sample().subset(slice(start, start + SMALL_IMAGES), f"{SMALL_IMAGES} small images for {data} {split}")
    return ImageSet(few.name, few.images[:, :, ::4, ::4].contiguous(), few.labels, few.classes)
