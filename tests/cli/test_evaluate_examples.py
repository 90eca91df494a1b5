"""`smoothed evaluate --examples` as its users meet it."""

import pytest
import torch

from smoothed import Gaussian, Result, Smoothed, load
from smoothed.checkpoint import describe, read_header, read_tensors, save, write_tensors
from smoothed.data.sample import load_sample
from smoothed.injection import inject_preset
from smoothed.models import build
from smoothed.rng.seeds import mix, seeded

QUICK = ["--num-samples", 3, "--seed", 2]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A function from a number of classes to a ResNet-20 with noise inside that has learned nothing."""

    def untrained(classes):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build("resnet20", num_classes=classes)
        injection = inject_preset(model, "pni-w-layer").to_json()
        header = describe("resnet20", model, injection, load_sample().classes[:classes])
        return save(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors", model, header)

    return untrained


@pytest.fixture
def made(run, tmp_path):
    """Six images that were attacked with the bundled network."""
    path = tmp_path / "made.safetensors"
    assert run("attack", "--examples", path, "--images", 6, "--steps", 2, "--num-samples", 1) == 0
    return path


def test_it_votes_afresh_and_writes_rows(run, made, tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert run("evaluate", "--examples", made, *QUICK, "--votes-per-image", 2, "--json", path) == 0
    shown = capsys.readouterr()
    assert "resnet20-cni-w, 6 images, pgd, L-inf 8/255, votes per image: 2" in shown.out
    assert "made on this model with this noise" in shown.out
    assert f"result written to {path}" in shown.err
    result = Result.load(path)
    one_draw, vote = result.rows
    assert (one_draw["num_samples"], vote["num_samples"], vote["sigma_normalized"]) == (1, 3, 0.24)
    network, data = load("resnet20-cni-w"), load_sample().first(6)
    smoothed = Smoothed(network, Gaussian.normalized(0.24, network.normalize.std.flatten().tolist()), num_samples=3)
    for name, stream, images in (
        ("clean", 10, data.images / 255),
        ("robust", 11, read_tensors(made)[0]["images"]),
    ):
        seeds = [mix(mix(mix(2, 0), stream), again) for again in range(2)]
        right = sum(int((smoothed.predict(images, seeded(seed)) == data.labels).sum()) for seed in seeds)
        assert vote[name] == pytest.approx(right / 12)
        assert int(result.tensors[f"{name}.right"].sum()) == right


@pytest.mark.slow
def test_another_network_is_evaluated_on_them(run, made, untrained, tmp_path, capsys):
    checkpoint = untrained(10)
    options = ["--model", checkpoint, "--sigma", 0.1, "--votes", "soft", "--images", 4]
    options += ["--json", tmp_path / "rows.json", "--out", tmp_path / "steps"]
    assert run("evaluate", "--examples", made, *QUICK, *options) == 0
    assert "made on resnet20-cni-w at sigma 0.06016, not on this model" in capsys.readouterr().out
    row = Result.load(tmp_path / "rows.json")[1]
    expected = {"model": str(checkpoint), "vote": "soft", "sigma": 0.1, "images": 4}
    assert expected.items() <= row.items()
    assert not row["same_classifier"]
    assert len(list((tmp_path / "steps").iterdir())) == 2  # a batch and the configuration


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_outside_of_the_ball_are_refused_in_one_line(run, made, norm, capsys):
    tensors, header = read_tensors(made)
    write_tensors(made, tensors, {**header, "norm": norm, "eps": 7.9 / 255})
    capsys.readouterr()
    assert run("evaluate", "--examples", made, *QUICK) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {made}: expected images within eps = 0.0309804 ({norm}) of the clean ones, got")


def test_other_images_and_other_files_are_refused_in_one_line(run, made, untrained, tmp_path, capsys):
    tensors, header = read_tensors(made)
    other = write_tensors(tmp_path / "other.safetensors", tensors, {**header, "pixel_fingerprint": "0123456789abcdef"})
    several = {
        (other,): "error: data: expected the 6 images of cifar10 sample that were attacked",
        (made, "--images", 7): "error: images: expected 1 to 6",
        (made, "--votes-per-image", 0): "error: votes-per-image: expected an integer of at least 1, got 0",
        (
            made,
            "--sigma",
            0.1,
            "--sigma-normalized",
            0.4,
        ): "error: sigma: expected either --sigma or --sigma-normalized",
        (made, "--sigma", "0.1,0.2"): "error: sigma: expected one value with --examples, got 2",
        (made, "--votes", "all"): "error: votes: expected one value with --examples, got 3",
        (made, "--num-samples", "1,2"): "error: num-samples: expected one value with --examples, got 2",
        (
            made,
            "--model",
            untrained(5),
        ): "error: model: expected 10 outputs, one for each class of cifar10 sample, got 5",
        (untrained(10),): "expected adversarial images written by `smoothed attack`, got a file of another kind",
        (tmp_path / "nowhere",): f"examples: expected a file that `smoothed attack` wrote, got {tmp_path / 'nowhere'}",
        (): "Option '--examples' requires an argument",
    }
    capsys.readouterr()
    for arguments, message in several.items():
        assert run("evaluate", "--examples", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert read_header(made) == header


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (("--attack", "pgd"), "attack"),
        (("--eps", "8/255"), "eps"),
        (("--steps", 7), "steps"),
        (("--source", "resnet20-cni-w"), "source"),
        (("--runs", 1), "runs"),
        (("--tune",), "tune"),
        (("--record",), "record"),
    ],
)
def test_options_that_examples_ignore_are_refused(run, tmp_path, option, name, capsys):
    """Even at their default values, and before the file is read."""
    assert run("evaluate", "--examples", tmp_path / "nowhere", *option) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {name}: expected no such option with --examples, got an option of the attack"


def test_votes_per_image_need_examples(run, capsys):
    assert run("evaluate", "--votes-per-image", 2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: votes-per-image: expected --examples beside it, got none"
