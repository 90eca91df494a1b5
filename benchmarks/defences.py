"""Train defences on one short schedule, and measure each of them under the same attacks.

    python benchmarks/defences.py at cni-w stability --out defences      # trains, measures, writes defences/NAME.json
    python benchmarks/defences.py --table docs/results/defences          # the table of all results in a folder
    python benchmarks/defences.py --costs                                # weights, and milliseconds of a vote

Each recipe of `smoothed recipes` trains a ResNet-20 on CIFAR-10 from new weights for 12 epochs, or for as many as cost
at most 96 passes (as `smoothed recipes` counts them), the cost of 12 epochs of adversarial training with N-FGSM. N-FGSM
takes the place of L-inf attacks of several steps, except where the attack is the defence (`dynamic`, `iaat`,
`voronoi`, `voronoi-ball`). Recipes that differ from CNI-W by their attack alone (`epgd`, `smoothadv`, `high-k`) are
refused. The network of the last epoch counts, and nothing is chosen. A run that was interrupted goes on.

The images are the bundled 1,000 test images. Measured are one draw under PGD-7; for networks with noise inside, the
prediction vote of 64 draws, without input noise, under EPGD-7 with 8 draws per gradient; and on the first 100 images
the worst case of several attacks on the network without noise and on the vote of 8 draws.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

import smoothed
from report import seconds_in_turn
from smoothed.evaluation.results import PairedGain
from smoothed.injection import inject_preset, noise_layers
from smoothed.models import build
from smoothed.rng.seeds import seeded
from smoothed.training.config import TrainingConfig
from smoothed.training.cost import forward_equivalents
from smoothed.training.examples import AFTER_NFGSM
from smoothed.training.recipes import RECIPES

EPOCHS = 12
DATA = "sample"
SCHEDULE = {"batch_size": 128, "schedule": "onecycle", "lr": 0.2, "weight_decay": 5e-4}
# Attacks that N-FGSM can replace, but which are what the defence consists of.
OWN_ATTACKS = ("dynamic", "voronoi", "voronoi-ball", "iaat")
# The published initial strength of CNI is meant for 400 epochs: docs/results/paper/held-out.md.
SHORT_CNI = {"injection_strength": 0.1, "noise_lr": 0.1}
# The prior of a posterior over weights decays them.
POSTERIOR = {"weight_decay": 0.0}
# They are CNI-W with another attack, for which N-FGSM would stand in.
REFUSED = ("epgd", "smoothadv", "high-k")
WORST_CASE = {"steps": 20, "restarts": 1, "eot_samples": (1, 4), "queries": 50, "resubmissions": (1, 10)}
ONE_DRAW, VOTE, WORST = "one draw, PGD-7", "vote, EPGD-7 with 8 draws per gradient", "worst case"
NETWORKS = ("mean network", "smoothed")
# Number of draws of the vote under EPGD-7 and in the worst case.
DRAWS, DRAWS_OF_WORST_CASE = 64, 8


def settings_of(name: str) -> dict[str, Any]:
    """Settings of `TrainingConfig` in place of those of the recipe `name`."""
    if name in REFUSED:
        raise SystemExit(f"{name} differs from cni-w by its attack alone, which this schedule replaces by N-FGSM")
    recipe = RECIPES[name].config()
    own = SHORT_CNI if "cni" in recipe.injection else POSTERIOR if recipe.injection == "bnn-w" else {}
    replaceable = recipe.attack in AFTER_NFGSM and recipe.attack not in OWN_ATTACKS and recipe.norm == "linf"
    # One step of PGD costs as much as N-FGSM.
    replaced = recipe.needs_attack and replaceable and recipe.attack_steps > 1
    first = {"nfgsm_warmup": 1.0} if replaced else {}
    settings = {**SCHEDULE, **first, **own}
    limit = EPOCHS * forward_equivalents(RECIPES["at"].config(nfgsm_warmup=1.0))
    passes = forward_equivalents(RECIPES[name].config(**settings))
    return {**settings, "epochs": max(1, min(EPOCHS, limit // passes))}


def measure(name: str, folder: Path, images: int | None) -> dict[str, Any]:
    """Train the recipe `name` in `folder`, unless that is done, and measure the network of its last epoch."""
    config: TrainingConfig = RECIPES[name].config(**settings_of(name))
    trained = smoothed.train(config.architecture, "cifar10", recipe=config, out=folder)
    network = smoothed.load(folder / "last.safetensors")
    options: dict[str, Any] = {"images": images, "keep_images": 0, "precision": "auto"}
    one_draw = smoothed.evaluate(network, DATA, attack="pgd", steps=7, **options)
    found, comparisons = {ONE_DRAW: one_draw.rows}, list[PairedGain]()
    classifier: Any = network
    if list(noise_layers(network)):
        vote = smoothed.Smoothed(network, num_samples=DRAWS)
        under_epgd = smoothed.evaluate(vote, DATA, attack="epgd", steps=7, eot_samples=8, **options)
        found[VOTE] = under_epgd.rows
        comparisons += under_epgd.comparisons
        classifier = smoothed.Smoothed(network, num_samples=DRAWS_OF_WORST_CASE)
    few = min(100, images or 100)
    worst = smoothed.worst_case(classifier, DATA, sweep_images=few, **{**WORST_CASE, **options, "images": few})
    found[WORST] = worst.rows
    return {
        "recipe": name,
        "source": RECIPES[name].source,
        "settings": config.to_json(),
        "passes": forward_equivalents(config),
        "training_seconds": round(trained.result.provenance["seconds"]),
        "epochs": trained.result.rows,
        "rows": found,
        "comparisons": [asdict(gain) for gain in (*comparisons, *worst.comparisons)],
        "provenance": one_draw.provenance,
    }


def table(folder: Path) -> str:
    """The results in `folder` as a Markdown table, in the order of `smoothed recipes`."""
    worst = ("worst case, mean network", "worst case, vote")
    head = ("recipe", "epochs", "clean", "PGD-7", "clean, vote", "EPGD-7, vote", *worst)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in RECIPES:
        path = folder / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            cells = [f"`{name}`", str(found["settings"]["epochs"]), *_cells(found["rows"])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The accuracies of one recipe; empty for votes of a network without randomness."""
    one_draw, vote = rows[ONE_DRAW][0], rows.get(VOTE, [{}])[-1]
    worst = {row["network"]: row["robust"] for row in rows[WORST] if row["attack"] == "worst case"}
    return [
        _percent(one_draw["clean"], one_draw["clean_interval"]),
        _percent(one_draw["robust"], one_draw["robust_interval"]),
        _percent(vote.get("clean"), vote.get("clean_interval")),
        _percent(vote.get("robust"), vote.get("robust_interval")),
        *(_percent(worst[key]["mean"], worst[key]["interval"]) if key in worst else "" for key in NETWORKS),
    ]


def worth(found: Mapping[str, Any]) -> str:
    """The accuracies of one recipe as the last column of docs/defences.md has them.

    Clean and under PGD-7 by one draw, of the vote under EPGD-7 (`-` without noise inside), and in the worst case: of
    the vote, or of the network itself where nothing is random.
    """
    clean, pgd, _, epgd, network, vote = (cell.partition(" ")[0] or "-" for cell in _cells(found["rows"]))
    return f"{clean} / {pgd} / {epgd} / {network if vote == '-' else vote}"


def costs(repeats: int = 3) -> str:
    """Weights, and milliseconds of a vote of 64 draws on one of 64 images, in float32, as a Markdown table.

    All votes have input noise besides the noise of the recipe, so that they differ by the network and its noise alone.
    """
    recipes: dict[tuple[str, str], list[str]] = {}
    for name, recipe in RECIPES.items():
        config = recipe.config()
        recipes.setdefault((config.architecture, config.injection), []).append(name)
    images, weights, votes = torch.rand(64, 3, 32, 32, generator=seeded(0)), list[int](), list[Callable[[], object]]()
    for architecture, injection in recipes:
        network = build(architecture)
        inject_preset(network, injection)
        weights.append(sum(parameter.numel() for parameter in network.parameters()))
        vote = smoothed.Smoothed(smoothed.Fast(network.eval()), smoothed.Gaussian(0.06), num_samples=DRAWS)
        votes.append(partial(vote.predict, images))
    lines = ["| recipes | weights | ms a vote |", "|---|---|---|"]
    times = seconds_in_turn(votes, torch.device("cpu"), repeats)
    for names, count, seconds in zip(recipes.values(), weights, times, strict=True):
        listed = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {listed} | {count:,} | {1000 * seconds / len(images):.0f} |")
    return "\n".join(lines)


def _percent(accuracy: float | None, interval: Sequence[float] | None) -> str:
    """An accuracy and its 95 % interval in per cent."""
    if accuracy is None or interval is None:
        return ""
    low, high = (100 * bound for bound in interval)
    return f"{100 * accuracy:.1f} ({low:.1f}-{high:.1f})"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes, as `smoothed recipes` lists them")
    parser.add_argument("--out", type=Path, default=Path("defences"), help="folder of the results")
    parser.add_argument("--runs", type=Path, default=Path("runs/defences"), help="folder of the training runs")
    parser.add_argument(
        "--images", type=int, default=None, help="test images; default: 1,000, at most 100 in the worst case"
    )
    parser.add_argument("--table", type=Path, default=None, help="print the table of the results in this folder")
    parser.add_argument("--costs", action="store_true", help="print weights and milliseconds of a vote of all recipes")
    options = parser.parse_args()
    if options.costs:
        print(costs())
    if options.table is not None:
        print(table(options.table))
    for name in options.names:
        path = options.out / f"{name}.json"
        if not path.exists():
            found = measure(name, options.runs / name, options.images)
            options.out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
