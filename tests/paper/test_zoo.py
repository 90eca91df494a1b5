"""The zoo of trained networks: what is listed, what is written, and what half precision changes."""

import json
from pathlib import Path

import pytest
import torch

from smoothed import ArgumentError, load
from smoothed.checkpoint import bundled, read_header, read_tensors, write_tensors
from smoothed.cli.main import main
from smoothed.paper import zoo
from smoothed.paper.networks import NETWORKS
from smoothed.paper.zoo import MAX_BYTES, MAX_TOTAL_BYTES, add_to_zoo, zoo_entries

FILE = bundled()["resnet20-cni-w"]
STRENGTHS = (".variance", ".factor", ".alpha")


@pytest.fixture
def unrounded(tmp_path):
    """The bundled network with strengths in single precision, as training writes them."""
    tensors, header = read_tensors(FILE)
    numbers = torch.Generator().manual_seed(0)
    scaled = {
        name: tensor.float() * (1 + 3e-4 * torch.rand(tensor.shape, generator=numbers))
        for name, tensor in tensors.items()
        if name.endswith(STRENGTHS)
    }
    return write_tensors(tmp_path / "unrounded.safetensors", {**tensors, **scaled}, header)


def test_strengths_are_rounded_and_nothing_else(tmp_path, unrounded):
    entry = add_to_zoo(unrounded, "cni-w", tmp_path / "zoo")
    assert entry.size == entry.path.stat().st_size <= MAX_BYTES < unrounded.stat().st_size
    before, after = (load(path).state_dict() for path in (unrounded, entry.path))
    for name, tensor in after.items():
        if name.endswith(STRENGTHS):
            assert torch.allclose(tensor, before[name], rtol=2**-11, atol=2**-25), name
        else:
            assert tensor.equal(before[name]), name
        assert tensor.dtype == before[name].dtype, name
    stored, _ = read_tensors(entry.path)
    assert sum(tensor.numel() for tensor in stored.values() if tensor.dtype == torch.float16) > 1_500_000
    assert read_header(entry.path) == read_header(unrounded)


def test_the_votes_of_a_network_hardly_change(tmp_path, unrounded):
    """Half precision moves no probability by more than a thousandth, for the same draws of the noise."""
    entry, images = add_to_zoo(unrounded, "cni-w", tmp_path / "zoo"), torch.rand(8, 3, 32, 32)
    outputs = []
    for path in (unrounded, entry.path):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            outputs.append(load(path)(images).softmax(1))
    assert (outputs[0] - outputs[1]).abs().max() < 1e-3
    assert (outputs[0] - outputs[1]).abs().max() > 0


def test_what_the_command_lists(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    added = ["--add", str(FILE), "--name", "cni-w", "--json", "list.json"]
    with pytest.raises(SystemExit) as ended:
        main(["zoo", *added])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    kept = read_header(FILE)["training"].get("validation", {})
    assert "CNI-W" in printed.out
    assert all(f"{100 * kept[key]:.1f} %" in printed.out for key in kept if key.startswith("validation"))
    assert Path("zoo/cni-w.safetensors").is_file()
    (card,) = json.loads(Path("list.json").read_text())
    assert card == json.loads(Path("zoo/cni-w.json").read_text())
    assert card["training"]["config"] == read_header(FILE)["training"]["config"]
    assert card["bytes"] == Path("zoo/cni-w.safetensors").stat().st_size
    assert load("zoo/cni-w").checkpoint_header["architecture"] == "resnet20"


def test_the_card_has_the_metrics_of_every_epoch_of_the_training(tmp_path, unrounded):
    epochs = [{"epoch": 1, "validation_robust": 0.153}, {"epoch": 2, "validation_robust": 0.057}]
    (unrounded.parent / "card.json").write_text(json.dumps({"config": {}, "epochs": epochs}), encoding="utf-8")
    entry = add_to_zoo(unrounded, "cni-w", tmp_path / "zoo")
    assert json.loads(entry.path.with_suffix(".json").read_text()) == {**entry.card(), "epochs": epochs}


def test_an_empty_zoo_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["zoo", "--folder", str(tmp_path)])
    assert ended.value.code == 0
    assert "no networks in" in capsys.readouterr().err


def test_refusals(tmp_path, monkeypatch):
    cases = [
        ({"checkpoint": FILE, "name": "cni-x"}, r"name: expected one of \d+ names, got 'cni-x'; did you mean cni-w"),
        ({"checkpoint": tmp_path / "none", "name": "cni-w"}, "add: expected a checkpoint file or a bundled name"),
    ]
    for arguments, message in cases:
        with pytest.raises(Exception, match=message):
            add_to_zoo(**arguments, folder=tmp_path)
    monkeypatch.setattr(zoo, "MAX_BYTES", 1000)
    with pytest.raises(ArgumentError, match=r"add: expected a network of at most 0\.001 MB, got 4\.\d MB"):
        add_to_zoo(FILE, "cni-w", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_zoo_of_this_repository_is_within_its_limits():
    entries = zoo_entries(Path(__file__).parents[2] / "zoo")
    assert all(entry.size <= MAX_BYTES for entry in entries)
    assert sum(entry.size for entry in entries) <= MAX_TOTAL_BYTES
    for entry in entries:
        assert entry.name in NETWORKS
        assert json.loads(entry.path.with_suffix(".json").read_text()) == entry.card()
        assert next(load(entry.path).parameters()).isfinite().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("at", "add: expected a network trained with injection 'none' for the name at, got 'cni-w'"),
        ("pni-w-cifar100", "add: expected a network trained with data 'cifar100' for the name .*, got 'cifar10'"),
        ("at-wide", "add: expected a network trained with architecture 'wide_resnet34_10' .*, got 'resnet20'"),
    ],
)
def test_a_network_of_another_kind_does_not_get_the_name(name, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        add_to_zoo(FILE, name, tmp_path)
    assert not list(tmp_path.iterdir())
