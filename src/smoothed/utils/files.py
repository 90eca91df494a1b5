"""Write files so that a reader finds the old one or the new one, never a half."""

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from smoothed.errors import OutputError


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it into place.

    Args:
        path: the file to make or replace; missing parent folders are made.
        write: is called with the temporary path, which ends as `path` does.

    Raises:
        OutputError: the folder can't be made or written, or the disk is full; `path` is as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True) if partial.parent.is_dir() else None
    return path


def require_writable(path: Path | str) -> None:
    """Raise `OutputError` now where `write_atomically` would fail later, after long work: folders are made."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror or error})") from error


def write_text(path: Path | str, text: str) -> Path:
    """Write `text` as UTF-8, atomically."""
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(value: object, path: Path | str) -> Path:
    """Write JSON values, atomically."""
    return write_text(path, json.dumps(value, indent=1) + "\n")
