"""Middleware of all requests.

It checks the token, assigns an id, writes the log line, counts metrics, and turns errors into JSON.
"""

import base64
import binascii
import hmac
import json
import logging
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smoothed.serve.logs import RequestLog
from smoothed.serve.metrics import ServiceMetrics
from smoothed.serve.refusals import Refusal, failed

OPEN_PATHS = ("/v1/health", "/v1/ready")
"""Paths that need no token: probes of the system that runs the service."""

NOTES = "smoothed.notes"
"""Key of the scope under which routes leave fields for the log line."""

GONE = 499
"""Status in log and metrics of a request whose client has gone before the answer."""

_log = logging.getLogger("smoothed.serve")


class Gate:
    """ASGI middleware around all routes.

    Args:
        app: the routes.
        log: receives one line for each request.
        metrics: counts requests.
        token: what clients must present, as `Authorization: Bearer TOKEN` or as the password of basic authentication,
            for which browsers ask; None for no check.
    """

    def __init__(self, app: ASGIApp, log: RequestLog, metrics: ServiceMetrics, token: str | None = None) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; other messages are passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, number = time.monotonic(), secrets.token_hex(8)
        sent = _Sent(send, number)
        notes: dict[str, Any] = {}
        scope[NOTES] = notes
        try:
            if self._admits(scope):
                await self._app(scope, receive, sent)
            else:
                await _unauthorized(sent)
        except Exception:  # whatever a route raises is answered and logged, and ends this request alone
            _log.exception("request %s failed", number)
            if not sent.begun:
                await _answer(sent, failed())
        finally:
            seconds = time.monotonic() - begun
            status = notes.pop("status", None) or sent.status or GONE
            self._metrics.count_request(_route(scope), status, seconds)
            client = scope.get("client")
            self._log.write(
                "request",
                id=number,
                client=client[0] if client else None,
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(seconds, 4),
                **notes,
            )

    def _admits(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in OPEN_PATHS:
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, rest = given.partition(b" ")
        presented = rest.strip()
        if kind.lower() == b"basic":
            try:
                presented = base64.b64decode(presented, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                presented = b""
        elif kind.lower() != b"bearer":
            presented = b""
        return hmac.compare_digest(presented, self._token)


class _Sent:
    """Remembers the status of the answer, and adds headers to it."""

    def __init__(self, send: Send, number: str) -> None:
        self._send = send
        self._number = number.encode()
        self.status = 0

    @property
    def begun(self) -> bool:
        return self.status > 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(b"x-request-id", self._number), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await self._send(message)


async def _unauthorized(send: Send) -> None:
    headers = {"WWW-Authenticate": 'Basic realm="smoothed", charset="UTF-8"'}
    await _answer(
        send,
        Refusal(
            401, "unauthorized", "Authorization: expected the token of this service, got none or another one", headers
        ),
    )


async def _answer(send: Send, refusal: Refusal) -> None:
    body = json.dumps(refusal.body()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers}
    listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


def _route(scope: Scope) -> str:
    """The path of the route with names in place of values, so that metrics have few labels."""
    return getattr(scope.get("route"), "path", "other")
