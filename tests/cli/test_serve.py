"""`smoothed serve`: what it passes on, and what it refuses before any work."""

import pytest

from smoothed.cli import serve as command
from smoothed.serve import run as service

NETWORK = """
from torch import nn


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).eval()
"""


@pytest.fixture
def served(monkeypatch, tmp_path):
    """The arguments that the service was started with."""
    tmp_path.joinpath("net_to_serve.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(service, "serve", lambda *given, **options: calls.append((given, options)))
    return calls


def test_options_reach_the_service(run, served, monkeypatch):
    word = "a token of the environment"
    monkeypatch.setenv("SMOOTHED_TOKEN", word)
    options = ("--model", "net_to_serve:network", "--sigma", "0.1", "--num-samples", "32", "--vote", "soft")
    limits = ("--max-samples", "50", "--max-pixels", "1000", "--queue", "7", "--grace", "1.5", "--port", "0")
    assert run("serve", *options, *limits, "--host", "10.1.2.3", "--precision", "bf16", "--chunk-size", "9") == 0
    (((classifier, images), given),) = served
    assert (classifier.vote, classifier.num_samples) == ("soft", 32)
    assert classifier.noisy_classifier.noise.sigma == 0.1
    assert len(images) == 60
    assert (given["name"], given["host"], given["port"]) == ("net_to_serve:network", "10.1.2.3", 0)
    assert given["token"] == word
    assert (given["precision"], given["chunk_size"]) == ("bf16", 9)
    settings = given["settings"]
    assert (settings.num_samples, settings.pixels, settings.queue, settings.grace_seconds) == (50, 1000, 7, 1.5)
    assert settings.body_bytes == 8 * 2**20
    assert settings.predict_only is False


def test_the_url_is_told(run, served, capfd):
    assert run("serve", "--model", "net_to_serve:network", "--sigma", "0") == 0
    served[0][1]["on_start"]("http://127.0.0.1:8000/")
    assert "explorer at http://127.0.0.1:8000/, interface at http://127.0.0.1:8000/docs" in capfd.readouterr().err
    assert run("serve", "--model", "net_to_serve:network", "--sigma", "0", "--predict-only") == 0
    assert served[1][1]["settings"].predict_only is True
    served[1][1]["on_start"]("http://127.0.0.1:8000/")
    told = capfd.readouterr().err
    assert "explorer" not in told
    assert "interface at http://127.0.0.1:8000/docs" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "10.1.2.3"), "error: token: expected a token for the host 10.1.2.3"),
        (("--token", "short"), "error: token: expected at least 16 printable ASCII characters, got 5 characters"),
        (("--port", "65536"), "error: port: expected an integer in 0..65535, got 65536"),
        (("--max-samples", "0"), "error: max-samples: expected an integer of at least 1, got 0"),
        (("--max-body", "-1"), "error: max-body: expected an integer of at least 1"),
        (("--body-timeout", "nan"), "error: body-timeout: expected a finite number of seconds above 0"),
        (("--chunk-size", "0"), "error: chunk-size: expected an integer of at least 1"),
        (("--precision", "fp8"), "error: precision: expected one of auto, float32, bf16"),
        ((), "error: sigma: expected a standard deviation of the input noise, got none for net_to_serve:network"),
    ],
)
def test_wrong_options_are_named_before_any_work(run, served, capfd, options, message):
    assert run("serve", "--model", "net_to_serve:network", *options) == 2
    assert capfd.readouterr().err.startswith(message)
    assert not served


def test_without_its_packages_it_says_what_to_install(run, capfd, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "fastapi" else object())
    assert run("serve") == 2
    assert capfd.readouterr().err == (
        "error: serve: expected the packages of its extra, got an environment without fastapi; "
        'pip install "smoothed[serve]"\n'
    )
