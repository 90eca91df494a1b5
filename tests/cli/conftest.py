"""The command in this process, and a checkpoint for it."""

import pytest
import torch

from smoothed.checkpoint import describe, save
from smoothed.cli.main import main
from smoothed.data.sample import load_sample
from smoothed.injection import inject_preset
from smoothed.models import build


@pytest.fixture
def run():
    """A function from arguments to the exit code of the command."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A ResNet-20 with noise inside that has learned nothing: one class wins nearly everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("resnet20")
    injection = inject_preset(model, "pni-w-layer").to_json()
    header = describe("resnet20", model, injection, load_sample().classes)
    return save(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors", model, header)
