"""Sweeps whose outcomes are set by hand, for the tests of what is read off them."""

import torch

from smoothed.evaluation.sweep.sweep import Sweep

SETTING = {"attack": "pgd", "steps": 7, "eps": 8 / 255, "norm": "linf"}


def made(robust, sigmas=(0.0, 0.1, 0.2, 0.3), counts=(1, 8), votes=("prediction", "soft"), images=100, normalized=None):
    """A sweep in which the first so many images are right, attacked; all of them, clean.

    Args:
        robust: by sigma, vote and M.
        sigmas: as many.
        counts: likewise.
        votes: likewise.
        images: in all.
        normalized: the sigmas in the paper's unit, or None.
    """
    robust = torch.tensor(robust).view(len(sigmas), len(votes), len(counts), 1, 1)
    attacked = torch.arange(images) < robust
    right = torch.stack([torch.ones_like(attacked), attacked])
    return Sweep("toy", "toy validation", SETTING, sigmas, normalized, votes, counts, right)


ROBUST = [
    [[40, 41], [40, 40]],
    [[45, 60], [45, 55]],
    [[48, 62], [45, 58]],
    [[30, 61], [20, 40]],
]
"""Of `made`: it peaks at sigma 0.2, prediction vote, M = 8."""
