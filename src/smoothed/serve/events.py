"""Streams of events: made piece by piece by the engine's thread, sent by the server's."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from smoothed.errors import ArgumentError
from smoothed.serve.refusals import Refusal, failed

Event = tuple[str, dict[str, Any]]
"""Name and JSON data of an event."""

UNSENT = 256
"""Number of unsent events at which the engine pauses a stream until the client has read some."""


class EventStream:
    """Queue of events from the engine's thread to one client.

    As a `Turn`, it runs the iterator that produces the events.

    Args:
        make: returns an iterator whose every item is the events of a piece of work. It is called, and goes on, in the
            engine's thread.
        seconds: longest time of the stream.
        wake: tells the engine that the stream is ready again.
    """

    def __init__(
        self, make: Callable[[], Iterator[Sequence[Event]]], seconds: float, wake: Callable[[], None] = lambda: None
    ) -> None:
        self.ended: Future[None] = Future()
        self.wake = wake
        self._make = make
        self._pieces: Iterator[Sequence[Event]] | None = None
        self._until = time.monotonic() + seconds
        self._loop = asyncio.get_running_loop()
        self._queue = asyncio.Queue[Event | None]()
        self._put = 0
        self._got = 0
        self._gone = False

    @property
    def ready(self) -> bool:
        """Whether `step` may be called.

        That is so while few events are unsent, or once the client has disconnected or the time limit has passed.
        """
        return self._gone or self._put - self._got < UNSENT or time.monotonic() > self._until

    def step(self) -> bool:
        """Do the next piece of work; whether more remains."""
        if self._gone:
            return self._end()
        if time.monotonic() > self._until:
            self.fail(Refusal(503, "too_long", "the stream has reached its longest time"))
            return False
        if self._pieces is None:
            self._pieces = self._make()
        events = next(self._pieces, None)
        if events is None:
            return self._end()
        for event in events:
            self._send(event)
        return True

    def fail(self, error: BaseException) -> None:
        """End the stream with an event that describes the error."""
        refusal = error if isinstance(error, Refusal) else failed()
        if isinstance(error, ArgumentError) and error.argument not in {"model", "vote", "noise"}:
            refusal = Refusal(422, "invalid", str(error))
        self._send(("error", refusal.body()))
        self._end()

    def leave(self) -> None:
        """The client has gone: the work ends before its next piece."""
        self._gone = True
        self.wake()

    async def lines(self) -> AsyncIterator[bytes]:
        """The events as server-sent events."""
        while (event := await self._queue.get()) is not None:
            self._got += 1
            if self._put - self._got == UNSENT // 2:
                self.wake()
            name, data = event
            yield f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n".encode()

    def _send(self, event: Event | None) -> None:
        self._put += event is not None
        with suppress(RuntimeError):  # the server's loop has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    def _end(self) -> bool:
        if not self.ended.done():
            self._pieces = None
            self.ended.set_result(None)
            self._send(None)
        return False
