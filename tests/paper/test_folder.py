"""A folder refuses what belongs to another schedule, version or setting, and networks are found in the zoo."""

import json
from dataclasses import replace

import pytest
import torch

from smoothed.checkpoint import describe, save
from smoothed.data.sample import load_sample
from smoothed.errors import ArgumentError
from smoothed.models import build
from smoothed.paper.folder import FINISHED, RunFolder
from smoothed.paper.networks import NETWORKS
from smoothed.paper.plan import make_plan
from smoothed.paper.schedules import CPU, TINY
from smoothed.paper.steps import is_done
from smoothed.utils.files import write_json

AT = NETWORKS["at"]


@pytest.fixture
def save_network(folder):
    """A function that saves an untrained network with the record of a training."""

    def write(path, **changes):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build("resnet20")
        config = {**folder.config(AT, None).to_json(), **changes}
        save(path, model, describe("resnet20", model, [], load_sample().classes, training={"config": config}))

    return write


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"schedule": "cpu"}, "out: expected a folder of schedule tiny, got .* of schedule cpu; use --schedule cpu"),
        ({"version": "0.0.7"}, "out: expected a folder of version .*, got .* of version 0.0.7; use another folder"),
    ],
)
def test_a_folder_of_another_schedule_or_version_is_refused(folder, record, message):
    path = folder.path / "paper.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **record}))
    with pytest.raises(ArgumentError, match=message):
        folder.open()


def test_a_network_trained_with_other_settings_is_refused(folder, save_network):
    assert not folder.is_trained(AT)
    config = folder.config(AT, None).to_json()
    write_json({"config": config}, folder.training(AT) / FINISHED)
    save_network(folder.training(AT) / "best.safetensors")
    assert folder.find_network("at") == folder.training(AT) / "best.safetensors"
    write_json({"config": {**config, "epochs": 7}}, folder.training(AT) / FINISHED)
    with pytest.raises(ArgumentError, match=r"expected at trained with epochs = 1, got 7 in .*networks/at"):
        folder.is_trained(AT)


def test_a_missing_network_names_the_command_that_makes_it(folder):
    command = "make it with `smoothed paper run at --schedule tiny --out .*run`"
    with pytest.raises(ArgumentError, match=rf"network at at .*best.safetensors or .*zoo.at.safetensors.*{command}"):
        folder.network("at")


def test_networks_of_the_zoo(folder, save_network):
    path = folder.zoo / "at.safetensors"
    save_network(path, precision="auto")
    assert folder.network("at") == path
    (step,) = make_plan(["at"], TINY)
    assert is_done(step, folder)
    save_network(path, lr=0.3)
    assert folder.find_network("at") is None
    assert not is_done(step, folder)
    assert folder.zoo_difference("at") == f"{path} was trained with lr = 0.3 instead of 0.02 and is not used"


def test_a_result_of_other_settings_is_refused(folder, write_result):
    step = next(step for step in make_plan(["table-1"], TINY) if step.name == "at.pgd-7.one-draw")
    assert not is_done(step, folder)
    write_result(step.name, clean=1, robust=1)
    with pytest.raises(ArgumentError, match=r"expected at.pgd-7.one-draw with schedule = tiny, got None in .*move the"):
        is_done(step, folder)


def test_names_of_schedules_do_not_share_settings():
    folder = RunFolder(None, replace(CPU, training={"epochs": 3}))
    assert folder.config(AT, None).epochs == 3
    assert folder.config(NETWORKS["high-k"], None).epochs == CPU.fine_tuning["epochs"]
