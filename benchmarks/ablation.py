"""What each technique of the performance stack is worth by itself, on the four main jobs.

    python benchmarks/ablation.py --json ablation.json          # --quick: about five minutes on two cores

The jobs are a bulk vote, the vote on one image, a PGD-10 attack and a training step; the networks are the bundled
ResNet-20 with CNI on the weights of every layer, and a ResNet-20 without noise inside. *Alone* is the time of the plain
network over its time with the technique; what builds on other techniques is added to the plain network with these.
*Removed* is the time of the full stack without the technique, and without what builds on it, over the time of the full
stack. So numbers above 1 are gains. A technique is switched off by replacing its part of the package: the plain network
is `Fast` with every part replaced, which is a thin shell around the eager network in float32.

Each combination of techniques has a process of its own, which is told what to run; the four of a comparison run in
turn. A ratio is the median over the rounds of the ratio in a round, and its spread is from the least to the most.
"""

import argparse
import json
import operator
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import smoothed.training.step
from alone import Actions, Alone
from hardware import wait
from smoothed import Fast, Gaussian, Smoothed, keep_memory, load
from smoothed.acceleration.fused_weights import FusedWeights, Parts, Slot
from smoothed.attacks import pgd
from smoothed.data.sample import load_sample
from smoothed.injection import NoiseLayer
from smoothed.models import build
from smoothed.rng.counter_based import GAMMA, places, places_channels_last, splitmix64
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Keyed
from smoothed.smoothing.input_noise import ScaledNoise
from smoothed.utils.devices import best_device, has_bf16_units

JOBS = ("vote", "image", "attack", "train")
NOISES = ("none", "CNI")
VOTED, DRAWS_OF_ONE = 256, 64
# Draws of each image that is voted on, images that are attacked, and images of a training step.
SIZES, QUICK_SIZES = (4, 64, 32), (2, 16, 16)
EPS, STEPS, SIGMA = 8 / 255, 10, 0.06
WORTH = 1.1
# Seconds of rest before each run: the OpenMP threads of the process before spin for about 5 ms.
_REST = 0.02

Patches = list[AbstractContextManager[Any]]


def replaced(owner: Any, **others: object) -> Patches:  # noqa: ANN401 - a module or a class
    """Other values for some names of a module or a class."""
    return [mock.patch.object(owner, name, value) for name, value in others.items()]


@contextmanager
def everywhere(function: object, other: object) -> Iterator[None]:
    """Another function under every name that modules of the package have for one."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "smoothed"]
    found = [(module, name) for module in modules for name, value in vars(module).items() if value is function]
    if not found:
        raise LookupError(f"{function} is no longer where this benchmark replaces it")
    with ExitStack() as stack:
        for module, name in found:
            stack.enter_context(mock.patch.object(module, name, other))
        yield


class _Instead:
    """A module with other values for some of its names."""

    def __init__(self, module: object, **others: object) -> None:
        self._module = module
        vars(self).update(others)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        return getattr(self._module, name)


def other_torch(*modules: ModuleType, **others: object) -> Patches:
    """Other values for some names of torch, as these modules see it."""
    return [mock.patch.object(module, "torch", _Instead(module.torch, **others)) for module in modules]


def without_channels_last() -> Patches:
    """Images and weights lie in memory as torch makes them."""
    modules = smoothed.fast, smoothed.one_draw, smoothed.training.run, smoothed.training.batch

    def flat(slot: Slot, tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, *tensor.shape[len(slot.shape) :])

    def shaped(slot: Slot, vectors: Tensor) -> Tensor:
        return vectors.view(len(vectors), *slot.shape)

    nchw = other_torch(*modules, channels_last=torch.contiguous_format)
    return nchw + replaced(Slot, flat=flat, shaped=shaped)


def without_fusing() -> Patches:
    """Networks run as they are."""

    def keep(model: nn.Module, **_: object) -> tuple[nn.Module, str]:
        return model, "an ablation"

    return [everywhere(smoothed.fusing.fuse_or_keep, keep)]


def without_exact_ends() -> Patches:
    """The first and the last layer are as rough as the others."""
    fuse_or_keep = smoothed.fusing.fuse_or_keep
    return [everywhere(fuse_or_keep, lambda model, **_: fuse_or_keep(model))]


def without_flat_weights() -> Patches:
    """Each layer's weight is computed by its own parametrization, and each draw by itself."""

    @torch.no_grad()
    def of_draw(weights: FusedWeights, parts: Parts, kind: str) -> list[Tensor]:
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        kept = vars(weights).get("gains")
        if kept is None or kept[0] is not parts:
            kept = parts, [slot.gain_and_bias(fold=parts.folds)[0] for slot in weights.slots]
            vars(weights)["gains"] = kept
        made = []
        for slot, gain in zip(weights.slots, kept[1], strict=True):
            weight = slot.layer.weight
            weight = weight if gain is None else weight * gain.view(-1, *[1] * (len(slot.shape) - 1))
            made.append(weight if slot.exact or lower is None else weight.to(lower))
        return made

    def of_keys(weights: FusedWeights, parts: Parts, kind: str, keys: Sequence[Any]) -> list[Tensor]:
        drawn = []
        for key in keys:
            for layer in weights.noises:
                vars(layer).update(source=key)  # `drawing` puts back what was there
            drawn.append(weights.of_draw(parts, kind))
        return [torch.stack(of_layer) for of_layer in zip(*drawn, strict=True)]

    return replaced(FusedWeights, of_draw=of_draw, of_keys=of_keys)


def forgetting(method: str, forget: Callable[[FusedWeights], object]) -> Patches:
    """A method of `FusedWeights` that first forgets something."""
    original = getattr(FusedWeights, method)

    def anew(weights: FusedWeights, *arguments: Any) -> object:  # noqa: ANN401 - the method's
        forget(weights)
        return original(weights, *arguments)

    return replaced(FusedWeights, **{method: anew})


def without_kept_parts() -> Patches:
    """What the weights of all draws have in common is computed at each pass."""
    return forgetting("parts", lambda weights: weights._kept.clear())


def without_kept_draw() -> Patches:
    """The weights of a draw are made at each pass."""
    return forgetting("of_draw", lambda weights: setattr(weights, "_last", None))


def without_kept_places() -> Patches:
    """The places of normals are computed at each request."""
    each = [everywhere(function, function.__wrapped__) for function in (places, places_channels_last)]
    return each + forgetting("_places", lambda weights: setattr(weights, "_kept_places", None))


def without_noise_in_one_go() -> Patches:
    """Normals of the images are made, scaled and added one after the other, in NCHW order."""

    def noisy_rows(law: ScaledNoise, key: Keyed, layer: int, inputs: Tensor) -> Tensor:
        return inputs + law.scale_(law.unit_rows(key, layer, inputs))

    return replaced(ScaledNoise, noisy_rows=noisy_rows)


def mixed_by_torch(*keys: int | Sequence[int] | Tensor) -> Tensor:
    """`randomness.mixed`, by torch."""
    state = torch.zeros(1, dtype=torch.int64)
    for key in keys:
        word = (key + 2**63) % 2**64 - 2**63 if isinstance(key, int) else key
        state = splitmix64(state + torch.as_tensor(word, dtype=torch.int64, device="cpu") + GAMMA)
    return state


def taken(rows: Tensor, index: Tensor) -> Tensor:
    """`voting._taken`, always a copy."""
    index = index.to(rows.device)
    if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        return rows.movedim(1, -1).index_select(0, index).movedim(-1, 1)
    return rows.index_select(0, index)


def all_noise_layers(model: object) -> list[NoiseLayer]:
    """`noise_layers`, by `torch.nn.Module.modules`."""
    modules = model.modules() if isinstance(model, nn.Module) else []
    return [module for module in modules if isinstance(module, NoiseLayer)]


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """`modes.evaluating`, which sets all modes, also those that are set."""
    before = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module):
        model.eval()
    yield
    for module, mode in before:
        module.training = mode


def read_bounds(labels: Tensor) -> tuple[int, int]:
    """`checks._bounds`, read at each call."""
    low, high = torch.aminmax(labels)
    return int(low), int(high)


@dataclass(frozen=True)
class Technique:
    """Something that should make jobs faster.

    Attributes:
        name: of it.
        jobs: those that it is on the way of.
        off: replaces it; None where `Variant` asks whether it is on.
        noises: inside the network, for which it does something.
        needs: the techniques that it builds on.
        usual: whether it is in the full stack: not what a user has to ask for.
        own_process: whether it is about a process's memory: each job then needs processes that did no other.
        here: whether this machine can do it.
    """

    name: str
    jobs: Sequence[str]
    off: Callable[[], Patches] | None = None
    noises: Sequence[str] = NOISES
    needs: Sequence[str] = ()
    usual: bool = True
    own_process: bool = False
    here: Callable[[], bool] = field(default=lambda: True)


def on_cpu() -> bool:
    """Whether the jobs run on a CPU."""
    return best_device().type == "cpu"


def with_bf16() -> bool:
    """Whether there are units for bf16."""
    return has_bf16_units(best_device())


def _replacing(name: str, other: object) -> Callable[[], Patches]:
    """Another function, wherever the package has the one by that name, as `module.function`."""
    return lambda: [everywhere(operator.attrgetter(name)(smoothed), other)]


CNI, DRAWING, ON_GRAPH = ("CNI",), ("vote", "image"), ("fx tracing",)
# Those that need others come after them, for they may replace what others put there.
TECHNIQUES = [
    Technique("kept memory", JOBS, usual=False, own_process=True),
    Technique("memory for reuse", JOBS[:3], _replacing("memory.reuse_memory", lambda: None), own_process=True),
    Technique("channels-last", JOBS, without_channels_last),
    Technique("bf16", JOBS, here=with_bf16),
    Technique("fx tracing", JOBS, without_fusing),
    Technique("exact ends", ("vote", "attack"), without_exact_ends, needs=("bf16", "fx tracing"), here=with_bf16),
    Technique(
        "folded batch norms", JOBS, lambda: replaced(smoothed.fusing, _folds=lambda *_: False), needs=ON_GRAPH
    ),
    Technique("flat weights", JOBS, without_flat_weights, CNI, ON_GRAPH),
    Technique("kept parts of weights", JOBS[1:], without_kept_parts, needs=ON_GRAPH),
    Technique(
        "kept weights of a draw", ("vote",), without_kept_draw, CNI,
        ("fx tracing", "flat weights", "kept parts of weights"),
    ),
    Technique("kept places", DRAWING, without_kept_places),
    Technique(
        "stacked draws", ("image",), lambda: replaced(Fast, draws_of_a_pass=lambda *_: 1),
        CNI, ("fx tracing", "flat weights"),
    ),
    Technique(
        "inference mode", DRAWING, lambda: other_torch(smoothed.fast, inference_mode=nullcontext), needs=ON_GRAPH
    ),
    Technique("noise in one go", DRAWING, without_noise_in_one_go),
    Technique(
        "normals in parts", DRAWING,
        lambda: replaced(smoothed.counter_based, _AT_A_TIME={}, _AT_A_TIME_ELSEWHERE=2**40),
    ),
    Technique("compiled normals", DRAWING, lambda: replaced(smoothed.counter_based, COMPILE_AFTER=2**62)),
    Technique(
        "places as float64", DRAWING, _replacing("counter_based._disguised", lambda made: made),
        needs=("compiled normals",), here=on_cpu,
    ),
    Technique("keys by NumPy", DRAWING, _replacing("randomness.mixed", mixed_by_torch)),
    Technique("passes before counting", DRAWING, lambda: replaced(smoothed.voting, _PASSES=0)),
    Technique("views of rows", DRAWING, _replacing("voting._taken", taken)),
    Technique(
        "passes of 128", ("vote",), lambda: replaced(smoothed.smoothing, _CHUNK_SIZE_ON_CPU=256), here=on_cpu
    ),
    Technique("known noise layers", ("image",), _replacing("injection.noise_layers", all_noise_layers), CNI),
    Technique("modes set if others", ("image",), _replacing("modes.evaluating", evaluating)),
    Technique("known label bounds", ("attack", "train"), _replacing("checks._bounds", read_bounds)),
    Technique("pooled normals", ("train",), _replacing("randomness.Pool", lambda source, _: source), CNI),
    Technique("compiled operations", ("vote", "attack", "train"), needs=ON_GRAPH, usual=False),
    Technique(
        "CUDA graphs", DRAWING, lambda: replaced(smoothed.fusing, has_graphs=lambda _: False),
        needs=("compiled operations", "fx tracing"), usual=False, here=torch.cuda.is_available,
    ),
]  # fmt: skip

BY_NAME = {technique.name: technique for technique in TECHNIQUES}
FULL = frozenset(technique.name for technique in TECHNIQUES if technique.usual and technique.here())


def with_needs(name: str) -> frozenset[str]:
    """A technique and those that it builds on."""
    return frozenset({name, *BY_NAME[name].needs})


def variants(name: str, kept: bool) -> list[frozenset[str]]:
    """The techniques of the four that are compared: plain and added, removed and full, each the slower one first."""
    added = with_needs(name)
    full = FULL | added
    removed = frozenset(other for other in full if name not in with_needs(other))
    more = {"kept memory"} if kept else set()
    return [on | more for on in (added - {name}, added, removed, full)]


@contextmanager
def only(on: frozenset[str]) -> Iterator[None]:
    """Inside the block, all techniques but these are switched off."""
    with ExitStack() as stack:
        for technique in TECHNIQUES:
            if technique.off is not None and technique.name not in on:
                for patch in technique.off():
                    stack.enter_context(patch)
        if "compiled normals" in on:  # from the first one on
            stack.enter_context(mock.patch.object(smoothed.counter_based, "COMPILE_AFTER", -1))
        yield


class Variant:
    """The jobs, in a process in which some techniques are on."""

    def __init__(self, on: frozenset[str], sizes: tuple[int, int, int] = SIZES) -> None:
        self.on, self.device = on, best_device()
        self.draws, self.attacked, self.trained = sizes
        self.precision = "bf16" if "bf16" in on else "float32"
        self.layout = torch.channels_last if "channels-last" in on else torch.contiguous_format
        if "kept memory" in on:
            keep_memory()
        self.images, self.labels = next(load_sample().first(VOTED).to(self.device).batches(VOTED))
        self._made: dict[tuple[str, str], Callable[[], object]] = {}

    def run(self, job: str, inside: str) -> None:
        """Do a job once, on the network with that noise inside."""
        if (job, inside) not in self._made:
            self._made[job, inside] = getattr(self, job)(inside)
        self._made[job, inside]()
        wait(self.device)

    def network(self, inside: str) -> Fast:
        """The network in the form that the techniques give it."""
        bare = load("resnet20-cni-w") if inside == "CNI" else build("resnet20")
        bare = bare.to(self.device).eval().to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        return Fast(bare, self.precision, compile="compiled operations" in self.on)

    def vote(self, inside: str, images: int = VOTED, draws: int | None = None) -> Callable[[], object]:
        """All draws of many images."""
        draws = draws or self.draws
        smoothed, inputs = Smoothed(self.network(inside), Gaussian(SIGMA), seed=0), self.images[:images]
        return lambda: smoothed.tally(inputs, [draws], votes=["prediction"], generator=seeded(1, self.device))

    def image(self, inside: str) -> Callable[[], object]:
        """All draws of one image."""
        return self.vote(inside, 1, DRAWS_OF_ONE)

    def attack(self, inside: str) -> Callable[[], object]:
        """PGD, each gradient of one draw."""
        network, labels = self.network(inside), self.labels[: self.attacked]
        images = self.images[: self.attacked].contiguous(memory_format=self.layout)
        return lambda: pgd(network, images, labels, eps=EPS, steps=STEPS, generator=seeded(1, self.device))

    def train(self, inside: str) -> Callable[[], object]:
        """A step of adversarial training with PGD-7, its data included."""
        from smoothed.training.recipes import RECIPES  # noqa: PLC0415 - Accelerate takes seconds to import
        from training import OurLoop, random_images  # noqa: PLC0415

        config = RECIPES["cni-w" if inside == "CNI" else "at"].config(batch_size=self.trained, precision=self.precision)
        loop = OurLoop(config, random_images(2 * self.trained, self.device))
        if "compiled operations" in self.on:
            images = self.images[: self.trained].contiguous(memory_format=self.layout)
            loop.run.compile_for(images)
        return loop


def process(on: frozenset[str], sizes: tuple[int, int, int]) -> Actions:
    """What a process of its own can be told."""
    only(on).__enter__()  # until the process ends
    return {"run": Variant(on, sizes).run}


@dataclass(frozen=True)
class Result:
    """What a technique is worth on a job.

    Attributes:
        technique: its name.
        job: the job.
        noise: inside the network.
        kept: whether the processes keep their memory.
        alone: the gain where it is added alone: the median, the least and the most.
        removed: the gain that is lost where it is removed from the full stack, likewise.
        milliseconds: of plain, added, removed and full, medians.
        rounds: of the four in turn.
    """

    technique: str
    job: str
    noise: str
    kept: bool
    alone: Sequence[float]
    removed: Sequence[float]
    milliseconds: Sequence[float]
    rounds: int


class Bench:
    """The processes at work, and how long a comparison may take."""

    def __init__(self, seconds: float, sizes: tuple[int, int, int]) -> None:
        self.seconds, self.sizes = seconds, sizes
        self.processes: dict[object, Alone] = {}

    def results(self, name: str, jobs: Sequence[str], kept: bool) -> Iterator[Result]:
        """What a technique is worth on these jobs, one after the other."""
        technique = BY_NAME[name]
        for job in (job for job in JOBS if job in jobs and job in technique.jobs):
            for inside in technique.noises:
                own = job if technique.own_process else ""
                four = [self._process(on, own) for on in variants(name, kept)]
                times = self._rounds([each.action("run", job, inside) for each in four])
                alone = [plain / added for plain, added, _, _ in times]
                removed = [without / full for _, _, without, full in times]
                spread = [[statistics.median(ratios), min(ratios), max(ratios)] for ratios in (alone, removed)]
                medians = [1e3 * statistics.median(each) for each in zip(*times, strict=True)]
                yield Result(name, job, inside, kept, *spread, medians, len(times))

    def leave(self, needed: Sequence[frozenset[str]]) -> None:
        """End the processes that are not needed any more."""
        self.processes = {(on, own): each for (on, own), each in self.processes.items() if on in needed and not own}

    def _process(self, on: frozenset[str], own: object) -> Alone:
        if (on, own) not in self.processes:
            self.processes[on, own] = Alone(partial(process, on, self.sizes))
        return self.processes[on, own]

    def _rounds(self, actions: Sequence[Callable[[], None]]) -> list[list[float]]:
        """The seconds of each action in each round: at least three rounds, after a first run that is not counted."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda action: action(), actions))
        rounds, begun = list[list[float]](), time.perf_counter()
        while len(rounds) < 3 or (time.perf_counter() - begun < self.seconds and len(rounds) < 25):
            rounds.append([_seconds(action) for action in actions])
        return rounds


def _seconds(action: Callable[[], None]) -> float:
    time.sleep(_REST)
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table, and the techniques that are worth little everywhere."""
    table = Table(
        "technique", "added to", "job", "noise", "alone", "removed", "alone, kept memory", "removed, kept memory"
    )
    cells = {(r.technique, r.job, r.noise, r.kept): (r.alone, r.removed) for r in results}
    for name, job, inside in dict.fromkeys((r.technique, r.job, r.noise) for r in results):
        both = [spread for kept in (False, True) for spread in cells.get((name, job, inside, kept), (None, None))]
        texts = ["" if each is None else "{:.2f} ({:.2f} to {:.2f})".format(*each) for each in both]
        table.add_row(name, ", ".join(BY_NAME[name].needs) or "plain", job, inside, *texts)
    console.print(table)
    best = dict[str, float]()
    for result in results:
        best[result.technique] = max(best.get(result.technique, 0), result.alone[0], result.removed[0])
    low = [f"{name} ({gain:.2f})" for name, gain in best.items() if gain < WORTH]
    console.print(f"Below {WORTH} everywhere, and the most that each is worth: {', '.join(low) or 'none'}.")
    absent = [technique.name for technique in TECHNIQUES if not technique.here()]
    console.print(f"Not on this machine: {', '.join(absent) or 'none'}.")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here, after each technique")
    parser.add_argument(
        "--quick", action="store_true", help="smaller jobs, fewer rounds, and no columns for kept memory"
    )
    parser.add_argument("--jobs", default=",".join(JOBS), help="some of %(default)s")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), help="some of the techniques")
    options = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # or each process has processes that wait for work
    results, begun = list[Result](), time.perf_counter()
    console = Console(width=max(160, Console().width))  # also where the table goes to a file
    jobs, names = options.jobs.split(","), [name for name in BY_NAME if not options.only or name in options.only]
    if unknown := set(jobs) - set(JOBS):
        parser.error(f"--jobs: expected some of {', '.join(JOBS)}, got {', '.join(sorted(unknown))}")
    bench = Bench(*((1.0, QUICK_SIZES) if options.quick else (3.0, SIZES)))
    work = [(name, kept) for kept in ((False,) if options.quick else (False, True)) for name in names]
    work = [(name, kept) for name, kept in work if BY_NAME[name].here() and not (kept and BY_NAME[name].own_process)]
    for done, (name, kept) in enumerate(work, start=1):
        try:
            results += bench.results(name, jobs, kept)
        except EOFError:
            console.print(f"{name}: a process has ended, its errors are above")
            bench.processes.clear()  # others may still be at work on what they were told
        bench.leave([on for later, kept_later in work[done:] for on in variants(later, kept_later)])
        print(f"{done} of {len(work)} after {time.perf_counter() - begun:.0f} s: {name}", file=sys.stderr, flush=True)
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n", encoding="utf-8")
    show(results, console)


if __name__ == "__main__":
    main()
