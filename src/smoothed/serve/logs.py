"""The log of the service: one JSON object a line, for each request and for errors of the service."""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Write = Callable[[str], object]


def write_line(line: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(line)
    sys.stdout.flush()


class RequestLog:
    """Writes one line for each request. Fields are plain values; neither images nor secret seeds are among them.

    Args:
        write: receives each line with its line break.
    """

    def __init__(self, write: Write = write_line) -> None:
        self._write = write
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON value
        """Write a line with the time, the kind of event, and the fields that are not None."""
        stated = {name: value for name, value in fields.items() if value is not None}
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **stated}, default=str)
        with self._lock:
            self._write(line + "\n")


class LogHandler(logging.Handler):
    """Sends records of Python's logging to a `RequestLog`, for errors of the engine and of the server."""

    def __init__(self, log: RequestLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        error = record.exc_info[1] if record.exc_info else None
        where = None if error is None else "".join(traceback.format_tb(error.__traceback__))
        reason = None if error is None else f"{type(error).__name__}: {error}"
        self._log.write(record.levelname.lower(), message=record.getMessage(), reason=reason, where=where)
