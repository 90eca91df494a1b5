"""The example of the page on the service runs as it stands, and the page names every field, option and route."""

import io
import re
import urllib.request
from pathlib import Path

import pytest
import torch
from torch import nn

from smoothed import Gaussian, Smoothed
from smoothed.cli.serve import FIELDS
from smoothed.serve.schemas import VoteQuestion
from smoothed.serve.served import ServedModel

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "serve.md").read_text()


@pytest.fixture
def client(run_service):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)).eval()
    data = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    return run_service(ServedModel.of(Smoothed(network, Gaussian(0.1)), data)).client


def test_the_example_runs(client, monkeypatch, capsys):
    def urlopen(request):
        answer = client.post(request.full_url, content=request.data, headers=dict(request.header_items()))
        assert answer.status_code == 200
        return io.BytesIO(answer.content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    (block,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(block, "serve.md", "exec"), {})  # noqa: S102
    first, *shares = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"[0-3] \d+ (exact|num_samples|deadline)", first)
    assert len(shares) == 3


def test_the_page_names_fields_options_and_routes(client):
    for field in VoteQuestion.model_fields:
        assert f"`{field}`" in PAGE
    for option in FIELDS:
        assert f"`--{option.replace('_', '-')}`" in PAGE
    for path in ("/v1/predict", "/v1/model", "/v1/health", "/v1/ready", "/metrics", "/docs"):
        assert path in PAGE
        assert client.get(path).status_code in {200, 405, 503}
