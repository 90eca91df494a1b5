"""Settings of all tests: shapes are checked, torch runs one thread, and the full data set is used where it is found."""

import gc
import os
import resource
import signal
import sys
from pathlib import Path

# Before torch is imported, here and in processes that tests start: threads that wait for a core would slow all others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shapes

# Before the package is imported, so that every annotated shape is checked at each call.
shapes.check_package("smoothed")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

hypothesis.settings.register_profile("no clock", deadline=None)
hypothesis.settings.load_profile("no clock")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under `nohup make test &`; child processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Mark the examples of the public functions as slow: each of them evaluates the bundled network."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.path.parent.name == "api":
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Exclude what exists after the collection from garbage collection: most of a collection's time would go there."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Print the peak memory of the largest test process."""
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    terminalreporter.write_line(f"peak memory of the largest process: {largest * unit / 1e9:.2f} GB")


@pytest.fixture(autouse=True)
def numbers_without_a_compiler():
    """After each test, random numbers are made without a compiler, as before."""
    yield
    if "smoothed.rng.counter_based" in sys.modules:
        sys.modules["smoothed.rng.counter_based"].compile_numbers(on=False)


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
