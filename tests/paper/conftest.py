"""Folders of runs whose results are written by hand."""

import pytest
import torch

from smoothed.evaluation.results import Result
from smoothed.paper.folder import RunFolder
from smoothed.paper.schedules import TINY

IMAGES = 20


@pytest.fixture
def folder(tmp_path):
    """An empty folder of the tiny schedule."""
    folder = RunFolder(tmp_path / "run", TINY, tmp_path / "zoo")
    folder.open()
    return folder


@pytest.fixture
def write_result(folder):
    """A function that stores a result of 20 images with the given numbers of right ones, one run each."""

    def write(name, *, clean, robust, vote="none", num_samples=1, sigma=0.0, pixels="p", **more):
        right = {
            f"{kind}.right": (torch.arange(IMAGES) < count).view(1, 1, -1)
            for kind, count in (("clean", clean), ("robust", robust))
        }
        numbers = {}
        for kind, count in (("clean", clean), ("robust", robust)):
            share = count / IMAGES
            numbers |= {kind: share, f"{kind}_std": 0.0, f"{kind}_interval": [share - 0.1, share + 0.1]}
        row = {"vote": vote, "num_samples": num_samples, "sigma_normalized": sigma, "images": IMAGES, "runs": 1}
        row |= {"steps": 2, "eot_samples": 1, "eps": 8 / 255, **numbers, **more}
        data = {"pixels": pixels, "labels": "l", "images": IMAGES}
        provenance = {"device": "a machine", "smoothed": "0.1.0", "command": "smoothed paper run", "seconds": 36.0}
        result = Result("evaluate", [row], data=data, provenance=provenance, tensors=right)
        result.save(folder.result(name))

    return write
