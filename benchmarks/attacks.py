"""What attacks cost: beside torchattacks and foolbox in the same run, and beside the passes that they can't do without.

    python benchmarks/attacks.py --json attacks.json          # --quick: a few minutes on two cores

The network is the bundled one with its noise, the images are CIFAR-10's. Every library gets channels-last memory and,
on hardware with units for it, bf16. Success is the share of images that one fresh draw gets wrong.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import foolbox
import torch
import torchattacks
from torch import Tensor, nn

from hardware import settle
from report import Row, at_least, at_most, seconds_in_turn, show
from smoothed import load, noiseless
from smoothed.acceleration.fusing import fuse
from smoothed.attacks import expected_probabilities, pgd
from smoothed.attacks.max_loss.apgd import apgd
from smoothed.attacks.query_based.nattack import nattack
from smoothed.attacks.query_based.square import square
from smoothed.data.sample import load_sample
from smoothed.errors import ArgumentError
from smoothed.utils.devices import autocast, best_device, resolve_precision
from smoothed.utils.modes import eval_mode

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
# Draws a share is measured on: the deviation of a difference of successes is then below half a point.
SUCCESS_DRAWS = 8

Method = Callable[[], Tensor]


class Bench:
    """The network, the images, and the precision that is best here."""

    def __init__(self, count: int) -> None:
        self.device = best_device()
        settle(self.device)
        self.precision = resolve_precision("auto", self.device)
        network: nn.Module = load("resnet20-cni-w", device=self.device)
        network.requires_grad_(False)  # spares the peers the gradients of weights
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        images, labels = next(load_sample().first(count).to(self.device).batches(count))
        self.images, self.labels = images.contiguous(memory_format=torch.channels_last), labels
        self.fused = fuse(self.network)
        with autocast(self.precision, self.device), suppress(ArgumentError):
            self.fused.compile_for(self.images)

    def here(self, method: Method) -> Method:
        """`method` in the precision that is best here."""

        def run() -> Tensor:
            with autocast(self.precision, self.device):
                return method()

        return run

    @torch.no_grad()
    def success(self, adversarial: Tensor) -> float:
        """The share of images that a fresh draw gets wrong, in %."""
        with eval_mode(self.network):
            wrong = [(self.network(adversarial).argmax(1) != self.labels).float().mean() for _ in range(SUCCESS_DRAWS)]
        return 100 * float(torch.stack(wrong).mean())


def beside_peers(bench: Bench, repeats: int) -> list[Row]:
    """PGD-10 of three libraries, in turn."""
    bounded = foolbox.PyTorchModel(bench.network, bounds=(0, 1), device=bench.device)
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS)
    methods: dict[str, Method] = {
        "smoothed": lambda: pgd(bench.fused, bench.images, bench.labels, eps=EPS, step_size=STEP_SIZE, steps=STEPS),
        "torchattacks": lambda: torchattacks.PGD(bench.network, EPS, STEP_SIZE, STEPS)(bench.images, bench.labels),
        "foolbox": lambda: theirs(bounded, bench.images, bench.labels, epsilons=EPS)[1],
    }
    settings = {name: bench.here(method) for name, method in methods.items()}
    seconds = dict(zip(settings, seconds_in_turn(list(settings.values()), bench.device, repeats), strict=True))
    success = {name: bench.success(method()) for name, method in settings.items()}
    count = len(bench.images)
    rows = [Row(f"PGD-10 of {name}: images/s", count / taken) for name, taken in seconds.items()]
    rows += [
        at_least(f"PGD-10: images/s over {peer}", seconds[peer] / seconds["smoothed"], 1.5)
        for peer in ("torchattacks", "foolbox")
    ]
    rows += [Row(f"PGD-10 of {name}: success on a fresh draw, %", share) for name, share in success.items()]
    weakest = success["smoothed"] - max(success["torchattacks"], success["foolbox"])
    return [*rows, at_least("PGD-10: success minus that of the better peer, points", weakest, -1.0)]


def expectation(bench: Bench, repeats: int) -> Row:
    """EPGD of eight draws against PGD of as many steps."""
    objective = expected_probabilities(8)
    actions = [
        bench.here(lambda: pgd(bench.fused, bench.images, bench.labels, eps=EPS, steps=2)),
        bench.here(lambda: pgd(bench.fused, bench.images, bench.labels, eps=EPS, steps=2, objective=objective)),
    ]
    one, eight = seconds_in_turn(actions, bench.device, repeats)
    return at_most("EPGD with 8 draws per gradient: time over that of PGD", eight / one, 8.5)


def queries(bench: Bench, repeats: int, budget: int) -> list[Row]:
    """Query attacks against the forward passes they made, batch by batch."""

    def overhead(name: str, method: Callable[[nn.Module], Tensor]) -> Row:
        recorded = _Recorded(bench.network)
        method(recorded)  # the same seed asks the same batches again

        @torch.no_grad()
        def passes() -> None:
            for images in recorded.seen:
                bench.network(images)

        attack, bare = seconds_in_turn(
            [bench.here(lambda: method(bench.network)), bench.here(passes)],  # pyright: ignore[reportArgumentType]
            bench.device,
            repeats,
        )
        return at_most(f"{name}, {budget} queries: time over that of its forward passes", attack / bare, 1.2)

    def seeded() -> torch.Generator:
        return torch.Generator(bench.device).manual_seed(0)

    with noiseless(bench.network):
        return [
            overhead(
                name,
                lambda model, method=method: method(
                    model, bench.images, bench.labels, eps=EPS, max_queries=budget, generator=seeded()
                ),
            )
            for name, method in (("Square", square), ("NAttack", nattack))
        ]


class _Recorded(nn.Module):
    """Keeps the batches that it was asked about."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach())
        return self.network(inputs)


def early_exit(bench: Bench, repeats: int) -> Row:
    """Auto-PGD on the mean network, which leaves images that are broken, against the same that does not."""

    def run(*, early_stop: bool) -> Method:
        generator = torch.Generator(bench.device).manual_seed(0)
        return bench.here(
            lambda: apgd(
                bench.fused, bench.images, bench.labels, eps=EPS, steps=20, early_stop=early_stop, generator=generator
            )
        )

    with noiseless(bench.network):
        stays, leaves = seconds_in_turn([run(early_stop=False), run(early_stop=True)], bench.device, repeats)
    return at_most("Auto-PGD-20 that skips misclassified images: time over that on all images", leaves / stays, 0.9)


def growth(bench: Bench, repeats: int) -> list[Row]:
    """How cost grows with draws: what a draw more costs at 16, over what it costs at 4."""

    def epgd(draws: int) -> Method:
        objective = expected_probabilities(draws)
        return bench.here(lambda: pgd(bench.fused, bench.images, bench.labels, eps=EPS, steps=1, objective=objective))

    counts: Sequence[int] = (2, 4, 8, 16)
    two, four, eight, sixteen = seconds_in_turn([epgd(draws) for draws in counts], bench.device, repeats)
    return [
        at_most(
            "EPGD: time per further draw from 8 to 16 over that from 2 to 4",
            (sixteen - eight) / 8 / ((four - two) / 2),
            1.3,
        )
    ]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and images")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    repeats = 3 if options.quick else 7
    bench = Bench(128 if options.quick else 256)
    rows = beside_peers(bench, repeats)
    rows.append(expectation(bench, repeats))
    rows += queries(bench, repeats, budget=60 if options.quick else 300)
    rows.append(early_exit(bench, repeats))
    rows += growth(bench, repeats)
    show(rows, options.json)


if __name__ == "__main__":
    main()
