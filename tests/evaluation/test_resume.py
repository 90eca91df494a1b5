"""Steps that are done once, also over a kill."""

import json
import signal

import pytest
import torch

import known
from launching import Started, run_script
from smoothed.data.imageset import ImageSet
from smoothed.errors import CheckpointError
from smoothed.evaluation.resume import ResumeFolder, fingerprints


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "steps"), [("worst-case", 14), ("paper", 2)])
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_numbers(protocol, steps, tmp_path):
    assert Started(run_script, known.__file__, protocol, str(tmp_path), str(steps)).end().returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert 0 < len(before) <= steps
    assert not list(tmp_path.glob(".*"))
    assert known.measure(protocol, tmp_path) == known.measure(protocol)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list(tmp_path.glob("*.safetensors"))) > len(before)


def test_a_step_is_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"numbers": torch.arange(3), "nothing": torch.zeros(0, 1, 2, 2), "whether": torch.tensor([True, False])}

    first = ResumeFolder(tmp_path, {"seed": 0}).compute_once("step", compute)
    again = ResumeFolder(tmp_path, {"seed": 0}).compute_once("step", compute)
    assert len(calls) == 1
    assert all(torch.equal(tensor, again[name]) and tensor.dtype == again[name].dtype for name, tensor in first.items())
    nowhere = ResumeFolder(None, {})
    assert torch.equal(
        nowhere.compute_once("step", compute)["numbers"], nowhere.compute_once("step", compute)["numbers"]
    )
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"seed": 1, "eps": 0.1, "draws": [1, 4]},
            "out: expected an evaluation with seed = 1, got one with 0 in .*; use the same",
        ),
        ({"seed": 0, "eps": 0.1, "draws": (1, 8)}, r"with draws = \[1, 8\], got one with \[1, 4\]"),
        ({"seed": 0, "eps": 0.1}, r"with draws = None, got one with \[1, 4\]"),
    ],
)
def test_another_configuration_is_refused(other, message, tmp_path):
    ResumeFolder(tmp_path, {"seed": 0, "eps": 0.1, "draws": (1, 4)})
    ResumeFolder(tmp_path, {"seed": 0, "eps": 0.1, "draws": (1, 4)})
    with pytest.raises(CheckpointError, match=message):
        ResumeFolder(tmp_path, other)


@pytest.mark.parametrize("content", ["not JSON", "[1]"])
def test_a_foreign_configuration_is_refused(content, tmp_path):
    (tmp_path / "configuration.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"expected the configuration of an evaluation"):
        ResumeFolder(tmp_path, {})


def test_a_damaged_step_is_said_to_be(tmp_path):
    (tmp_path / "step.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="got a truncated file or another format"):
        ResumeFolder(tmp_path, {}).compute_once("step", lambda: {})


def test_fingerprints_tell_networks_and_images_apart(network):
    def told(images=1, label=0):
        data = ImageSet("set", torch.full((3, 3, 8, 8), images, dtype=torch.uint8), torch.full((3,), label), ("a", "b"))
        return fingerprints(network, data)

    first = told()
    assert json.loads(json.dumps(first)) == first == told()
    assert {name for name, value in told(images=2).items() if first[name] != value} == {"pixels"}
    assert {name for name, value in told(label=1).items() if first[name] != value} == {"labels"}
    with torch.no_grad():
        network[0].bias[0] += 1
    assert {name for name, value in told().items() if first[name] != value} == {"weights"}
