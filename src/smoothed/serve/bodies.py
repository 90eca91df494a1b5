"""Bodies of requests: read within limits of size and time, and parsed as JSON or as a form."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from smoothed.serve.refusals import CLOSE, Refusal, invalid, overloaded, too_large
from smoothed.serve.settings import ServeSettings

JSON, FORM = "application/json", "multipart/form-data"
_MAX_FIELDS = 20


class Bodies:
    """Reads bodies, and bounds what all of them hold in memory together.

    Args:
        settings: limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, which counts as held inside the block.

        Raises:
            Refusal: it has too many bytes, arrives too slowly, or too many bodies are held.
        """
        limit, seconds = self._settings.body_bytes, self._settings.body_seconds
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > limit:
            raise too_large(limit, stated)
        parts, size = list[bytes](), 0
        try:
            try:
                async with asyncio.timeout(seconds):
                    async for part in request.stream():
                        size += len(part)
                        self._held += len(part)
                        if size > limit:
                            raise too_large(limit, "more")
                        if self._held > self._settings.held_bytes:
                            raise overloaded("bytes of requests", self._settings.held_bytes, 1)
                        parts.append(part)
            except TimeoutError:
                detail = f"body: expected all of it within {seconds:g} s, got {size} bytes in that time"
                raise Refusal(408, "too_slow", detail, CLOSE) from None
            except ClientDisconnect:
                raise Refusal(400, "incomplete", f"body: expected all of it, got {size} bytes and no more") from None
            yield b"".join(parts)
        finally:
            self._held -= size


def content_type(request: Request) -> str:
    """The kind of the body, `JSON` or `FORM`.

    Raises:
        Refusal: it is another one.
    """
    stated = request.headers.get("content-type", "")
    kind = stated.partition(";")[0].strip().lower()
    if kind not in {JSON, FORM}:
        raise invalid("Content-Type", f"{JSON} or {FORM}", repr(stated) if stated else "none", 415, "unsupported")
    return kind


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a JSON body.

    Raises:
        Refusal: it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "lists within lists too deep" if isinstance(error, RecursionError) else str(error)
        raise invalid(
            "body", "JSON", f"something else ({reason:.100})" if body else "nothing", 400, "malformed"
        ) from None


async def parse_form(request: Request, body: bytes) -> dict[str, Any]:
    """Parse a form: texts by their names, and the bytes of files.

    An empty text counts as no field, and the text null as null.

    Raises:
        Refusal: it is not such a form, has too many fields, or has a field twice.
    """

    async def parts() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(request.headers, parts(), max_files=1, max_fields=_MAX_FIELDS)  # pyright: ignore[reportArgumentType] - any async iterator serves
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "") or "no boundary"
        raise invalid("body", "multipart/form-data", f"something else ({reason:.100})", 400, "malformed") from None
    values: dict[str, Any] = {}
    try:
        for name, value in form.multi_items():
            if name in values:
                raise invalid(name, "one value", "several")
            if isinstance(value, UploadFile):
                values[name] = await value.read()
            elif value:
                values[name] = None if value == "null" else value
    finally:
        await form.close()
    return values
