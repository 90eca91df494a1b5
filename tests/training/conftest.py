"""Runs without the loop around them: a network, a data set and a configuration, to take steps with."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from smoothed.data.imageset import ImageSet
from smoothed.rng.rows import RowGenerator
from smoothed.training.batch import Part
from smoothed.training.config import TrainingConfig
from smoothed.training.initial import initial_network
from smoothed.training.run import Run


@pytest.fixture(scope="session")
def image_set():
    """A function (images, size, classes) that gives a set of random images with random labels."""

    def make(count, size=8, classes=4):
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
        labels = torch.randint(classes, (count,), generator=generator)
        return ImageSet("random", images, labels, tuple("abcdefghij"[:classes]))

    return make


@pytest.fixture(scope="session")
def make_run():
    """A function (data, network or None, settings) that gives a run in float32, of one process."""

    def make(data, network=None, /, **settings):
        config = TrainingConfig(**({"precision": "float32"} | settings))
        AcceleratorState._reset_state(True)  # Accelerate keeps one configuration a process
        accelerator = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=config.accumulation)
        return Run(config, initial_network(config, data, network), len(data), accelerator)

    yield make
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def make_part():
    """A function (images, labels, ...) that gives a part as a step hands it out."""

    def make(clean, labels, *, index=None, first=0, total=None, epoch=0, progress=0.0, seed=0):
        positions = torch.arange(first, first + len(clean))
        index = positions if index is None else index
        total = first + len(clean) if total is None else total
        return Part(clean, labels, index, positions, total, epoch, progress, RowGenerator(seed, first))

    return make


@pytest.fixture
def in_processes():
    """A function that runs `work(process, gather)` twice at once; `gather` collects the rows of both, in order."""
    barrier, rows = threading.Barrier(2, timeout=60), {}

    def exchange(process, own):
        rows[process] = own
        barrier.wait()
        gathered = torch.cat([rows[0], rows[1]])
        barrier.wait()
        return gathered

    def run(work):
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(work, p, lambda own, p=p: exchange(p, own)) for p in range(2)]
            return [future.result() for future in running]

    return run
