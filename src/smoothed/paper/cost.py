"""What declarations cost in hours on this machine, estimated from the passes that they take and a short probe.

On CPUs the probe counts the time that the processor spends on it, divided by the number of threads: the estimate is for
a machine that does nothing else.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from smoothed.acceleration.fast import Fast
from smoothed.attacks import SINGLE_DRAW_ATTACKS
from smoothed.injection import inject_preset, noise_from
from smoothed.models import build
from smoothed.paper.catalog import read_off, sweep_counts
from smoothed.paper.declaration import Measurement, NetworkSpec, SigmaSweep
from smoothed.paper.folder import RunFolder
from smoothed.paper.networks import NETWORKS, WIDE
from smoothed.paper.plan import PaperStep
from smoothed.paper.schedules import PaperSchedule
from smoothed.paper.steps import measurement_size
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh
from smoothed.training.cost import INPUT_GRADIENT_COST, forward_equivalents
from smoothed.utils.devices import best_device

TRAINING_IMAGES, HELD_OUT_IMAGES, TEST_IMAGES = 45_000, 5_000, 10_000
"""Sizes of the splits of CIFAR."""
VALIDATION_STEPS = 7
_PROBE_BATCH = {WIDE: 2}
_REPEATS = 4


@dataclass(frozen=True)
class PassTimes:
    """Seconds that one image takes.

    Attributes:
        forward: in a forward pass without gradients, as in a vote.
        gradient: in a forward pass and a backward pass to the input, as in a step of an attack.
    """

    forward: float
    gradient: float


def probe(architectures: Iterable[str]) -> dict[str, PassTimes]:
    """Time passes of untrained CNI-W networks on images of 32 x 32 pixels, on the best device, for some seconds."""
    return {architecture: _pass_times(architecture) for architecture in architectures}


def _pass_times(architecture: str) -> PassTimes:
    device, generator = best_device(), seeded(0)
    with torch.random.fork_rng(devices=[]):
        network = build(architecture)
    inject_preset(network, "cni-w")
    network = network.to(device).eval()
    count = _PROBE_BATCH.get(architecture, 128) * (1 if device.type == "cpu" else 8)
    images = torch.rand(count, 3, 32, 32, generator=generator).to(device)
    fast = Fast(network)
    with noise_from(network, Fresh(seeded(0, device))):
        return PassTimes(
            _seconds(lambda: _forward(fast, images), device) / count,
            _seconds(lambda: _gradient(fast, images), device) / count,
        )


def step_hours(step: PaperStep, folder: RunFolder, times: Mapping[str, PassTimes]) -> float:
    """Estimated hours of a step. Votes are counted with all draws, although many stop earlier.

    Args:
        step: a step of the folder's schedule.
        folder: folder of the run, which gives the schedule.
        times: seconds of passes by architecture.
    """
    if step.kind == "appendix":
        return 0.0
    schedule = folder.schedule
    if step.kind == "train":
        assert step.network is not None  # noqa: S101
        return _training_seconds(step.network, folder, times) / 3600
    network = step.network or NETWORKS[step.source.network if step.source is not None else ""]
    time_of = times[schedule.training_of(network)["architecture"]]
    if step.kind == "tune":
        images = schedule.tuning_images or HELD_OUT_IMAGES
        draws = schedule.samples(schedule.tuning_samples)
        seconds = len(schedule.tuning_sigmas) * _image_seconds(time_of, schedule.steps(network.steps), draws)
    elif isinstance(step.source, SigmaSweep):
        images = (schedule.figure_images or TEST_IMAGES) * schedule.figure_runs
        steps = schedule.steps(step.source.steps)
        draws = max(sweep_counts(step.source, schedule))
        seconds = len(schedule.figure_sigmas) * _image_seconds(time_of, steps, draws)
    else:
        assert isinstance(step.source, Measurement)  # noqa: S101
        count, runs = measurement_size(step.source, schedule)
        images = (count or TEST_IMAGES) * runs
        seconds = _measurement_seconds(step.source, schedule, time_of)
    return images * seconds / 3600


def _image_seconds(times: PassTimes, gradients: int, draws: int) -> float:
    """Seconds of an image: the gradients of the attack, and the draws on the clean and on the attacked image."""
    return gradients * times.gradient + 2 * draws * times.forward


def _measurement_seconds(source: Measurement, schedule: PaperSchedule, times: PassTimes) -> float:
    draws = max(read_off(source, schedule).num_samples, default=1)
    if source.attack == "nattack":
        return (schedule.max_queries * source.eot_samples + 2 * draws) * times.forward
    per_gradient = 1 if source.attack in SINGLE_DRAW_ATTACKS else source.eot_samples
    return _image_seconds(times, schedule.steps(source.steps) * per_gradient, draws)


def _training_seconds(network: NetworkSpec, folder: RunFolder, times: Mapping[str, PassTimes]) -> float:
    config = folder.config(network, None)
    time_of = times[config.architecture]
    passes = forward_equivalents(config) * TRAINING_IMAGES
    attacked = config.validation_attack_images
    validation = HELD_OUT_IMAGES * time_of.forward + attacked * VALIDATION_STEPS * time_of.gradient
    return config.epochs * (passes * time_of.gradient / INPUT_GRADIENT_COST + validation)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest time of some repetitions, after one that is not counted."""
    work()
    shortest = float("inf")
    for _ in range(_REPEATS):
        start = _now(device)
        work()
        shortest = min(shortest, _now(device) - start)
    return shortest


def _now(device: torch.device) -> float:
    """Wall-clock seconds after the GPU has finished; on a CPU, the process's CPU seconds per thread."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def _forward(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return network(images)


def _gradient(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    inputs = images.clone().requires_grad_()
    return torch.autograd.grad(network(inputs).logsumexp(1).sum(), inputs)[0]
