"""Run the service in this process, until SIGTERM or SIGINT."""

import asyncio
import errno
import ipaddress
import logging
import math
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h11
import uvicorn
from PIL import Image
from uvicorn.protocols.http.h11_impl import H11Protocol

from smoothed.api.subject import AnyClassifier
from smoothed.errors import ArgumentError
from smoothed.serve.app import Service
from smoothed.serve.logs import LogHandler
from smoothed.serve.served import ServedModel
from smoothed.serve.settings import ServeSettings
from smoothed.smoothing.classifier import SigmaWarning

SHORTEST_TOKEN = 16
"""Smallest number of characters of a token."""

_KEEP_ALIVE_SECONDS = 15
# Time for answers after the engine has ended the work at the end of the grace period.
_LAST_SECONDS = 2
_LOGGERS = ("smoothed.serve", "uvicorn.error")


def serve(
    classifier: AnyClassifier,
    data: Any = "sample",  # noqa: ANN401 - whatever `as_images` takes
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    settings: ServeSettings | None = None,
    precision: str = "float32",
    chunk_size: int | None = None,
    on_start: Callable[[str], object] = str,
) -> None:
    """Serve a smoothed classifier over HTTP, with the explorer page, until SIGTERM or SIGINT.

    After a signal, requests that were taken may end within the grace period. One JSON line for each request goes to
    standard output.

    Args:
        classifier: a `Smoothed` classifier, or the name of a checkpoint that stores its smoothing.
        data: images of the size that the network takes, the first of which the explorer shows.
        name: name of the model; None for the name it was loaded by, else its class.
        host: name or address to listen at.
        port: port, 0 for any free one.
        token: what clients must present, at least `SHORTEST_TOKEN` characters; it is needed for a host other than
            loopback.
        settings: limits; None for the default ones.
        precision: number format of votes: `float32`, `bf16` or `auto`.
        chunk_size: largest number of rows in a pass; None for the default of `Smoothed`.
        on_start: is called with the URL once the service listens.

    Raises:
        ArgumentError: an argument is invalid, the host needs a token, or the port is taken.
        DataError: the data set does not exist or is damaged.
    """
    check_address(host, port, token)
    settings = ServeSettings() if settings is None else settings
    served = ServedModel.of(classifier, data, name=name, precision=precision, chunk_size=chunk_size)
    with listening(host, port) as listener:
        service = Service(served, settings, token=token)
        on_start(_url(host, listener.getsockname()[1]))
        run_service(service, listener)


def run_service(service: Service, listener: socket.socket) -> None:
    """Run a service on a socket that listens, until SIGTERM or SIGINT."""
    settings = service.settings
    config = uvicorn.Config(
        service.app,
        http=_head_timeout(settings.body_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.grace_seconds) + _LAST_SECONDS,
    )
    server = _Server(config, lambda: service.engine.drain(settings.grace_seconds))
    with warnings.catch_warnings(), _logged(LogHandler(service.log)):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `images` checks the size itself
        warnings.simplefilter("ignore", SigmaWarning)  # which would be said of a request
        server.run(sockets=[listener])


def check_address(host: str, port: int, token: str | None) -> None:
    """Raise `ArgumentError` for a port that there is not, a short token, or a public host without one."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ArgumentError("port", "an integer in 0..65535", repr(port))
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        expected = f"at least {SHORTEST_TOKEN} printable ASCII characters"
        raise ArgumentError("token", expected, f"{len(token)} characters")
    if token is None and not _is_loopback(host):
        hint = "give one, for example of `openssl rand -hex 16`, or listen at 127.0.0.1"
        raise ArgumentError("token", f"a token for the host {host}, which others can reach", "none", hint)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, closed at the end of the block.

    Raises:
        ArgumentError: there is no such host, or the port is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            raise ArgumentError("port", "a free port that may be used", f"{port} ({reason})") from None
        raise ArgumentError("host", "a name or address of this computer", f"{host} ({reason})") from None
    with listener:
        yield listener


class _Server(uvicorn.Server):
    """uvicorn's server, which tells the engine to drain and ends the process with code 0 after a signal."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals inside the block, without raising them again at its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, and end at once at the second."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True
        self._drain()


def _head_timeout(seconds: float) -> type[H11Protocol]:
    """Uvicorn's protocol, which closes a connection whose client takes too long to send the head of a request."""

    class HeadTimeout(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as in uvicorn
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.our_state is h11.IDLE:
                self._wait_for_head()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return HeadTimeout


@contextmanager
def _logged(handler: logging.Handler) -> Iterator[None]:
    """Send the warnings and errors of the service to a handler inside the block."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
