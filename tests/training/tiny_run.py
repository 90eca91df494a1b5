"""A training run of seconds, for a process of its own."""

import signal
from pathlib import Path

import torch

from smoothed.data.imageset import ImageSet
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train


def tiny_set(count, seed):
    """Images (N, 3, 32, 32) whose class shows: one channel is brighter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), labels] += 90
    return ImageSet(f"tiny {seed}", images, labels, ("red", "green", "blue"))


def tiny_config(**changes):
    """A configuration of three steps an epoch."""
    settings = {
        "injection": "cni-w",
        "injection_strength": 0.1,
        "attack": "nfgsm",
        "epochs": 2,
        "batch_size": 16,
        "schedule": "onecycle",
        "average": 0.9,
        "validation_attack_images": 8,
        "seed": 3,
    }
    return TrainingConfig(**(settings | changes))


def main(folder, epochs, time_limit=None, last=None):
    """Train in a folder; after step `last`, wait to be killed."""
    torch.set_num_threads(1)  # the order of a sum over threads is not promised
    outcome = train(
        tiny_config(epochs=epochs),
        tiny_set(48, 0),
        tiny_set(16, 1),
        Path(folder),
        time_limit=time_limit,
        save_every=0.0,
        on_step=lambda progress: signal.pause() if progress.step == last else None,
    )
    print("finished" if outcome.finished else "stopped", outcome.step)
