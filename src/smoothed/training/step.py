"""One step on one batch: examples -> loss -> gradients -> update, in parts if the batch is cut."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothed.injection import drawing
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import InBatch, Pool
from smoothed.training.batch import NOISE, Batch, Part
from smoothed.training.examples.examples import Together
from smoothed.training.noisy_input import NoisyInput
from smoothed.training.run import Run
from smoothed.training.schedules import SCHEDULES
from smoothed.training.weight_perturbation import perturbed
from smoothed.utils.modes import batch_statistics


def take_step(run: Run, batch: Batch) -> Tensor:
    """Take the step of `batch`; returns this process's part of its loss, detached: the mean over processes is whole."""
    config, accelerator = run.config, run.accelerator
    for group in run.optimizer.param_groups:
        group["lr"] = group["lr_factor"] * config.lr * SCHEDULES[config.schedule](batch.progress)
    run.network.train()
    pieces = run.share.processes * run.share.parts
    total = torch.zeros((), device=accelerator.device)
    for number, part in enumerate(batch.parts(run.share, config.seed)):
        # What the batch shares starts anew for each part, so every part, on whatever process, meets the same noise.
        shared = seeded(mix(config.seed, NOISE, batch.step), accelerator.device)
        source = Pool(InBatch(shared, part.rows), run.normals_per_pass)
        with accelerator.accumulate(run.network), drawing(run.model, source):
            before = _input_noise(run, part)
            adversarial = part.clean
            if config.needs_attack:
                with accelerator.autocast():
                    adversarial = run.examples.make(before(run.attacked), part)
            with _perturbed(run, part, number, before, adversarial):
                loss = _loss(run, before(run.network), part, adversarial)
                # Backward divides by the parts, processes are averaged: pieces of unequal size weigh by images.
                accelerator.backward(loss * (len(part.labels) * pieces / part.total))
            run.examples.learn(part, adversarial, _together(run, number))
            run.optimizer.step()
            run.optimizer.zero_grad()
        total += loss.detach() * len(part.labels)
    if run.average is not None:
        run.average.update_parameters(run.model)
    return total * (run.share.processes / batch.total)


def _input_noise(run: Run, part: Part) -> Callable[[nn.Module], nn.Module]:
    """Puts the configuration's noise before a network; the same draws before each, where they are fixed."""
    config = run.config
    if config.input_sigma == 0:
        return lambda network: network
    scale = run.std if config.input_sigma_units == "normalized" else [1.0] * len(run.std)
    draws = config.attack_samples if config.input_draws == "fixed" else None
    noisy = NoisyInput(run.network, [config.input_sigma * channel for channel in scale], part.rows, draws)
    return noisy.sharing


def _loss(run: Run, network: nn.Module, part: Part, adversarial: Tensor) -> Tensor:
    samples = run.config.loss_samples
    losses = [run.loss(network, part.clean, adversarial, part.labels, part.rows) for _ in range(samples)]
    return torch.stack(losses).mean()


def _perturbed(
    run: Run, part: Part, number: int, before: Callable[[nn.Module], nn.Module], adversarial: Tensor
) -> AbstractContextManager[None]:
    """The weights where the loss is worse, if the configuration asks for it."""
    if run.config.weight_perturbation == 0:
        return nullcontext()

    def loss() -> Tensor:
        with batch_statistics(run.model), run.accelerator.autocast():
            return _loss(run, before(run.model), part, adversarial)

    def average(gradient: Tensor) -> Tensor:
        weight = len(part.labels) * run.share.processes / sum(map(len, run.share.beside(part.total, number)))
        return run.accelerator.reduce(gradient * weight, "mean")  # pyright: ignore[reportReturnType]

    return perturbed(run.moved, loss, run.config.weight_perturbation, average)


def _together(run: Run, number: int) -> Together:
    """Gathers the rows that all processes have in hand at their part `number`."""
    if run.share.processes == 1:
        return lambda rows: rows
    sizes = [len(piece) for piece in run.share.beside(run.plan.total_per_batch, number)]

    def gather(rows: Tensor) -> Tensor:
        padded = functional.pad(rows, [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)])
        own = padded.contiguous().to(run.accelerator.device)  # where processes on GPUs meet
        gathered: Tensor = run.accelerator.gather(own)  # pyright: ignore[reportAssignmentType]
        return torch.cat([piece[:size] for piece, size in zip(gathered.split(max(sizes)), sizes, strict=True)])

    return gather
