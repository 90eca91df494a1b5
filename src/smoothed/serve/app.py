"""The routes of the service."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from smoothed.checkpoint import package_version
from smoothed.serve import exploring
from smoothed.serve.answers import DIGITS, answer
from smoothed.serve.bodies import FORM, JSON, Bodies, content_type, parse_form, parse_json
from smoothed.serve.docs_page import docs_page
from smoothed.serve.engine import Engine
from smoothed.serve.event_schemas import ATTACK_EVENTS, RACE_EVENTS, event_schema
from smoothed.serve.events import EventStream
from smoothed.serve.gate import GONE, NOTES, Gate
from smoothed.serve.images import bundled_image
from smoothed.serve.logs import RequestLog
from smoothed.serve.metrics import CONTENT_TYPE, ServiceMetrics
from smoothed.serve.page_files import INDEX, page_file
from smoothed.serve.preparing import prepare_attack, prepare_race, prepare_vote
from smoothed.serve.refusals import Refusal, failed, invalid
from smoothed.serve.schemas import (
    AnyQuestion,
    AttackQuestion,
    ErrorAnswer,
    ImageQuestion,
    Prediction,
    RaceQuestion,
    VoteQuestion,
    read_question,
)
from smoothed.serve.served import ServedModel
from smoothed.serve.settings import ServeSettings
from smoothed.serve.turns import VoteJob, VoteOutcome

EVENTS = "text/event-stream"
_DECODERS = 2
"""Number of threads that decode requests."""
_NO_STORE = {"Cache-Control": "no-store"}
_DESCRIPTION = (
    "A smoothed classifier votes over noisy copies of an image. Errors are JSON objects with a short code (error) and "
    "a sentence (detail)."
)

Made = TypeVar("Made")


class Service:
    """The routes and what they share.

    Args:
        served: the model.
        settings: limits.
        token: what clients must present; None for no check.
        log: receives a line for each request.
    """

    def __init__(
        self,
        served: ServedModel,
        settings: ServeSettings | None = None,
        *,
        token: str | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self.served = served
        self.settings = ServeSettings() if settings is None else settings
        self.log = RequestLog() if log is None else log
        self.metrics = ServiceMetrics()
        self.engine = Engine(served, self.settings, self.metrics)
        self._bodies = Bodies(self.settings)
        self._threads = ThreadPoolExecutor(_DECODERS, "smoothed-decoder")
        self._model = served.describe(self.settings)
        self.app = self._build(token)

    async def predict(self, request: Request) -> Response:
        """Vote on one image, which is a file in a form, or a field of a JSON object.

        Fields that are left out are taken from the model. Requests that wait together share passes of the network. A
        request with a seed runs alone and gets the answer of Smoothed(..., seed=seed).predict. A deadline ends the
        draws early, after at least one pass: the answer then holds what is known, with ended = deadline.
        """
        self.engine.require_room()
        async with self._bodies.read(request) as body:
            arrived = time.monotonic()
            prepared = await self._prepared(
                VoteQuestion,
                request,
                body,
                lambda question: prepare_vote(question, self.served, self.settings, arrived),
            )
        job, seed = prepared.job, prepared.seed
        notes = request.scope[NOTES]
        notes.update(vote=prepared.name, num_samples=job.count.total, stop=job.rule or None, seed=seed)
        self.engine.submit(job, seed)
        outcome = await self._outcome(request, job)
        told = answer(
            outcome,
            prepared.vote,
            self.served.classes,
            seconds=round(time.monotonic() - arrived, DIGITS),
            model=self.served.name,
            version=package_version(),
        )
        notes.update(draws=told["draws"], ended=outcome.ended)
        self.metrics.count_ended(outcome.ended)
        return JSONResponse(told, headers=_NO_STORE)

    async def explore_vote(self, request: Request) -> Response:
        """Watch a vote draw by draw, as server-sent events: start, draw, stop, end, or error.

        The events `stop` tell where the exact and the confident rule would have ended the draws; all M draws are made
        in any case.
        """
        async with self._bodies.read(request) as body:
            question, image = await self._prepared(
                RaceQuestion, request, body, lambda question: prepare_race(question, self.served, self.settings)
            )
        request.scope[NOTES].update(vote=question.vote, num_samples=question.num_samples, seed=question.seed)
        return self._stream(partial(exploring.race, self.served, image, question))

    async def explore_attack(self, request: Request) -> Response:
        """Watch an attack step by step, as server-sent events: start, step, end, or error.

        The event `start` holds a small vote on the clean image, and each event `step` one on the image of that step,
        with the same draws. The event `end` holds the attacked image, for a vote with all draws, and `turned_at`, the
        first step whose small vote has another class than that on the clean image, or null.
        """
        async with self._bodies.read(request) as body:
            question, image = await self._prepared(
                AttackQuestion,
                request,
                body,
                lambda question: prepare_attack(question, self.served, self.settings),
            )
        request.scope[NOTES].update(attack=question.attack, steps=question.steps, seed=question.seed)
        return self._stream(partial(exploring.attack, self.served, image, question))

    async def model(self) -> Response:
        """The model, its classes, its smoothing, and the limits of the service."""
        return JSONResponse(self._model)

    async def images(self) -> Response:
        """The example images and their true classes."""
        shown = self.served.images
        labels = enumerate(shown.labels.tolist())
        listed = [{"id": number, "label": label, "class": shown.classes[label]} for number, label in labels]
        return JSONResponse({"images": listed})

    async def image(self, number: int) -> Response:
        """An example image as a PNG file."""
        if not 0 <= number < len(self.served.images):
            expected = f"the number of an example image, 0..{len(self.served.images) - 1}"
            raise invalid("path", expected, str(number), 404, "not_found")
        text = exploring.png(bundled_image(self.served.images, number), max(self.served.shape))
        return Response(base64.b64decode(text), media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    async def health(self) -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """Whether requests should be sent: 503 while the service loads or ends."""
        state = self.engine.state
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    async def metrics_text(self) -> Response:
        """Numbers of the service in the text format of Prometheus."""
        votes, streams = self.engine.unfinished
        gauges = {
            "smoothed_unfinished_votes": ("Votes that are waiting or running.", float(votes)),
            "smoothed_unfinished_streams": ("Streams of events that are waiting or running.", float(streams)),
        }
        return Response(self.metrics.text(gauges), media_type=CONTENT_TYPE)

    async def docs(self) -> Response:
        """The interface of the service, for people."""
        return HTMLResponse(docs_page(self.app.openapi(), explorer=not self.settings.predict_only))

    async def page(self) -> Response:
        """The explorer."""
        return self._file(INDEX)

    async def static(self, name: str) -> Response:
        """A file of the explorer."""
        return self._file(name)

    def _file(self, name: str) -> Response:
        contents, kind = page_file(name)
        return Response(contents, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def _prepared(
        self, kind: type[AnyQuestion], request: Request, body: bytes, prepare: Callable[[AnyQuestion], Made]
    ) -> Made:
        """Parse and prepare a request, in a thread, since large images take long."""
        form = None if content_type(request) == JSON else await parse_form(request, body)

        def work() -> Made:
            if form is None:
                return prepare(read_question(kind, parse_json(body), self.settings))
            return prepare(read_question(kind, form, self.settings, strict=False))

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _outcome(self, request: Request, job: VoteJob) -> VoteOutcome:
        """The outcome of a vote, unless its client leaves before."""
        waiting, gone = asyncio.wrap_future(job.future), asyncio.ensure_future(_client_leaves(request))
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        except Refusal:
            raise
        except Exception:  # the engine has logged it
            raise failed() from None
        finally:
            gone.cancel()
            waiting.cancel()
        request.scope[NOTES]["status"] = GONE
        raise Refusal(400, "gone", "the client has left")

    def _stream(self, make: Callable[[], Any]) -> Response:
        stream = EventStream(make, self.settings.stream_seconds)
        self.engine.open(stream)
        return _EventResponse(stream)

    def _build(self, token: str | None) -> FastAPI:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.engine.start()
            yield
            await asyncio.to_thread(self.engine.close)
            self._threads.shutdown(wait=False)

        app = FastAPI(
            title="smoothed",
            version=package_version(),
            description=_DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            lifespan=lifespan,
        )
        _add_routes(app, self)
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(HTTPException, _refused_by_route)
        app.add_exception_handler(RequestValidationError, _refused_path)
        app.add_middleware(Gate, log=self.log, metrics=self.metrics, token=token)
        return app


class _EventResponse(StreamingResponse):
    """A stream of events. Its work ends when the client leaves."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__(stream.lines(), media_type=EVENTS, headers={**_NO_STORE, "X-Accel-Buffering": "no"})
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._stream.ended.done():
                scope[NOTES]["status"] = GONE
            self._stream.leave()


def _add_routes(app: FastAPI, service: Service) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": text}
        for status, text in (
            (400, "the body is malformed"),
            (408, "the body arrives too slowly"),
            (413, "the body or the image is too large"),
            (415, "the body or the image has another format"),
            (422, "a field has a wrong value"),
            (503, "the queue is full; Retry-After says when to try again"),
        )
    }

    def events(kinds: dict[str, type[BaseModel]]) -> dict[int | str, dict[str, Any]]:
        described = f"server-sent events: {', '.join(kinds)}, each with one line of JSON data"
        return {200: {"content": {EVENTS: {"schema": event_schema(kinds)}}, "description": described}}

    alone = service.settings.predict_only
    posts: list[tuple[str, Callable[..., Any], type[ImageQuestion], dict[int | str, dict[str, Any]]]] = [
        ("/v1/predict", service.predict, ImageQuestion if alone else VoteQuestion, {200: {"model": Prediction}})
    ]
    gets: list[tuple[str, Callable[..., Any], type[Response]]] = [
        ("/v1/model", service.model, JSONResponse),
        ("/v1/health", service.health, JSONResponse),
        ("/v1/ready", service.ready, JSONResponse),
        ("/metrics", service.metrics_text, PlainTextResponse),
    ]
    pages: list[tuple[str, Callable[..., Any]]] = [("/docs", service.docs)]
    if not alone:
        posts += [
            ("/v1/explore/vote", service.explore_vote, RaceQuestion, events(RACE_EVENTS)),
            ("/v1/explore/attack", service.explore_attack, AttackQuestion, events(ATTACK_EVENTS)),
        ]
        gets += [
            ("/v1/images", service.images, JSONResponse),
            ("/v1/images/{number}.png", service.image, Response),
        ]
        pages += [("/", service.page), ("/static/{name}", service.static)]
    for path, route, kind, answers in posts:
        body = {"requestBody": {"required": True, "content": _body_schemas(kind, form=path == "/v1/predict")}}
        responses = {**answers, **problems}
        app.add_api_route(path, route, methods=["POST"], response_model=None, responses=responses, openapi_extra=body)
    for path, route, response in gets:
        app.add_api_route(path, route, response_model=None, response_class=response)
    for path, route in pages:
        app.add_api_route(path, route, response_model=None, response_class=HTMLResponse, include_in_schema=False)


def _body_schemas(kind: type[ImageQuestion], *, form: bool) -> dict[str, Any]:
    schema = kind.model_json_schema()
    if not form:
        return {JSON: {"schema": schema}}
    file = {"type": "string", "format": "binary", "description": "an image file"}
    return {
        JSON: {"schema": schema},
        FORM: {"schema": {**schema, "properties": {**schema["properties"], "image": file}}},
    }


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def _refused_by_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    known = {
        404: ("not_found", f"path: expected one of those that /docs lists, got {request.url.path[:80]!r}"),
        405: ("method_not_allowed", f"method: expected another one for this path, got {request.method}"),
    }
    code, detail = known.get(error.status_code, ("refused", str(error.detail)))
    return JSONResponse({"error": code, "detail": detail}, error.status_code, headers=error.headers)


async def _refused_path(request: Request, _: Exception) -> Response:
    detail = f"path: expected a number in it, got {request.url.path[:80]!r}"
    return JSONResponse({"error": "not_found", "detail": detail}, 404)
