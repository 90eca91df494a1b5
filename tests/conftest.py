"""Shapes are checked while tests run, in one thread; the full data set is used where it is."""

import os
import resource
import signal
import sys
from pathlib import Path

# Before torch is imported, here and in the processes that tests start. Threads that wait for a core slow all others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# Before anything imports the package, so that every annotated shape in it is checked at each call.
install_import_hook("smoothed", "shapes.check_shapes")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

hypothesis.settings.register_profile("no clock", deadline=None)
hypothesis.settings.load_profile("no clock")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as `nohup make test &` has it, and every process started here
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter):
    """Print the largest memory that a process of these tests has had."""
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    terminalreporter.write_line(f"memory of the largest process: {largest * unit / 1e9:.2f} GB")


@pytest.fixture
def generator():
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator):
    """Sixteen random images (16, 3, 8, 8) in [0, 1]."""
    return torch.rand(16, 3, 8, 8, generator=generator)


@pytest.fixture
def labels(generator):
    """Their random labels among four classes."""
    return torch.randint(4, (16,), generator=generator)


@pytest.fixture
def network():
    """A small convolutional network with batch norm and dropout, seeded: from (N, 3, 8, 8) to four logits."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(6, 6, 3)
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)).eval()


@pytest.fixture(scope="session")
def full_data():
    """The folder of the full CIFAR-10, from $SMOOTHED_DATA."""
    root = Path(os.environ.get("SMOOTHED_DATA", "."))
    if not (root / "cifar-10-batches-py").is_dir():
        pytest.skip("needs the full CIFAR-10: set SMOOTHED_DATA to the folder with cifar-10-batches-py in it")
    return root
