"""A configuration comes back from wherever a run left it."""

import json

import pytest
import torch

from smoothed.checkpoint import FORMAT_VERSION, bundled, locate, write_tensors
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.training.card import CARD, read_config, training_record, write_card
from smoothed.training.config import TrainingConfig
from smoothed.training.recipes import RECIPES

CONFIG = RECIPES["cni-i+w"].config(seed=5, data="cifar100", start="some/where.safetensors")


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def checkpoint(path, training):
    header = {"format_version": FORMAT_VERSION, "architecture": "custom", **training}
    return write_tensors(path, {"weight": torch.zeros(2)}, header)


def test_from_a_card(tmp_path):
    card = {"config": CONFIG.to_json(), "command": "smoothed train", "seconds": 3.0, "epochs": []}
    assert read_config(written(tmp_path / CARD, card)) == CONFIG
    assert read_config(str(tmp_path / CARD)) == CONFIG


def test_from_plain_json(tmp_path):
    assert read_config(written(tmp_path / "mine.json", CONFIG.to_json())) == CONFIG
    assert read_config(written(tmp_path / "short.json", {"lr": 0.5})) == TrainingConfig(lr=0.5)


def test_from_a_checkpoint(tmp_path):
    path = checkpoint(tmp_path / "best.safetensors", {"training": {"config": CONFIG.to_json(), "seconds": 3.0}})
    assert read_config(path) == CONFIG


@pytest.mark.parametrize("name", bundled())
def test_from_the_bundled_checkpoints(name):
    """An older version's, which lacks what has come since: that is the default."""
    config = read_config(locate(name))
    assert (config.architecture, config.injection, config.data) == ("resnet20", "cni-w", "cifar10")
    assert config.loss == "adversarial"


def test_what_a_run_writes_is_read_back(tmp_path, image_set, make_run, network):
    settings = {"architecture": "custom", "injection": "pni-w", "eps": 4 / 255, "precision": "float32"}
    run = make_run(image_set(8), network, **settings)
    run.seconds, run.kept = 12.345, {"best": {"epoch": 1}}
    write_card(run, tmp_path, [{"epoch": 1, "validation_clean": 0.5}], "smoothed train --out x")
    assert read_config(tmp_path / CARD) == run.config == TrainingConfig(**settings)
    card = json.loads((tmp_path / CARD).read_text())
    assert (card["command"], card["seconds"], card["kept"]) == ("smoothed train --out x", 12.3, run.kept)
    assert card["epochs"] == [{"epoch": 1, "validation_clean": 0.5}]
    assert (card["torch"], card["precision"], card["processes"]) == (torch.__version__, "no", 1)
    assert "from" not in card
    run.parent = {"seconds": 1}
    assert training_record(run, None)["from"] == {"seconds": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config: expected a model card in JSON or a checkpoint, got .*Expecting"),
        ("[1, 2]", "config: expected a training configuration in .*, got none"),
        ("{}", "config: expected a training configuration in .*, got none"),
        ('{"config": "cni-w"}', "config: expected a training configuration in .*, got none"),
        ('{"config": {}}', "config: expected a training configuration in .*, got none"),
    ],
)
def test_files_without_a_configuration(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read_config(written(tmp_path / "file.json", content))


def test_files_that_are_not_there_or_not_text(tmp_path):
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(CheckpointError, match="config: expected a model card in JSON or a checkpoint, got"):
            read_config(path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="config: expected a model card in JSON"):
        read_config(tmp_path / "bytes.json")
    with pytest.raises(CheckpointError, match="expected a checkpoint, found no such file"):
        read_config(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("training", [{}, {"training": None}, {"training": {}}, {"training": {"config": None}}])
def test_a_checkpoint_without_a_configuration(tmp_path, training):
    with pytest.raises(CheckpointError, match=r"expected a training configuration in .*, got none"):
        read_config(checkpoint(tmp_path / "plain.safetensors", training))


def test_settings_that_this_version_does_not_know(tmp_path):
    card = {"config": {**CONFIG.to_json(), "learning_rate": 0.1}}
    with pytest.raises(ArgumentError, match="config: expected settings that this version knows, got learning_rate"):
        read_config(written(tmp_path / CARD, card))
    with pytest.raises(ArgumentError, match="config: expected epochs of type"):
        read_config(written(tmp_path / CARD, {"config": {"epochs": "many"}}))
