"""The paper's ResNet-20 on CIFAR-10, model after model: train, choose sigma on held-out images, measure on test images.

    python benchmarks/campaign.py --schedule short --out runs/short --results docs/results/short
    python benchmarks/campaign.py --schedule paper --out runs/paper --results docs/results/paper --time-limit 9m

The same command goes on where it stopped, inside a run or between two; `--time-limit` stops it cleanly. Every model's
numbers go to RESULTS/NAME.json, with the command that trains it, the hardware and the time it took, and into the table
RESULTS/README.md. `paper` is the paper's schedule, meant for a GPU. `short` is for two CPU cores: attacks of a step or
two, one cycle of the rate, a few epochs; its numbers say what such training gives, not what the paper's would.
"""

import argparse
import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from smoothed.checkpoint import load, read_header, update_header
from smoothed.cli.parsing import duration
from smoothed.data.images import Images
from smoothed.data.named import load_images, load_training
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, evaluate
from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row, choose_sigma, smoothing_card
from smoothed.injection import noise_layers, noiseless
from smoothed.smoothing.config import NoiseConfig
from smoothed.training.loop import Progress, train
from smoothed.training.recipes import RECIPES
from smoothed.utils.devices import best_device, resolve_precision
from smoothed.utils.files import write_json, write_text

NOISES = tuple(NoiseConfig(sigma_normalized=sigma) for sigma in (0.0, 0.12, 0.24, 0.36))
COUNTS = (1, 8)

INTRODUCTION = """# ResNet-20 on CIFAR-10, schedule `{schedule}`

`benchmarks/campaign.py` writes this page. The JSON file of each name has the training command, the hardware, the seed
and the results on held-out images. Accuracies are percentages of test images, with 95 % intervals over images. PGD-7
uses one draw of noise for each gradient, which overestimates the robustness of random networks.

*One draw* is the network with its own noise and without input noise; *mean network* is the network without any noise. M
= 8 is the prediction vote over 8 draws, at the sigma with the best robust accuracy on held-out images. Sigma is in
pixel units of [0, 1]: 0.03008, 0.06016 and 0.09024 are 0.12, 0.24 and 0.36 in the paper's unit. Seconds are the
wall-clock time of training on a shared machine.

| name | epochs | seconds | images | network | clean | PGD-7 |
|---|---|---|---|---|---|---|"""

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Entry:
    """A run of the campaign.

    Attributes:
        name: of its folder and of its results.
        recipe: a key of `RECIPES`.
        settings: what differs from the recipe.
        start: the entry whose best network it fine-tunes.
        keeps: which of its networks are measured, and the names of their results.
    """

    name: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    keeps: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> Mapping[str, str]:
        """From files to names of results."""
        return self.keeps or {"best": self.name}

    def command(self, out: Path) -> str:
        """The command line that trains the same."""
        words = ["smoothed", "train", "--recipe", self.recipe, "--out", str(out / self.name)]
        if self.start is not None:
            words += ["--from", str(out / self.start / "best.safetensors")]
        spelled = {"attack_steps": "steps"}
        for name, value in self.settings.items():
            words += [
                "--" + spelled.get(name, name).replace("_", "-"),
                f"{value:g}" if isinstance(value, float) else str(value),
            ]
        return shlex.join(words)


EXTREMES = {"converged": "epgd-converged", "diverged": "epgd-diverged"}

PAPER = (
    Entry("at", "at"),
    Entry("pni-w", "pni-w"),
    Entry("cni-w", "cni-w"),
    Entry("trades-1", "trades-1"),
    Entry("trades-6", "trades-6"),
    Entry("epgd", "epgd", start="cni-w", keeps=EXTREMES),
    Entry("cni-i+w", "cni-i+w", start="cni-w"),
    Entry("high-k", "high-k", start="cni-w"),
)

# Found on held-out images while the bundled model was made (its card has the story): a small learned noise that learns
# slowly, a high rate that goes down to 0, and an average of the weights.
_CYCLE = {"batch_size": 128, "schedule": "onecycle", "lr": 0.2, "weight_decay": 5e-4, "average": 0.999}
_NOISE = {"injection_strength": 0.1, "noise_lr": 0.1}
_SINGLE = {**_CYCLE, "attack": "nfgsm", "adversarial_weight": 1.0, "epochs": 12}
_FINE = {"batch_size": 128, "schedule": "onecycle", "lr": 0.02, "noise_lr": 0.1, "weight_decay": 5e-4}

SHORT = (
    Entry("cni-w", "cni-w", {**_SINGLE, **_NOISE}),
    Entry("at", "at", _SINGLE),
    Entry("pni-w", "pni-w", {**_SINGLE, **_NOISE}),
    Entry(
        "epgd",
        "epgd",
        {**_FINE, "attack_steps": 2, "relative_step_size": 0.5, "epochs": 2},
        start="cni-w",
        keeps=EXTREMES,
    ),
    Entry("trades-6", "trades-6", {**_CYCLE, "attack_steps": 2, "relative_step_size": 0.7, "epochs": 8}),
)

SCHEDULES = {"paper": PAPER, "short": SHORT}


class Clock:
    """What is left of a time limit."""

    def __init__(self, limit: float | None) -> None:
        self.begun = time.monotonic()
        self.limit = limit

    def left(self) -> float | None:
        """Seconds, or None without a limit."""
        return None if self.limit is None else self.limit - (time.monotonic() - self.begun)

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        left = self.left()
        return left is not None and left <= 0


def train_entry(entry: Entry, out: Path, data: str, clock: Clock) -> bool:
    """Train, or go on; True when the run is over."""
    name, train_set, validation_set = load_training(data)
    start = None if entry.start is None else str(out / entry.start / "best.safetensors")
    config = RECIPES[entry.recipe].config(**entry.settings, data=name, start=start)
    shown = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            console.print(f"{entry.name}: step {progress.step}/{progress.total_steps}, loss {progress.loss:.3f}")

    command = entry.command(out)
    outcome = train(
        config, train_set, validation_set, out / entry.name, time_limit=clock.left(), on_step=show, command=command
    )
    console.print(f"{entry.name}: {outcome.step}/{outcome.total_steps} steps, {outcome.seconds:.0f} s, {outcome.best}")
    if outcome.fallback:
        console.print(outcome.fallback)
    return outcome.finished


def measure(path: Path, name: str, data: str, images: int | None, schedule: str) -> dict[str, Any]:
    """Sigma by the vote's robust accuracy on held-out images; then everything on test images."""
    device = best_device()
    network = load(path, device=device)
    protocol = PaperProtocol(num_samples=COUNTS, precision=resolve_precision("auto", device))
    held_out = load_images(data, "validation").first(1000).to(device)
    selection = replace(protocol, num_samples=(max(COUNTS),), votes=("prediction",))
    tried = evaluate(network, held_out, selection, noises=NOISES, name=name, base=False)
    chosen = choose_sigma(tried)
    update_header(path, smoothing=smoothing_card(chosen, tried, held_out.name))
    test = load_images(data, "test").first(images).to(device)
    begun = time.monotonic()
    noises = [noise for noise in NOISES if noise.to_json(network)["sigma"] in {0.0, chosen.sigma}]
    rows = evaluate(network, test, protocol, noises=noises, name=name)
    rows += mean_rows(network, test, protocol, name)
    training = read_header(path)["training"]
    return {
        "name": name,
        "schedule": schedule,
        "images": test.name,
        "sigma": read_header(path)["smoothing"],
        "rows": [row.to_json() for row in rows],
        "evaluation_seconds": round(time.monotonic() - begun, 1),
        "training": training,
    }


def mean_rows(network: nn.Module, data: Images, protocol: PaperProtocol, name: str) -> list[Row]:
    """The network without its noise, attacked without it: what the noise itself is worth."""
    if not noise_layers(network):
        return []
    with noiseless(network):
        return evaluate(network, data, replace(protocol, num_samples=(1,)), noises=[], name=f"{name}, mean network")


def write_table(folder: Path, entries: Sequence[Entry], schedule: str) -> None:
    """Write `folder/README.md` from the results that are there: a row a network and vote, the others stay empty."""
    lines = [INTRODUCTION.format(schedule=schedule)]
    for name in (name for entry in entries for name in entry.measured.values()):
        path = folder / f"{name}.json"
        if not path.is_file():
            lines.append(f"| {name} | | | | | | |")
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        training = result["training"]
        about = f"| {name} | {training['config']['epochs']} | {training['seconds']:.0f} |"
        lines += [
            f"{about} {row['images']} | {label} | {_percent(row, 'clean')} | {_percent(row, 'robust')} |"
            for label, row in _shown_rows(result)
        ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")


def _shown_rows(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in result["rows"]:
        if row["vote"] == ONE_DRAW:
            yield ("mean network" if row["model"] != result["name"] else "one draw"), row
        elif (row["vote"], row["num_samples"], row["sigma"]) == ("prediction", max(COUNTS), result["sigma"]["sigma"]):
            yield f"M = {row['num_samples']}, sigma {row['sigma']:.4g}", row


def _percent(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{100 * row[name]:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def main() -> None:
    """Train and measure what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=SCHEDULES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results", type=Path, required=True, help="folder of the measured numbers")
    parser.add_argument("--data", default="cifar10", help="cifar10, or its folder")
    parser.add_argument("--images", type=int, help="test images, the first N; all if not given")
    parser.add_argument("--time-limit", help="such as 90s, 25m, 1.5h")
    parser.add_argument("--only", nargs="*", help="names of runs; all if not given")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    clock = Clock(None if options.time_limit is None else duration(options.time_limit))
    for entry in SCHEDULES[options.schedule]:
        if options.only and entry.name not in options.only:
            continue
        if clock.over:
            break
        if entry.start is not None and not (options.results / f"{entry.start}.json").is_file():
            console.print(f"{entry.name}: waits for {entry.start}")
            continue
        missing = {f: name for f, name in entry.measured.items() if not (options.results / f"{name}.json").is_file()}
        if not missing or not train_entry(entry, options.out, options.data, clock):
            continue
        for file, name in missing.items():
            if clock.over:
                break
            path = options.out / entry.name / f"{file}.safetensors"
            result = measure(path, name, options.data, options.images, options.schedule)
            write_json(result, options.results / f"{name}.json")
            for row in result["rows"]:
                console.print(*(row[key] for key in ("model", "vote", "num_samples", "sigma", "clean", "robust")))
    write_table(options.results, SCHEDULES[options.schedule], options.schedule)


if __name__ == "__main__":
    main()
