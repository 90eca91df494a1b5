"""Cost of a vote, compared with two naive loops, with another library, and with bare passes of the same network.

    python benchmarks/inference.py --json inference.json          # --quick: a few minutes on two cores

The naive loop makes one draw at a time in eager float32, with `torch.randn_like` for the input noise. The tuned naive
loop is the same in channels-last memory and, where the hardware has units for it, under bf16 autocast. Both loops and
the other library run in processes of their own, in turn with this package, so that they do not profit from memory that
this package keeps. The network is the bundled ResNet-20 with CNI on the weights of every layer, with the input noise
that was chosen for it; in rows on input noise alone, its own noise is off. This package runs compiled, in the fastest
precision of the hardware.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from alone import Actions, Alone
from hardware import bytes_moved, copy_bandwidth, matmul_peak, peak_memory, settle, wait
from report import Row, at_least, at_most, seconds_in_turn, show
from smoothed import Fast, Gaussian, Smoothed, keep_memory, load, noiseless
from smoothed.checkpoint import locate, read_header
from smoothed.data.sample import load_sample
from smoothed.models import build
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Keyed
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.input_noise import ScaledNoise
from smoothed.smoothing.stopping import Confident
from smoothed.utils.devices import best_device, resolve_precision

MODEL, DELTA = "resnet20-cni-w", 0.001
# Rows of a pass that are tried. On a CPU, larger ones need more memory than a process keeps: they take what they find.
SIZES = {"cpu": (64, 128, 192), "cuda": (128, 256, 512)}
SWEPT = tuple(2**power for power in range(10))


def begin(keeps: bool) -> None:
    """What each process begins with."""
    torch.backends.cudnn.benchmark = True
    if keeps and not keep_memory():
        raise SystemExit("this C library has no mallopt")


def subject() -> tuple[nn.Module, ScaledNoise, Tensor]:
    """The bundled network, the input noise that was chosen for it, and 1,000 images."""
    device = best_device()
    network = load(MODEL, device=device).eval().requires_grad_(False)
    noise = NoiseConfig.from_header(read_header(locate(MODEL))).for_model(network)
    images = next(load_sample().to(device).batches(1000))[0]
    return network, noise, images


class Bench:
    """The network, its noise, the images, and the same network in its cheapest form."""

    def __init__(self, *, quick: bool, keeps: bool = False) -> None:
        self.quick, self.repeats, self.keeps = quick, 3 if quick else 7, keeps
        self.network, self.noise, self.images = subject()
        self.device = self.images.device
        self.fast = self.fastest(self.network)
        settle(self.device)
        with torch.no_grad():
            self.fast(self.images[:256])
        with noiseless(self.network):
            self.bare_rows = self.best_rows(self.bare)
        self.rows = self.best_rows(lambda rows, size: self.vote(self.images[:size], rows // size, size))

    def fastest(self, network: nn.Module) -> Fast:
        """The cheapest form of a network."""
        return Fast(network, "auto", compile=True)

    def vote(self, images: Tensor, draws: int, size: int | None = None) -> Callable[[], object]:
        """A prediction vote of that many draws, all of them made, in passes of the best size."""
        smoothed = Smoothed(self.fast, self.noise, chunk_size=size or self.rows, seed=0)
        return lambda: smoothed.tally(images, [draws], votes=["prediction"], generator=seeded(1, images.device))

    def bare(self, rows: int, size: int | None = None) -> Callable[[], None]:
        """So many rows through the same network, without any noise, in passes of the best size."""
        size = size or self.bare_rows
        images = self.images.repeat(-(-size // len(self.images)), 1, 1, 1)[:size]
        images = images.contiguous(memory_format=torch.channels_last)

        @torch.no_grad()
        def passes() -> None:
            for _ in range(rows // size):
                self.fast(images)
            if rest := rows % size:
                self.fast(images[:rest])

        return passes

    def best_rows(self, passes: Callable[[int, int], Callable[[], object]]) -> int:
        """The best size of a pass, given what makes so many rows in passes of a size."""
        sizes = SIZES[self.device.type]
        rows = 2 * math.lcm(*sizes)
        taken = self.in_turn(*(passes(rows, size) for size in sizes), repeats=3 * self.repeats)
        return sizes[taken.index(min(taken))]

    def in_turn(self, *actions: Callable[[], object], repeats: int | None = None) -> list[float]:
        """The median seconds of each."""
        return seconds_in_turn(actions, self.device, repeats or self.repeats)


@torch.no_grad()
def naive_loop(network: nn.Module, images: Tensor, sigma: Tensor | float, draws: int) -> Tensor:
    """The counts of the prediction vote, (N, K), as one writes it first."""
    counts = torch.zeros((), device=images.device)
    for _ in range(draws):
        logits = network(images + sigma * torch.randn_like(images))
        counts = counts + functional.one_hot(logits.argmax(1), logits.shape[1])
    return counts


def naive(network: nn.Module, noise: ScaledNoise, images: Tensor, draws: int) -> Callable[[], object]:
    """The naive loop with input noise of the deviation that `noise` has on each channel."""
    sigma = noise.scale_(torch.ones_like(images[:1]))
    return lambda: naive_loop(network, images, sigma, draws)


def naive_alone(keeps: bool) -> Actions:
    """The naive loop in a process of its own, on the first images, with the network's noise or without."""
    network, noise, images = subject()
    begin(keeps)

    def vote(count: int, draws: int, own_noise: bool = True) -> None:
        with nullcontext() if own_noise else noiseless(network):
            naive(network, noise, images[:count], draws)()
        wait(images.device)

    return {"vote": vote}


def tuned_alone(keeps: bool) -> Actions:
    """The tuned naive loop in a process of its own: channels-last memory, and bf16 autocast where it is fast."""
    network, noise, images = subject()
    begin(keeps)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing from torch's stubs
    images = images.contiguous(memory_format=torch.channels_last)
    bf16 = resolve_precision("auto", images.device) == "bf16"

    def vote(count: int, draws: int) -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            naive(network, noise, images[:count], draws)()
        wait(images.device)

    return {"vote": vote}


def art_alone(keeps: bool, count: int, draws: int, sigma: float) -> Actions:
    """Adversarial-robustness-toolbox's randomized smoothing in a process of its own, without the network's noise."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing  # noqa: PLC0415 - heavy

    network, _, images = subject()
    begin(keeps)
    theirs = PyTorchRandomizedSmoothing(
        model=network,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        sample_size=draws,
        scale=sigma,
        alpha=0.001,
        device_type="gpu" if images.device.type == "cuda" else "cpu",
    )
    array = images[:count].cpu().numpy()

    def predict() -> None:
        with noiseless(network):
            theirs.predict(array, batch_size=256)

    return {"predict": predict}


def beside_naive_loops(bench: Bench) -> list[Row]:
    """A draw of many images, the classes of M = 512, and one image."""
    images, draws, most = bench.images[:256], 4, 512
    alone = Alone(partial(naive_alone, bench.keeps))
    tuned, loop, ours, beside_ours = bench.in_turn(
        Alone(partial(tuned_alone, bench.keeps)).action("vote", len(images), draws),
        alone.action("vote", len(images), draws),
        bench.vote(images, draws),
        naive(bench.network, bench.noise, images, draws),
    )
    rows = [
        Row("naive loop: time per draw of an image, us", 1e6 * loop / draws / len(images)),
        Row("naive loop in the process of this package: time per draw, us", 1e6 * beside_ours / draws / len(images)),
        Row("this package: time per draw of an image, us", 1e6 * ours / draws / len(images)),
        at_least("speed-up per draw over a naive loop", loop / ours, 4.0),
        Row("tuned naive loop: time per draw of an image, us", 1e6 * tuned / draws / len(images)),
        Row("speed-up per draw over the tuned naive loop", tuned / ours),
    ]
    options = {"chunk_size": bench.rows, "stop": Confident(DELTA), "seed": 0}
    confident = Smoothed(bench.fast, bench.noise, num_samples=most, **options)
    whole = loop / draws / len(images) * most  # of an image: what it costs is in proportion to its draws
    for count in (1000, 10_000):
        every = bench.images.repeat(-(-count // len(bench.images)), 1, 1, 1)[:count]
        (classes,) = bench.in_turn(lambda every=every: confident.predict(every), repeats=1)
        name = f"classes of {count:,} images at M = 512, Confident(0.001): speed-up over a naive loop"
        times = whole * count / classes
        # The last images to be sure leave passes half empty: the goal is for the number of images of a test set.
        rows.append(at_least(name, times, 50.0) if count == 10_000 else Row(name, times))
    image = bench.images[:1]
    weights = torch.empty(sum(parameter.numel() for parameter in build("resnet20").parameters()), device=bench.device)
    for name, pack_draws in (("CNI", False), ("input noise alone", True)):
        with noiseless(bench.network) if pack_draws else nullcontext():
            one = Smoothed(bench.fast, bench.noise, num_samples=64, pack_draws=pack_draws, seed=0)
            loop, ours, normals = bench.in_turn(
                alone.action("vote", 1, 64, not pack_draws),
                lambda one=one: one.predict(image),
                lambda: [weights.normal_() for _ in range(64)],
            )
        if not pack_draws:
            rows.append(
                Row("one image, M = 64, CNI: share of the naive loop's time for normal numbers", normals / loop)
            )
        rows += [
            Row(f"one image, M = 64, {name}: latency, ms", 1e3 * ours),
            at_most(f"one image, M = 64, {name}: latency over that of the naive loop", ours / loop, 0.2),
        ]
    return rows


def beside_art(bench: Bench) -> list[Row]:
    """Adversarial-robustness-toolbox's randomized smoothing, at the same M and sigma, without stopping.

    The network's own noise is off: there, rows of a pass would share it, and votes would depend on each other.
    """
    draws, count, sigma = 64, 8 if bench.quick else 32, 0.06
    theirs = Alone(partial(art_alone, bench.keeps, count, draws, sigma)).action("predict")
    options = {"pack_draws": True, "chunk_size": bench.rows, "stop": None, "seed": 0}
    ours = Smoothed(bench.fast, Gaussian(sigma), num_samples=draws, **options)
    with noiseless(bench.network):
        peer, own = bench.in_turn(theirs, lambda: ours.predict(bench.images[:count]))
    return [
        Row("adversarial-robustness-toolbox: time per draw of an image, us", 1e6 * peer / draws / count),
        at_least("speed-up per draw over adversarial-robustness-toolbox", peer / own, 4.0),
    ]


def beside_bare_passes(bench: Bench) -> list[Row]:
    """A vote against as many passes without noise, in the same precision, at the best size."""
    made, rows = 4 * math.lcm(*SIZES[bench.device.type]), list[Row]()
    with noiseless(bench.network):
        for draws in (8, 64, 512):
            count = max(1, made // draws)
            smoothed = Smoothed(bench.fast, bench.noise, chunk_size=bench.rows, pack_draws=True, seed=0)
            images = bench.images[:count]
            vote, bare = bench.in_turn(
                lambda s=smoothed, i=images, d=draws: s.tally(i, [d], votes=["prediction"]),
                bench.bare(count * draws),
                repeats=3 * bench.repeats,  # each is short
            )
            rows.append(at_most(f"M = {draws}, input noise alone: time over that of M bare passes", vote / bare, 1.1))
    for draws in (8, 64) if bench.quick else (8, 64, 512):
        vote = bench.vote(bench.images[: bench.rows], draws)
        bare = _without_noise(bench, bench.bare(draws * bench.rows))
        taken, passes = bench.in_turn(vote, bare, repeats=max(1, bench.repeats * 8 // draws))
        rows.append(at_most(f"M = {draws}, CNI on every layer: time over that of M bare passes", taken / passes, 1.25))
    return rows


def _without_noise(bench: Bench, passes: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with noiseless(bench.network):
            passes()

    return run


def noise(bench: Bench) -> list[Row]:
    """Noise as a function of (seed, image, draw) against noise from one stream."""
    images = bench.images[: bench.rows]
    generator = seeded(0, images.device)

    @torch.no_grad()
    def keyed() -> None:
        smoothed.noisy_classifier.with_key(images, Keyed(0))

    @torch.no_grad()
    def streamed() -> None:
        bench.fast(images + bench.noise(images, generator))

    smoothed = Smoothed(bench.fast, bench.noise)
    with noiseless(bench.network):
        ours, stream = bench.in_turn(keyed, streamed, repeats=3 * bench.repeats)
    return [
        at_most(
            "draw with noise by (seed, image, draw): time over that of one with noise from a stream", ours / stream, 1.1
        )
    ]


def one_pass_for_all(bench: Bench) -> list[Row]:
    """All Ms and all votes, read off one set of draws."""
    images, most = bench.images[: 2 * bench.rows // 64], max(SWEPT)
    with noiseless(bench.network):
        packed = Smoothed(bench.fast, bench.noise, chunk_size=bench.rows, pack_draws=True, seed=0)
        every, one = bench.in_turn(
            lambda: packed.tally(images, SWEPT), lambda: packed.tally(images, [most], votes=["prediction"]), repeats=3
        )
    return [at_most("all votes at M = 1, 2, 4, .., 512: time over that of one vote at M = 512", every / one, 1.1)]


def precision(bench: Bench) -> list[Row]:
    """The classes that bf16 changes."""
    name = "share of classes that bf16 changes at M = 64, %"
    if bench.fast.precision != "bf16":
        return [at_most(name, None, 0.3)]
    exact, rounded = (
        Smoothed(network, bench.noise, num_samples=64, seed=0).predict(bench.images)
        for network in (Fast(bench.network), bench.fast)
    )
    return [at_most(name, 100 * int((exact != rounded).sum()) / len(exact), 0.3)]


def hardware(bench: Bench) -> list[Row]:
    """How far a draw is from what the machine can do."""
    dtype = torch.bfloat16 if bench.fast.precision == "bf16" else torch.float32
    images = bench.images[: bench.rows]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bench.network(images[:1])
    operations = counter.get_total_flops()
    moved = bytes_moved(Fast(bench.network, bench.fast.precision), images) / len(images)
    (taken,) = bench.in_turn(bench.vote(images, 4))
    a_draw = taken / 4 / len(images)
    peak, bandwidth = matmul_peak(bench.device, dtype), copy_bandwidth(bench.device)
    return [
        Row(f"matrix products in {str(dtype).removeprefix('torch.')}: GFLOP/s", peak / 1e9),
        Row("copies: GB/s", bandwidth / 1e9),
        Row("draws of an image per second", 1 / a_draw),
        Row("share of the peak of matrix products, %", 100 * operations / a_draw / peak),
        Row("share of the copy bandwidth if caches held nothing, %", 100 * moved / a_draw / bandwidth),
    ]


def weights_of_one_image(bench: Bench) -> list[Row]:
    """Sixteen draws of a layer's weights on one image: a loop, one grouped convolution, and vmap."""
    rows = list[Row]()
    draws = 16
    for channels, size in ((16, 32), (32, 16), (64, 8)):
        image = torch.randn(1, channels, size, size, device=bench.device)
        weights = torch.randn(draws, channels, channels, 3, 3, device=bench.device)
        tiled, stacked = image.repeat(1, draws, 1, 1), weights.flatten(0, 1)

        @torch.no_grad()
        def loop(image: Tensor = image, weights: Tensor = weights) -> None:
            for weight in weights:
                functional.conv2d(image, weight, padding=1)

        @torch.no_grad()
        def grouped(tiled: Tensor = tiled, stacked: Tensor = stacked) -> None:
            functional.conv2d(tiled, stacked, padding=1, groups=draws)

        @torch.no_grad()
        def mapped(image: Tensor = image, weights: Tensor = weights) -> None:
            torch.func.vmap(lambda weight: functional.conv2d(image, weight, padding=1))(weights)

        # Each is short: several, for the threads to be awake.
        several = [lambda action=action: [action() for _ in range(20)] for action in (loop, grouped, mapped)]
        by_loop, by_groups, by_map = bench.in_turn(*several, repeats=3 * bench.repeats)
        rows += [
            Row(
                f"{draws} draws of {channels} channels on one image: grouped convolution over a loop",
                by_groups / by_loop,
            ),
            Row(f"{draws} draws of {channels} channels on one image: vmap over a loop", by_map / by_loop),
        ]
    return rows


def growth(bench: Bench) -> list[Row]:
    """How the cost of a draw of an image depends on M, images, their size and classes."""
    few = bench.images[: bench.rows // 4]
    eight, many = bench.in_turn(bench.vote(few, 8), bench.vote(few, 64))
    two_images, all_images = bench.in_turn(bench.vote(bench.images[:32], 8), bench.vote(bench.images[:512], 8))
    rows = [
        at_most("time per draw at M = 64 over M = 8", many / 64 / (eight / 8), 1.1),
        at_most("time per image in a batch of 512 over a batch of 32", all_images / 512 / (two_images / 32), 1.1),
    ]
    large = functional.interpolate(bench.images[: bench.rows // 4], scale_factor=2)
    (small_size, large_size) = bench.in_turn(bench.vote(few, 4), bench.vote(large, 4))
    rows.append(at_most("time per pixel at 64 x 64 over 32 x 32", large_size / 4 / small_size, 1.3))
    plain = [
        Fast(build("resnet20", num_classes=k).to(bench.device).eval().requires_grad_(False), "auto") for k in (10, 1000)
    ]
    ten, thousand = bench.in_turn(
        *(lambda network=network: Smoothed(network, bench.noise, seed=0).tally(few, [8]) for network in plain)
    )
    rows.append(Row("time per draw with 1,000 classes over 10 classes, all votes", thousand / ten))
    return rows


def memory(bench: Bench) -> list[Row]:
    """The peak memory of a vote on few images and on many, each in a process of its own.

    Both have torch.compile loaded, which a process needs that draws for more than some seconds.
    """
    draws = 32 if bench.quick else 512
    fresh, few, many = (
        float(subprocess.check_output([sys.executable, __file__, "--peak-memory", *map(str, sizes)], text=True))  # noqa: S603
        for sizes in ((100, 8, 0), (100, 8, 1), (10_000, draws, 1))
    )
    return [
        Row("peak memory for 100 images, M = 8, MB", fresh),
        Row("the same after many draws, MB", few),
        at_most(
            f"peak memory for 10,000 images, M = {draws}, MB more than for 100 images, M = 8, after many draws",
            many - few,
            300,
        ),
    ]


def memory_of_a_vote(count: int, draws: int, settled: int) -> float:
    """Megabytes at the peak of a vote in this process: the network is tiny, for what is measured is what we keep."""
    device = best_device()
    if settled:
        settle(device)
    network = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 10)).to(device)
    Smoothed(Fast(network), Gaussian(0.1)).tally(torch.rand(count, 3, 32, 32, device=device), [draws])
    return peak_memory(device)


PARTS: Sequence[Callable[[Bench], list[Row]]] = (
    beside_naive_loops,
    beside_art,
    beside_bare_passes,
    noise,
    one_pass_for_all,
    precision,
    hardware,
    weights_of_one_image,
    growth,
    memory,
)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, images and draws")
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS], help="some of the parts")
    parser.add_argument("--keep-memory", action="store_true", help="as the command `smoothed` does (keep_memory)")
    parser.add_argument("--peak-memory", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_memory:
        sys.stdout.write(f"{memory_of_a_vote(*options.peak_memory)}\n")
        return
    begin(options.keep_memory)
    bench = Bench(quick=options.quick, keeps=options.keep_memory)
    rows = [Row("rows of the fastest pass", bench.rows), Row("rows of the fastest bare pass", bench.bare_rows)]
    for part in PARTS:
        if not options.only or part.__name__ in options.only:
            rows += part(bench)
    show(rows, options.json)


if __name__ == "__main__":
    main()
