"""Fetch CIFAR's official archives: with progress, resumable, and checked before anything is unpacked."""

import gzip
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from smoothed.data.cifar import CIFARS, data_root
from smoothed.errors import DataError, OutputError
from smoothed.utils.checks import check_choice

OFFICIAL = "https://www.cs.toronto.edu/~kriz/"
BLOCK = 1 << 18
TIMEOUT_SECONDS = 60
RANGE_NOT_SATISFIABLE = 416
PARTIAL_CONTENT = 206

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes there and, where the server says it, the bytes in all."""


def download_cifar(
    name: str, root: Path | str | None = None, *, url: str | None = None, on_progress: OnProgress | None = None
) -> Path:
    """Download, check and unpack `cifar10` or `cifar100`, unless its folder is already there.

    An interrupted download leaves a `.part` file, from which the next call goes on.

    Args:
        name: `cifar10` or `cifar100`.
        root: where data sets live; `$SMOOTHED_DATA` or the cache folder when None.
        url: of the archive; the official one when None.
        on_progress: called as bytes arrive.

    Returns:
        The folder with the files.

    Raises:
        DataError: no connection, an archive with the wrong md5, or one with a path outside its folder.
        OutputError: the folder can't be written, or the disk is full.
    """
    check_choice(name, CIFARS, "name")
    cifar, parent = CIFARS[name], data_root(root)
    folder, archive = parent / cifar.folder, parent / cifar.archive
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            partial = archive.with_name(archive.name + ".part")
            _fetch(url or OFFICIAL + cifar.archive, partial, on_progress or _ignore_progress)
            _check_md5(partial, cifar.md5)
            partial.rename(archive)
        else:
            _check_md5(archive, cifar.md5)
        unpack(archive, folder)
    except OSError as error:
        raise OutputError(f"{parent}: could not be written ({error.strerror or error})") from error
    archive.unlink()
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive whose files all lie in a folder named as `folder`, which appears whole or not at all.

    Raises:
        DataError: no tar archive, a truncated one, or one with a path, link or device outside that folder.
    """
    staging = folder.with_name(f".{folder.name}.partial")
    _remove(staging)
    try:
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                parts = Path(member.name).parts
                if not (member.isfile() or member.isdir()) or parts[:1] != (folder.name,) or ".." in parts:
                    raise DataError(
                        f"{archive}: expected files in {folder.name} alone, got {member.name}; not unpacked"
                    )
            # Python 3.11.0 to 3.11.3 have no filters; what they would refuse is refused above.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(staging)  # noqa: S202 - every member was looked at
        (staging / folder.name).rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError) as error:
        raise DataError(f"{archive}: expected a tar archive of {folder.name}, got a damaged one ({error})") from None
    finally:
        _remove(staging)


def _ignore_progress(there: int, total: int | None) -> None:
    del there, total


def _fetch(url: str, partial: Path, on_progress: OnProgress) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - https, or the user's
            resumed = response.status == PARTIAL_CONTENT
            length = response.headers.get("Content-Length")
            there = there if resumed else 0
            total = there + int(length) if length else None
            with partial.open("ab" if resumed else "wb") as file:
                there = _copy(response, file, there, total, on_progress)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:  # that one says that all bytes are there already
            raise DataError(f"{url}: expected the archive, got {error.code} {error.reason}") from None
        return
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: no connection ({reason}); run the command again to go on, or use --data") from None
    if total is not None and there < total:
        raise DataError(f"{url}: expected {total} bytes, got {there}; run the command again to go on")


def _copy(response: BinaryIO, file: BinaryIO, there: int, total: int | None, on_progress: OnProgress) -> int:
    while block := response.read(BLOCK):
        file.write(block)
        there += len(block)
        on_progress(there, total)
    return there


def _check_md5(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != expected:
        path.unlink()
        raise DataError(
            f"{path.name}: expected md5 {expected}, got {found}; the file is deleted, run the command again"
        )


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
