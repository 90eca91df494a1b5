"""The README's example runs as it stands."""

import re
from pathlib import Path

import pytest
import torch


def test_the_example_runs(capsys):
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(example, "README.md", "exec"), {})  # noqa: S102
    assert "noise on 2 weights and activations" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_of_inference_runs():
    text = Path(__file__).parents[1].joinpath("docs", "inference.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(example, "inference.md", "exec"), names)  # noqa: S102
    tally = names["quick"].tally(names["images"], stop=names["quick"].stop)["prediction"][512]
    assert tally.num_samples.min() < 100


@pytest.mark.slow
def test_the_example_of_attacks_runs(capsys):
    text = Path(__file__).parents[1].joinpath("docs", "attacks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "attacks.md", "exec"), {})  # noqa: S102
    assert "tensor([" in capsys.readouterr().out
