"""Speed of training: ratios to two plain loops that are measured in the same run, and how the cost grows.

    python benchmarks/training.py --json training.json          # --quick: a few minutes on two cores

The plain loop runs in eager float32 with NCHW memory, draws noise layer by layer, and calls `loss.backward()` in the
attack. The tuned plain loop is the same in channels-last memory and, where the hardware has units for it, under bf16
autocast. The data are random images, because no number here depends on what they show.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hardware import matmul_peak, peak_memory
from report import Row, at_least, at_most, seconds_in_turn, show, within
from smoothed.attacks import expected_probabilities, pgd
from smoothed.data.imageset import ImageSet
from smoothed.injection import inject_preset
from smoothed.models import build
from smoothed.training.config import TrainingConfig
from smoothed.training.cost import forward_equivalents
from smoothed.training.initial import initial_network
from smoothed.training.loop import accelerator_for
from smoothed.training.recipes import RECIPES
from smoothed.training.run import Run
from smoothed.training.step import take_step
from smoothed.utils.devices import best_device, resolve_precision

EPOCH = 50_000


def plain_loop(
    config: TrainingConfig, data: ImageSet, device: torch.device, *, tuned: bool = False
) -> Callable[[], None]:
    """One step of the plain loop or of the tuned one: PGD with `backward`, then eq. 6, with the same noise."""
    model = build(config.architecture).to(device)
    memory_format = torch.channels_last if tuned else torch.contiguous_format
    model.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue] - missing from torch's stubs
    bf16 = tuned and resolve_precision("auto", device) == "bf16"
    inject_preset(model, config.injection)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, config.momentum, weight_decay=1e-4, nesterov=True)
    images, labels = data.images[: config.batch_size].float() / 255, data.labels[: config.batch_size]
    images = images.contiguous(memory_format=memory_format)
    step_size = config.eps / 4

    def loss_of(inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return functional.cross_entropy(model(inputs), labels)

    def step() -> None:
        model.eval()
        attacked = (images + torch.empty_like(images).uniform_(-config.eps, config.eps)).clamp(0, 1)
        for _ in range(config.attack_steps):
            attacked = attacked.detach().requires_grad_()
            loss_of(attacked).backward()
            gradient = attacked.grad
            with torch.no_grad():
                attacked = attacked + step_size * gradient.sign()
                attacked = (images + (attacked - images).clamp(-config.eps, config.eps)).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        (0.5 * loss_of(images) + 0.5 * loss_of(attacked.detach())).backward()
        optimizer.step()

    return step


class OurLoop:
    """Steps of the product's loop on data that stay on the device."""

    def __init__(self, config: TrainingConfig, data: ImageSet) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.accelerator: Accelerator = accelerator_for(
                config, Path(folder), resolve_precision(config.precision, best_device())
            )
        self.run = Run(config, initial_network(config, data), len(data), self.accelerator)
        self.data = data
        self.batches = self._endless()

    def _endless(self):  # noqa: ANN202 - a generator of batches
        while True:
            yield from self.run.plan.batches(self.data, self.run.share, 0)

    def __call__(self) -> None:
        """Take one step, its data included."""
        take_step(self.run, next(self.batches))


def random_images(count: int, device: torch.device) -> ImageSet:
    """Noise with labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (count,), generator=generator)
    return ImageSet("noise", images, labels, tuple("abcdefghij")).to(device)


def speed(device: torch.device, repeats: int, batch: int) -> list[Row]:
    """Images a second against the plain loop, and what compiling adds."""
    config = RECIPES["cni-w"].config(batch_size=batch)
    data = random_images(2 * batch, device)
    loops = [plain_loop(config, data, device), plain_loop(config, data, device, tuned=True), OurLoop(config, data)]
    plain, tuned, ours = seconds_in_turn(loops, device, repeats)
    name = f"ResNet-20 CNI-W, PGD-7, batch {batch}"
    share = share_of_peak(config, batch / ours, device)
    rows = [
        at_least(f"{name}: speed-up over the plain loop", plain / ours, 8 if device.type == "cuda" else 3),
        Row(f"{name}: speed-up over the tuned plain loop", tuned / ours),
        Row(f"{name}: images/s", batch / ours),
        Row(f"{name}, plain loop: images/s", batch / plain),
        Row(f"{name}, tuned plain loop: images/s", batch / tuned),
        Row(f"{name}: share of the peak of matrix products, %", 100 * share),
        Row(f"{name}: speed-up over the plain loop at that peak", plain / ours / share),
        Row(f"{name}: seconds per epoch of {EPOCH:,} images, from the step", EPOCH / batch * ours),
    ]
    compiled = OurLoop(config, data)
    compiled.run.compile_for(data.images[:batch].float() / 255)
    name = f"{name}: speed-up by --compile"
    if compiled.run.fallback is not None:
        return [*rows, Row(f"{name} (not available: {compiled.run.fallback[:60]})", None)]
    eager, fast = seconds_in_turn([loops[-1], compiled], device, repeats, warmup=3)
    rows.append(Row(name, eager / fast))
    return rows


def share_of_peak(config: TrainingConfig, images_per_second: float, device: torch.device) -> float:
    """Operations of the convolutions and products that training does, over what a large matrix product reaches."""
    precision = resolve_precision("auto", device)
    peak = matmul_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(config.architecture)(torch.rand(1, 3, 32, 32))
    return counter.get_total_flops() * forward_equivalents(config) * images_per_second / peak


def epochs_on_gpu(device: torch.device) -> list[Row]:
    """The epochs that have a goal on one H200-class GPU."""
    cases = (
        ("ResNet-20 CNI-W, PGD-7", RECIPES["cni-w"].config(), 3),
        ("WRN-34-10 PNI-W, PGD-10", RECIPES["pni-w"].config(architecture="wide_resnet34_10", attack_steps=10), 120),
    )
    rows = []
    for name, config, goal in cases:
        seconds = share = None
        if device.type == "cuda":
            loop = OurLoop(config, random_images(4 * config.batch_size, device))
            (step,) = seconds_in_turn([loop], device, repeats=10, warmup=5)
            seconds = EPOCH / config.batch_size * step
            share = 100 * share_of_peak(config, config.batch_size / step, device)
        rows.append(at_most(f"{name}, batch 256, one GPU: seconds per epoch of {EPOCH:,} images", seconds, goal))
        rows.append(Row(f"{name}, one GPU: share of the peak of matrix products, %", share))
    return rows


def growth(device: torch.device, repeats: int, batch: int) -> list[Row]:
    """How cost grows with k, M and images: the second doubling should add twice what the first one did."""
    data = random_images(2 * batch, device)

    def slope(name: str, changes: list[dict[str, object]]) -> Row:
        settings = [RECIPES["cni-w"].config(**{"batch_size": batch, **change}) for change in changes]
        one, two, four = seconds_in_turn([OurLoop(config, data) for config in settings], device, repeats)
        return within(f"{name}: added cost from 2x to 4x over that from x to 2x", (four - two) / (two - one), 1.4, 2.8)

    return [
        slope("steps k (2, 4, 8)", [{"attack_steps": k} for k in (2, 4, 8)]),
        slope(
            "draws M (1, 2, 4; EPGD-2)", [{"attack": "epgd", "attack_steps": 2, "eot_samples": m} for m in (1, 2, 4)]
        ),
        slope(
            f"images ({batch // 4}, {batch // 2}, {batch})",
            [{"batch_size": size, "attack_steps": 2} for size in (batch // 4, batch // 2, batch)],
        ),
    ]


def memory(batch: int) -> list[Row]:
    """The peak memory of one EPGD gradient with 2 and with 16 draws, each in a process of its own."""
    command = [sys.executable, __file__, "--peak-memory", str(batch)]
    few, many = (float(subprocess.check_output([*command, str(draws)], text=True)) for draws in (2, 16))  # noqa: S603
    return [
        Row("peak memory of EPGD with M = 2, MB", few),
        at_most("peak memory of EPGD with M = 16 over M = 2", many / few, 1.05),
    ]


def memory_of_a_step(batch: int, draws: int) -> float:
    """Megabytes at the peak of one EPGD step in this process."""
    device = best_device()
    model: nn.Module = build("resnet20").to(device)
    inject_preset(model, "cni-w")
    images = torch.rand(batch, 3, 32, 32, device=device)
    labels: Tensor = torch.zeros(batch, dtype=torch.int64, device=device)
    pgd(model, images, labels, eps=8 / 255, steps=1, objective=expected_probabilities(draws))
    return peak_memory(device)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller batches")
    parser.add_argument("--peak-memory", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_memory:
        sys.stdout.write(f"{memory_of_a_step(*options.peak_memory)}\n")
        return
    device = best_device()
    torch.backends.cudnn.benchmark = True
    repeats = 3 if options.quick else 7
    batch = 128 if options.quick else 256
    rows = speed(device, repeats, batch)
    rows += epochs_on_gpu(device)
    rows += growth(device, repeats, batch)
    rows += memory(batch)
    show(rows, options.json)


if __name__ == "__main__":
    main()
