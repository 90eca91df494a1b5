"""The example of the page on the service runs as it stands, and the page names every field, option and route."""

import base64
import io
import re
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from serve.conftest import parse_events
from smoothed import Gaussian, Smoothed
from smoothed.cli.serve import FIELDS
from smoothed.serve.event_schemas import ATTACK_EVENTS, RACE_EVENTS
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


def documented_events(title):
    """The fields of each event of the table after the sentence that begins with `title`."""
    table = PAGE.partition(f"\n{title}")[2].partition("|---|---|---|---|\n")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines():
        event, fields, shape, meaning = (cell.strip() for cell in line.strip("|").split("|"))
        assert shape
        assert meaning
        found.setdefault(event.strip("`"), set()).update(re.findall(r"`(\w+)`", fields))
    return found


STREAMS = [
    ("vote", "Events of a vote", {"num_samples": 6, "pictures": 2, "vote": "soft"}),
    ("vote", "Events of a vote", {"num_samples": 6, "vote": "weighted"}),
    ("attack", "Events of an attack", {"steps": 2, "attack": "pgd"}),
    ("attack", "Events of an attack", {"steps": 2, "attack": "epgd", "eot_samples": 2, "label": 1}),
]


@pytest.mark.parametrize(("route", "title", "fields"), STREAMS)
def test_the_events_that_are_sent_are_those_of_the_page_and_of_the_schema(route, title, fields, client):
    kinds = {"vote": RACE_EVENTS, "attack": ATTACK_EVENTS}[route]
    path = f"/v1/explore/{route}"
    sent = parse_events(client.post(path, json={"image": {"id": 0}, "seed": 1, **fields}).text)
    seen = {}
    for name, data in sent:
        kinds[name].model_validate(data, strict=True)  # the types and names of all fields, and no others
        seen.setdefault(name, set()).update(data)
    if "pictures" not in fields and route == "vote":
        seen["draw"].add("png")
    assert documented_events(title) == seen
    operation = client.get("/openapi.json").json()["paths"][path]["post"]
    schemas = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["oneOf"]
    described = {each["title"]: each["properties"] for each in schemas}
    assert {name: set(properties) for name, properties in described.items()} == {**seen, "error": {"error", "detail"}}
    assert all(field["description"] for properties in described.values() for field in properties.values())
    page = client.get("/docs").text
    section = page.partition(f"POST {path}")[2].partition("<h2>")[0]
    for name, properties in described.items():
        table = section.partition(f"<h3>Event <code>{name}</code></h3>")[2].partition("</table>")[0]
        assert re.findall(r"<td><code>(\w+)</code></td>", table) == list(properties)


def test_the_values_of_an_attack_are_in_their_ranges(client):
    question = {"image": {"id": 0}, "seed": 1, "steps": 3, "eps": 0.05}
    sent = parse_events(client.post("/v1/explore/attack", json=question).text)
    assert [name for name, _ in sent] == ["start", *["step"] * 3, "end"]
    steps, end = [data for name, data in sent if name == "step"], sent[-1][1]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for data in (sent[0][1], *steps):
        assert len(data["vote"]["shares"]) == 4
        assert sum(data["vote"]["shares"]) == pytest.approx(1, abs=1e-5)
        assert 1 <= data["vote"]["draws"] <= 16
    for step in steps:
        assert step["loss"] >= 0
        assert 0 <= step["linf"] <= 0.05 + 1e-6
        assert {step["mean_network_class"], step["one_draw_class"]} <= set(range(4))
        assert step["difference_factor"] == 10
        assert max(Image.open(io.BytesIO(base64.b64decode(step["png"]))).size) <= 224
    assert torch.tensor(end["image"]).shape == (3, 32, 32)
    assert Image.open(io.BytesIO(base64.b64decode(end["png"]))).size == (32, 32)
    turned = [step["step"] for step in steps if step["vote"]["class"] != sent[0][1]["vote"]["class"]]
    assert end["turned_at"] == (turned[0] if turned else None)
