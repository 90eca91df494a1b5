"""The files of the explorer page, which are served as they lie in the package."""

import re
from importlib.resources import files

from smoothed.serve.refusals import Refusal

INDEX = "index.html"

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}


def page_file(name: str) -> tuple[bytes, str]:
    """Contents and content type of a file of the page.

    Raises:
        Refusal: there is no such file.
    """
    kind = _TYPES.get(name.rpartition(".")[2])
    found = files("smoothed.serve") / "page" / name
    # The name is one part of a path, without a way up.
    if kind is None or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or not found.is_file():
        raise Refusal(404, "not_found", f"path: expected a file of the page, got {name[:80]!r}")
    return found.read_bytes(), kind
