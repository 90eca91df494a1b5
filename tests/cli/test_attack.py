"""`smoothed attack` as its users meet it."""

import pytest
import torch

from smoothed import Result
from smoothed.data.sample import load_sample
from smoothed.evaluation.saved_examples import attack as saved_attack
from smoothed.evaluation.saved_examples.attack import load_examples


def test_it_writes_images_and_their_record(run, tmp_path, capsys):
    examples, record = tmp_path / "deep" / "made.safetensors", tmp_path / "record.json"
    options = ["--images", 6, "--steps", 2, "--eps", "4/255", "--num-samples", 2, "--seed", 3]
    assert run("attack", "--examples", examples, *options, "--json", record) == 0
    assert "accuracy on clean images" in capsys.readouterr().out
    tensors, told = load_examples(examples)
    clean = load_sample().first(6)
    distance = (tensors["images"] - clean.images / 255).abs().amax()
    assert 3.9 / 255 < float(distance) <= 4 / 255 + 1e-6
    assert torch.equal(tensors["labels"], clean.labels)
    assert tensors["index"].tolist() == list(range(6))
    result = Result.load(record)
    assert result.rows[0].items() <= told.items()
    assert torch.equal(result.tensors["adversarial"], tensors["images"])
    assert told["robust"] == pytest.approx(float(result.tensors["robust.right"].double().mean()))
    assert told["command"] == result.provenance["command"]
    assert told["command"].startswith(f"smoothed attack --examples {examples} ")
    expected = {
        "attack": "pgd",
        "steps": 2,
        "seed": 3,
        "model": "resnet20-cni-w",
        "data": "cifar10 sample",
        "sigma_normalized": 0.24,
    }
    assert expected.items() <= told.items()
    assert {"clean", "robust", "torch", "smoothed", "weights", "command"} <= set(told)


@pytest.mark.slow
def test_an_interrupted_attack_continues_and_writes_the_same_file(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saved_attack, "BATCH", 2)
    command = ["attack", "--examples", tmp_path / "made.safetensors", "--images", 6, "--steps", 1, "--num-samples", 1]
    assert run(*command) == 0
    expected, record = load_examples(tmp_path / "made.safetensors")
    (tmp_path / "made.safetensors").unlink()
    attacked, attack_noisy_classifier = [], saved_attack.attack_noisy_classifier

    def interrupted(*arguments, **options):
        if len(attacked) == 2:
            raise KeyboardInterrupt
        attacked.append(len(arguments[3]))
        return attack_noisy_classifier(*arguments, **options)

    monkeypatch.setattr(saved_attack, "attack_noisy_classifier", interrupted)
    assert run(*command, "--out", tmp_path / "steps") == 130
    assert not (tmp_path / "made.safetensors").exists()
    assert attacked == [2, 2]
    attacked[:] = [2]  # it may attack one batch, the third, before it is interrupted
    assert run(*command, "--out", tmp_path / "steps") == 0
    assert attacked == [2, 2]
    tensors, told = load_examples(tmp_path / "made.safetensors")
    assert told.pop("command") == f"{record.pop('command')} --out {tmp_path / 'steps'}"
    assert told == record
    assert tensors.keys() == expected.keys()
    assert all(tensors[name].numpy().tobytes() == expected[name].numpy().tobytes() for name in expected)
    assert run(*command, "--out", tmp_path / "steps", "--seed", 1) == 2
    assert "error: out: expected an evaluation with seed = 1, got one with 0 in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["square", "--max-queries", 4, "--eot-samples", 2], {"max_queries": 4, "steps": None, "eot_samples": 2}),
        (
            ["transfer", "--source", "resnet20-cni-w", "--steps", 1],
            {"sources": ["resnet20-cni-w"], "max_queries": None},
        ),
        (["ddn", "--steps", 2, "--eps", 0.5], {"norm": "l2", "eps": 0.5}),
    ],
)
def test_it_takes_attacks_of_every_kind(run, tmp_path, options, expected):
    examples = tmp_path / "made.safetensors"
    assert run("attack", "--examples", examples, "--images", 2, "--num-samples", 1, "--attack", *options) == 0
    assert expected.items() <= load_examples(examples)[1].items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--examples'"),
        (["--examples", "made.safetensors", "--attack", "nfgsm"], "error: attack: expected one of"),
        (
            ["--examples", "made.safetensors", "--sigma", 0.06, "--sigma-normalized", 0.24],
            "error: sigma: expected either --sigma or --sigma-normalized, got both",
        ),
        (["--examples", "made.safetensors", "--sigma", -1], "error: sigma: expected a finite number of at least 0"),
        (["--examples", "made.safetensors", "--attack", "transfer"], "error: sources: expected at least one network"),
        (["--examples", "made.safetensors", "--norm", "l7"], "norm: expected one of"),
        (["--examples", ".", "--images", 2], "could not be written"),
    ],
)
def test_bad_options_are_one_line(run, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("attack", *arguments) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "made.safetensors").exists()
