"""Defences are compared on one short schedule: the settings of each, and the table of the results."""

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import smoothed
from smoothed.checkpoint import locate
from smoothed.training.cost import forward_equivalents
from smoothed.training.recipes import RECIPES

REFUSED = ("epgd", "smoothadv", "high-k")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def defences(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("defences")


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in REFUSED])
def test_no_schedule_costs_more_than_twelve_epochs_of_at_with_nfgsm(defences, name):
    settings = defences.settings_of(name)
    # 12 epochs of two passes for N-FGSM, and three for each of two losses.
    assert 0 < settings["epochs"] * forward_equivalents(RECIPES[name].config(**settings)) <= 12 * (2 + 3 + 3)
    assert settings["epochs"] <= 12


def test_single_steps_replace_attacks_of_several_steps_unless_these_are_the_defence(defences):
    replaced = {name for name in RECIPES if name not in REFUSED and "nfgsm_warmup" in defences.settings_of(name)}
    assert {"at", "at-full", "cni-w", "csat", "denoise", "adv-bnn", "vdo-w", "trades-6"} <= replaced
    assert not replaced & {"natural", "stability", "advprop", "dynamic", "voronoi", "l2l", "fgsm-pgi", "smoothadv-l2"}


@pytest.mark.parametrize("name", REFUSED)
def test_recipes_that_only_their_attack_defines_are_refused(defences, name):
    with pytest.raises(SystemExit, match=f"{name} differs from cni-w by its attack alone"):
        defences.settings_of(name)


def test_noise_that_needs_a_long_run_begins_weaker(defences):
    weaker = {name for name in RECIPES if name not in REFUSED and "noise_lr" in defences.settings_of(name)}
    assert weaker == {"cni-w", "cni-a", "cni-i+w", "cni-w+pni-a", "cni-w+input", "cni-w+trades"}


@pytest.mark.parametrize(
    ("recipe", "network"), [("cni-w", "resnet20-cni-w"), ("at", BENCHMARKS.parent / "zoo/at.safetensors")]
)
def test_each_network_is_measured_as_the_page_says(defences, recipe, network, tmp_path, monkeypatch):
    def train(architecture, data, *, recipe, out):
        assert (architecture, data, recipe.epochs, recipe.nfgsm_warmup) == ("resnet20", "cifar10", 12, 1.0)
        out.mkdir()
        shutil.copy(locate(network), out / "last.safetensors")
        return SimpleNamespace(result=SimpleNamespace(provenance={"seconds": 1.6}, rows=epochs))

    epochs = [{"epoch": 1, "validation_robust": 0.153, "catastrophic_overfitting": 0.0}]
    quick = {"steps": 1, "restarts": 1, "eot_samples": (1,), "queries": 2, "resubmissions": (1,)}
    for name, value in (("WORST_CASE", quick), ("DRAWS", 4), ("DRAWS_OF_WORST_CASE", 2)):
        monkeypatch.setattr(defences, name, value)
    monkeypatch.setattr(smoothed, "train", train)
    found = json.loads(json.dumps(defences.measure(recipe, tmp_path / "run", 4)))
    is_random = recipe == "cni-w"
    expected = smoothed.evaluate(smoothed.load(network), "sample", attack="pgd", steps=7, images=4, precision="auto")
    assert [row["robust"] for row in found["rows"][defences.ONE_DRAW]] == [row["robust"] for row in expected.rows]
    assert (defences.VOTE in found["rows"]) == is_random
    if is_random:
        vote = found["rows"][defences.VOTE][-1]
        assert [vote[key] for key in ("attack", "eot_samples", "num_samples", "sigma")] == ["epgd", 8, 4, 0.0]
    networks = {row["network"] for row in found["rows"][defences.WORST] if row["attack"] == "worst case"}
    assert networks == ({"mean network", "smoothed"} if is_random else {"mean network"})
    assert (found["passes"], found["training_seconds"], found["epochs"]) == (8, 2, epochs)
    compared = [gain["name"] for gain in found["comparisons"]]
    of_vote = ["prediction vote, M = 4, sigma 0, over one draw"] * 2  # on clean and on attacked images
    assert compared == ([*of_vote, "prediction vote, M = 2, over the mean network"] if is_random else [])


def test_the_table_has_a_line_for_each_result_and_empty_cells_for_votes_of_deterministic_networks(defences, tmp_path):
    def accuracy(mean: float) -> dict[str, object]:
        return {"mean": mean, "interval": [mean - 0.1, mean + 0.1]}

    def row(clean: float, robust: float) -> dict[str, object]:
        return {
            "clean": clean,
            "clean_interval": [clean - 0.1, clean + 0.1],
            "robust": robust,
            "robust_interval": [robust - 0.1, robust + 0.1],
        }

    worst = [
        {"network": network, "attack": attack, "robust": accuracy(mean)}
        for network, attack, mean in (
            ("mean network", "pgd-ce", 0.9),
            ("mean network", "worst case", 0.2),
            ("smoothed", "worst case", 0.3),
        )
    ]
    deterministic = {defences.ONE_DRAW: [row(0.7, 0.4)], defences.WORST: worst[:2]}
    random = {defences.ONE_DRAW: [row(0.6, 0.5)], defences.VOTE: [row(0, 0), row(0.65, 0.45)], defences.WORST: worst}
    for name, rows in (("cni-w", random), ("at", deterministic)):
        found = {"settings": {"epochs": 12}, "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    assert defences.table(tmp_path).splitlines()[2:] == [
        "| `at` | 12 | 70.0 (60.0-80.0) | 40.0 (30.0-50.0) |  |  | 20.0 (10.0-30.0) |  |",
        "| `cni-w` | 12 | 60.0 (50.0-70.0) | 50.0 (40.0-60.0) | 65.0 (55.0-75.0) | 45.0 (35.0-55.0) "
        "| 20.0 (10.0-30.0) | 30.0 (20.0-40.0) |",
    ]
    assert defences.worth({"rows": deterministic}) == "70.0 / 40.0 / - / 20.0"
    assert defences.worth({"rows": random}) == "60.0 / 50.0 / 45.0 / 30.0"


def test_the_pages_have_the_numbers_of_the_results(defences):
    folder = BENCHMARKS.parent / "docs/results/defences"
    assert defences.table(folder) in (folder / "README.md").read_text(encoding="utf-8")
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    for name, found in results.items():
        assert (found["recipe"], found["settings"]) == (name, settings_now(defences, name))
    page = (BENCHMARKS.parent / "docs/defences.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `")]
    stated = {line[1].strip("`"): line[-2] for line in cells}
    assert stated == {name: defences.worth(results[name]) if name in results else "" for name in stated}


def settings_now(defences, name):
    """The settings with which the benchmark would train the recipe, without the format of numbers."""
    return json.loads(json.dumps(RECIPES[name].config(**defences.settings_of(name)).to_json()))
