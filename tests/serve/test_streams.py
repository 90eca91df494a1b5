"""Streams of events: over HTTP, with clients that leave or do not read, and with errors on the way."""

import asyncio
import json
import time

import pytest
import torch

from serve.conftest import parse_events
from smoothed.errors import ArgumentError
from smoothed.serve.app import Service
from smoothed.serve.events import UNSENT, EventStream
from smoothed.serve.logs import RequestLog
from smoothed.serve.refusals import Refusal
from smoothed.serve.settings import ServeSettings


def test_a_vote_and_an_attack_over_http(running):
    events = running.events("/v1/explore/vote", image={"id": 1}, seed=3, num_samples=10)
    assert events[0][0] == "start"
    assert events[-1][0] == "end"
    answer = running.vote({"id": 1}, seed=3, num_samples=10, stop=None).json()
    assert {name: events[-1][1][name] for name in ("class", "shares", "draws", "ended", "margin")} == {
        name: answer[name] for name in ("class", "shares", "draws", "ended", "margin")
    }
    assert {"model", "version", "seconds", "mean_network"} <= set(events[-1][1])
    attacked = running.events("/v1/explore/attack", image={"id": 1}, seed=3, steps=2, attack="pgd")[-1][1]
    again = running.events("/v1/explore/vote", image=attacked["image"], seed=3, num_samples=10)
    assert again[-1][0] == "end"
    assert [line["status"] for line in running.logged] == [200] * 4


def test_too_many_streams(served, run_service):
    made = run_service(served, ServeSettings(streams=1))

    async def hold():
        made.service.engine.open(stream := EventStream(endless, 60))
        return stream

    def endless():
        while True:
            yield [("tick", {})]

    stream = asyncio.run(hold())
    answer = made.client.post("/v1/explore/vote", json={"image": {"id": 0}, "seed": 1})
    assert answer.status_code == 503
    assert "streams: expected fewer than 1 at the same time" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    stream.leave()
    while made.service.engine.unfinished[1]:
        time.sleep(0.01)
    assert made.events("/v1/explore/vote", image={"id": 0}, seed=1)[-1][0] == "end"


def steps(stream):
    """The number of pieces of work until a stream has ended or is not ready."""
    done = 0
    while stream.ready and stream.step():
        done += 1
    return done


async def read(stream):
    return parse_events(b"".join([line async for line in stream.lines()]).decode())


def test_a_client_that_does_not_read_makes_the_work_wait():
    async def scenario():
        woken = []
        stream = EventStream(lambda: iter([[("tick", {})]] * 1000), 60, lambda: woken.append(1))
        assert steps(stream) == UNSENT
        assert not stream.ready
        lines = stream.lines()
        for _ in range(UNSENT // 2):
            await anext(lines)
        assert woken
        assert steps(stream) == UNSENT // 2
        stream.leave()
        assert stream.ready
        assert not stream.step()
        assert stream.ended.done()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (RuntimeError("secret text"), "failed", "its log says why"),
        (ArgumentError("model", "finite logits", "NaN"), "failed", "its log says why"),
        (ArgumentError("eps", "a number", "a word"), "invalid", "eps: expected a number, got a word"),
        (Refusal(503, "stopping", "the end"), "stopping", "the end"),
    ],
)
def test_an_error_is_an_event(error, code, detail):
    async def scenario():
        stream = EventStream(lambda: iter([]), 60)
        stream.fail(error)
        return await read(stream)

    ((name, data),) = asyncio.run(scenario())
    assert (name, data["error"]) == ("error", code)
    assert detail in data["detail"]
    assert "secret" not in data["detail"]


def test_a_stream_has_a_longest_time():
    async def scenario():
        stream = EventStream(lambda: iter([[("tick", {})]] * 3), -1)
        assert not stream.step()
        return await read(stream)

    ((name, data),) = asyncio.run(scenario())
    assert (name, data["error"]) == ("error", "too_long")


class Connection:
    """A client of an ASGI application that leaves after a number of pieces of the answer."""

    def __init__(self, body, leaves_after=None, pieces=None):
        self.body, self.leaves_after, self.pieces = body, leaves_after, pieces
        self.sent = []
        self.gone = asyncio.Event()

    async def receive(self):
        if self.pieces:
            await asyncio.sleep(self.pieces.pop(0))
            return {"type": "http.request", "body": b" ", "more_body": True}
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if self.leaves_after is not None and len(self.sent) > self.leaves_after:
            self.gone.set()

    async def call(self, app, path):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "client": ("test", 1),
            "server": ("test", 80),
        }
        await asyncio.wait_for(app(scope, self.receive, self.send), 20)


def question(**fields):
    return json.dumps({"image": {"id": 0}, **fields}).encode()


async def with_service(served, use, settings=None):
    lines = []
    service = Service(served, settings, log=RequestLog(lambda line: lines.append(json.loads(line))))
    async with service.app.router.lifespan_context(service.app):
        await use(service)
    return lines


class Slow(torch.nn.Module):
    """A network whose passes take time."""

    def __init__(self, network):
        super().__init__()
        self.network, self.passes = network, 0

    def forward(self, inputs):
        self.passes += 1
        time.sleep(0.02)
        return self.network(inputs)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/explore/vote", {"seed": 1, "num_samples": 512}),
        ("/v1/explore/attack", {"seed": 1, "steps": 100, "attack": "epgd", "eot_samples": 4}),
        ("/v1/predict", {"num_samples": 512, "stop": None}),
        ("/v1/predict", {"num_samples": 512, "stop": None, "seed": 1}),
    ],
)
def test_a_client_that_leaves_ends_its_work_alone(network, serve_model, path, fields):
    slow = Slow(network)
    served = serve_model(slow, chunk_size=4)

    async def use(service):
        stays = Connection(question(num_samples=40, stop=None))
        leaves = Connection(question(**fields), leaves_after=2)
        staying = asyncio.create_task(stays.call(service.app, "/v1/predict"))
        leaving = asyncio.create_task(leaves.call(service.app, path))
        await asyncio.sleep(0.3)
        leaves.gone.set()
        await asyncio.gather(staying, leaving)
        assert stays.sent[0]["status"] == 200
        assert json.loads(stays.sent[1]["body"])["draws"] == 40
        while service.engine.unfinished != (0, 0):
            await asyncio.sleep(0.01)
        passes = slow.passes
        await asyncio.sleep(0.1)
        assert slow.passes == passes < 128

    lines = asyncio.run(with_service(served, use))
    assert sorted(line["status"] for line in lines) == [200, 499]


def test_a_client_that_sends_too_slowly_is_refused_and_the_others_are_not(served):
    async def use(service):
        slow = Connection(question(), pieces=[0.05] * 100)
        quick = Connection(question())
        await asyncio.gather(slow.call(service.app, "/v1/predict"), quick.call(service.app, "/v1/predict"))
        assert (slow.sent[0]["status"], quick.sent[0]["status"]) == (408, 200)
        detail = json.loads(slow.sent[1]["body"])["detail"]
        assert detail.startswith("body: expected all of it within 0.3 s, got ")

    asyncio.run(with_service(served, use, ServeSettings(body_seconds=0.3)))


def test_a_client_that_leaves_while_it_sends(served):
    async def use(service):
        connection = Connection(None)
        connection.gone.set()
        await connection.call(service.app, "/v1/predict")
        assert (await use_again(service)) == 200

    async def use_again(service):
        connection = Connection(question())
        await connection.call(service.app, "/v1/predict")
        return connection.sent[0]["status"]

    lines = asyncio.run(with_service(served, use))
    assert [line["status"] for line in lines] == [400, 200]


def test_bodies_are_bounded_together(served, monkeypatch):
    monkeypatch.setattr(ServeSettings, "held_bytes", 3000)

    async def status(service):
        connection = Connection(question() + b" " * 1900)
        await connection.call(service.app, "/v1/predict")
        return connection.sent[0]["status"]

    async def use(service):
        service._bodies._held = 2000  # of another request, which is being read
        assert await status(service) == 503
        service._bodies._held = 0
        assert await status(service) == 200
        assert service._bodies._held == 0

    asyncio.run(with_service(served, use))
