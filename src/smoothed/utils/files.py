"""Atomic writing of files: a reader finds the old file or the new one, never a partial one."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from smoothed.errors import ArgumentError, OutputError


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Write a temporary file in the folder of `path`, then rename it to `path`.

    Its permissions are those of any new file of the user, whatever `write` gives it.

    Args:
        path: the file to create or replace; missing parent folders are created.
        write: function that receives the temporary path, which has the suffix of `path`, and writes the file.

    Returns:
        `path` as a `Path`.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full; an existing file is unchanged.
    """
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        permissions = stat.S_IMODE(partial.stat().st_mode)
        partial.unlink()
        write(partial)
        partial.chmod(permissions)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True) if partial.parent.is_dir() else None
    return path


def check_path(value: object, name: str) -> Path:
    """Return `value` as a `Path` if it is the path of a file or a folder, which need not exist.

    Raises:
        ArgumentError: `value` is of another type, is empty, or holds a null character.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ArgumentError(name, "a path", repr(value))
    return Path(value)


def require_writable(path: Path | str) -> None:
    """Raise `OutputError` before long work if `write_atomically` would fail. Nothing is written."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        existing = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror or error})") from error


def write_text(path: Path | str, text: str) -> Path:
    """Write `text` to `path` as UTF-8, atomically; see `write_atomically`."""
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(value: object, path: Path | str) -> Path:
    """Write a JSON value to `path`, atomically; see `write_atomically`."""
    return write_text(path, json.dumps(value, indent=1) + "\n")
