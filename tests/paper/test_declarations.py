"""Declarations fit together: names, parents, comparisons, configurations, and plans in order."""

import pytest

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.errors import ArgumentError
from smoothed.paper.catalog import DECLARATIONS, is_of_a_table, read_off
from smoothed.paper.declaration import FigureSpec, Measurement, TableSpec, sources_of
from smoothed.paper.folder import RunFolder
from smoothed.paper.networks import NETWORKS
from smoothed.paper.plan import left_out, make_plan
from smoothed.paper.schedules import CPU, FULL, PAPER_SCHEDULES, TINY
from smoothed.paper.tables import TABLE_1, TABLE_4, TABLES
from smoothed.training.recipes import RECIPES

SCHEDULES = list(PAPER_SCHEDULES.values())


def test_names_are_those_of_the_paper():
    tables = [f"table-{name}" for name in ("1", "2a", "2b", "3a", "3b", "4", "b1")]
    figures = [f"figure-{name}" for name in ("1", "2", "b1", "b2", "b3", "b4")]
    assert list(DECLARATIONS) == [*tables, "table-attacks", *figures, "appendix-a"]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_every_network_has_a_configuration(schedule, tmp_path):
    for network in NETWORKS.values():
        config = RunFolder(tmp_path, schedule).config(network, None)
        assert config.recipe == network.recipe
        assert config.injection == RECIPES[network.recipe].config().injection
        assert config.keep == "extremes" or network.kind == "best"


def test_the_full_schedule_is_that_of_the_recipes(tmp_path):
    folder = RunFolder(tmp_path, FULL)
    for name, epochs in {"cni-w": 400, "high-k": 200, "pni-w-wide": 100, "epgd-diverged": 200}.items():
        assert folder.config(NETWORKS[name], None).epochs == epochs
    assert folder.config(NETWORKS["high-k"], None).attack_steps == 56
    assert folder.config(NETWORKS["cni-w"], None) == RECIPES["cni-w"].config()


def test_networks_of_one_run_are_trained_alike(tmp_path):
    for schedule in SCHEDULES:
        runs = {}
        for network in NETWORKS.values():
            runs.setdefault(network.run_name, []).append(network)
        for networks in runs.values():
            assert len({str(RunFolder(tmp_path, schedule).config(network, None)) for network in networks}) == 1
            assert len({network.parent for network in networks}) == 1
            assert len({network.kind for network in networks}) == len(networks)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_labels_are_unique_and_comparisons_exist(table):
    for schedule in PAPER_SCHEDULES:
        labels = [row.label for row in table.rows_in(schedule)]
        assert len(set(labels)) == len(labels)
        assert {label for row in table.rows_in(schedule) for label in row.against} <= set(labels)


def test_evaluations_name_what_exists():
    sources = {
        source for spec in DECLARATIONS.values() for name in PAPER_SCHEDULES for source in sources_of(spec, name)
    }
    assert {network for source in sources for network in source.networks} <= set(NETWORKS)
    assert {source.attack for source in sources if isinstance(source, Measurement)} <= set(EVALUATION_ATTACKS)
    names = [source.name for source in sources]
    assert len(set(names)) == len(names)


def test_votes_of_all_declarations_are_read_off_together():
    both = read_off(Measurement("epgd-diverged", 0.19), FULL)
    assert (set(both.votes), both.num_samples) == ({"soft", "weighted"}, (1, 8, 64, 256, 512))
    # Table 1 and 4 read M = 512, Figure B.3 and B.4 other Ms of the same evaluation.
    assert read_off(Measurement("cni-w", 0.24), FULL).num_samples == (1, 8, 64, 512)
    assert read_off(Measurement("cni-w", 0.24), TINY).num_samples == (1, 4)
    assert read_off(Measurement("at"), FULL).votes == ()
    assert read_off(Measurement("cni-w", 0.24, attack="nattack", eot_samples=4), FULL).num_samples == (4,)


def test_evaluations_of_figures_alone_have_their_size():
    assert is_of_a_table(Measurement("cni-w", 0.24), CPU)
    assert not is_of_a_table(Measurement("cni-w", 0.24, steps=64), CPU)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_a_plan_has_each_step_once_and_after_its_needs(schedule):
    plan = make_plan([], schedule)
    names = [step.name for step in plan]
    assert len(set(names)) == len(names)
    for number, step in enumerate(plan):
        assert set(step.needs) <= set(names[:number])
    for name in DECLARATIONS:
        assert {step.name for step in make_plan([name], schedule)} <= set(names)


def test_the_plan_of_a_table():
    names = [step.name for step in make_plan(["table-3a"], FULL)]
    assert names == [
        "train cni-w",
        "train cni-w-source",
        "cni-w.pgd-7.from-cni-w-source.sigma-0.02",
        "cni-w.epgd-loss-7x8.from-cni-w-source-with-sigma-0.02.sigma-0.02",
    ]
    assert [step.name for step in make_plan(["high-k"], FULL)] == ["train cni-w", "train high-k"]
    tuned = make_plan(["table-1"], FULL)
    (step,) = (step for step in tuned if step.name == "at.pgd-7.sigma-tuned")
    assert step.needs == ("train at", "at.tuning")


def test_without_a_gpu_the_wide_network_is_left_out():
    trained = [step.name for step in make_plan(["table-2a"], CPU) if step.kind == "train"]
    names = ("at", "pni-w", "iaat", "csat", "trades-6", "mart", "pni-w-trades")
    assert trained == [f"train {name}" for name in names]
    assert left_out("table-2a", CPU)[0] == "at-wide"
    assert left_out("table-1", CPU) == left_out("table-2a", FULL) == []
    stand_in = [row for row in DECLARATIONS["table-2a"].rows_in("full") if row.group.startswith("ResNet-20")]
    assert stand_in == []


def test_rows_that_the_paper_does_not_have():
    labels = {row.label for row in TABLE_1.rows} | {row.label for row in TABLE_4.rows}
    assert {"CNI-W, mean network", "AT, vote, sigma 0.24", "AT, vote, tuned sigma"} <= labels
    attacks = {row.measurement.attack for row in DECLARATIONS["table-attacks"].rows}
    assert attacks == {"pgd", "pgd-accumulated", "epgd"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel-1", "names: expected names of .*, got 'tabel-1'; did you mean table-1"),
        ("cni", "did you mean cni-w"),
        ("zzz", "see `smoothed paper list`"),
    ],
)
def test_unknown_names_give_the_nearest(name, message):
    with pytest.raises(ArgumentError, match=message):
        make_plan([name], FULL)


def test_declarations_have_a_size_in_every_schedule():
    for spec in DECLARATIONS.values():
        if isinstance(spec, TableSpec | FigureSpec):
            assert sources_of(spec, "cpu")
