"""Effect of each technique of the performance stack on the speed of the four main jobs.

    python benchmarks/ablation.py --json ablation.json          # --quick: about five minutes on two cores

Jobs are a vote on many images, a vote on one image, a PGD-10 attack and a training step. Networks are the bundled
ResNet-20 with CNI on the weights of every layer, and a ResNet-20 without noise inside. Two ratios are measured:

- Speed-up when added to the plain network: time without the technique over time with it. The plain network is `Fast`
  with all techniques switched off, in float32. A technique that builds on others is added to the plain network with
  these others.
- Slow-down when removed from the full stack: time without the technique, and without what builds on it, over time of
  the full stack. The full stack has all techniques that the machine supports, except kept memory, compiled normals and
  compiled operations, which change a whole process or take long to prepare. They are added to it to be measured.

Ratios above 1 are gains. Each set of techniques runs in a process of its own, and the four processes of a comparison
start together and run in turn: the longer a process runs, the more of its freed memory the C library keeps. A ratio is
the median over rounds, with its minimum and maximum.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from alone import Actions, Alone
from hardware import wait
from smoothed import Fast, Gaussian, Smoothed, keep_memory, load
from smoothed.attacks import pgd
from smoothed.data.sample import load_sample
from smoothed.models import build
from smoothed.rng.seeds import seeded
from smoothed.training.recipes import RECIPES
from smoothed.utils.devices import best_device
from techniques import BY_NAME, COMPILED, JOBS, NETWORK_NOISES, TECHNIQUES, only, variants
from training import OurLoop, random_images

# Images of the vote on many images; more than one pass.
NUM_IMAGES = 256
EPS, ATTACK_STEPS, SIGMA = 8 / 255, 10, 0.06
# Techniques whose ratios are all smaller are listed below the table.
MIN_GAIN = 1.1
# Seconds of rest before each run: the OpenMP threads of the previous process spin for about 5 ms.
_REST = 0.02


@dataclass(frozen=True)
class Sizes:
    """Sizes of the jobs.

    Attributes:
        draws: number of draws of each image in the vote on many images.
        draws_of_one: number of draws in the vote on one image.
        attacked: number of attacked images.
        batch: number of images of a training step.
    """

    draws: int
    draws_of_one: int
    attacked: int
    batch: int


SIZES = Sizes(draws=4, draws_of_one=64, attacked=64, batch=32)
QUICK_SIZES = Sizes(draws=1, draws_of_one=32, attacked=8, batch=8)


class Variant:
    """The jobs in a process in which only some techniques are on."""

    def __init__(self, on: frozenset[str], sizes: Sizes = SIZES) -> None:
        self.on, self.sizes, self.device = on, sizes, best_device()
        self.precision = "bf16" if "bf16" in on else "float32"
        self.memory_format = torch.channels_last if "channels-last" in on else torch.contiguous_format
        if "kept memory" in on:
            keep_memory()
        self.images, self.labels = next(load_sample().first(NUM_IMAGES).to(self.device).batches(NUM_IMAGES))
        self._jobs: dict[tuple[str, str], Callable[[], object]] = {}

    def run(self, job: str, network_noise: str) -> None:
        """Do a job once and wait until the device has finished; the first run also prepares the job."""
        if (job, network_noise) not in self._jobs:
            self._jobs[job, network_noise] = getattr(self, job)(network_noise)
        self._jobs[job, network_noise]()
        wait(self.device)

    def network(self, network_noise: str) -> Fast:
        """The network with the techniques that are on."""
        model = load("resnet20-cni-w") if network_noise == "CNI" else build("resnet20")
        model = model.to(self.device).eval().to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        return Fast(model, self.precision, compile="compiled operations" in self.on)

    def vote(self, network_noise: str) -> Callable[[], object]:
        """A vote on many images, with few draws of each."""
        return self._tally(network_noise, NUM_IMAGES, self.sizes.draws)

    def image(self, network_noise: str) -> Callable[[], object]:
        """A vote on one image, with many draws."""
        return self._tally(network_noise, 1, self.sizes.draws_of_one)

    def attack(self, network_noise: str) -> Callable[[], object]:
        """PGD with one draw for each gradient."""
        network, labels = self.network(network_noise), self.labels[: self.sizes.attacked]
        images = self.images[: self.sizes.attacked].contiguous(memory_format=self.memory_format)
        return lambda: pgd(network, images, labels, eps=EPS, steps=ATTACK_STEPS, generator=seeded(1, self.device))

    def train(self, network_noise: str) -> Callable[[], object]:
        """A step of adversarial training with PGD-7, including its data."""
        batch_size = self.sizes.batch
        recipe = RECIPES["cni-w" if network_noise == "CNI" else "at"]
        config = recipe.config(batch_size=batch_size, precision=self.precision)
        loop = OurLoop(config, random_images(2 * batch_size, self.device))
        if "compiled operations" in self.on:
            loop.run.compile_for(self.images[:batch_size].contiguous(memory_format=self.memory_format))
        return loop

    def _tally(self, network_noise: str, count: int, draws: int) -> Callable[[], object]:
        smoothed, images = Smoothed(self.network(network_noise), Gaussian(SIGMA), seed=0), self.images[:count]
        return lambda: smoothed.tally(images, [draws], votes=["prediction"], generator=seeded(1, self.device))


def process_actions(on: frozenset[str], sizes: Sizes) -> Actions:
    """Switch off all techniques but those in `on` until this process ends, and return its actions."""
    only(on).__enter__()
    return {"run": Variant(on, sizes).run}


@dataclass(frozen=True)
class Result:
    """Effect of a technique on the speed of a job.

    Attributes:
        technique: name of the technique.
        job: name of the job.
        network_noise: noise inside the network.
        memory_kept: whether all processes keep their memory (`keep_memory`).
        speedup_when_added: time of the plain network over its time with the technique: median, minimum and maximum.
        slowdown_when_removed: time of the full stack without the technique over the time of the full stack: median,
            minimum and maximum.
        milliseconds: median times of the four variants: without and with the technique on the plain network, without
            and with it in the full stack.
        rounds: number of rounds, in each of which all four variants run.
    """

    technique: str
    job: str
    network_noise: str
    memory_kept: bool
    speedup_when_added: Sequence[float]
    slowdown_when_removed: Sequence[float]
    milliseconds: Sequence[float]
    rounds: int


class Bench:
    """Measures techniques, each in processes of the same age.

    Args:
        seconds: time after which a comparison ends, if it has had three rounds.
        sizes: sizes of the jobs.
        network_noises: noises inside the network to measure, if a technique has an effect with them.
    """

    def __init__(self, seconds: float, sizes: Sizes, network_noises: Sequence[str]) -> None:
        self.seconds, self.sizes, self.network_noises = seconds, sizes, network_noises
        self.processes: dict[tuple[frozenset[str], str], Alone] = {}

    def measure(self, name: str, jobs: Sequence[str], *, memory_kept: bool) -> Iterator[Result]:
        """Measure a technique on those of the given jobs that it affects."""
        technique = BY_NAME[name]
        self.processes.clear()
        for job in (job for job in JOBS if job in jobs and job in technique.jobs):
            for noise in (noise for noise in technique.network_noises if noise in self.network_noises):
                reserved_for = job if technique.own_process else ""
                processes = [self._process(on, reserved_for) for on in variants(name, memory_kept=memory_kept)]
                times = self._rounds([process.action("run", job, noise) for process in processes])
                added = [plain / with_technique for plain, with_technique, _, _ in times]
                removed = [without / full for _, _, without, full in times]
                medians = [1e3 * statistics.median(each) for each in zip(*times, strict=True)]
                yield Result(name, job, noise, memory_kept, _spread(added), _spread(removed), medians, len(times))

    def _process(self, on: frozenset[str], reserved_for: str) -> Alone:
        if (on, reserved_for) not in self.processes:
            self.processes[on, reserved_for] = Alone(partial(process_actions, on, self.sizes))
        return self.processes[on, reserved_for]

    def _rounds(self, actions: Sequence[Callable[[], None]]) -> list[list[float]]:
        """Seconds of each action in each of at least three rounds, after one run that is not measured."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda action: action(), actions))
        rounds, start = list[list[float]](), time.perf_counter()
        while len(rounds) < 3 or (time.perf_counter() - start < self.seconds and len(rounds) < 25):
            rounds.append([_seconds(action) for action in actions])
        return rounds


def _spread(ratios: list[float]) -> list[float]:
    """Median, minimum and maximum."""
    return [statistics.median(ratios), min(ratios), max(ratios)]


def _seconds(action: Callable[[], None]) -> float:
    time.sleep(_REST)
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table, the techniques with little effect, and those that were not measured."""
    with_memory = sorted({result.memory_kept for result in results})
    table = Table("technique", "added to plain network with", "job", "network noise")
    for memory_kept in with_memory:
        suffix = ", memory kept" if memory_kept else ""
        table.add_column(f"speed-up when added to the plain network{suffix}")
        table.add_column(f"slow-down when removed from the full stack{suffix}")
    by_row: dict[tuple[str, str, str], dict[bool, Result]] = {}
    for result in results:
        by_row.setdefault((result.technique, result.job, result.network_noise), {})[result.memory_kept] = result
    for (name, job, noise), of_row in by_row.items():
        cells = [cell for memory_kept in with_memory for cell in _ratios(of_row.get(memory_kept))]
        table.add_row(name, ", ".join(BY_NAME[name].needs) or "nothing else", JOBS[job], noise, *cells)
    console.print(table)
    gains = dict[str, float]()
    for result in results:
        gain = max(result.speedup_when_added[0], result.slowdown_when_removed[0])
        gains[result.technique] = max(gains.get(result.technique, 0), gain)
    small = [f"{name} ({gain:.2f})" for name, gain in gains.items() if gain < MIN_GAIN]
    console.print(
        f"Techniques with all ratios below {MIN_GAIN} (and their largest ratio): {', '.join(small) or 'none'}."
    )
    unsupported = [technique.name for technique in TECHNIQUES if not technique.supported()]
    console.print(f"Techniques that this machine does not support: {', '.join(unsupported) or 'none'}.")


def _ratios(result: Result | None) -> list[str]:
    """The two ratios of a result with their ranges, as cells of the table; empty if it was not measured."""
    if result is None:
        return ["", ""]
    ratios = result.speedup_when_added, result.slowdown_when_removed
    return ["{:.2f} ({:.2f} to {:.2f})".format(*ratio) for ratio in ratios]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line, with lists of names for `jobs` and `only`."""
    names = "\n".join(f"  {technique.name:24}{technique.description}" for technique in TECHNIQUES)
    jobs = "\n".join(f"  {name:24}{description}" for name, description in JOBS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"jobs:\n{jobs}\n\ntechniques:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file after each technique")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smaller jobs, three rounds, only the network with CNI, no measurements with memory kept, and compiled "
        "techniques only if --only names them",
    )
    parser.add_argument(
        "--jobs", default=",".join(JOBS), metavar="JOB,JOB", help="jobs to measure, separated by commas (%(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(BY_NAME), metavar="TECHNIQUE",
        help="names of the techniques to measure, in quotation marks (all)",
    )  # fmt: skip
    options = parser.parse_args()
    options.jobs = options.jobs.split(",")
    options.only = options.only or [name for name in BY_NAME if not (options.quick and name in COMPILED)]
    if unknown := set(options.jobs) - set(JOBS):
        parser.error(f"--jobs: expected some of {', '.join(JOBS)}, got {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Measure the techniques and print the table."""
    options = parse_arguments()
    # Otherwise each process has worker processes of torch.compile that wait for work.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    results, start = list[Result](), time.perf_counter()
    console = Console(width=max(160, Console().width))  # the same table if the output goes to a file
    bench = Bench(0.0, QUICK_SIZES, ["CNI"]) if options.quick else Bench(3.0, SIZES, NETWORK_NOISES)
    work = [
        (technique.name, memory_kept)
        for memory_kept in ((False,) if options.quick else (False, True))
        for technique in TECHNIQUES
        if technique.name in options.only and technique.supported() and not (memory_kept and technique.own_process)
    ]
    for done, (name, memory_kept) in enumerate(work, start=1):
        try:
            results += bench.measure(name, options.jobs, memory_kept=memory_kept)
        except EOFError:
            console.print(f"{name}: not measured, because a process has ended; see its error message above")
        print(f"{done} of {len(work)} after {time.perf_counter() - start:.0f} s: {name}", file=sys.stderr, flush=True)
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n", encoding="utf-8")
    show(results, console)


if __name__ == "__main__":
    main()
