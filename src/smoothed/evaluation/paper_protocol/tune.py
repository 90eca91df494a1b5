"""Choose sigma on held-out images: never on those that the result is reported on."""

from collections.abc import Sequence
from typing import Any

from smoothed.evaluation.paper_protocol.rows import Row


def choose_sigma(rows: Sequence[Row], vote: str = "prediction") -> Row:
    """The row of `vote` at its largest M with the best robust accuracy, of the smallest sigma among equals.

    Args:
        rows: of one model at several sigmas, measured on validation images.
        vote: by which to judge.
    """
    most = max(row.num_samples for row in rows if row.vote == vote)
    candidates = [row for row in rows if row.vote == vote and row.num_samples == most]
    return max(candidates, key=lambda row: (row.robust, -row.sigma))


def smoothing_card(chosen: Row, rows: Sequence[Row], data: str) -> dict[str, Any]:
    """What a checkpoint's header says of the choice: the sigma, on what it was chosen, and all that was tried."""
    return {
        "sigma": chosen.sigma,
        "sigma_units": chosen.sigma_units,
        "vote": chosen.vote,
        "num_samples": chosen.num_samples,
        "chosen_on": data,
        "chosen_by": f"robust accuracy, {chosen.attack}-{chosen.steps}, M = {chosen.num_samples}",
        "tried": [
            {"sigma": row.sigma, "clean": row.clean, "robust": row.robust, "images": row.images, "runs": row.runs}
            for row in rows
            if row.vote == chosen.vote and row.num_samples == chosen.num_samples
        ],
    }
